"""Tables in batches: the same rows, however many are read at a time."""

import gzip

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_logs import logs, write, write_as

from seqrec.data import files
from seqrec.errors import DataError


@settings(max_examples=40, deadline=None)
@given(
    frame=logs(),
    kind=st.sampled_from(["csv", "tsv", "parquet", "jsonl"]),
    compress=st.booleans(),
    rows=st.integers(1, 4),
)
def test_any_number_of_rows_at_a_time_gives_the_same_table(frame, kind, compress, rows, tmp_path_factory):
    path = write_as(frame, kind, tmp_path_factory.mktemp("table"))
    if compress and kind != "parquet":
        path = write(path.parent, gzip.compress(path.read_bytes()), f"{path.name}.gz")
    parts = list(files.batches(path, kind, block=200, rows=rows))
    assert kind != "parquet" or max(map(len, parts)) <= rows
    assert pl.concat(parts, how="diagonal_relaxed").equals(files.read(path, kind))


@pytest.mark.parametrize(
    ("kind", "line", "bad", "message"),
    [
        ("csv", "u,i\n", "u\n", "row 50: expected 2 fields separated by ','. Got 1: 'u'"),
        ("jsonl", '{"user_id": 1, "item_id": 2}\n', "{\n", "row 50: not valid JSON"),
    ],
)
def test_a_bad_row_is_named_in_whichever_batch_it_is(tmp_path, kind, line, bad, message):
    text = ("user_id,item_id\n" if kind == "csv" else "") + 49 * line + bad + 9 * line
    with pytest.raises(DataError, match=message):
        list(files.batches(write(tmp_path, text, f"log.{kind}"), kind, block=64))
