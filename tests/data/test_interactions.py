"""A log from a frame: its columns, its filters, its sequences."""

import io
import logging

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_logs import CSV, as_lists, assert_same

from seqrec.data.catalogue import Catalogue
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError


def log_of(csv: str) -> Interactions:
    return Interactions.from_frame(pl.read_csv(io.StringIO(csv)))


def test_events_are_ordered_by_time_with_ties_in_file_order():
    log = log_of(CSV)
    assert as_lists(log.sequences()) == {1: [(30, 90), (10, 100), (20, 100)], 2: [(20, 50)]}
    assert log.sequences().item_catalogue.ids.to_list() == [10, 20, 30]
    assert len(log) == 4
    assert "4 events, 2 users, 3 items" in repr(log)


def test_without_times_the_file_is_the_order():
    log = log_of("item,user\nb,x\na,y\na,x\n")
    s = log.sequences()
    assert as_lists(s) == {"x": [("b", None), ("a", None)], "y": [("a", None)]}
    assert s.times is None


def test_positions_order_where_times_are_partly_empty():
    log = log_of("user_id,item_id,position,timestamp,rating\n1,a,1,,4\n1,b,0,7,\n2,a,0,5,1\n")
    assert log.frame["timestamp"].to_list() == [None, 7, 5]
    s = log.sequences()
    assert as_lists(s) == {1: [("b", None), ("a", None)], 2: [("a", None)]}
    np.testing.assert_array_equal(s.ratings, np.array([np.nan, 4, 1], dtype=np.float32))
    assert log.where(pl.col("user_id") == 2).sequences(item_catalogue=s.item_catalogue).times.tolist() == [5]


def test_sequences_can_number_items_as_a_larger_log_does():
    log = log_of(CSV)
    part = log.where(pl.col("user_id") == 2).sequences(item_catalogue=log.sequences().item_catalogue)
    assert part.items.tolist() == [1]
    assert len(part.item_catalogue) == 3
    with pytest.raises(DataError, match="item 10 is not in item_catalogue"):
        log.sequences(item_catalogue=Catalogue([20, 30]))


def test_random_tie_order_is_seeded():
    rows = "".join(f"1,{i},5\n" for i in range(50))
    log = log_of("user,item,time\n" + rows)
    orders = [log.sequences("random", seed).items.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert log.sequences().items.tolist() == list(range(50))


def test_frames_are_taken_as_they_are():
    data = {"user": [1, 1, 2], "item": ["a", "b", "a"], "time": [3.0, 2.5, 1.0], "price": [1, 2, 3]}
    expected = Interactions.from_frame(pl.DataFrame(data))
    for frame in (
        pd.DataFrame(data),
        pl.LazyFrame(data),
        pa.table(data),
        pd.DataFrame(data, index=[7, 7, 7]),
    ):
        assert_same(Interactions.from_frame(frame).sequences(), expected.sequences())
    assert expected.frame.columns == ["user_id", "item_id", "timestamp", "price"]
    stamped = pd.DataFrame(
        {"user": ["a"], "item": pd.Categorical(["x"]), "date": pd.to_datetime(["1970-01-01 00:00:05"])}
    )
    assert Interactions.from_frame(stamped).frame.rows() == [("a", "x", 5)]
    zoned = pl.DataFrame({"user": [1.0], "item": [2], "date": ["1970-01-01T01:00:00"]}).with_columns(
        pl.col("date").str.to_datetime().dt.replace_time_zone("Europe/Paris")
    )
    assert Interactions.from_frame(zoned).frame.rows() == [(1, 2, 0)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"user": [], "item": []}), "no rows"),
        (pd.DataFrame({"user": [1.0, np.nan], "item": [1, 2]}), r"row 2, column 'user': missing id"),
        (pl.DataFrame({"user": [1.0, float("nan")], "item": [1, 2]}), r"row 2, column 'user': missing id"),
        (pl.DataFrame({"user": [1.5], "item": [1]}), "expected an integer or a string as id. Got 1.5"),
        (pl.DataFrame({"user": [True], "item": [1]}), "expected integers or strings as ids. Got Boolean"),
        (pd.DataFrame({"user": [1, "a"], "item": [1, 2]}), "a column mixes types"),
        (pd.DataFrame([[1, 2, 3]], columns=["user", "item", "item"]), "column 'item' occurs twice"),
        (
            pl.DataFrame({"user": [1], "item": [1], "time": [[1]]}),
            "expected seconds since 1970 or dates. Got List",
        ),
        (
            pl.DataFrame({"user": [2**63], "item": [1]}, schema_overrides={"user": pl.UInt64}),
            "exceeds 2\\^63",
        ),
        ({"user": [1]}, "expected a pandas or polars frame, or a pyarrow table. Got dict"),
    ],
)
def test_bad_frames_are_refused(frame, message):
    with pytest.raises(DataError, match=message):
        Interactions.from_frame(frame)


