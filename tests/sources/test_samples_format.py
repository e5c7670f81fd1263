import logging
import uuid
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_sequences import of_items

from seqrec import read_log, sources
from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.experiment import protocol as protocols
from seqrec.samples.tables import SampleSettings, write
from seqrec.sources.preparing import prepare
from seqrec.splitting import last_n

ALL = ("train", "validation", "test")


def written(split, names=ALL, **options):
    """The paths of the tables of a split."""
    folder = f"memory://samples-format-{uuid.uuid4().hex}"
    write(split, folder, SampleSettings(**options))
    return [f"{folder}/{name}.parquet" for name in names]


def rated(users, ratings):
    """Sequences of item numbers, with ratings."""
    items = Catalogue([f"i{i}" for i in range(9)])
    return Sequences(
        items=np.array([i for user in users for i in user], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, users)]).astype(np.int64),
        item_catalogue=items,
        user_catalogue=Catalogue(list(range(5, 5 + len(users)))),
        ratings=np.array([r for user in ratings for r in user], dtype=np.float32),
    )


def told(log):
    """user -> [(item, liked)] of a log, by its own order."""
    frame = log.frame.sort("user_id", "position")
    assert all(
        (positions == np.arange(len(positions))).all()
        for positions in frame.group_by("user_id").agg("position")["position"].to_list()
    )
    return {
        user: list(zip(items, rating))
        for user, items, rating in frame.group_by("user_id", maintain_order=True)
        .agg("item_id", "rating")
        .rows()
    }


def expected(sequences, liked_above=None):
    users = {}
    for u, user in enumerate(sequences.user_catalogue.ids.to_list()):
        here = slice(sequences.offsets[u], sequences.offsets[u + 1])
        ratings = [5.0 if liked_above is None or r > liked_above else 1.0 for r in sequences.ratings[here]]
        if len(ratings):
            users[user] = list(zip(sequences.item_catalogue.decode(sequences.items[here]).to_list(), ratings))
    return users


distinct = st.lists(
    st.permutations(range(9)).flatmap(lambda p: st.integers(4, 9).map(lambda n: p[:n])),
    min_size=1,
    max_size=5,
)
repeating = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(max_examples=25)
@given(distinct, st.integers(2, 5), st.integers(0, 3), st.booleans(), st.data())
def test_what_was_written_is_read_back(users, recent, negatives, shuffle, data):
    ratings = [
        data.draw(st.lists(st.integers(1, 5), min_size=len(user), max_size=len(user))) for user in users
    ]
    sequences = rated(users, ratings)
    threshold = data.draw(st.sampled_from([None, 2]))
    split = last_n(sequences, n=2, min_rating=threshold)
    paths = data.draw(st.permutations(written(split, recent=recent, negatives=negatives, shuffle=shuffle)))
    log = read_log(paths)
    assert told(log) == expected(sequences, threshold)
    again = log.sequences()
    assert last_n(again, n=2, min_rating=threshold).hash == split.hash


@settings(max_examples=60)
@given(repeating, st.integers(1, 4), st.integers(0, 2), st.data())
def test_with_repeated_items_the_order_is_right_or_refused(users, recent, negatives, data):
    ratings = [
        data.draw(st.lists(st.sampled_from([1, 5]), min_size=len(user), max_size=len(user))) for user in users
    ]
    sequences = rated(users, ratings)
    threshold = data.draw(st.sampled_from([None, 2]))
    found, refusal = None, ""
    try:
        found = told(
            read_log(
                written(last_n(sequences, n=2, min_rating=threshold), recent=recent, negatives=negatives)
            )
        )
    except DataError as error:
        refusal = str(error)
    assert found == expected(sequences, threshold) or "user '" in refusal


def test_repeated_items_are_read_back_where_histories_tell_them_apart():
    users = [[0, 1, 2, 0, 1, 3, 0, 1, 2, 4, 0, 0, 5], [1, 2, 1, 3, 1, 4, 2]]
    sequences = rated(users, [[5, 5, 1, 5, 5, 1, 5, 5, 5, 5, 1, 5, 5], [1, 5, 5, 5, 1, 5, 5]])
    paths = written(last_n(sequences, n=2, min_rating=2), recent=4)
    assert told(read_log(paths)) == expected(sequences, 2)


def test_a_way_that_hides_in_rows_of_label_0_is_found():
    """0 1 is followed by 1 (liked) and later by 2 (disliked): the places could also be walked in an order
    that never was."""
    sequences = rated([[0, 1, 1, 0, 0, 1, 2, 1, 0, 0, 3, 0]], [[1, 1, 5, 1, 1, 1, 1, 1, 5, 5, 5, 1]])
    with pytest.raises(DataError, match="the order of user '5' is ambiguous: items repeat"):
        read_log(written(last_n(sequences, n=2, min_rating=2), recent=2))


