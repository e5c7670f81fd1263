"""What is asked: which item comes next after each of these histories, at this moment, for this user?

A query holds no answers. Histories are views of flat arrays: those of a whole log cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Events:
    """Flat events that histories point into.

    Attributes:
        items: (events,) int32 item indices.
        times: (events,) seconds since 1970, or None where only the order is known.
        baskets: (events,) int64 basket of each event, or None.
    """

    items: np.ndarray
    times: np.ndarray | None = None
    baskets: np.ndarray | None = None


@dataclass(frozen=True)
class Query:
    """n histories after which the next item is asked for.

    History i is ``events.items[starts[i] : stops[i]]``. Histories may overlap.

    Attributes:
        events: what the views point into.
        starts, stops: (n,) int64.
        users: (n,) int32 index of the user, -1 for one that is not in the log; None where nobody is known.
        asked_at: (n,) the moment each is asked for, in seconds since 1970; None where it is not known.
    """

    events: Events
    starts: np.ndarray
    stops: np.ndarray
    users: np.ndarray | None = None
    asked_at: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) events of each history."""
        lengths: np.ndarray = self.stops - self.starts
        return lengths

    def select(self, rows: np.ndarray) -> Query:
        """Some of them: (m,) indices or (n,) bool."""
        return Query(
            self.events,
            self.starts[rows],
            self.stops[rows],
            None if self.users is None else self.users[rows],
            None if self.asked_at is None else self.asked_at[rows],
        )

    def at(self, i: int) -> np.ndarray:
        """(length,) item indices of one history."""
        return self.events.items[self.starts[i] : self.stops[i]]

    def recent(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the last ``width`` events of each history are, latest first.

        Of ``[[1, 2, 3, 4, 5], [7]]`` width 3 gives the events of ``[[5, 4, 3], [7, -, -]]`` and the mask
        ``[[T, T, T], [T, F, F]]``.

        Returns:
            (n, width) int64 events, 0 where masked; (n, width) bool mask.
        """
        at = self.stops[:, None] - 1 - np.arange(width)
        mask = at >= self.starts[:, None]
        return np.where(mask, at, 0), mask

    def padded(self, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the last ``longest`` events of each history are, oldest first, padded on the right to the
        longest of them.

        Of ``[[1, 2, 3], [7]]`` it gives the events of ``[[1, 2, 3], [7, -, -]]`` and the mask ``[[T, T, T],
        [T, F, F]]``.

        Returns:
            (n, steps) int64 events, 0 where masked; (n, steps) bool mask, steps at least 1.
        """
        lengths = np.minimum(self.lengths, longest)
        steps = np.arange(max(1, int(lengths.max(initial=1))))
        mask = steps < lengths[:, None]
        return np.where(mask, (self.stops - lengths)[:, None] + steps, 0), mask

    def items(self, events: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The int64 items of events that ``recent`` or ``padded`` gave, 0 where masked."""
        items: np.ndarray = self.events.items[events].astype(np.int64) * mask
        return items

    @classmethod
    def from_lists(
        cls,
        lists: Sequence[np.ndarray],
        users: np.ndarray | None = None,
        baskets: Sequence[np.ndarray] | None = None,
        times: Sequence[np.ndarray] | None = None,
    ) -> Query:
        """Histories from item indices, one array each; and the numbers of their baskets and their times,
        where these are known."""
        lengths = np.fromiter((len(x) for x in lists), dtype=np.int64, count=len(lists))
        stops = np.cumsum(lengths)
        items = np.concatenate([*lists, np.zeros(1, np.int32)]).astype(np.int32)
        numbers = (
            None if baskets is None else np.concatenate([*baskets, np.zeros(1, np.int64)]).astype(np.int64)
        )
        moments = None if times is None else np.concatenate([*times, np.zeros(1)])
        return cls(Events(items, moments, numbers), stops - lengths, stops, users)
