import gzip
import io
import json
import logging
import re

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data import files
from seqrec.data.catalogue import Catalogue
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import COLUMNS, Sequences
from seqrec.errors import DataError
from seqrec.sources.preparing import prepare

CSV = "user_id,item_id,timestamp\n1,10,100\n2,20,50\n1,30,90\n1,20,100\n"


def write(folder, text, name="log.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_lists(sequences):
    """user -> [(item, time)], the plainest form of sequences."""
    items = sequences.item_catalogue.decode(sequences.items).to_list()
    times = [None] * len(items) if sequences.times is None else sequences.times.tolist()
    users = sequences.user_catalogue.ids.to_list()
    return {
        user: list(zip(items, times))[sequences.offsets[u] : sequences.offsets[u + 1]]
        for u, user in enumerate(users)
    }


def assert_same(a, b):
    for name in ("items", "offsets", *COLUMNS):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            np.testing.assert_array_equal(x, y, err_msg=name)
            assert x.dtype == y.dtype, name
    for name in ("item_catalogue", "user_catalogue"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.ids.equals(y.ids), name
        assert x.ids.dtype == y.ids.dtype
        assert (x.attributes is None) == (y.attributes is None)
        assert x.attributes is None or x.attributes.equals(y.attributes)


# --- a log becomes sequences
# --------------------------------------------------------------------------------------------------------


def test_events_are_ordered_by_time_with_ties_in_file_order(tmp_path):
    log = Interactions.read(write(tmp_path, CSV))
    assert as_lists(log.sequences()) == {1: [(30, 90), (10, 100), (20, 100)], 2: [(20, 50)]}
    assert log.sequences().item_catalogue.ids.to_list() == [10, 20, 30]
    assert len(log) == 4
    assert "4 events, 2 users, 3 items" in repr(log)


def test_without_times_the_file_is_the_order(tmp_path):
    log = Interactions.read(write(tmp_path, "item,user\nb,x\na,y\na,x\n"))
    s = log.sequences()
    assert as_lists(s) == {"x": [("b", None), ("a", None)], "y": [("a", None)]}
    assert s.times is None


def test_positions_order_where_times_are_partly_empty(tmp_path):
    path = write(tmp_path, "user_id,item_id,position,timestamp,rating\n1,a,1,,4\n1,b,0,7,\n2,a,0,5,1\n")
    log = Interactions.read(path)
    assert log.frame["timestamp"].to_list() == [None, 7, 5]
    s = log.sequences()
    assert as_lists(s) == {1: [("b", None), ("a", None)], 2: [("a", None)]}
    np.testing.assert_array_equal(s.ratings, np.array([np.nan, 4, 1], dtype=np.float32))
    assert log.where(pl.col("user_id") == 2).sequences(item_catalogue=s.item_catalogue).times.tolist() == [5]


def test_sequences_can_number_items_as_a_larger_log_does(tmp_path):
    log = Interactions.read(write(tmp_path, CSV))
    part = log.where(pl.col("user_id") == 2).sequences(item_catalogue=log.sequences().item_catalogue)
    assert part.items.tolist() == [1]
    assert len(part.item_catalogue) == 3
    with pytest.raises(DataError, match="item 10 is not in item_catalogue"):
        log.sequences(item_catalogue=Catalogue([20, 30]))


def test_random_tie_order_is_seeded(tmp_path):
    rows = "".join(f"1,{i},5\n" for i in range(50))
    log = Interactions.read(write(tmp_path, "user,item,time\n" + rows))
    orders = [log.sequences("random", seed).items.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert log.sequences().items.tolist() == list(range(50))


# --- columns and types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("user_id,item_id,timestamp", {"user_id", "item_id", "timestamp"}),
        ("userId,movieId,rating,timestamp", {"user_id", "item_id", "rating", "timestamp"}),
        ("SessionId,ItemId,Time", {"user_id", "item_id", "timestamp"}),
        ("uid,session_id,item,datetime", {"user_id", "session_id", "item_id", "timestamp"}),
        ("User ID,Movie_ID,Basket-ID,position", {"user_id", "item_id", "basket_id", "position"}),
        # the canonical name wins, the other is a feature
        ("user,user_id,item", {"user_id", "item_id", "user"}),
    ],
)
def test_usual_names_are_found(tmp_path, header, expected):
    log = Interactions.read(write(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n"))
    assert set(log.frame.columns) == expected


def test_a_mapping_says_which_column_is_which(tmp_path):
    path = write(tmp_path, "client;sku;when;time\nann;7;2020-01-01T00:00:10Z;x\n")
    log = Interactions.read(path, columns={"user_id": "client", "item_id": "sku", "timestamp": "when"})
    assert log.frame.to_dicts() == [{"user_id": "ann", "item_id": 7, "timestamp": 1577836810, "time": "x"}]
    assert (
        "timestamp"
        not in Interactions.read(
            path, columns={"user_id": "client", "item_id": "sku", "timestamp": None}
        ).frame.columns
    )


def test_integers_number_the_columns_of_a_file_without_header(tmp_path):
    path = write(tmp_path, "a|3|x\nb|4|y\n", "log.psv")
    log = Interactions.read(path, format="csv", columns={"user_id": 0, "item_id": 2, "timestamp": 1})
    assert log.frame.to_dict(as_series=False) == {
        "user_id": ["a", "b"],
        "item_id": ["x", "y"],
        "timestamp": [3, 4],
    }
    with pytest.raises(DataError, match=r"no column 5 for item_id\. The file has: 0, 1, 2"):
        Interactions.read(path, format="csv", columns={"user_id": 0, "item_id": 5})


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "20"], [1, 20]),
        (["1", "02"], ["1", "02"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["-1", "0"], [-1, 0]),
        (["é", "7"], ["é", "7"]),
    ],
)
def test_ids_keep_their_type(tmp_path, ids, expected):
    log = Interactions.read(write(tmp_path, "user,item\n" + "".join(f"{i},x\n" for i in ids)))
    assert log.frame["user_id"].to_list() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("7.5", 7.5),
        ("7.0", 7),
        ("1970-01-02", 86400),
        ("1970-01-01 00:01:00", 60),
        ("1970/01/01 00:01", 60),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01.250Z", 1.25),
    ],
)
def test_times_become_seconds_since_1970(tmp_path, text, expected):
    times = Interactions.read(write(tmp_path, f"user,item,time\n1,1,{text}\n")).frame["timestamp"]
    assert times.to_list() == [expected]
    assert times.dtype == (pl.Float64 if isinstance(expected, float) else pl.Int64)


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
        (pl.DataFrame({"user": [], "item": []}), "it has no rows"),
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
        (pl.DataFrame({"user": [2**63], "item": [1]}, schema_overrides={"user": pl.UInt64}), "beyond 2\\^63"),
        ({"user": [1]}, "expected a pandas or polars frame, or a pyarrow table. Got dict"),
    ],
)
def test_bad_frames_are_refused(frame, message):
    with pytest.raises(DataError, match=message):
        Interactions.from_frame(frame)