@settings(max_examples=15)
@given(distinct, st.integers(3, 5))
def test_later_histories_tell_of_events_without_rows(users, recent):
    sequences = rated(users, [[5] * len(user) for user in users])
    split = last_n(sequences, n=2)
    assert told(read_log(written(split, ("train", "test"), recent=recent))) == expected(sequences)


def test_an_event_without_a_row_has_no_rating_where_others_are_disliked(caplog):
    sequences = rated([[0, 1, 2, 3, 4, 5]], [[5, 1, 5, 5, 5, 5]])
    caplog.set_level(logging.INFO, "seqrec")
    log = read_log(written(last_n(sequences, n=2, min_rating=2), ("test", "train")))
    assert told(log)[5] == [("i0", 5.0), ("i1", 1.0), ("i2", 5.0), ("i3", None), ("i4", 5.0), ("i5", 5.0)]
    assert "1 events have no row" in caplog.text


def test_a_test_table_alone_tells_its_own_histories(caplog):
    sequences = rated([list(range(9))], [[5] * 9])
    log = read_log(written(last_n(sequences, n=2), ("test",), recent=3))
    assert [item for item, _ in told(log)[5]] == ["i4", "i5", "i6", "i7", "i8"]
    assert "1 users have events before those in the tables" in caplog.text


def frame(rows, names=("label", "user_id", "movie_id", "recent_movie_ids")):
    return pl.DataFrame([[str(cell) for cell in row] for row in rows], schema=list(names), orient="row")


ROWS = [
    (1, 7, 10, "0"),
    (0, 7, 99, "0"),
    (0, 7, 11, "10"),
    (0, 7, 98, "10"),
    (1, 7, 12, "10\x0111"),
    (1, 8, 12, 0),
]


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_tables_of_every_kind_are_detected_and_read(tmp_path, ending):
    path = tmp_path / f"train.{ending}"
    table = frame(ROWS)
    if ending == "tsv":
        table.write_csv(path, separator="\t")
    else:
        getattr(table, {"parquet": "write_parquet", "csv": "write_csv", "jsonl": "write_ndjson"}[ending])(
            path
        )
    assert ending == "jsonl" or sources.detect(path) == "samples"
    log = read_log(path, format="samples" if ending == "jsonl" else "auto")
    assert log.frame.rows() == [(7, 10, 0, 5.0), (7, 11, 1, 1.0), (7, 12, 2, 5.0), (8, 12, 0, 5.0)]
    assert log.items is None
    assert log.users is None


def test_a_folder_that_spark_wrote_is_a_table(tmp_path):
    for name, rows in (("train", ROWS[:3]), ("test", ROWS[3:])):
        (tmp_path / f"{name}.parquet").mkdir()
        (tmp_path / f"{name}.parquet" / "_SUCCESS").touch()
        frame(rows[:1]).write_parquet(tmp_path / f"{name}.parquet" / "part-00000-x.snappy.parquet")
        frame(rows[1:]).write_parquet(tmp_path / f"{name}.parquet" / "part-00001-x.snappy.parquet")
    log = read_log([tmp_path / "train.parquet", tmp_path / "test.parquet"])
    assert log.frame["item_id"].to_list() == [10, 11, 12, 12]
    prepared = prepare([tmp_path / "train.parquet", tmp_path / "test.parquet"], tmp_path / "prepared")
    assert prepared.items.tolist() == [0, 1, 2, 2]


def test_other_names_and_types(tmp_path):
    table = pl.DataFrame(
        {"clicked": [True, True], "client": ["u", "u"], "sku": [4, 5], "before": [None, "4"]}
    )
    table.write_parquet(tmp_path / "rows.parquet")
    names = {"user_id": "client", "item_id": "sku", "label": "clicked", "recent": "before"}
    log = read_log(tmp_path / "rows.parquet", format="samples", columns=names)
    assert log.frame.rows() == [("u", 4, 0, 5.0), ("u", 5, 1, 5.0)]
    with pytest.raises(
        DataError, match=r"'recents' is not a column of a table of samples. Did you mean 'recent'"
    ):
        read_log(tmp_path / "rows.parquet", format="samples", columns={"recents": "before"})
    with pytest.raises(DataError, match="no column 'skus' for item_id"):
        read_log(tmp_path / "rows.parquet", format="samples", columns=names | {"item_id": "skus"})
    with pytest.raises(DataError, match=r"no column for item_id. .*Expected a table of samples"):
        read_log(
            tmp_path / "rows.parquet", format="samples", columns={"user_id": "client", "label": "clicked"}
        )