def plain_filter(events, min_item, min_user, until_stable):
    while True:
        before = len(events)
        events = [e for e in events if sum(f[1] == e[1] for f in events) >= min_item]
        events = [e for e in events if sum(f[0] == e[0] for f in events) >= min_user]
        if not until_stable or len(events) == before:
            return events


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40),
    st.integers(0, 4),
    st.integers(0, 4),
    st.booleans(),
)
def test_filter_counts_items_then_users(events, min_item, min_user, until_stable):
    log = Interactions.from_frame(pl.DataFrame(events, schema=["user_id", "item_id"], orient="row"))
    expected = plain_filter(events, min_item, min_user, until_stable)
    if expected:
        assert log.filter(min_item, min_user, until_stable).frame.rows() == expected
    else:
        with pytest.raises(DataError, match="no event of a frame is left"):
            log.filter(min_item, min_user, until_stable)


def test_duplicates_are_kept_or_dropped_and_said(caplog):
    log = log_of("user,item,time,rating\n1,a,5,1\n1,a,5,2\n1,a,6,3\n2,a,5,4\n1,b,5,5\n1,a,5,6\n")
    assert len(log) == 6
    assert "2 events repeat the user, item and time of another: kept" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        dropped = Interactions.from_frame(log.frame, duplicates="drop")
    assert dropped.frame["rating"].to_list() == [1, 3, 4, 5]
    assert "dropped all but the first of each" in caplog.text
    # repeats: nothing says they are one event
    assert len(log_of("user,item\n1,a\n1,a\n").without_duplicates()) == 2
    with pytest.raises(DataError, match=r"duplicates: expected 'keep' or 'drop'\. Got 'first'"):
        log.without_duplicates("first")


def test_attributes_are_aligned_with_the_catalogue():
    movies = pl.DataFrame({"movieId": [30, 10, 99], "title": ["C, the film", "A", "Z"]})
    users = pd.DataFrame({"user": [2, 1], "age": [50, 20]})
    s = log_of(CSV).with_attributes(movies, users).sequences()
    assert s.item_catalogue.attributes["title"].to_list() == ["A", None, "C, the film"]
    assert s.user_catalogue.attributes["age"].to_list() == [20, 50]
    again = log_of(CSV).with_attributes(movies).with_attributes(users=users)
    assert_same(again.sequences(), s)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pl.DataFrame({"item_id": [10, 10], "title": ["a", "b"]}), "item_id 10 has more than one row"),
        (pl.DataFrame({"item_id": ["10"]}), "the log's item_id is Int64, here it is String"),
        (pl.DataFrame({"item_id": [10, None]}), "row 2, column 'item_id': missing id"),
        (pl.DataFrame({"title": ["a"]}), "no column for item_id"),
        ("items.csv", "the table of item_id: expected a pandas or polars frame.*read by seqrec.read_log"),
    ],
)
def test_bad_tables_of_attributes_are_refused(items, message):
    with pytest.raises(DataError, match=message):
        log_of(CSV).with_attributes(items)
