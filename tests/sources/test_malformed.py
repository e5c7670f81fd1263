"""Files that are no proper logs: read right, or refused in one plain line, by reading and preparing alike."""

import gzip
import json
import re
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from random_logs import assert_same, write

from seqrec import read_log
from seqrec.errors import DataError
from seqrec.sources.preparing import prepare

CASES = Path(__file__).parent / "cases"

ROWS = {
    "blanktabheader.tsv": [("u1", "i1"), ("u1", "i2"), ("u2", "i1")],
    "compact.csv": [("u1", "a", 1580428800), ("u1", "b", 1580515200)],
    "cr.csv": [("u1", "i1", 1), ("u1", "i2", 2), ("u2", "i1", 3)],
    "gz_concat.csv.gz": [("u1", "i1"), ("u1", "i2")],
    "gz_trailing.csv.gz": [("u1", "i1"), ("u1", "i2")],
    "hugeheader.csv": [("u1", "i1", 1), ("u1", "i2", 2)],
    "iso.csv": [("u1", "c", 1580601600), ("u1", "d", 1580688000)],
    "partial_times.csv": [(0, "a", None, 0), (0, "b", 5, 1), (0, "b", 6, 2)],
    "strayquotes.csv": [
        (f"u{i % 5}", f"i{i}", {4: '"Weird Al', 19: '"Scary'}.get(i, f"film {i}")) for i in range(30)
    ],
    "strayquotes2.csv": [(f"u{i % 5}", {4: '"i4', 19: '"i19'}.get(i, f"i{i}")) for i in range(30)],
    "utf16.csv": [("u1", "i1"), ("u1", "i2"), ("u2", "i1")],
    "utf16_accents.csv": [("gül", "é1", 1), ("gül", "é2", 2), ("bo", "é1", 3), ("bo", "é3", 4)],
}
REFUSED = {
    "array.jsonl": "row 1: expected a JSON object. Got .*an object a line",
    "empty_object.jsonl": "row 1: expected an object with the columns of the log as keys",
    "gz_garbage.csv.gz": "truncated or damaged gzip",
    "id_binary.parquet": "column 'user_id': expected integers or strings as ids. Got Binary",
    "id_uint64.parquet": "row 3, column 'user_id': an id exceeds 2\\^63. Got 18446744073709551615",
    "mix.jsonl": "row 2, column 'timestamp': expected .* Got '2020-02-03'\\. Write all times in one way\\.$",
    "mix2.csv": "row 2, column 'timestamp': expected .* Got '2020-02-03'\\. Write all times in one way\\.$",
    "null.jsonl": "row 1: expected a JSON object. Got 'null'",
    "null_header.tsv": "line 1: a NUL byte, which no text has",
    "pos_1e30.csv": "row 1, column 'position': expected a whole number.* Got '1e30'",
    "pos_inf.csv": "row 1, column 'position': expected a whole number.* Got 'inf'",
    "pos_uint64.parquet": "row 3, column 'position': expected a whole number.* Got 18446744073709551615",
    "ts_ms_overflow.parquet": "row 3, column 'timestamp': expected .* Got 9000000000000000000",
    "ts_s_overflow.parquet": "row 3, column 'timestamp': expected .* Got 9200000000000000000",
    "ts_uint64.parquet": "row 3, column 'timestamp': expected .* Got 18446744073709551615",
    "x.csv": "column '' occurs twice in the header",
}


def assert_refused(path, message, tmp_path, **options):
    """Both doors give the same short message, which names the file."""
    texts = []
    for read in (read_log, lambda path, **options: prepare(path, tmp_path / "out", **options)):
        with pytest.raises(DataError, match=message) as refusal:
            read(path, **options)
        texts.append(str(refusal.value))
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]
    assert len(texts[0]) < 1500
    assert not (tmp_path / "out").exists()


def test_every_case_is_accounted_for():
    assert {path.name for path in CASES.iterdir()} == {*ROWS, *REFUSED}