def test_attributes_of_users_and_items(tmp_path):
    names = [
        "label",
        "user_id",
        "age",
        "zip",
        "movie_id",
        "recent_movie_ids",
        "recent_movie_genres",
        "genre",
        "last_movie",
        "last_genre",
        "where",
    ]
    rows = [
        ("1", "7", "25", "02215", "10", "0", "None", "A\x01B", "0", "None", "home"),
        # a negative, with the genre of the film whose history it shares
        ("0", "7", "25", "02215", "11", "0", "None", "A\x01B", "0", "None", "home"),
        ("1", "7", "25", "02215", "12", "10", "A", "C", "10", "A\x01B", "away"),
        ("1", "8", "35", None, "11", "0", "None", None, "0", "None", "away"),
        ("1", "9", "18", "5", "12", "0", "None", "C", "0", "None", "home"),
    ]
    table = pl.DataFrame(rows, schema=names, orient="row")
    table.write_parquet(tmp_path / "train.parquet")
    log = read_log(tmp_path / "train.parquet")
    assert log.users.sort("user_id").rows(named=True) == [
        {"user_id": 7, "age": 25, "zip": "02215"},
        {"user_id": 8, "age": 35, "zip": None},
        {"user_id": 9, "age": 18, "zip": "5"},
    ]
    assert log.items.sort("item_id").rows(named=True) == [
        {"item_id": 10, "genre": "A\x01B"},
        {"item_id": 11, "genre": None},
        {"item_id": 12, "genre": "C"},
    ]
    items = pl.concat(
        [table[:3].drop("where"), table[:1].with_columns(movie_id=pl.lit("13")).drop("where")]
    ).with_columns(year=pl.lit("1999"))
    items.write_parquet(tmp_path / "item.parquet")
    given = read_log(tmp_path / "train.parquet", items=tmp_path / "item.parquet").items
    assert given.columns == ["item_id", "genre", "year"]
    assert given.rows() == [(10, "A\x01B", 1999), (11, "A\x01B", 1999), (12, "C", 1999), (13, "A\x01B", 1999)]
    with pytest.raises(DataError, match=r"'movie_id': the log's items are Int64. Got 'x'"):
        read_log(tmp_path / "train.parquet", items=table[:1].with_columns(movie_id=pl.lit("x")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 7, 10, "0"), (2, 7, 11, "10")], "row 2, column 'label': expected 0 or 1. Got '2'"),
        ([(1, 7, 10, "0"), (1, 7, 11, "0")], "user '7' has several rows of label 1 after the same items .0."),
        (
            [(1, 7, 10, "0"), (0, 7, 11, "10"), (0, 7, 12, "10")],
            "user '7' is ambiguous: the last event has label 0.*Give all tables",
        ),
        ([(1, 7, 10, "0"), (1, 7, 14, "12\x0113")], "user '7' is ambiguous: there are events missing"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, rows, message):
    frame(rows).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        read_log(tmp_path / "train.parquet")


def test_a_single_last_row_of_label_0_is_an_event(tmp_path):
    frame([(1, 7, 10, "0"), (0, 7, 11, "10")]).write_parquet(tmp_path / "train.parquet")
    assert read_log(tmp_path / "train.parquet").frame["item_id"].to_list() == [10, 11]


def test_an_item_called_0_is_an_item(tmp_path):
    split = last_n(replace(of_items("abcd"), item_catalogue=Catalogue([0, 1, 2, 3])), n=1)
    log = read_log(written(split, missing="None"))
    assert log.frame["item_id"].to_list() == [0, 1, 2, 3]


def test_movielens_1m_comes_back_whole(shared_data, tmp_path):
    """Rated users of MovieLens-1M, disliked events among them, through sample tables and back: the same
    split, the same attributes."""
    protocol = protocols.read_protocol("ml-1m-origin-rated-2999-v1")
    sequences, _ = protocols.read_sequences(protocol.data, protocol.ties, str(shared_data / "ml-1m"))
    sequences = protocols.of_users(sequences, np.arange(300))
    split = protocol.split.apply(sequences)
    about = write(split, tmp_path, SampleSettings(negatives=1))
    assert about["negatives"] == int((split.train_events & split.positive).sum()) > 30_000
    log = read_log(
        [tmp_path / f"{name}.parquet" for name in ("test", "train", "validation")],
        items=tmp_path / "item.parquet",
    )
    again = log.sequences()
    assert protocol.split.apply(again).hash == split.hash
    users, items = again.user_catalogue.attributes, again.item_catalogue.attributes
    theirs = sequences.user_catalogue.attributes.rename({"zip_code": "zip"})
    assert (
        users.select(theirs.columns)
        .with_columns(pl.col("zip").cast(pl.String))
        .equals(theirs.with_columns(pl.col("zip").cast(pl.String)))
    )
    known = sequences.item_catalogue
    genres = dict(zip(known.ids.to_list(), known.attributes["genres"].to_list()))
    for item, genre, title in zip(
        again.item_catalogue.ids.to_list(), items["genre"].to_list(), items["title"].to_list()
    ):
        assert genre.replace("\x01", "|") == genres[item]
        assert title
