"""Scores of items after histories, and the best of them: written once, for evaluation and recommending.

Whatever scores histories is a ``Scorer``: a trained model, or an encoder in the middle of its training. It
gives scores a block of items at a time, so that memory does not grow with the catalogue:

    items       0 ........ 8191 | 8192 .... 16383 | 16384 ...
    rows        [   block 0     ] [   block 1     ] [  ...        a few queries at a time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.errors import TrainingError
from seqrec.topk import Filter, TopK, distinct_seen

ROWS = 512
"""Queries scored at once: of 3,416 items these are 7 MB of scores."""
CELLS = 1 << 22
"""Scores alive at once, about: 16 MB."""
GROUP = 32
"""Items that are looked at together where most are not good enough."""
MANY = 1 << 16
"""Items from which on looking at groups first is faster, for k of up to a hundredth of them."""


@dataclass(frozen=True)
class Scores:
    """Scores of a few queries, computed when they are asked for.

    Attributes:
        rows: (n,) which queries of those asked.
        query: these queries.
        edges: where each block of items begins, and where the last one ends.
        block: of ``(begin, end)``, two neighbouring edges, (n, end - begin) float32 scores that belong to the
            caller. Asked again, it gives the same numbers.
    """

    rows: np.ndarray
    query: Query
    edges: Sequence[int]
    block: Callable[[int, int], Tensor]

    @property
    def items(self) -> int:
        """How many items there are."""
        return self.edges[-1]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """The first item of each block, and the one after its last."""
        return list(pairwise(self.edges))

    @classmethod
    def whole(cls, rows: np.ndarray, query: Query, scores: Tensor) -> Scores:
        """Scores that are there already, (n, items), as one block."""
        return cls(rows, query, (0, scores.shape[1]), lambda begin, end: scores[:, begin:end].clone())


class Scorer(Protocol):
    """Gives a score to every item as the next one."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        """Scores of at most that many histories at a time, each once, ones of like length together."""
        ...

    def numbering(self) -> dict[str, Catalogue | None]:
        """What its indices of items and users stand for; None: those of whoever asks."""
        ...


class Seen:
    """The items of the histories of a few queries, once each."""

    def __init__(self, query: Query, device: torch.device):
        row, item = distinct_seen(query)
        self.last = int(item.max(initial=-1))
        self.row, self.item = (torch.from_numpy(x).to(device) for x in (row, item))

    def within(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """(pairs,) row and (pairs,) column, counted from ``begin``, of the items in ``[begin, end)``."""
        if begin == 0 and self.last < end:
            return self.row, self.item
        inside = (self.item >= begin) & (self.item < end)
        return self.row[inside], self.item[inside] - begin


class Best:
    """The k best items of some rows so far, while blocks of scores come by in the order of the items."""

    def __init__(self, k: int):
        self.k = k
        self.scores: Tensor | None = None
        self.items: Tensor | None = None

    def add(self, block: Tensor, begin: int) -> None:
        """Looks at (rows, width) scores of the items from ``begin`` on."""
        if self.scores is None or self.items is None:
            self.scores, found = largest(block, self.k)
            self.items = found + begin
        elif self.scores.shape[1] < self.k:
            scores, found = largest(block, self.k)
            self._merge(torch.arange(len(block), device=block.device), scores, found + begin)
        else:
            self._add_better(block, begin, self.scores[:, -1:])

    def _add_better(self, block: Tensor, begin: int, least: Tensor) -> None:
        """Looks only at groups of items of which one is better than the k-th so far, (rows, 1): soon there
        are few. An equal score further down the catalogue changes nothing."""
        width = block.shape[1]
        if width % GROUP:
            block = F.pad(block, (0, -width % GROUP), value=-torch.inf)
        groups = block.view(len(block), -1, GROUP)
        highest = groups.amax(2)
        better = (~(highest <= least)).sum(1)  # and so is what is no number, which shall be found
        rows = better.nonzero().squeeze(1)
        if not len(rows):
            return
        chosen = largest(highest[rows], int(better.max()))[1].sort(1).values
        scores, at = largest(groups[rows[:, None], chosen].flatten(1), self.k)
        items = chosen.gather(1, at // GROUP) * GROUP + at % GROUP
        self._merge(rows, scores, items + begin)

    def _merge(self, rows: Tensor, scores: Tensor, items: Tensor) -> None:
        assert self.scores is not None
        assert self.items is not None
        scores = torch.cat([self.scores[rows], scores], 1)
        items = torch.cat([self.items[rows], items], 1)
        # Stable: of equals the earlier block's come first, which have the smaller indices.
        scores, order = torch.sort(scores, dim=1, descending=True, stable=True)
        scores, items = scores[:, : self.k], items.gather(1, order)[:, : self.k]
        if len(rows) == len(self.scores):
            self.scores, self.items = scores, items
        else:
            self.scores[rows], self.items[rows] = scores, items

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, k) items, -1 where there is none, and (rows, k) their scores."""
        assert self.scores is not None
        assert self.items is not None
        scores = self.scores.cpu().numpy()
        return np.where(np.isneginf(scores), -1, self.items.cpu().numpy()), scores