@pytest.mark.parametrize("least", [0, 2])
@pytest.mark.parametrize("name", ROWS)
def test_cases_that_are_read(name, least, tmp_path):
    log = read_log(CASES / name)
    rows = log.frame.select(log.frame.columns[: len(ROWS[name][0])]).rows()
    assert rows == ROWS[name]
    try:
        expected = log.filter(least).sequences()
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            prepare(CASES / name, tmp_path / "out", min_item_count=least)
        return
    assert_same(prepare(CASES / name, tmp_path / "out", min_item_count=least), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_cases_that_are_refused(name, tmp_path):
    assert_refused(CASES / name, f"{re.escape(name)}.*{REFUSED[name]}", tmp_path)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('u,i,t\n1,2,5" disc\n3,4,"12"" disc"\n', ['5" disc', '12" disc']),
        ('u,i,t\n1,2,"a, b\nc"\n3,4,x\n', ["a, b\nc", "x"]),
        ('u,i,t\r\n1,2,"a\r\nb"\r\n3,4,"x"\r\n', ["a\r\nb", "x"]),
        ('u,i,"t"\n1,2,"a\n3,4,b"\n5,6,c\n', ["a\n3,4,b", "c"]),
        ('u,i,t\n0,1,"p, q"\n1,2,"a\n3,4,b"\n5,6,c\n', ["p, q", "a\n3,4,b", "c"]),
        ('u,i,t\n1,2,"Weird Al\n3,4,"Hello, Dolly"\n5,6,c', ['"Weird Al', "Hello, Dolly", "c"]),
        ('u,i,t\n1,2,"Weird Al" Yankovic\n3,4,x\n', ['"Weird Al" Yankovic', "x"]),
        ('u,i,t\n1,2,""\n3,4,""""\n5,6,"a"', ["", '"', "a"]),
        ('u,i,t\n1,2,"a\rb"\r3,4,c\r', ["a\rb", "c"]),
        ("u,i,t\n1,2,a\r3,4,b\n5,6,c\r\n", ["a", "b", "c"]),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t", "::"])
def test_quotes_and_line_ends(text, rows, delimiter, tmp_path):
    text = text.replace("u,i", "user_id,item_id", 1).replace(",", delimiter)
    path = write(tmp_path, text)
    log = read_log(path, format="csv", delimiter=delimiter)
    assert log.frame["t"].to_list() == [row.replace(",", delimiter) for row in rows]
    assert prepare(path, tmp_path / "out", format="csv", delimiter=delimiter).events == len(rows)


def logs_of_one_time(times, tmp_path):
    return [
        write(tmp_path, f"user_id,item_id,time\n1,2,{time}\n1,3,{time}\n", f"{i}.csv")
        for i, time in enumerate(times)
    ]


@pytest.mark.parametrize("other", ["1580428800", "2020-01-31", "31 Jan 2020", "20200131"])
@pytest.mark.parametrize("order", [1, -1])
def test_files_may_write_times_differently_where_each_can_only_be_a_time(other, order, tmp_path):
    paths = logs_of_one_time(["2020-01-31", other][::order], tmp_path)
    sequences = read_log(paths).sequences()
    assert sequences.times.tolist() == 4 * [1580428800]
    assert_same(prepare(paths, tmp_path / "out"), sequences)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["20200131", "1580428800"], "some times are dates such as 20200131, others are seconds"),
        (["1580428800000", "1580428800"], "expected all times in one unit"),
        (["2020-01-31", "7"], "some times are dates, others numbers such as 7"),
    ],
)
def test_times_that_may_be_in_several_notations_are_refused(times, message, tmp_path):
    """Else one file would be in 1970."""
    assert_refused(logs_of_one_time(times, tmp_path), message, tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_ids_that_are_numbers_in_one_file_and_text_in_another_are_text(kind, tmp_path):
    paths = [tmp_path / f"{i}.{kind}" for i in range(2)]
    for path, items in zip(paths, ([1, 2], ["2", "x"])):
        frame = pl.DataFrame({"user_id": [7, 7], "item_id": items})
        frame.write_ndjson(path) if kind == "jsonl" else frame.write_parquet(path)
    log = read_log(paths)
    assert log.frame["item_id"].to_list() == ["1", "2", "2", "x"]
    assert_same(prepare(paths, tmp_path / "out"), log.sequences())


def test_features_have_one_type_whatever_the_file_that_they_are_in(tmp_path):
    paths = [
        write(tmp_path, f"user_id,item_id,size\n1,2,{size}\n", f"{i}.csv")
        for i, size in enumerate(["1.50", "02", "x"])
    ]
    assert read_log(paths).frame["size"].to_list() == ["1.50", "02", "x"]
    assert read_log(paths[:1]).frame["size"].to_list() == [1.5]


def packed(rows: bytes) -> bytes:
    return gzip.compress(b"user_id,item_id\n" + rows, 6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"PK\x03\x04rest", "Got a zip archive or an Excel workbook. Unpack it"),
        ("log.xlsx", b"PK\x03\x04rest", "Got a zip archive or an Excel workbook. Unpack it"),
        ("log.csv.bz2", b"BZh91AY", "Got a bzip2 archive"),
        ("log.csv", b"PAR1rest", "expected text. Got a Parquet file"),
        ("log.txt", b'[{"user_id": 1}]', "Got what looks like one JSON array"),
        ("log.json", b'{"user_id": 1, "x": "' + 70_000 * b"y" + b'"}', "no column for item_id"),
        ("log.jsonl", b'{"user_id": 1, "item_id": 2}\n[1]\n', "row 2: expected a JSON object"),
        ("log.jsonl", b'{"user_id": 1, "item_id": 2}\n3\n', "row 2: expected a JSON object"),
        ("log.jsonl", b'{"user_id": 1, "item_id": 2}\n' + 99_999 * b"[", "row 2: not valid JSON"),
        ("log.csv", b"user_id,item_id\n1,\0\n", "line 2: a NUL byte"),
        ("log.csv", b"user_id,item_id\n1,2\n" + 70_000_000 * b"x", "a line of more than 64 MiB"),
        ("log.csv", b"a" * 100_000 + b",b\n1,2\n", "no column for user_id"),
        ("log.csv", b",".join(b"c%d" % i for i in range(50_000)) + b"\n1,2\n", "no column for user_id"),
        ("log.csv", b"user_id,item_id,time\n1,2," + b"9" * 100_000, "row 1, column 'time'"),
        ("log.csv", lambda: packed(17_000_000 * b"1,2\n"), "unpacks to more than 250"),
        ("log.csv", lambda: packed(70_000_000 * b"1"), "unpacks to more than 250|64 MiB"),
        ("log.csv", b"", "the file is empty"),
        ("log.csv", b" \n\t\n", "the file is empty"),
        ("log.csv", b"user_id,item_id\n\n", "a header but no events"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(name, content, message, tmp_path):
    content = content() if callable(content) else content
    assert_refused(write(tmp_path, content, name), message, tmp_path)


@pytest.mark.parametrize(
    "content", [b'{"a": 1}', json.dumps({f"film {i}": i for i in range(10_000)}).encode()]
)
def test_a_dictionary_is_no_table_of_attributes(content, tmp_path):
    log = write(tmp_path, "user_id,item_id\n1,2\n")
    table = write(tmp_path, content, "items.json")
    with pytest.raises(DataError, match=r"items\.json: no column for item_id") as refusal:
        read_log(log, items=table)
    assert len(str(refusal.value)) < 1500


def test_tables_of_attributes_are_read_strictly_too(tmp_path):
    log = write(tmp_path, "user_id,item_id\n" + "".join(f"u,i{i}\n" for i in range(30)))
    text = (CASES / "strayquotes.csv").read_text()
    table = write(tmp_path, "\n".join(line.split(",", 1)[1] for line in text.splitlines()), "films.csv")
    assert read_log(log, items=table).items["title"][4:6].to_list() == ['"Weird Al', "film 5"]


TIMES = "expected seconds since 1970 or"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "user_id",
            pa.array([Decimal(1)], pa.decimal128(38)),
            "expected integers or strings as ids. Got Dec",
        ),
        ("user_id", pa.array([[1]]), "expected integers or strings as ids. Got List"),
        ("user_id", pa.array([{"a": 1}]), "expected integers or strings as ids. Got Struct"),
        ("user_id", pa.array(["a"]).dictionary_encode(), None),
        ("timestamp", pa.array(["2020-01-01"]).dictionary_encode(), None),
        ("timestamp", pa.array(["27/04/2020"]).dictionary_encode(), None),
        ("timestamp", pa.array([b"1"]), f"{TIMES} dates. Got Binary"),
        ("timestamp", pa.array([-(2**62)], pa.timestamp("ms")), f"{TIMES} an ISO date .* Got -46116"),
        (
            "timestamp",
            pa.array([-63_000_000_000], pa.timestamp("s")),
            "expected a time since 1970. Got -63",
        ),
        ("timestamp", pa.array([563_000_000_000], pa.timestamp("s")), f"{TIMES} an ISO date .* Got 56300"),
        ("timestamp", pa.array([2**31 - 1], pa.date32()), f"{TIMES} an ISO date .* Got 2147483647"),
        ("timestamp", pa.array([float("inf")]), f"{TIMES} an ISO date .* Got inf"),
        ("position", pa.array([[1]]), "expected numbers. Got List"),
        ("rating", pa.array([{"a": 1}]), "expected numbers. Got Struct"),
        ("rating", pa.array(["1"]).dictionary_encode(), None),
        ("x", pa.array([{"a": [1]}]), None),
        ("x", pa.array([Decimal(1)], pa.decimal256(50)), "expected numbers of at most 38 digits"),
    ],
)
def test_parquet_of_unusual_types(name, values, message, tmp_path):
    path = tmp_path / "log.parquet"
    columns = {"user_id": pa.array([1]), "item_id": pa.array([2])} | {name: values}
    pyarrow.parquet.write_table(pa.table(columns), path)
    if message is None:
        assert len(read_log(path)) == prepare(path, tmp_path / "out").events == 1
    else:
        assert_refused(path, f"column '{name}': {message}", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user_id": 18446744073709551615, "item_id": 1}', "column 'user_id': an id exceeds 2\\^63"),
        ('{"user_id": "\\ud800", "item_id": 1}', "half of a surrogate pair"),
        ('{"user_id": 1, "item_id": 1, "rating": 1e400}', "cannot be parsed"),
        ('{"user_id": 1, "item_id": 1}{"user_id": 2, "item_id": 1}', "not valid JSON"),
        ('{"user_id": [1], "item_id": 1}', None),
    ],
)
def test_json_of_unusual_values(line, message, tmp_path):
    path = write(tmp_path, '{"user_id": 1, "item_id": 1}\n' + line + "\n", "log.jsonl")
    assert_refused(path, f"row 2.*{message}" if message else "log.jsonl", tmp_path)


def test_a_file_that_quotes_everything_quotes_missing_numbers_too(tmp_path):
    path = write(tmp_path, '"user_id","item_id","rating"\n"1","2",""\n"1","NA","4"\n')
    assert read_log(path).frame.rows() == [(1, "2", None), (1, "NA", 4.0)]
