import json
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_sequences import build, of_items

from seqrec.data.catalogue import Catalogue
from seqrec.errors import DataError, SettingsError, StorageError
from seqrec.samples import tables
from seqrec.samples.tables import SampleSettings
from seqrec.splitting import SplitSettings, last_n
from seqrec.storage import lock

NAMES = [
    "label",
    "user_id",
    "gender",
    "age",
    "occupation",
    "zip",
    "movie_id",
    "recent_movie_ids",
    "genre",
    "last_movie",
    "last_genre",
]
GENRES = ["Action", "Comedy|Drama", "War|Comedy|Drama", None, "Action|War", "Drama", "Comedy"]


def films(users):
    """Sequences of (item, time, rating) events with MovieLens' attributes."""
    s = build(users)
    about = pl.DataFrame({"title": [f"Film {i}" for i in range(7)], "genres": GENRES})
    n = s.users
    people = pl.DataFrame(
        {
            "gender": ["F", "M"] * n,
            "age": [25] * 2 * n,
            "occupation": list(range(2 * n)),
            "zip_code": ["02215", None] * n,
        }
    )[:n]
    return replace(
        s,
        item_catalogue=Catalogue([260 + i for i in range(7)], about),
        user_catalogue=Catalogue([u + 1 for u in range(n)], people),
    )


def written(split, folder="memory://samples-test", **settings):
    """The tables that are written, as lists of rows, and samples.json."""
    about = tables.write(split, folder, SampleSettings(**settings))
    from seqrec import storage

    frames = {
        name: storage.read_parquet(storage.join(folder, f"{name}.parquet"))
        for name in ("train", "validation", "test", "item")
    }
    assert storage.read_json(storage.join(folder, "samples.json")) == json.loads(json.dumps(about))
    assert {name: len(frame) for name, frame in frames.items()} == about["rows"]
    return frames, about


def plainly(s, user, stop, item, label, recent=10):
    """A row in the words of the origin, written the obvious way. ``stop``: events of the user before it."""

    def genre(i):
        text = s.item_catalogue.attributes["genres"][int(i)]
        return None if text is None else text.replace("|", "\x01")

    history = s.of(user)[:stop].tolist()
    ids = [str(260 + i) for i in history[-recent:]]
    person = s.user_catalogue.attributes.row(user, named=True)
    return (
        str(label),
        str(user + 1),
        person["gender"],
        "25",
        str(person["occupation"]),
        person["zip_code"],
        str(260 + item),
        "\x01".join(ids) or "0",
        genre(item),
        ids[-1] if ids else "0",
        genre(history[-1]) if history else "None",
    )


def training_rows(split, recent=10):
    """The rows of training events, the obvious way."""
    s = split.sequences
    rows = []
    for user in range(s.users):
        for event in range(int(split.train_starts[user]), int(split.train_stops[user])):
            liked = split.positive is None or bool(split.positive[event])
            rows.append(
                plainly(s, user, event - int(s.offsets[user]), int(s.items[event]), int(liked), recent)
            )
    return rows


event = st.tuples(st.integers(0, 6), st.integers(1, 20), st.integers(1, 5))
some_logs = st.lists(st.lists(event, max_size=9), min_size=1, max_size=6).filter(lambda users: any(users))
splits = st.sampled_from([{"n": 2}, {"n": 2, "min_rating": 2}])


@settings(max_examples=40)
@given(some_logs, splits, st.integers(1, 4), st.booleans())
def test_rows_are_those_of_the_obvious_implementation(users, how, recent, shuffle):
    split = last_n(films(users), **how)
    s = split.sequences
    frames, about = written(split, negatives=0, recent=recent, shuffle=shuffle)
    assert frames["train"].columns == about["columns"] == NAMES
    expected = training_rows(split, recent)
    assert Counter(frames["train"].rows()) == Counter(expected)
    assert shuffle or frames["train"].rows() == expected
    asked = {
        int(t): (int(u), int(t) - int(s.offsets[u]), int(s.items[t]), 1)
        for t, u in zip(split.test.targets, split.test.users)
    }
    if split.positive is not None:
        held = np.flatnonzero(~split.train_events & ~split.positive)
        asked |= {
            int(t): (
                u := int(np.searchsorted(s.offsets, t, side="right")) - 1,
                int(t - s.offsets[u]),
                int(s.items[t]),
                0,
            )
            for t in held
        }
    assert frames["test"].rows() == [plainly(s, *asked[t], recent) for t in sorted(asked)]
    valid = zip(split.validation.users, split.validation.targets)
    assert frames["validation"].rows() == [
        plainly(s, int(u), int(t - s.offsets[u]), int(s.items[t]), 1, recent) for u, t in valid
    ]


