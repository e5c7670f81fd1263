"""Histories of baskets: one level deeper than histories of items, in Python, in the shell and over HTTP."""

from __future__ import annotations

import polars as pl
import pytest

import seqrec
from seqrec import Interactions
from seqrec.errors import DataError, SettingsError, UnknownIdError
from seqrec.experiment import recommend as of_shell
from seqrec.experiment.recommend import Choice
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.models.personal_top import PersonalTop
from seqrec.models.tifu_knn import TIFUKNN
from seqrec.serving import batch, histories
from seqrec.serving.histories import Reading

FRAME = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "u", "v", "v", "v", "w"],
        "item_id": ["a", "b", "a", "c", "a", "b", "d", "d"],
        "basket_id": [1, 1, 2, 2, 3, 4, 4, 5],
    }
)


@pytest.fixture(scope="module")
def log():
    return Interactions.from_frame(FRAME).sequences()


@pytest.fixture(scope="module")
def model(log):
    return PersonalTop().fit(log)


def best(frame: pl.DataFrame) -> list[str]:
    return frame["item_id"].to_list()


def test_a_basket_counts_once_whatever_the_order_in_it(model):
    asked = [[["d", "d", "c"], ["d"]], [], [("c",), {"b", "c"}]]
    frame = model.recommend(asked, k=2, filter_seen=False)
    assert best(frame) == ["d", "c", "a", "b", "c", "b"]
    assert frame["source"].to_list() == ["model"] * 2 + ["popularity"] * 2 + ["model"] * 2
    turned = [[["c", "d", "d"], ["d"]], [], [("c",), {"c", "b"}]]
    assert frame.equals(model.recommend(turned, k=2, filter_seen=False))
    named = model.recommend({"ann": [["d"]]}, k=1, filter_seen=False)
    assert named.rows()[0][:2] == ("ann", "d")


def test_users_what_they_took_since_and_a_saved_model(log, tmp_path):
    model = TIFUKNN(neighbours=1, groups=2).fit(log)
    asked = {"users": ["u", "w"], "k": 4, "filter_seen": False}
    kept, since = model.recommend(**asked), model.recommend([[["d"], ["d"]], []], **asked)
    whole = model.recommend([[["b", "a"], ["c", "a"], ["d"], ["d"]]], k=1, filter_seen=False)
    assert best(since)[0] == best(whole)[0] == "d"
    assert best(kept)[0] == "a"
    model.save(tmp_path)
    loaded = seqrec.load(tmp_path)
    assert loaded.needs_baskets
    assert loaded.recommend(**asked).equals(kept)
    assert loaded.recommend([[["d"], ["d"]], []], **asked).equals(since)
    Markov().fit(log, stop_after=1).save(tmp_path / "markov")
    assert seqrec.load(tmp_path / "markov").sequences.baskets is None  # which it does not read


def test_the_depth_is_told_apart_and_never_guessed(model, log):
    markov = Markov().fit(log, stop_after=1)
    with pytest.raises(SettingsError, match=r"0: .* since markov reads no baskets.*one after another"):
        markov.recommend([[["a", "b"], ["c"]]])
    with pytest.raises(SettingsError, match=r"sequence 1: .* since personal_top was trained on baskets"):
        model.recommend([[["a"]], ["a", "b"]])
    with pytest.raises(SettingsError, match=r"sequence 0: .* Got 1 baskets and 2 items"):
        model.recommend([["a", ["a"], "b"]])
    with pytest.raises(UnknownIdError, match=r"sequence 0, basket 1 has 1 item\(s\) .*'z'"):
        model.recommend([[["a"], ["z"]]])
    assert best(model.recommend([[["z"], ["d"]]], k=1, filter_seen=False, on_unknown="ignore")) == ["d"]
    alone = PersonalTop().fit(Interactions.from_frame(FRAME.drop("basket_id")).sequences())
    flat, deep = (alone.recommend(h, k=2, filter_seen=False) for h in ([["d", "d"]], [[["d"], ["d"]]]))
    assert flat.equals(deep)
    assert not alone.needs_baskets


def test_a_network_over_baskets(log, tmp_path):
    model = HRM(baskets=1, width=4, train={"epochs": 1}).fit(log, progress=False, device="cpu")
    model.save(tmp_path)
    loaded = seqrec.load(tmp_path, device="cpu")
    assert loaded.recommend(users=["u"], k=4).equals(model.recommend(users=["u"], k=4))
    with pytest.raises(SettingsError, match="since hrm was trained on baskets"):
        loaded.recommend([["a"]])


HISTORIES = {"z": [["d", "c"], ["d"]], "y": [], "x": [["b"], ["c", "a"], ["c"], []]}


