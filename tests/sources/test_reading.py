"""Logs from files: formats, columns, what is refused, and several files as one."""

import gzip
import io

import fsspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_logs import CSV, assert_same, canonical_text, logs, write, write_as

from seqrec import read_log
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SeqrecError, SettingsError
from seqrec.sources.options import ReadOptions
from seqrec.sources.preparing import prepare


def test_options_are_given_by_name_or_together(tmp_path):
    path = write(tmp_path, "sku;who\na;1\n", "log.txt")
    options = ReadOptions(format="csv", delimiter=";", columns={"item_id": "sku", "user_id": "who"})
    for log in (read_log(path, options), read_log(path, **options.model_dump())):
        assert log.frame.rows() == [(1, "a")]
    # what is said by name counts
    assert read_log(path, options, columns={"item_id": "who", "user_id": "sku"}).frame.rows() == [("a", 1)]
    for read in (read_log, lambda path, *given, **named: prepare(path, tmp_path / "out", *given, **named)):
        with pytest.raises(SettingsError, match=r"^colums: unknown setting. Did you mean 'columns'\?$"):
            read(path, colums={})
        with pytest.raises(SettingsError, match=r"^options: expected .*ReadOptions. Got 'csv'\.$"):
            read(path, "csv")
        with pytest.raises(SettingsError, match=r"duplicates: expected 'keep' or 'drop'\. Got 'first'"):
            read(path, duplicates="first")


