"""Logs prepared as streams: the same sequences as reading them whole gives."""

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_logs import as_lists, assert_same, canonical_text, logs, write, write_as

from seqrec import read_log
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.sources.preparing import prepare


@settings(max_examples=40, deadline=None)
@given(
    frame=logs().filter(canonical_text),
    kind=st.sampled_from(["csv", "parquet", "jsonl"]),
    duplicates=st.sampled_from(["keep", "drop"]),
    least=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    tie_order=st.sampled_from(["file", "random"]),
    basket=st.sampled_from([None, None, "same_time", "same_day"]),
    rows=st.sampled_from([3, 1 << 20]),
    cold_items=st.booleans(),
)
def test_streaming_gives_what_reading_gives(
    frame, kind, duplicates, least, tie_order, basket, rows, cold_items, tmp_path_factory
):
    """The log in one file, or in files of three rows."""
    folder = tmp_path_factory.mktemp("log")
    paths = []
    for first in range(0, len(frame), rows):
        (folder / f"{first}").mkdir()
        paths.append(write_as(frame[first : first + rows], kind, folder / f"{first}"))
    about = pl.DataFrame({"item_id": frame["item_id"].unique(), "n": range(frame["item_id"].n_unique())})
    options = {
        "duplicates": duplicates,
        "min_item_count": least[0],
        "min_user_count": least[1],
        "tie_order": tie_order,
        "seed": 3,
        "basket": basket,
        "cold_items": cold_items,
    }
    try:
        log = read_log(paths, duplicates=duplicates, items=about)
        expected = log.filter(*least).sequences(tie_order, 3, basket=basket, cold_items=cold_items)
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            prepare(paths, folder / "out", items=about, **options)
        return
    assert_same(prepare(paths, folder / "out", items=about, **options), expected)
    assert_same(Sequences.load(folder / "out"), expected)


def test_prepare_reads_the_formats_of_data_sets_too(tmp_path):
    path = write(tmp_path, "7 3 1\n9 1 3 3\n", "log.txt")
    assert as_lists(prepare(path, tmp_path / "out")) == {
        7: [(3, None), (1, None)],
        9: [(1, None), (3, None), (3, None)],
    }