# --- bad files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("user_id,item_id,timestamp\n", "a header but no events"),
        ("user_id,item_id,timestamp", "a header but no events"),
        ("user_id,itemid_,x\n1,2,3\n", None),  # itemid_ is item_id, case and punctuation aside
        (
            "usr,item_id\n1,2\n",
            r"no column for user_id. The file has: usr, item_id. Did you mean 'usr'\? Say which it is, "
            ".*--column user_id=usr",
        ),
        ("user_id,item_id,item_id\n1,2,3\n", "column 'item_id' occurs twice in the header"),
        ("user_id,item_id\n1,2\n,3\n", r"log\.csv.*, row 2, column 'user_id': missing id"),
        ("user_id,item_id\n1,2\nnan,3\n", "row 2, column 'user_id': missing id"),
        ('user_id,item_id\n1,2\n1,"  "\n', "row 2, column 'item_id': missing id"),
        (
            "user_id,item_id,time\n1,2,3\n1,3,soon\n",
            r"row 2, column 'time': expected seconds since 1970 or an ISO date such as .* Got 'soon'",
        ),
        (
            "user_id,item_id,time\n1,2,2020-01-01\n1,3,01/02/2020\n",
            "row 2, column 'time': .* Got '01/02/2020'",
        ),
        ("user_id,item_id,time\n1,2,inf\n", "row 1, column 'time'"),
        ("user_id,item_id,time\n1,2,1e300\n", "row 1, column 'time'"),
        (
            "user_id,item_id,time\n1,2,5\n1,3,-5\n",
            "row 2, column 'time': expected a time since 1970. Got '-5'",
        ),
        (
            "user_id,item_id,time\n1,2,1969-12-31\n",
            "row 1, column 'time': expected a time since 1970. Got '1969-12-31'",
        ),
        (
            "user_id,item_id,time\n1,2,5\n1,3,\n",
            "row 2, column 'time': missing time. A partly empty time column needs a position column",
        ),
        ("user_id,item_id,position\n1,2,0\n1,3,\n", "row 2, column 'position': expected a whole number"),
        ("user_id,item_id,position\n1,2,0\n1,3,0.5\n", "row 2, column 'position': expected a whole number"),
        (
            "user_id,item_id,rating\n1,2,0\n1,3,good\n",
            "row 2, column 'rating': expected a number. Got 'good'",
        ),
        ("user_id,item_id,time\n1,2,5\n\n1,3\n", r"row 2: expected 3 fields separated by ','. Got 2: '1,3'"),
        ("user_id,item_id,time\n1,2,5,6\n", "row 1: expected 3 fields separated by ','. Got 4"),
        ('user_id,item_id\n1,2\n1,"3\n1,4\n', "row 2: a quote is opened and never closed"),
        (
            b"user_id,item_id\n1,a\n1,caf\xe9\n",
            r"row 2: not valid utf-8 text. .* of a log, encoding='latin-1'",
        ),
        (b"user_id,caf\xe9\n1,a\n", "not valid utf-8 text"),
    ],
)
def test_bad_text_is_refused_by_row_and_column(tmp_path, text, message):
    path = write(tmp_path, text)
    if message is None:
        assert Interactions.read(path).frame.columns == ["user_id", "item_id", "x"]
        return
    for read in (Interactions.read, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(DataError, match=message):
            read(path)
    with pytest.raises(DataError, match=message):  # and in a gzip
        Interactions.read(
            write(tmp_path, gzip.compress(text if isinstance(text, bytes) else text.encode()), "log.csv.gz")
        )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": "user_id"}, r"'user' is no column of a log. Did you mean 'user_id'\?"),
        (
            {"item_id": "itm"},
            r"no column 'itm' for item_id. The file has: user_id, item_id, timestamp. "
            r"Did you mean 'item_id'\?",
        ),
        ({"item_id": None}, "no column for item_id"),
    ],
)
def test_bad_mappings_are_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        Interactions.read(write(tmp_path, CSV), columns=columns)