def test_duplicates_may_be_dropped(tmp_path):
    path = write(tmp_path, "user,item,time,rating\n1,a,5,1\n1,a,5,2\n1,a,6,3\n")
    assert read_log(path, duplicates="drop").frame["rating"].to_list() == [1, 3]
    assert len(read_log(path)) == 3


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
    log = read_log(write(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n"))
    assert set(log.frame.columns) == expected


def test_a_mapping_says_which_column_is_which(tmp_path):
    path = write(tmp_path, "client;sku;when;time\nann;7;2020-01-01T00:00:10Z;x\n")
    log = read_log(path, columns={"user_id": "client", "item_id": "sku", "timestamp": "when"})
    assert log.frame.to_dicts() == [{"user_id": "ann", "item_id": 7, "timestamp": 1577836810, "time": "x"}]
    assert (
        "timestamp"
        not in read_log(
            path, columns={"user_id": "client", "item_id": "sku", "timestamp": None}
        ).frame.columns
    )


def test_integers_number_the_columns_of_a_file_without_header(tmp_path):
    path = write(tmp_path, "a|3|x\nb|4|y\n", "log.psv")
    log = read_log(path, format="csv", columns={"user_id": 0, "item_id": 2, "timestamp": 1})
    assert log.frame.to_dict(as_series=False) == {
        "user_id": ["a", "b"],
        "item_id": ["x", "y"],
        "timestamp": [3, 4],
    }
    with pytest.raises(DataError, match=r"no column 5 for item_id\. The file has: 0, 1, 2"):
        read_log(path, format="csv", columns={"user_id": 0, "item_id": 5})


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
    log = read_log(write(tmp_path, "user,item\n" + "".join(f"{i},x\n" for i in ids)))
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
    times = read_log(write(tmp_path, f"user,item,time\n1,1,{text}\n")).frame["timestamp"]
    assert times.to_list() == [expected]
    assert times.dtype == (pl.Float64 if isinstance(expected, float) else pl.Int64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("user_id,item_id,timestamp\n", "a header but no events"),
        ("user_id,item_id,timestamp", "a header but no events"),
        ("user_id,itemid_,x\n1,2,3\n", None),  # itemid_ is item_id, case and punctuation aside
        (
            "usr,item_id\n1,2\n",
            r"no column for user_id. The file has: usr, item_id. Did you mean 'usr'\? Map one, "
            r".*--column user_id=usr",
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
        ('"user_id",item_id\n1,2\n1,"3\n1,4\n', "row 2: a quote is opened and never closed"),
        ('user_id,item_id\n1,"2, 3"\n1,"3\n1,4\n', "row 2: a quote is opened and never closed"),
        ('user_id,item_id\n1,2\n1,"3\n2\n', "row 3: expected 2 fields separated by ','. Got 1: '2'"),
        (
            'user_id,item_id\n1,2\n1,"3\n2,3"\n',
            "row 2: a quote opens a field that closes 1 lines later, and each of these lines would be a row",
        ),
        ('user_id,"item_id\n1,2\n', "a quote is opened in the header and never closed"),
        (
            b"user_id,item_id\n1,a\n1,caf\xe9\n",
            r"row 2: not valid utf-8 text. .* for a log give its encoding, encoding='latin-1'",
        ),
        (b"user_id,caf\xe9\n1,a\n", "not valid utf-8 text"),
    ],
)
def test_bad_text_is_refused_by_row_and_column(tmp_path, text, message):
    path = write(tmp_path, text)
    if message is None:
        assert read_log(path).frame.columns == ["user_id", "item_id", "x"]
        return
    for read in (read_log, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(DataError, match=message):
            read(path)
    with pytest.raises(DataError, match=message):  # and in a gzip
        read_log(
            write(tmp_path, gzip.compress(text if isinstance(text, bytes) else text.encode()), "log.csv.gz")
        )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": "user_id"}, r"'user' is not a column of a log. Did you mean 'user_id'\?"),
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
        read_log(write(tmp_path, CSV), columns=columns)


def test_cut_off_files_are_refused(tmp_path):
    big = "user_id,item_id\n" + "".join(f"{i},{i * 7919 % 1000}\n" for i in range(50_000))
    cut = write(tmp_path, gzip.compress(big.encode())[:-500], "log.csv.gz")
    with pytest.raises(DataError, match=r"log\.csv\.gz: truncated or damaged gzip"):
        read_log(cut)
    with pytest.raises(DataError, match="truncated or damaged gzip"):
        prepare(cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    whole = io.BytesIO()
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(whole)
    with pytest.raises(DataError, match="not a complete Parquet file"):
        read_log(write(tmp_path, whole.getvalue()[:-20], "log.parquet"))
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "absent.csv")


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
        read_log(write(tmp_path, text, "log.jsonl"))


def test_other_encodings_and_delimiters_are_read(tmp_path):
    path = write(tmp_path, "user_id::item_id\n1::café\n".encode("latin-1"))
    assert read_log(path, format="csv", delimiter="::", encoding="latin-1").frame["item_id"].to_list() == [
        "café"
    ]
    path = write(tmp_path, '\ufeffuser_id,item_id\r\n1,"a,b"\r\n'.encode())
    assert read_log(path).frame.rows() == [(1, "a,b")]
    path = write(tmp_path, "user_id\titem_id\n1\té\n".encode("utf-16"), "log.tsv")
    assert read_log(path).frame.rows() == [(1, "é")]
    for encoding in ("utf-16-le", "utf-16-be", "utf-32", "cp1252"):
        path = write(tmp_path, "user_id,item_id\r\n1,é\r\n".encode(encoding))
        assert read_log(path, encoding=encoding).frame.rows() == [(1, "é")]


@pytest.mark.parametrize("encoding", ["utf-9", "rot13", "zip", "idna", "punycode", "unicode_escape"])
def test_encodings_that_are_none_are_refused(tmp_path, encoding):
    with pytest.raises(SeqrecError, match=f"encoding: expected .* Got '{encoding}'"):
        read_log(write(tmp_path, CSV), encoding=encoding)


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"Got 'parqet'. Did you mean 'parquet'\?"):
        read_log(write(tmp_path, CSV), format="parqet")
    with pytest.raises(DataError, match="cannot tell the format"):
        read_log(write(tmp_path, "1 2\n3 4\n", "log.txt"))
    with pytest.raises(DataError, match="fixes its columns"):
        read_log(write(tmp_path, "1 2\n1 4\n", "log.txt"), columns={"user_id": "x"})


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
    given, expected, read_as, kind, tmp_path, caplog
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
    paths = []
    for row in range(len(frame)):  # a file a row: the unit is that of the whole log
        (tmp_path / f"{row}").mkdir()
        paths.append(write_as(frame[row : row + 1], kind, tmp_path / f"{row}"))
    log = read_log(paths)
    assert log.frame["timestamp"].to_list() == expected
    source = ", ".join(map(str, paths))
    assert [message.count(f"{source}: times are read as {read_as}") for message in caplog.messages] == (
        [1] if read_as else []
    )
    assert Interactions.from_frame(frame).frame["timestamp"].to_list() == expected
    assert_same(prepare(paths, tmp_path / "out"), log.sequences())


def test_times_in_several_units_are_refused(tmp_path):
    path = write(tmp_path, "user,item,time\n1,2,0\n1,3,1433221332117\n")
    for read in (read_log, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(
            DataError,
            match=r"log.csv: expected all times in one unit .* from 0 \(seconds\) to 1433221332117 "
            r"\(milliseconds\)",
        ):
            read(path)


def test_attributes_are_aligned_with_the_catalogue(tmp_path):
    movies = write(tmp_path, 'movieId,title,zip\n30,"C, the film",01\n10,A,02\n99,Z,03\n', "movies.csv")
    users = pl.DataFrame({"user": [2, 1], "age": [50, 20]})
    s = read_log(write(tmp_path, CSV), items=movies, users=users).sequences()
    assert s.item_catalogue.attributes.to_dict(as_series=False) == {
        "title": ["A", None, "C, the film"],
        "zip": ["02", None, "01"],
    }
    assert s.user_catalogue.attributes["age"].to_list() == [20, 50]
    for text, message in (
        ("item_id,title\n10,a\n10,b\n", r"movies.csv, column 'item_id': item_id 10 has more than one row"),
        ("item_id,title\nx,a\n", r"movies.csv, column 'item_id': the log's item_id is Int64, here it is Str"),
        ("title\na\n", r"movies.csv: no column for item_id"),
    ):
        with pytest.raises(DataError, match=message):
            read_log(tmp_path / "log.csv", items=write(tmp_path, text, "movies.csv"))


def test_ids_of_attributes_are_text_where_those_of_the_log_are(tmp_path):
    items = write(tmp_path, "item,price\n07,1\n7,2\n", "items.csv")
    s = read_log(write(tmp_path, "user,item\na,07\na,7\n"), items=items).sequences()
    assert s.item_catalogue.attributes["price"].to_list() == [1, 2]


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
    assert_same(read_log(path).sequences(), expected)


def test_remote_logs_take_the_same_way(tmp_path):
    with fsspec.open("memory://logs/log.csv.gz", "wb") as file:
        file.write(gzip.compress(CSV.encode()))
    expected = read_log(write(tmp_path, CSV)).sequences()
    assert_same(read_log("memory://logs/log.csv.gz").sequences(), expected)
    assert_same(prepare("memory://logs/log.csv.gz", "memory://logs/out"), expected)
    assert_same(Sequences.load("memory://logs/out"), expected)


def test_several_files_are_one_log(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\nu,1,5\nv,2,6\n")
    (tmp_path / "b.csv").write_text("when,item,user,mood\n7,x,u,good\n".replace("when", "time"))
    paths = [tmp_path / "a.csv", str(tmp_path / "b.csv")]
    log = read_log(paths)
    # ids are text, since one is
    assert log.frame.rows() == [("u", "1", 5, None), ("v", "2", 6, None), ("u", "x", 7, "good")]
    assert "a.csv, " in log.source
    streamed = prepare(paths, tmp_path / "out")
    assert streamed.user_catalogue.ids.to_list() == ["u", "v"]
    assert streamed.items.tolist() == log.sequences().items.tolist() == [0, 2, 1]


def test_several_files_of_a_known_format_are_one_log(tmp_path):
    (tmp_path / "a.txt").write_text("1 1\n1 2\n")
    (tmp_path / "b.txt").write_text("1 3\nx 1\n")
    log = read_log([tmp_path / "a.txt", tmp_path / "b.txt"], format="sasrec")
    assert log.frame.rows() == [("1", 1), ("1", 2), ("1", 3), ("x", 1)]


def test_a_folder_of_parts_is_a_file(tmp_path):
    for i in range(2):
        pl.DataFrame({"user_id": [i], "item_id": [i + 5], "timestamp": [1]}).write_parquet(
            tmp_path / f"part-0000{i}.parquet"
        )
    (tmp_path / "_SUCCESS").touch()
    assert read_log(tmp_path).frame.rows() == [(0, 5, 1), (1, 6, 1)]
    assert prepare(tmp_path, tmp_path / "out").items.tolist() == [0, 1]


def test_files_that_are_no_one_log_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\nu,1,5\n")
    (tmp_path / "b.csv").write_text("user,item\nu,2\n")
    (tmp_path / "c.tsv").write_text("user\titem\ttime\nu\t2\t5\n")
    for read in (read_log, lambda path: prepare(path, tmp_path / "out")):
        with pytest.raises(DataError, match=r"b.csv: no column for timestamp, which .*a.csv has"):
            read([tmp_path / "a.csv", tmp_path / "b.csv"])
        with pytest.raises(
            DataError,
            match=r"a.csv: no column for timestamp, which .*b.csv has|"
            r"b.csv: no column for timestamp, which .*a.csv has",
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
    for sequences in (read_log(tmp_path / "log.csv", **beside).sequences(), streamed):
        assert sequences.item_catalogue.attributes["colour"].to_list() == ["green", "red"]
        assert sequences.user_catalogue.attributes["age"].to_list() == [30]


def test_the_same_file_twice_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\na,x,1\n")
    with pytest.raises(DataError, match="expected each file once"):
        read_log([path, path])


def test_the_same_file_under_two_names_is_refused(tmp_path):
    path = write(tmp_path, "user_id,item_id\n1,a\n1,b\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "link.csv").symlink_to(path)
    for again in (tmp_path / "other" / ".." / "log.csv", tmp_path / "link.csv"):
        with pytest.raises(DataError, match="each file once"):
            read_log([path, str(again)])


def test_a_folder_of_parquet_files_is_a_log(tmp_path):
    for day in (1, 2):
        pl.DataFrame({"user_id": ["a"], "item_id": [f"x{day}"], "timestamp": [day]}).write_parquet(
            tmp_path / f"2024-01-0{day}.parquet"
        )
    assert read_log(tmp_path).frame["item_id"].to_list() == ["x1", "x2"]
