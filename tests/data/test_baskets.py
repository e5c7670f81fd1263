"""Baskets against obvious ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec import Interactions
from seqrec.data.baskets import derived, entries_of, starts_of
from seqrec.data.query import Events, Query
from seqrec.errors import DataError

histories = st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=8), max_size=5)
"""Of each a list of (basket, item)."""


def query_of(rows: list[list[tuple[int, int]]], baskets: bool = True) -> Query:
    flat = np.array([e for row in rows for e in row], dtype=np.int64).reshape(-1, 2)
    stops = np.cumsum([len(row) for row in rows], dtype=np.int64)
    events = Events(flat[:, 1].astype(np.int32), baskets=flat[:, 0] if baskets else None)
    return Query(events, stops - np.array([len(row) for row in rows], dtype=np.int64), stops)


def runs(row: list[tuple[int, int]]) -> list[set[int]]:
    found: list[set[int]] = []
    last = None
    for basket, item in row:
        if basket != last:
            found.append(set())
        found[-1].add(item)
        last = basket
    return found


@given(histories, st.booleans(), st.integers(1, 3))
def test_entries_against_the_obvious(rows, baskets, recent):
    entries = entries_of(query_of(rows, baskets))
    expected = [runs(row) if baskets else [{item} for _, item in row] for row in rows]
    assert entries.counts.tolist() == [len(one) for one in expected]
    for some, kept in ((entries, expected), (entries.recent(recent), [one[-recent:] for one in expected])):
        told = list(zip(some.row.tolist(), some.basket.tolist(), some.item.tolist(), some.age.tolist()))
        assert told == [
            (row, number, item, len(one) - 1 - number)
            for row, one in enumerate(kept)
            for number, basket in enumerate(one)
            for item in sorted(basket)
        ]


@given(histories)
def test_starts_against_the_obvious(rows):
    query = query_of(rows)
    offsets = np.append(query.starts, query.events.items.size)
    lengths = [len(row) for row in rows]
    begins = [sum(lengths[:u]) + i for u, row in enumerate(rows) for i in range(len(row))]
    new = [i == 0 or row[i][0] != row[i - 1][0] for row in rows for i in range(len(row))]
    expected = [at for at, is_new in zip(begins, new) if is_new]
    assert starts_of(offsets, query.events.baskets).tolist() == expected
    assert starts_of(offsets, None).tolist() == begins


def test_of_one_time_or_one_day():
    day = 86_400
    times = np.array([5, 5, 6, day - 1, day, day + 0.5, 3 * day])
    assert derived(times, "same_time").tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert derived(times, "same_day").tolist() == [0, 0, 0, 0, 1, 1, 2]
    with pytest.raises(DataError, match="same_day makes baskets of events by their times"):
        derived(None, "same_day")
    with pytest.raises(DataError, match="basket: expected 'same_time' or 'same_day'"):
        derived(times, "week")


@pytest.mark.parametrize("tie_order", ["file", "random"])
def test_events_of_a_basket_become_neighbours(tie_order, caplog):
    """Two orders of one user on one day, written line by line in turns; and their two orders of the next."""
    frame = pl.DataFrame(
        {
            "user_id": [1] * 6 + [2],
            "item_id": list("abcdefa"),
            "timestamp": [5, 5, 5, 5, 9, 9, 5],
            "basket_id": ["x", "y", "x", "y", "z", "z", "x"],
        }
    )
    s = Interactions.from_frame(frame).sequences(tie_order=tie_order, seed=1)
    assert len(starts_of(s.offsets, s.baskets)) == 4
    baskets = {
        frozenset(s.item_catalogue.decode(part).to_list())
        for part in np.split(s.items, starts_of(s.offsets, s.baskets)[1:])
    }
    assert baskets == {frozenset("ac"), frozenset("bd"), frozenset("ef"), frozenset("a")}
    assert s.items[:4].tolist() == [0, 2, 1, 3] or tie_order == "random"
    assert s.times.tolist() == [5, 5, 5, 5, 9, 9, 5]
    assert "some baskets have events of others between theirs" in caplog.text
    of_days = Interactions.from_frame(frame).sequences(basket="same_day")
    assert len(starts_of(of_days.offsets, of_days.baskets)) == 2
