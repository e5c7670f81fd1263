"""What is recommended: which items may be, which were found, and who finds them.

Nothing here computes a score, so that who only asks (a service that runs an exported model, say) needs no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences


@dataclass(frozen=True)
class Filter:
    """Which items may be recommended.

    Attributes:
        seen: leave out what is in the history, all of it.
        allow: (n,) item indices: only these; None: all.
        deny: (n,) item indices: none of these; it wins over ``allow``.
    """

    seen: bool = True
    allow: np.ndarray | None = None
    deny: np.ndarray | None = None

    def without(self, items: np.ndarray) -> Filter:
        """The same, and none of these either, (n,) indices."""
        if not len(items):
            return self
        return replace(self, deny=items if self.deny is None else np.concatenate([self.deny, items]))

    def refused(self, items: int) -> np.ndarray | None:
        """(items,) bool, True for items that nobody may get, whatever the history; None: there are none."""
        if self.allow is None and self.deny is None:
            return None
        refused = np.full(items, self.allow is not None)
        if self.allow is not None:
            refused[self.allow] = False
        if self.deny is not None:
            refused[self.deny] = True
        return refused


@dataclass(frozen=True)
class TopK:
    """The best items of n queries.

    Attributes:
        items: (n, k) int64 indices, best first, equal scores by ascending index; -1 where fewer are left.
        scores: (n, k) float32, -inf where there is no item.
    """

    items: np.ndarray
    scores: np.ndarray


class Known(Protocol):
    """Whoever recommends: it knows raw ids, and perhaps its users' histories.

    Attributes:
        item_catalogue: its items; None before training.
        sequences: its users' events; None where they are not kept.
        known_stops: (users,) where the history of each ends in them, before any held-out event.
        known_times: (users,) seconds since 1970 of the last event of each history, -inf where there is none;
            None where times are not known.
        reads_baskets: whether it reads which items of a history were taken together.
        reads_times: whether it reads when they were taken, and the moment that is asked about.
    """

    reads_baskets: bool
    reads_times: bool
    item_catalogue: Catalogue | None
    sequences: Sequences | None
    known_stops: np.ndarray | None
    known_times: np.ndarray | None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def needs_baskets(self) -> bool:
        """Whether it was trained on baskets and reads them, so that items alone do not say enough."""
        ...

    @property
    def unlearned(self) -> np.ndarray:
        """(n,) int64 items of which it has learned nothing, and which it never recommends."""
        ...

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool, False where nothing is known of a query, so that it gets the most popular items:
        its history is empty, and no vector of its user was trained."""
        ...

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        """The k best items after each history; fewer, where the catalogue has fewer."""
        ...


def distinct_seen(query: Query) -> tuple[np.ndarray, np.ndarray]:
    """Which items each history contains, once each: (pairs,) row and (pairs,) item, in that order."""
    lengths = query.lengths
    row = np.repeat(np.arange(len(query)), lengths)
    at = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = query.events.items[at + np.repeat(query.starts, lengths)]
    span = int(items.max(initial=0)) + 1
    pairs = np.sort(row.astype(np.int64) * span + items)  # np.unique takes many times as long
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return pairs // span, pairs % span


class BestSoFar:
    """The k best items of n rows, while blocks of their scores come by in the order of the items.

    Attributes:
        items: (n, k) int64, best first, equal scores by ascending index; -1 where fewer were above -inf.
        scores: (n, k) float32, -inf where there is no item.
    """

    def __init__(self, n: int, k: int):
        self.items = np.full((n, k), -1, dtype=np.int64)
        self.scores = np.full((n, k), -np.inf, dtype=np.float32)

    def add(self, block: np.ndarray, begin: int) -> None:
        """Looks at (n, width) scores of the items from ``begin`` on."""
        k, least = self.items.shape[1], self.scores[:, -1:]
        better = block > least  # an equal score further down the catalogue changes nothing
        if np.count_nonzero(better) > 4 * block.shape[0] * k and block.shape[1] > k:
            # many are better, as all are at first: only those among the block's own best are worth sorting
            better &= block >= _at_most_the_kth(block, k)
        row, column = np.nonzero(better)
        if not len(row):
            return
        rows = np.unique(row)
        again = np.repeat(rows, k)
        at = np.concatenate([again, row])
        scores = np.concatenate([self.scores[rows].ravel(), block[row, column]])
        items = np.concatenate([self.items[rows].ravel(), column + begin])
        # stable: of equals those found before come first, and those of the block are in ascending order
        order = np.lexsort((-scores, at))
        first = np.searchsorted(at[order], rows)
        best = order[(first[:, None] + np.arange(k)).ravel()].reshape(-1, k)
        self.scores[rows], self.items[rows] = scores[best], items[best]

    def found(self) -> TopK:
        """What is best of all that came by."""
        return TopK(self.items, self.scores)


def _at_most_the_kth(block: np.ndarray, k: int) -> np.ndarray:
    """(n, 1) a score of each row that at least k of its (n, width) scores reach, and few more: the k-th of
    the highest of groups."""
    n, width = block.shape
    size = max(1, min(32, width // (4 * k)))
    groups = width // size
    highest = block[:, : size * groups].reshape(n, size, groups).max(1) if size > 1 else block
    return np.partition(highest, -k, axis=1)[:, -k, None]