def test_cut_off_files_are_refused(tmp_path):
    big = "user_id,item_id\n" + "".join(f"{i},{i * 7919 % 1000}\n" for i in range(50_000))
    cut = write(tmp_path, gzip.compress(big.encode())[:-500], "log.csv.gz")
    with pytest.raises(DataError, match=r"log\.csv\.gz: truncated or damaged gzip"):
        Interactions.read(cut)
    with pytest.raises(DataError, match="truncated or damaged gzip"):
        prepare(cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    whole = io.BytesIO()
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(whole)
    with pytest.raises(DataError, match="not a whole Parquet file"):
        Interactions.read(write(tmp_path, whole.getvalue()[:-20], "log.parquet"))
    with pytest.raises(DataError, match="no such file"):
        Interactions.read(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user": 1, "item": 2}\n{"user": 1, "item": \n', "row 2: not valid JSON"),
        ('{"user": 1, "item": 2}\n[1]\n', "row 2: expected a JSON object"),
        ('{"user": 1, "item": 2}\n{"item": 2}\n', "row 2, column 'user': missing id"),
        ('{"user": 1, "item": 2, "time": 1}\n{"user": 1, "item": 2, "time": "x"}\n', None),
        ("\n", "the file is empty"),
    ],
)
def test_bad_json_lines_are_refused_by_row(tmp_path, text, message):
    with pytest.raises(DataError, match=message or "log"):
        Interactions.read(write(tmp_path, text, "log.jsonl"))


