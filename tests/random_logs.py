"""Logs for tests: random ones, written in any format, and sequences in a plain form."""

import json

import numpy as np
import polars as pl
from hypothesis import strategies as st

from seqrec.data.sequences import COLUMNS

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