@settings(max_examples=40)
@given(some_logs, splits, st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_negatives_share_a_history_of_their_user_and_nothing_that_the_user_took(users, how, n, shuffle, seed):
    split = last_n(films(users), **how)
    s = split.sequences
    frames, about = written(split, negatives=n, shuffle=shuffle, seed=seed, recent=3)
    real, rows = Counter(training_rows(split, 3)), Counter(frames["train"].rows())
    assert not real - rows
    negatives = list((rows - real).elements())
    assert about["negatives"] == len(negatives)
    popular = {str(260 + i) for i in np.flatnonzero(split.item_counts)}
    without = 0
    for user in range(s.users):
        own = [row for row in real.elements() if row[1] == str(user + 1)]
        mine = [row for row in negatives if row[1] == str(user + 1)]
        taken = {row[6] for row in own}
        wanted = n * sum(row[0] == "1" for row in own)
        assert len(mine) == (wanted if popular - taken else 0)
        without += bool(wanted and not popular - taken)
        assert {row[6] for row in mine} <= popular - taken
        histories = {(row[7], *row[9:]) for row in own}
        for row in mine:
            assert row[0] == "0"
            assert (row[7], *row[9:]) in histories
            genre = GENRES[int(row[6]) - 260]
            # its own, not that of the film whose history it shares
            assert row[8] == (None if genre is None else genre.replace("|", "\x01"))
    assert about["users_without_negatives"] == without
    if not shuffle:  # user by user in the order of events, each before its negatives
        places = (
            [(row[1], row[7]) for row in table] for table in (frames["train"].rows(), training_rows(split, 3))
        )
        ours, expected = ([place for i, place in enumerate(p) if not i or p[i - 1] != place] for p in places)
        assert ours == expected


@settings(max_examples=30)
@given(some_logs, splits, st.sampled_from(["negatives", "prob"]), st.data())
def test_what_is_held_out_never_matters(users, how, kind, data):
    split = last_n(films(users), **how)
    s = split.sequences
    held = ~split.train_events
    items = s.items.copy()
    items[held] = data.draw(st.lists(st.integers(0, 6), min_size=int(held.sum()), max_size=int(held.sum())))
    positive = None if split.positive is None else split.positive ^ held
    changed = replace(split, sequences=replace(s, items=items), positive=positive)
    one, other = (written(which, kind=kind)[0]["train"] for which in (split, changed))
    assert one.rows() == other.rows()


def test_the_example_of_the_docstring():
    s = films([[(0, 1, 5), (1, 2, 5), (4, 3, 2), (2, 4, 4), (5, 5, 4), (6, 6, 3), (3, 7, 5)], [(2, 1, 5)]])
    frames, about = written(last_n(s, n=1, min_rating=2), negatives=1, shuffle=False)
    assert frames["train"].row(0) == ("1", "1", "F", "25", "0", "02215", "260", "0", "Action", "0", "None")
    liked = frames["train"].filter((pl.col("movie_id") == "262") & (pl.col("user_id") == "1"))
    assert liked.row(0)[7:] == ("260\x01261\x01264", "War\x01Comedy\x01Drama", "264", "Action\x01War")
    assert frames["train"].filter(pl.col("movie_id") == "264")["label"].unique().to_list() == ["0"]
    assert frames["test"].row(0)[:1] + frames["test"].row(0)[6:8] == (
        "1",
        "263",
        "260\x01261\x01264\x01262\x01265\x01266",
    )
    assert frames["item"].columns == [*NAMES, "title"]
    assert frames["item"].row(1) == (
        "0",
        "0",
        "None",
        "None",
        "None",
        "None",
        "261",
        "0",
        "Comedy\x01Drama",
        "0",
        "None",
        "Film 1",
    )
    assert about["split_hash"] == last_n(s, n=1, min_rating=2).hash
    assert about["settings"]["alpha"] == 0.75


def test_any_reader_sees_plain_text(tmp_path):
    tables.write(last_n(of_items("abcdef", "fedcba"), n=1), tmp_path, SampleSettings(negatives=0))
    for name in ("train", "validation", "test", "item"):
        schema = pq.read_schema(tmp_path / f"{name}.parquet")
        assert set(schema.types) == {pa.string()}
        # a log without attributes lacks their columns
        assert schema.names == ["label", "user_id", "movie_id", "recent_movie_ids", "last_movie"]
    column = pq.ParquetFile(tmp_path / "train.parquet").metadata.row_group(0).column(3)
    assert "RLE_DICTIONARY" in column.encodings  # though short lists repeat among users


def test_row_groups_make_no_difference(tmp_path, monkeypatch):
    split = last_n(films([[(i % 7, t, 5) for t, i in enumerate(range(u, u + 9))] for u in range(5)]), n=2)
    whole = written(split)[0]["train"]
    monkeypatch.setattr(tables, "ROWS", 7)
    tables.write(split, tmp_path)
    assert pq.ParquetFile(tmp_path / "train.parquet").metadata.num_row_groups == -(-len(whole) // 7)
    assert pl.read_parquet(tmp_path / "train.parquet").equals(whole)


def test_seeds_repeat_and_differ():
    split = last_n(films([[(i % 5, t, 5) for t, i in enumerate(range(u, u + 6))] for u in range(5)]), n=1)
    one, same, other = (written(split, seed=seed)[0]["train"] for seed in (3, 3, 4))
    assert one.equals(same)
    assert sorted(map(str, one.rows())) != sorted(map(str, other.rows()))
    assert one["user_id"].to_list() != sorted(one["user_id"].to_list())


def test_probabilities_instead_of_negatives():
    split = last_n(of_items("aaabcd", "abbdcc"), n=1)  # trains aaab, abbd
    frames, about = written(split, kind="prob")
    train = frames["train"]
    assert about["negatives"] == 0
    assert len(train) == 8
    assert train["sample_weight"].unique().to_list() == [1.0]
    assert dict(train.select("movie_id", "sampling_prob").unique().rows()) == pytest.approx(
        {"a": 4 / 8, "b": 3 / 8, "d": 1 / 8}
    )
    assert frames["test"].columns == train.columns[:-2]
    half = written(split, kind="prob", alpha=0.5)[0]["train"]
    total = 2 + 3**0.5 + 1
    assert dict(half.select("movie_id", "sampling_prob").unique().rows()) == pytest.approx(
        {"a": 2 / total, "b": 3**0.5 / total, "d": 1 / total}
    )


def test_histories_that_end_before_the_target():
    """With ``targets: all`` every query of a user knows the same."""
    s = replace(of_items("abcdefgh", "hgfedcba", times=[list(range(1, 9))] * 2))
    split = SplitSettings(name="global_temporal", validation_cut=4.0, test_cut=6.0, targets="all").apply(s)
    assert set(written(split)[0]["test"].filter(pl.col("user_id") == "1")["recent_movie_ids"]) == {
        "a\x01b\x01c\x01d\x01e"
    }


def test_other_names(tmp_path):
    s = films([[(0, 1, 5), (1, 2, 5), (2, 3, 5), (3, 4, 5)]] * 2)
    frames, _ = written(
        last_n(s, n=1),
        item="sku",
        users={"gender": "sex"},
        items={"title": "name", "genres": "kind"},
        negatives=0,
        missing="None",
    )
    names = [
        "label",
        "user_id",
        "sex",
        "sku_id",
        "recent_sku_ids",
        "name",
        "kind",
        "last_sku",
        "last_name",
        "last_kind",
    ]
    assert frames["train"].columns == frames["item"].columns == names
    assert frames["train"].filter(pl.col("sku_id") == "260").row(0)[4:] == (
        "None",
        "Film 0",
        "Action",
        "None",
        "None",
        "None",
    )


def test_attributes_that_are_lists_are_joined():
    s = of_items("abcd")
    s = replace(
        s,
        item_catalogue=Catalogue(
            s.item_catalogue.ids, pl.DataFrame({"genres": [["x", "y"], ["z"], [], None]})
        ),
    )
    assert written(last_n(s, n=1))[0]["item"]["genre"].to_list() == ["x\x01y", "z", "", None]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"users": {"gendre": "gender"}},
            SettingsError,
            "samples.users: .*no attribute 'gendre'. Did you mean 'gender'",
        ),
        ({"items": {"year": "year"}}, SettingsError, "samples.items: .*no attribute 'year'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(settings, error, message, tmp_path):
    split = last_n(films([[(0, 1, 5), (1, 2, 5), (2, 3, 5), (3, 4, 5)]]), n=1)
    with pytest.raises(error, match=message):
        tables.write(split, tmp_path / "out", SampleSettings(**settings))
    assert not (tmp_path / "out").exists()


def test_ids_that_cannot_be_told_from_signs_are_refused(tmp_path):
    for ids, message in (
        (["0", "1", "2", "3"], "item '0': '0' stands for no item. .*samples.missing"),
        (["a", "b\x01c", "d", "e"], "separates items"),
    ):
        s = replace(of_items("abcd"), item_catalogue=Catalogue(ids))
        with pytest.raises(DataError, match=message):
            tables.write(last_n(s, n=1), tmp_path)
    s = replace(of_items("abcd"), item_catalogue=Catalogue(["0", "1", "2", "3"]))
    tables.write(last_n(s, n=1), tmp_path, SampleSettings(missing="None"))
    assert pl.read_parquet(tmp_path / "train.parquet")["recent_movie_ids"].to_list().count("None") >= 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"negatives": -1}, "samples.negatives: expected greater than or equal to 0"),
        ({"kind": "popular"}, "samples.kind: expected 'negatives' or 'prob'"),
        ({"recents": 3}, "samples.recents: unknown setting. Did you mean 'recent'"),
        ({"users": {"age": "label"}}, "columns of different names .'label' occurs twice"),
        ({"item": "x", "items": {"genres": "x"}}, "'last_x' occurs twice"),
    ],
)
def test_settings_are_checked(section, message):
    with pytest.raises(SettingsError, match=message):
        SampleSettings.of(section, "samples")