def best(scorer: Scorer, query: Query, k: int, filter: Filter | None = None, rows: int = ROWS) -> TopK:
    """The k best items after each history.

    Args:
        k: fewer, where the catalogue has fewer.
        filter: what may be recommended; by default what is not in the history.
        rows: histories scored at once, at most.

    Raises:
        TrainingError: a score is not a number.
    """
    filter = filter or Filter()
    items, scores = np.full((len(query), 0), -1, dtype=np.int64), np.zeros((len(query), 0), dtype=np.float32)
    refused: np.ndarray | None = None
    for some in scorer.score_blocks(query, rows):
        if not items.shape[1]:
            width = min(k, some.items)
            items = np.full((len(query), width), -1, dtype=np.int64)
            scores = np.full((len(query), width), -np.inf, dtype=np.float32)
            refused = filter.refused(some.items)
        top, seen = Best(items.shape[1]), None
        for begin, end in some.blocks:
            if refused is not None and end < some.items and refused[begin:end].all():
                continue  # but for the last block: there is always one
            block = some.block(begin, end)
            if refused is not None:
                block.masked_fill_(torch.from_numpy(refused[begin:end]).to(block.device), -torch.inf)
            if filter.seen:
                seen = seen or Seen(some.query, block.device)
                block[seen.within(begin, end)] = -torch.inf
            top.add(block, begin)
        found, values = top.found()
        if np.isnan(values[:, :1]).any():  # which counts as the largest of all
            raise diverged(scorer.name)
        items[some.rows, : found.shape[1]] = found
        scores[some.rows, : found.shape[1]] = values
    return TopK(items, scores)


def diverged(name: str) -> TrainingError:
    """The error for scores that are not numbers."""
    return TrainingError(
        f"{name}: scores are not finite. The model has diverged; train it with a lower learning rate."
    )


def numbers(block: Tensor, name: str) -> Tensor:
    """The scores themselves, (rows, items).

    Raises:
        TrainingError: one is not a number.
    """
    if torch.isnan(block.amax()):  # the largest of anything with NaN in it is NaN
        raise diverged(name)
    return block


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(rows, k) highest scores, best first, and (rows, k) their columns; equal scores by ascending column.
    Fewer than k where there are fewer columns."""
    k = min(k, scores.shape[1])
    found = _of_groups(scores, k) if scores.shape[1] >= max(MANY, 100 * k) else None
    return found or _sorted(scores, k)


def _of_groups(scores: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """``largest``, looking only at groups of columns whose highest score is among the k highest of groups,
    and in those only at scores as high as the least of these: k groups have one, so no other is among the k
    largest. None where many scores are equal."""
    rows, whole = len(scores), scores.shape[1] // GROUP * GROUP
    groups, rest = scores[:, :whole].reshape(rows, -1, GROUP), scores[:, whole:]
    highest = groups.amax(2)
    least = torch.topk(highest, k).values[:, -1:]
    row, group = (~(highest < least)).nonzero(as_tuple=True)  # and what is no number, which shall be found
    if len(row) > (2 * k + GROUP) * rows:
        return None
    some = groups[row, group]
    entry, within = (~(some < least[row])).nonzero(as_tuple=True)
    row_of_rest, column_of_rest = (~(rest < least)).nonzero(as_tuple=True)
    if len(entry) + len(row_of_rest) > (4 * k + GROUP) * rows:
        return None
    values = torch.cat([some[entry, within], rest[row_of_rest, column_of_rest]])
    row = torch.cat([row[entry], row_of_rest])
    columns = torch.cat([group[entry] * GROUP + within, column_of_rest + whole])
    # In order of (row, column) but for the rest, whose columns are the last: stable sorts keep equals so.
    values, order = values.sort(descending=True, stable=True)
    row, by_row = row[order].sort(stable=True)
    ends = torch.bincount(row, minlength=rows).cumsum(0)
    first = torch.cat([ends.new_zeros(1), ends[:-1]])
    kept = by_row[first[:, None] + torch.arange(k, device=scores.device)]
    return values[kept], columns[order][kept]


def _sorted(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``largest`` by sorting some of each row, or all where equals are many."""
    values, best = torch.topk(scores, min(k + 16, scores.shape[1]))
    if (values[:, 1:] < values[:, :-1]).all():  # no equals, no question
        return values[:, :k], best[:, :k]
    # topk orders equals arbitrarily: sort the candidates by (score down, index up).
    by_index = torch.argsort(best, dim=1)
    values, best = values.gather(1, by_index), best.gather(1, by_index)
    by_score = torch.argsort(values, dim=1, descending=True, stable=True)
    values, best = values.gather(1, by_score), best.gather(1, by_score)
    # Where the k-th score goes on to the last candidate, items of that score may be missing: such rows are
    # sorted whole.
    cut = values[:, k - 1] == values[:, -1]
    if values.shape[1] < scores.shape[1] and cut.any():
        values, best = values[:, :k].contiguous(), best[:, :k].contiguous()
        ordered = torch.sort(scores[cut], dim=1, descending=True, stable=True)
        values[cut], best[cut] = ordered.values[:, :k], ordered.indices[:, :k]
    return values[:, :k], best[:, :k]
