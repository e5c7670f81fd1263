"""Baskets: which of a user's events were taken together.

A basket is a run of neighbouring events of one user with one number. The order of the events in it means
nothing. In a log without baskets each event is one by itself.

    events     a b | c | d e f            baskets of the user: {a, b}, {c}, {d, e, f}
    numbers    4 4   7   5 5 5
    starts     0     2   3
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from seqrec.data.query import Query
from seqrec.errors import DataError

Derived = Literal["same_time", "same_day"]
"""Which of a user's events are a basket, where the log has none: those of one moment, or of one day (UTC)."""
DAY = 86_400  # seconds


def derived(times: np.ndarray | None, how: Derived) -> np.ndarray:
    """(events,) int64 numbers of baskets by the events' times, in seconds since 1970.

    Args:
        times: (events,) of each user in order; two users may share a number.

    Raises:
        DataError: there are no times, or another way than these two.
    """
    if how not in ("same_time", "same_day"):
        raise DataError(f"basket: expected 'same_time' or 'same_day'. Got {how!r}.")
    if times is None:
        raise DataError(
            f"basket: {how} makes baskets of events by their times. Got a log without times. Leave it out, "
            "or name a column of baskets (basket_id)."
        )
    moment = np.floor(times / DAY) if how == "same_day" else times
    return np.cumsum(np.diff(moment, prepend=moment[:1]) != 0)


def starts_of(offsets: np.ndarray, baskets: np.ndarray | None) -> np.ndarray:
    """(baskets,) int64, the event at which each begins.

    Args:
        offsets: (users + 1,) where the events of each user begin.
        baskets: (events,) number of each event's; None: each event is one.
    """
    if baskets is None:
        return np.arange(int(offsets[-1]))
    new = np.ones(len(baskets), dtype=bool)
    new[1:] = baskets[1:] != baskets[:-1]
    new[offsets[:-1][np.diff(offsets) > 0]] = True
    return np.flatnonzero(new)


def gathered(offsets: np.ndarray, baskets: np.ndarray) -> np.ndarray | None:
    """The order in which the events of a basket are neighbours, (events,) int64; None if they are already. A
    basket stands where its first event does.

    Args:
        offsets: (users + 1,) where the events of each user begin.
        baskets: (events,) number of each event's.
    """
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    pair = user * (int(baskets.max(initial=0)) + 1) + baskets
    ordered = np.sort(pair)
    if np.count_nonzero(np.diff(ordered)) + (len(ordered) > 0) == len(starts_of(offsets, baskets)):
        return None
    _, first, number = np.unique(pair, return_index=True, return_inverse=True)
    return np.argsort(first[number], kind="stable")


@dataclass(frozen=True)
class Entries:
    """Which items are in which baskets of some histories, each item once a basket.

    Attributes:
        row: (entries,) int64 history, ascending.
        basket: (entries,) int64 number of the basket in its history: 0 is the first.
        item: (entries,) int64, ascending within a basket.
        counts: (rows,) int64 baskets of each history.
        times: (entries,) seconds since 1970, or None where they are not known.
    """

    row: np.ndarray
    basket: np.ndarray
    item: np.ndarray
    counts: np.ndarray
    times: np.ndarray | None = None

    @property
    def age(self) -> np.ndarray:
        """(entries,) int64 how many baskets of the history come after the entry's: 0 is the last."""
        ages: np.ndarray = self.counts[self.row] - 1 - self.basket
        return ages

    def recent(self, baskets: int) -> Entries:
        """The last baskets of each history, at most that many."""
        counts = np.minimum(self.counts, baskets)
        kept = self.age < baskets
        left_out = self.counts[self.row] - counts[self.row]
        times = None if self.times is None else self.times[kept]
        return Entries(self.row[kept], (self.basket - left_out)[kept], self.item[kept], counts, times)


def _laid_out(query: Query) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Histories end to end: (events,) row, event and number of the basket in its history; (rows,) counts."""
    lengths = query.lengths
    row = np.repeat(np.arange(len(query)), lengths)
    first = np.cumsum(lengths) - lengths
    event = np.arange(len(row)) + np.repeat(query.starts - first, lengths)
    new = np.ones(len(row), dtype=bool)
    if query.events.baskets is not None:
        number = query.events.baskets[event]
        new[1:] = number[1:] != number[:-1]
        new[first[lengths > 0]] = True
    running = np.concatenate([[0], np.cumsum(new)])
    counts = running[first + lengths] - running[first]
    return row, event, running[1:] - 1 - running[first][row], counts


def entries_of(query: Query) -> Entries:
    """The baskets of histories. Where the log has none, each event is one."""
    row, event, basket, counts = _laid_out(query)
    item = query.events.items[event].astype(np.int64)
    order = np.lexsort((item, basket, row))
    row, basket, item = row[order], basket[order], item[order]
    once = np.ones(len(row), dtype=bool)
    once[1:] = (np.diff(row) != 0) | (np.diff(basket) != 0) | (np.diff(item) != 0)
    times = None if query.events.times is None else query.events.times[event[order][once]]
    return Entries(row[once], basket[once], item[once], counts, times)


def begin_of_last(query: Query, baskets: int) -> np.ndarray:
    """(queries,) int64, the event at which the last baskets of each history begin, at most that many."""
    row, _, basket, counts = _laid_out(query)
    kept = basket >= counts[row] - baskets
    begin: np.ndarray = query.stops - np.bincount(row[kept], minlength=len(query))
    return begin