def test_a_user_who_has_taken_everything(caplog):
    split = last_n(of_items("abcdab", "abab"), n=1)
    frames, about = written(split, negatives=2)
    assert about["users_without_negatives"] == 1
    assert "1 users have taken every item" in caplog.text
    negatives = frames["train"].filter(pl.col("label") == "0")
    assert set(negatives["user_id"]) == {"2"}
    assert set(negatives["movie_id"]) <= {"c", "d"}
    assert len(negatives) == 4


def test_negatives_without_repeats_are_a_set():
    """As the origin has it: of the draws for all of a user's training events, liked or not, each item once,
    and none that the user took."""
    rng = np.random.default_rng(0)
    users = ["".join(rng.choice(list("abcdefghij"), 5, replace=False)) for _ in range(200)]
    split = last_n(of_items(*users), n=1)
    frames, about = written(split, negatives=10, repeats=False)
    rows = frames["train"].filter(pl.col("label") == "0")
    assert about["negatives"] == len(rows) == len(rows.unique(["user_id", "movie_id"]))
    own = frames["train"].filter(pl.col("label") == "1")
    assert not rows.join(own, on=["user_id", "movie_id"]).height
    # three events train: 30 draws of ten items about as likely find most of the seven that are not taken
    assert len(rows) == pytest.approx(200 * 7 * (1 - 0.9**30), rel=0.02)
    assert written(split, negatives=10)[1]["negatives"] == 200 * 3 * 10


def test_tables_that_are_not_all_written_have_no_samples_json(tmp_path, monkeypatch):
    split = last_n(of_items("abcdef", "fedcba"), n=1)
    tables.write(split, tmp_path)
    train = (tmp_path / "train.parquet").read_bytes()

    def broken(self, stops, users):
        raise OSError("disk full")

    monkeypatch.setattr(tables.Wording, "recent", broken)
    with pytest.raises(StorageError, match="disk full"):
        tables.write(split, tmp_path, SampleSettings(seed=1))
    assert not (tmp_path / "samples.json").exists()
    assert (tmp_path / "train.parquet").read_bytes() == train


def test_a_folder_of_tables_has_one_writer(tmp_path):
    split = last_n(of_items("abcdef", "fedcba"), n=1)
    with lock.held(tmp_path), pytest.raises(StorageError, match="is being written by process"):
        tables.write(split, tmp_path)
    assert not list(tmp_path.iterdir())
    tables.write(split, tmp_path)
    assert (tmp_path / "samples.json").exists()
    assert not (tmp_path / lock.NAME).exists()