def file_of(path, kind: str) -> str:
    """These histories, as lists or a row an event, whose rows are not in the order of the baskets."""
    lists = pl.DataFrame({"user_id": list(HISTORIES), "taken": list(HISTORIES.values())})
    rows = [(u, f"{u}{n}", i, 10 + n) for u, h in HISTORIES.items() for n, b in enumerate(h) for i in b]
    events = pl.DataFrame(rows, ["user_id", "order", "item_id", "timestamp"], orient="row")
    target = str(path / f"h-{kind}")
    match kind:
        case "lists.jsonl":
            lists.write_ndjson(target)
        case "lists.parquet":
            lists.write_parquet(target)
        case "events.csv":
            events.sort("user_id", "item_id").write_csv(target)
        case "events.parquet":  # no times: the order of the file
            mixed = pl.concat([events[[0, 2, 1]], events[3:]])
            mixed.drop("timestamp").write_parquet(target)
    return target


@pytest.mark.parametrize("kind", ["lists.jsonl", "lists.parquet", "events.csv", "events.parquet"])
@pytest.mark.parametrize("pieces", [False, True])
def test_a_file_of_baskets(log, tmp_path, monkeypatch, kind: str, pieces: bool):
    if pieces:
        for name, most in {"HISTORIES": 1, "EVENTS": 2, "BLOCK": 10}.items():
            monkeypatch.setattr(histories, name, most)
    for model in (TIFUKNN(neighbours=1, groups=2), HRM(baskets=1, width=4, train={"epochs": 1})):
        model.fit(log, progress=False, device="cpu")
        source, target = file_of(tmp_path, kind), str(tmp_path / "out.jsonl")
        reading = Reading(columns={"basket_id": "order"} if "events" in kind else {})
        more = {"k": 4, "filter_seen": False}
        batch.recommend(model, source, target, reading=reading, progress=False, **more)
        told = HISTORIES if "lists" in kind else {u: HISTORIES[u] for u in HISTORIES if HISTORIES[u]}
        expected = model.recommend(told, **more)
        found = {row["user_id"]: row for row in pl.read_ndjson(target).to_dicts()}
        assert set(found) == set(told)
        for (user,), group in expected.group_by("user_id", maintain_order=True):
            assert found[user]["item_id"] == best(group)
            assert found[user]["score"] == pytest.approx(group["score"].to_list(), rel=1e-5)


def test_what_a_file_of_baskets_must_say(log, model, tmp_path):
    markov, target = Markov().fit(log, stop_after=1), str(tmp_path / "out.jsonl")

    def ask(model, line: str, **reading) -> None:
        (tmp_path / "h.jsonl").write_text(line)
        batch.recommend(model, str(tmp_path / "h.jsonl"), target, progress=False, reading=Reading(**reading))

    with pytest.raises(SettingsError, match=r"h.jsonl: expected a list of item ids, since markov reads no b"):
        ask(markov, '{"h": [["a"], ["b"]]}\n')
    with pytest.raises(SettingsError, match=r"h.jsonl: expected a list of baskets, .* Got a list of items"):
        ask(model, '{"h": ["a", "b"]}\n')
    with pytest.raises(DataError, match=r"h.jsonl, row 2, column 'h': expected baskets, lists. Got none."):
        ask(model, '{"h": [["a"], []]}\n{"h": [["a"], null]}\n')
    with pytest.raises(DataError, match=r"h.jsonl, row 2, column 'h': expected item ids. Got one that is m"):
        ask(model, '{"h": [["a"], []]}\n{"h": [["a", null]]}\n')
    event = '{"user_id": "u", "item_id": "a", "order": 1}\n'
    with pytest.raises(SettingsError, match=r"expected a column basket_id, since personal_top was trained"):
        ask(model, event)
    ask(model, event, columns={"basket_id": "order"})
    ask(markov, event, columns={"basket_id": "order"})  # which reads none, and takes item after item
    ask(model, '{"h": []}\n')
    batch.recommend(model, file_of(tmp_path, "lists.jsonl"), target, progress=False, on_unknown="ignore", k=1)


def test_what_users_took_since_in_a_file(log, tmp_path):
    model = TIFUKNN(neighbours=1, groups=2).fit(log)
    (tmp_path / "since.jsonl").write_text(
        '{"user_id": "u", "h": [["d"], ["d"]]}\n{"user_id": "w", "h": []}\n'
    )
    target = str(tmp_path / "out.jsonl")
    batch.recommend(
        model, str(tmp_path / "since.jsonl"), target, since=True, k=4, filter_seen=False, progress=False
    )
    expected = model.recommend([[["d"], ["d"]], []], users=["u", "w"], k=4, filter_seen=False)
    assert [i for row in pl.read_ndjson(target).to_dicts() for i in row["item_id"]] == best(expected)


def test_in_the_shell_a_semicolon_ends_a_basket(model, tmp_path):
    choice = Choice(k=2, filter_seen=False)
    frame = of_shell.recommend(model, ["d,c;d"], None, choice, "raise")
    assert best(frame) == ["d", "c"]
    (tmp_path / "users.csv").write_text("user_id\nw\nu\n")
    batch.recommend(
        model,
        str(tmp_path / "users.csv"),
        str(tmp_path / "out.jsonl"),
        k=1,
        filter_seen=False,
        progress=False,
    )
    assert [row["item_id"] for row in pl.read_ndjson(tmp_path / "out.jsonl").to_dicts()] == [["d"], ["a"]]