def test_other_encodings_and_delimiters_are_read(tmp_path):
    path = write(tmp_path, "user_id::item_id\n1::café\n".encode("latin-1"))
    assert Interactions.read(path, format="csv", delimiter="::", encoding="latin-1").frame[
        "item_id"
    ].to_list() == ["café"]
    path = write(tmp_path, '\ufeffuser_id,item_id\r\n1,"a,b"\r\n'.encode())
    assert Interactions.read(path).frame.rows() == [(1, "a,b")]
    path = write(tmp_path, "user_id\titem_id\n1\té\n".encode("utf-16"), "log.tsv")
    with pytest.raises(DataError):
        Interactions.read(path)


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"Got 'parqet'. Did you mean 'parquet'\?"):
        Interactions.read(write(tmp_path, CSV), format="parqet")
    with pytest.raises(DataError, match="its format cannot be told"):
        Interactions.read(write(tmp_path, "1 2\n3 4\n", "log.txt"))
    with pytest.raises(DataError, match="fixes its columns"):
        Interactions.read(write(tmp_path, "1 2\n1 4\n", "log.txt"), columns={"user_id": "x"})


@pytest.mark.parametrize(
    ("given", "expected", "read_as"),
    [
        (
            [1433221332117, 1433224214164],
            [1433221332.117, 1433224214.164],
            "milliseconds since 1970: they go from 2015-06-02T05:02:12.117000+00:00",
        ),
        ([1433221332000, None], [1433221332, None], "milliseconds"),
        ([1433221332117.5], [1433221332.1175], "milliseconds"),
        ([1433221332117000], [1433221332.117], "microseconds"),
        ([1433221332000000000, 1433221333500000000], [1433221332.0, 1433221333.5], "nanoseconds"),
        (
            [20200131, 20191201],
            [1580428800, 1575158400],
            "dates such as 20200131: they go from 2019-12-01T00:00:00+00:00 to 2020-01-31",
        ),
        ([202001311230], [1580473800], "dates"),
        ([20200131123015], [1580473815], "dates"),
        ([20200131, 20200132], [20200131, 20200132], None),  # there is no such day
        ([3, 1, 2], [3, 1, 2], None),
        ([253402300799], [253402300799], None),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_times_in_other_units_and_compact_dates_become_seconds(
    given, expected, read_as, kind, tmp_path, caplog, monkeypatch
):
    frame = pl.DataFrame(
        {
            "user_id": [1] * len(given),
            "item_id": range(len(given)),
            "timestamp": given,
            "position": range(len(given)),
        }
    )
    frame = frame if None in given else frame.drop("position")
    path = write_as(frame, kind, tmp_path)
    monkeypatch.setattr(files, "ROWS", 1)  # the unit is that of the whole log, not of some rows
    log = Interactions.read(path)
    assert log.frame["timestamp"].to_list() == expected
    assert [message.count(f"{path}: times are read as {read_as}") for message in caplog.messages] == (
        [1] if read_as else []
    )
    assert Interactions.from_frame(frame).frame["timestamp"].to_list() == expected
    assert_same(prepare(path, tmp_path / "out"), log.sequences())


def test_times_in_several_units_are_refused(tmp_path):
    path = write(tmp_path, "user,item,time\n1,2,0\n1,3,1433221332117\n")
    for read in (Interactions.read, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(
            DataError,
            match=r"log.csv: expected all times in one unit .* "
            r"from 0 \(seconds\) to 1433221332117 \(milliseconds\)",
        ):
            read(path)


# --- duplicates, filters, attributes
# ------------------------------------------------------------------------------------------------


def test_duplicates_are_kept_or_dropped_and_said(tmp_path, caplog):
    path = write(tmp_path, "user,item,time,rating\n1,a,5,1\n1,a,5,2\n1,a,6,3\n2,a,5,4\n1,b,5,5\n1,a,5,6\n")
    with caplog.at_level(logging.WARNING):
        assert len(Interactions.read(path)) == 6
    assert "2 events repeat the user, item and time of another: kept" in caplog.text
    caplog.clear()
    assert Interactions.read(path, duplicates="drop").frame["rating"].to_list() == [1, 3, 4, 5]
    assert "dropped all but the first of each" in caplog.text
    # repeats: nothing says they are one event
    assert len(Interactions.read(write(tmp_path, "user,item\n1,a\n1,a\n"), duplicates="drop")) == 2
    with pytest.raises(DataError, match="duplicates: expected 'keep' or 'drop'"):
        Interactions.read(path, duplicates="first")


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


def test_attributes_are_aligned_with_the_catalogue(tmp_path):
    movies = write(tmp_path, 'movieId,title,zip\n30,"C, the film",01\n10,A,02\n99,Z,03\n', "movies.csv")
    users = pl.DataFrame({"user": [2, 1], "age": [50, 20]})
    s = Interactions.read(write(tmp_path, CSV), items=movies, users=users).sequences()
    assert s.item_catalogue.attributes.to_dict(as_series=False) == {
        "title": ["A", None, "C, the film"],
        "zip": ["02", None, "01"],
    }
    assert s.user_catalogue.attributes["age"].to_list() == [20, 50]
    log = Interactions.read(tmp_path / "log.csv")
    with pytest.raises(DataError, match="item_id 10 has more than one row"):
        log.with_attributes(items=pl.DataFrame({"item_id": [10, 10], "title": ["a", "b"]}))
    with pytest.raises(DataError, match="the log's item_id is Int64, here it is String"):
        log.with_attributes(items=pl.DataFrame({"item_id": ["10"], "title": ["a"]}))
    with pytest.raises(DataError, match="no column for item_id"):
        log.with_attributes(items=pl.DataFrame({"title": ["a"]}))


# --- the same log in every format, and streamed
# ---------------------------------------------------------------------------------------

IDS = (
    st.one_of(st.integers(-5, 5), st.integers(10**12, 10**12 + 3)),
    st.text("aé,;\"'\t |0\n", min_size=1, max_size=4).filter(str.strip),
)


@st.composite
def logs(draw):
    """Frames of any ids, with times, positions, ratings and baskets or without."""
    n = draw(st.integers(1, 25))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    data = {"user_id": column(draw(st.sampled_from(IDS))), "item_id": column(draw(st.sampled_from(IDS)))}
    if draw(st.booleans()):
        data["timestamp"] = column(
            draw(
                st.sampled_from(
                    [st.integers(0, 4), st.integers(0, 2**37), st.integers(2**38, 2**40), st.floats(0, 2**31)]
                )
            )
        )
    if "timestamp" not in data and draw(st.booleans()):
        if draw(st.booleans()):  # partly empty times need positions
            data["timestamp"] = column(st.one_of(st.none(), st.integers(0, 4)))
        data["position"] = column(st.integers(0, 5))
    if draw(st.booleans()):
        data["rating"] = column(st.one_of(st.none(), st.floats(0, 5, width=32)))
    if draw(st.booleans()):
        data["basket_id"] = column(IDS[0])
    return pl.DataFrame(data, infer_schema_length=None)


def canonical_text(frame):
    """Strings that read as integers come back as integers from text: not what this test is about."""
    return not any(
        frame[c].dtype == pl.String and frame[c].str.contains(r"^(0|[1-9]\d*)$").all()
        for c in ("user_id", "item_id")
    )


def write_as(frame, kind, folder):
    path = folder / f"log.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    else:
        frame.write_csv(path, separator="\t" if kind == "tsv" else ",", quote_style="non_numeric")
    return path


@settings(max_examples=40, deadline=None)
@given(
    frame=logs().filter(canonical_text),
    kind=st.sampled_from(["csv", "tsv", "parquet", "jsonl"]),
    compress=st.booleans(),
)
def test_any_log_reads_back_the_same_from_any_format(frame, kind, compress, tmp_path_factory):
    path = write_as(frame, kind, tmp_path_factory.mktemp("log"))
    if compress and kind != "parquet":
        path = write(path.parent, gzip.compress(path.read_bytes()), f"{path.name}.gz")
    expected = Interactions.from_frame(frame).sequences()
    assert_same(Interactions.read(path).sequences(), expected)


@settings(max_examples=40, deadline=None)
@given(
    frame=logs().filter(canonical_text),
    kind=st.sampled_from(["csv", "parquet", "jsonl"]),
    duplicates=st.sampled_from(["keep", "drop"]),
    least=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    tie_order=st.sampled_from(["file", "random"]),
    rows=st.sampled_from([3, 1 << 20]),
)
def test_streaming_gives_what_reading_gives(
    frame, kind, duplicates, least, tie_order, rows, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("log")
    path = write_as(frame, kind, folder)
    about = pl.DataFrame({"item_id": frame["item_id"].unique(), "n": range(frame["item_id"].n_unique())})
    before = files.ROWS, files.BLOCK
    files.ROWS, files.BLOCK = rows, 200 if rows == 3 else files.BLOCK
    try:
        options = {
            "duplicates": duplicates,
            "min_item_count": least[0],
            "min_user_count": least[1],
            "tie_order": tie_order,
            "seed": 3,
        }
        try:
            expected = (
                Interactions.read(path, duplicates=duplicates, items=about)
                .filter(*least)
                .sequences(tie_order, 3)
            )
        except DataError as error:
            with pytest.raises(DataError, match=re.escape(str(error))):
                prepare(path, folder / "out", **options)
            return
        assert_same(prepare(path, folder / "out", items=about, **options), expected)
        assert_same(Sequences.load(folder / "out"), expected)
    finally:
        files.ROWS, files.BLOCK = before


def test_remote_logs_take_the_same_way(tmp_path):
    with fsspec.open("memory://logs/log.csv.gz", "wb") as file:
        file.write(gzip.compress(CSV.encode()))
    expected = Interactions.read(write(tmp_path, CSV)).sequences()
    assert_same(Interactions.read("memory://logs/log.csv.gz").sequences(), expected)
    assert_same(prepare("memory://logs/log.csv.gz", "memory://logs/out"), expected)
    assert_same(Sequences.load("memory://logs/out"), expected)


def test_prepare_reads_the_formats_of_data_sets_too(tmp_path):
    path = write(tmp_path, "7 3 1\n9 1 3 3\n", "log.txt")
    assert as_lists(prepare(path, tmp_path / "out")) == {
        7: [(3, None), (1, None)],
        9: [(1, None), (3, None), (3, None)],
    }


def test_several_files_are_one_log(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\nu,1,5\nv,2,6\n")
    (tmp_path / "b.csv").write_text("when,item,user,mood\n7,x,u,good\n".replace("when", "time"))
    paths = [tmp_path / "a.csv", str(tmp_path / "b.csv")]
    log = Interactions.read(paths)
    # ids are text, since one is
    assert log.frame.rows() == [("u", "1", 5, None), ("v", "2", 6, None), ("u", "x", 7, "good")]
    assert "a.csv, " in log.source
    streamed = prepare(paths, tmp_path / "out")
    assert streamed.user_catalogue.ids.to_list() == ["u", "v"]
    assert streamed.items.tolist() == log.sequences().items.tolist() == [0, 2, 1]


def test_several_files_of_a_known_format_are_one_log(tmp_path):
    (tmp_path / "a.txt").write_text("1 1\n1 2\n")
    (tmp_path / "b.txt").write_text("1 3\nx 1\n")
    log = Interactions.read([tmp_path / "a.txt", tmp_path / "b.txt"], format="sasrec")
    assert log.frame.rows() == [("1", 1), ("1", 2), ("1", 3), ("x", 1)]


def test_a_folder_of_parts_is_a_file(tmp_path):
    for i in range(2):
        pl.DataFrame({"user_id": [i], "item_id": [i + 5], "timestamp": [1]}).write_parquet(
            tmp_path / f"part-0000{i}.parquet"
        )
    (tmp_path / "_SUCCESS").touch()
    assert Interactions.read(tmp_path).frame.rows() == [(0, 5, 1), (1, 6, 1)]
    assert prepare(tmp_path, tmp_path / "out").items.tolist() == [0, 1]


def test_files_that_are_no_one_log_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\nu,1,5\n")
    (tmp_path / "b.csv").write_text("user,item\nu,2\n")
    (tmp_path / "c.tsv").write_text("user\titem\ttime\nu\t2\t5\n")
    for read in (Interactions.read, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(DataError, match=r"b.csv: no column for timestamp, which .*a.csv has"):
            read([tmp_path / "a.csv", tmp_path / "b.csv"])
        with pytest.raises(
            DataError,
            match=r"a.csv: no column for timestamp, which .*b.csv has|"
            "b.csv: no column for timestamp, which .*a.csv has",
        ):
            read([tmp_path / "b.csv", tmp_path / "a.csv"])
        with pytest.raises(DataError, match=r"files of one format. .*a.csv is csv, .*c.tsv is tsv"):
            read([tmp_path / "a.csv", tmp_path / "c.tsv"])
        with pytest.raises(DataError, match=r"path: expected a file, or several. Got an empty list"):
            read([])


def test_attribute_tables_may_name_the_ids_as_the_log_does(tmp_path):
    (tmp_path / "log.csv").write_text("client,article,when\nu,a,1\nu,b,2\n")
    (tmp_path / "articles.csv").write_text("article,colour\nb,red\na,green\n")
    (tmp_path / "clients.csv").write_text("client,age\nu,30\n")
    columns = {"user_id": "client", "item_id": "article", "timestamp": "when"}
    beside = {"columns": columns, "items": tmp_path / "articles.csv", "users": tmp_path / "clients.csv"}
    streamed = prepare(tmp_path / "log.csv", tmp_path / "out", **beside)
    for sequences in (Interactions.read(tmp_path / "log.csv", **beside).sequences(), streamed):
        assert sequences.item_catalogue.attributes["colour"].to_list() == ["green", "red"]
        assert sequences.user_catalogue.attributes["age"].to_list() == [30]


def test_the_same_file_twice_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\na,x,1\n")
    with pytest.raises(DataError, match="expected each file once"):
        Interactions.read([path, path])


def test_the_same_file_under_two_names_is_refused(tmp_path):
    path = write(tmp_path, "user_id,item_id\n1,a\n1,b\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "link.csv").symlink_to(path)
    for again in (tmp_path / "other" / ".." / "log.csv", tmp_path / "link.csv"):
        with pytest.raises(DataError, match="each file once"):
            Interactions.read([path, str(again)])


def test_a_folder_of_parquet_files_is_a_log(tmp_path):
    for day in (1, 2):
        pl.DataFrame({"user_id": ["a"], "item_id": [f"x{day}"], "timestamp": [day]}).write_parquet(
            tmp_path / f"2024-01-0{day}.parquet"
        )
    assert Interactions.read(tmp_path).frame["item_id"].to_list() == ["x1", "x2"]
