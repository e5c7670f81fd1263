"""A file of histories in, a file of recommendations out: the same as ``recommend`` gives."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from seqrec import storage
from seqrec.errors import DataError, SeqrecError, SettingsError, UnknownIdError
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.serving import batch, histories
from seqrec.serving.histories import Reading


@pytest.fixture(scope="module")
def model(ring):
    return Markov().fit(ring)


@pytest.fixture
def lists() -> list[list[str]]:
    rng = np.random.default_rng(0)
    return [[f"i{n}" for n in rng.integers(0, 12, rng.integers(0, 6))] for _ in range(50)]


def expected(model, lists, names=None, **more):
    found = model.recommend(lists if names is None else dict(zip(names, lists)), k=3, **more)
    return found


def long_form(path) -> pl.DataFrame:
    """What a file of lists says, a row an item."""
    frame = pl.read_parquet(path) if str(path).endswith("parquet") else pl.read_ndjson(path)
    frame = frame.filter(pl.col("item_id").list.len() > 0).explode("item_id", "score")
    key = frame.columns[0]
    rank = pl.int_range(1, pl.len() + 1).over(key).alias("rank")
    return frame.select(key, "item_id", "score", rank, "source")


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    assert found.columns == wanted.columns
    assert found.drop("score").rows() == wanted.drop("score").rows()
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-6)


@pytest.mark.parametrize("source", ["h.parquet", "h.jsonl"])
@pytest.mark.parametrize("target", ["out.parquet", "out.jsonl", "out.csv"])
def test_lists_in_answers_out(model, lists, tmp_path, monkeypatch, source, target):
    monkeypatch.setattr(histories, "HISTORIES", 7)  # several pieces
    monkeypatch.setattr(histories, "BLOCK", 300)
    frame = pl.DataFrame({"items": lists})
    write = frame.write_parquet if source.endswith("parquet") else frame.write_ndjson
    write(tmp_path / source)
    counts = batch.recommend(model, str(tmp_path / source), str(tmp_path / target), k=3)
    assert (counts.histories, counts.events) == (50, sum(map(len, lists)))
    assert counts.popular == sum(not one for one in lists)
    wanted = expected(model, lists)
    out = tmp_path / target
    same(pl.read_csv(out) if target.endswith("csv") else long_form(out), wanted)
    assert [path.name for path in tmp_path.iterdir()].count(target) == 1
    assert len(list(tmp_path.iterdir())) == 2  # and nothing else is left


def test_a_row_an_item_in_parquet_too(model, lists, tmp_path):
    pl.DataFrame({"user_id": range(50), "history": lists}).write_parquet(tmp_path / "h.parquet")
    batch.recommend(model, str(tmp_path / "h.parquet"), str(tmp_path / "o.parquet"), k=3, rows="items")
    same(pl.read_parquet(tmp_path / "o.parquet"), expected(model, lists, range(50)))


@pytest.mark.parametrize("source", ["h.parquet", "h.jsonl", "h.csv"])
def test_a_row_an_event(model, lists, tmp_path, monkeypatch, source):
    """In order of time, whatever the pieces; users in the order of the file."""
    monkeypatch.setattr(histories, "EVENTS", 9)
    monkeypatch.setattr(histories, "BLOCK", 100)
    rng = np.random.default_rng(1)
    lists = [one for one in lists if one]
    rows = [
        (f"u{user}", item, 1_600_000_000 + at)
        for user, one in enumerate(lists)
        for at, item in rng.permutation(np.array(list(enumerate(one)), dtype=object)).tolist()
    ]
    frame = pl.DataFrame(rows, schema=["client", "item_id", "timestamp"], orient="row")
    write = {"parquet": frame.write_parquet, "jsonl": frame.write_ndjson, "csv": frame.write_csv}
    write[source.split(".")[1]](tmp_path / source)
    reading = Reading(columns={"user_id": "client"})
    arguments = (model, str(tmp_path / source), str(tmp_path / "o.parquet"))
    batch.recommend(*arguments, k=3, reading=reading)
    wanted = expected(model, lists, [f"u{user}" for user in range(len(lists))])
    same(long_form(tmp_path / "o.parquet"), wanted)
    in_order_of_the_file = Reading(columns={"user_id": "client", "timestamp": None})
    batch.recommend(*arguments, k=3, reading=in_order_of_the_file)
    shuffled = frame.group_by("client", maintain_order=True).agg("item_id")
    wanted = expected(model, shuffled["item_id"].to_list(), shuffled["client"])
    same(long_form(tmp_path / "o.parquet"), wanted)


def test_users_alone_and_what_they_did_since(ring, tmp_path):
    model = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False)
    source, target = str(tmp_path / "u.csv"), str(tmp_path / "o.csv")
    pl.DataFrame({"user_id": ["u5", "u2", "nobody"]}).write_csv(source)
    counts = batch.recommend(model, source, target, k=3, filter_seen=False)
    assert counts.unknown_users == 1
    arguments = {"k": 3, "filter_seen": False, "on_unknown": "ignore"}
    same(pl.read_csv(target), model.recommend(users=["u5", "u2", "nobody"], **arguments))
    with pytest.raises(UnknownIdError, match=r"u\.csv, row 3: the model does not know the user 'nobody'"):
        batch.recommend(model, source, target, on_unknown="raise")
    source = str(tmp_path / "since.jsonl")
    since = [["i3", "i4"], [], ["i1"]]
    pl.DataFrame({"user_id": ["u5", "u2", "nobody"], "items": since}).write_ndjson(source)
    batch.recommend(model, source, target, since=True, k=3, filter_seen=False)
    same(pl.read_csv(target), model.recommend(since, users=["u5", "u2", "nobody"], **arguments))
    batch.recommend(model, source, target, k=3, filter_seen=False)  # else they are names, as of sequences
    named = dict(zip(["u5", "u2", "nobody"], since))
    same(pl.read_csv(target), model.recommend(named, **arguments))


def test_sessions_are_users_where_there_are_none(model, tmp_path):
    pl.DataFrame({"session_id": [4, 4, 2], "item_id": ["i1", "i3", "i7"]}).write_csv(tmp_path / "h.csv")
    batch.recommend(model, str(tmp_path / "h.csv"), str(tmp_path / "o.parquet"), k=3)
    same(
        long_form(tmp_path / "o.parquet"),
        expected(model, [["i1", "i3"], ["i7"]], [4, 2]).cast({"user_id": pl.String}),
    )


def test_what_is_not_read_of_users_alone_is_named(ring, tmp_path, caplog):
    """A column of items under another name would go unnoticed."""
    model = Markov().fit(ring)
    source, target = str(tmp_path / "u.csv"), str(tmp_path / "out.csv")
    pl.DataFrame({"user_id": ["u5", "u2"], "thing": ["i3", "i4"], "note": "x"}).write_csv(source)
    batch.recommend(model, source, target, k=2)
    assert "thing, note are not read" in caplog.text
    assert "--column item_id=COLUMN" in caplog.text
    caplog.clear()
    pl.DataFrame({"user_id": ["u5", "u2"]}).write_csv(source)
    batch.recommend(model, source, target, k=2)
    assert "not read" not in caplog.text


def test_filters(model, lists, tmp_path):
    pl.DataFrame({"items": lists}).write_parquet(tmp_path / "h.parquet")
    more = {"allow": ["i1", "i2", "i3", "i9"], "deny": ["i9"]}
    for seen in (True, False):
        source, target = (str(tmp_path / name) for name in ("h.parquet", "o.parquet"))
        batch.recommend(model, source, target, k=3, filter_seen=seen, **more)
        same(long_form(target), expected(model, lists, filter_seen=seen, **more))


def test_unknown_items_are_counted(model, tmp_path, caplog):
    source, target = str(tmp_path / "h.jsonl"), str(tmp_path / "o.jsonl")
    pl.DataFrame({"items": [["i1", "x"], ["y"], ["i3"]]}).write_ndjson(source)
    counts = batch.recommend(model, source, target, k=3)
    assert (counts.unknown_items, counts.popular) == (2, 1)
    assert "2 of 4 events are about items that the model does not know, such as 'x', 'y'" in caplog.text
    same(long_form(target), expected(model, [["i1", "x"], ["y"], ["i3"]], on_unknown="ignore"))
    storage.remove(target)
    with pytest.raises(UnknownIdError, match=r"h\.jsonl, row 1: the model does not know the item 'x'"):
        batch.recommend(model, source, target, k=3, on_unknown="raise")
    pl.DataFrame({"items": [["x"], ["y"]]}).write_ndjson(source)
    with pytest.raises(DataError, match=r"knows none of its 2 items, such as 'x', 'y'\. Ids .* 'i0'"):
        batch.recommend(model, source, target)
    assert not storage.exists(target)


def test_ids_of_another_type_are_the_same_ids(tmp_path):
    numbered = Markov().fit(pl.DataFrame({"user_id": [0, 0, 1, 1], "item_id": [7, 8, 7, 9]}))
    source, target = str(tmp_path / "h.parquet"), str(tmp_path / "o.parquet")
    wanted = numbered.recommend([[7, 8], [9]], k=2)
    for form in ([["7", "8"], ["9"]], [[7.0, 8.0], [9.0]]):
        pl.DataFrame({"items": form}).write_parquet(source)
        assert batch.recommend(numbered, source, target, k=2).unknown_items == 0
        same(long_form(target), wanted)
    pl.DataFrame({"items": [[7.5, 8.0], [9.0]]}).write_parquet(source)
    assert batch.recommend(numbered, source, target, k=2).unknown_items == 1


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "h.jsonl",
            '{"items": ["i1"]}\n{"items": null}',
            r"h\.jsonl, row 2, column 'items': expected a list",
        ),
        ("h.jsonl", '{"items": ["i1"]}\n{"items": ["i2", null]}', "row 2, column 'items': expected item ids"),
        ("h.jsonl", '{"items": ["i1"]}\n{"items": "i2"}', r"h\.jsonl"),
        ("h.jsonl", '{"items": ["i1"]}\n{"items": ["i2"', "row 2: not valid JSON"),
        ("h.jsonl", '{"items": [[["i1"]]]}', "expected ids, texts or whole numbers"),
        ("h.jsonl", '{"user_id": null, "items": ["i1"]}', "row 1, column 'user_id': expected a user's id"),
        ("h.jsonl", '{"a": ["i1"], "b": ["i2"]}', r"expected one column of lists, the histories. Got a, b"),
        ("h.jsonl", '{"what": 1}', "expected histories. Got the columns what"),
        ("h.csv", "item_id\ni1", "expected a column of the users"),
        ("h.csv", "user_id,item_id\nu1,i1\nu2,i1\nu1,i2", "row 3: user 'u1' comes back after rows of others"),
        ("h.csv", "user_id,item_id\nu1,i1\nu2,", "row 3|row 2, column 'item_id'"),
        ("h.csv", "user_id,item_id,timestamp\nu1,i1,5\nu1,i2,what", "row 2, column 'timestamp'"),
        ("h.csv", "user_id,item_id\nu1,i1\nu2", "row 2: expected 2 fields"),
        ("h.csv", "user_id,item_id\n", "no events"),
    ],
)
def test_bad_rows_are_refused_before_anything_appears(model, tmp_path, monkeypatch, name, lines, message):
    monkeypatch.setattr(histories, "BLOCK", 24)  # the first row is answered before the second is read
    (tmp_path / name).write_text(lines + "\n")
    with pytest.raises(DataError, match=message):
        batch.recommend(model, str(tmp_path / name), str(tmp_path / "o.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_user_who_comes_back_pieces_later(model, tmp_path, monkeypatch):
    monkeypatch.setattr(histories, "EVENTS", 5)
    users = [user for user in range(40) for _ in range(3)] + [7]
    frame = pl.DataFrame({"user_id": users, "item_id": "i1"})
    frame.write_parquet(tmp_path / "h.parquet")
    with pytest.raises(DataError, match="row 121: user 7 comes back"):
        batch.recommend(model, str(tmp_path / "h.parquet"), str(tmp_path / "o.parquet"))


@pytest.mark.parametrize(
    ("target", "more", "message"),
    [
        ("o.xlsx", {}, r"expected a file that ends in \.parquet, \.jsonl, \.csv"),
        ("o.csv", {"rows": "lists"}, "CSV has no lists"),
        ("o.parquet", {"rows": "columns"}, "rows: expected 'lists' or 'items'"),
        ("o.parquet", {"k": 0}, "k: expected a whole number"),
        ("o.parquet", {"on_unknown": "panic"}, "on_unknown"),
    ],
)
def test_bad_arguments(model, lists, tmp_path, target, more, message):
    pl.DataFrame({"items": lists}).write_parquet(tmp_path / "h.parquet")
    with pytest.raises(SettingsError, match=message):
        batch.recommend(model, str(tmp_path / "h.parquet"), str(tmp_path / target), **more)


def test_users_of_a_model_that_has_kept_none(ring, tmp_path):
    Markov().fit(ring).save(tmp_path / "model", histories=False)
    pl.DataFrame({"user_id": ["u5"]}).write_csv(tmp_path / "u.csv")
    with pytest.raises(SeqrecError, match="saved without its users' histories"):
        batch.recommend(Markov.load(tmp_path / "model"), str(tmp_path / "u.csv"), str(tmp_path / "o.csv"))


def test_standard_input_and_output(model, lists, tmp_path, monkeypatch):
    pl.DataFrame({"items": lists}).write_ndjson(tmp_path / "h.jsonl")
    out = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((tmp_path / "h.jsonl").read_bytes())))
        patch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
        batch.recommend(model, "-", "-", k=3)
    (tmp_path / "o.jsonl").write_bytes(out.getvalue())
    same(long_form(tmp_path / "o.jsonl"), expected(model, lists))


def test_on_s3(model, lists, s3_bucket, tmp_path):
    pl.DataFrame({"items": lists}).write_parquet(tmp_path / "h.parquet")
    with storage.open_write(f"{s3_bucket}/h.parquet") as stream:
        stream.write((tmp_path / "h.parquet").read_bytes())
    batch.recommend(model, f"{s3_bucket}/h.parquet", f"{s3_bucket}/o.parquet", k=3)
    found = storage.read_parquet(f"{s3_bucket}/o.parquet")
    assert found["item_id"].list.len().sum() == len(expected(model, lists))
