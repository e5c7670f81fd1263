"""What users took in training, and when first: for negatives that shall be none of their own, and for losses
that leave out what the history has.

Each user's distinct items lie side by side in the order in which they were first taken, so that those of any
history are a range of them:

    events  5 3 5 7 | 2 2 4        taken  5 3 7 | 2 4        before the last 7: [5 3], before the 4: [2]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqrec.splitting.split import Split


@dataclass(frozen=True)
class Seen:
    """The distinct items of N histories.

    Attributes:
        taken: (n,) int64 items.
        begins, ends: (N,) int64: history i has the items ``taken[begins[i] : ends[i]]``.
        columns: (items,) int64 the column of each item where not all items have one, -1: none.
    """

    taken: Tensor
    begins: Tensor
    ends: Tensor
    columns: Tensor | None = None

    def leave_out(self, scores: Tensor, first: int) -> None:
        """Sets the scores of seen items to -inf, in place.

        Args:
            scores: (rows, columns), contiguous, of the histories from the ``first`` on.
        """
        rows, width = scores.shape
        begins = self.begins[first : first + rows]
        lengths = self.ends[first : first + rows] - begins
        row = torch.arange(0, rows * width, width, device=scores.device).repeat_interleave(lengths)
        shift = (begins - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
        column = self.taken.index_select(0, shift.add_(torch.arange(len(row), device=scores.device)))
        if self.columns is not None:
            column = self.columns.index_select(0, column)
            row, column = row[column >= 0], column[column >= 0]
        scores.view(-1).index_fill_(0, row.add_(column), -torch.inf)


class OwnItems:
    """The items of each user's own training events; of held-out events nothing is known.

    Attributes:
        positions: (users,) float32 targets of each user in an epoch.
    """

    def __init__(self, split: Split, device: torch.device):
        events = np.flatnonzero(split.train_events)
        users = np.searchsorted(split.sequences.offsets, events, side="right") - 1
        self.items = len(split.sequences.item_catalogue)
        # (n,) a number for each user and item of theirs, ascending, and the event that has it first
        pairs, first = np.unique(users * self.items + split.sequences.items[events], return_index=True)
        first = events[first]
        taken = np.sort(first)
        positions = np.maximum(split.train_stops - split.train_starts - 1, 0).astype(np.float32)
        self.pairs, self.first, self.positions, self._events, self._taken, self._offsets, self._begins = (
            torch.from_numpy(x).to(device)
            for x in (
                pairs,
                first,
                positions,
                taken,
                split.sequences.items[taken].astype(np.int64),
                split.sequences.offsets.astype(np.int64),
                np.searchsorted(taken, split.train_starts),
            )
        )
        self._columns = torch.full((self.items,), -1, device=device)
        self._with_columns = self._columns[:0]

    def users(self, events: Tensor) -> Tensor:
        """(N,) whose (N,) events are."""
        return torch.searchsorted(self._offsets, events, right=True) - 1

    def contain(self, users: Tensor, items: Tensor, before: Tensor | None = None) -> Tensor:
        """(N, M) bool: whether these (N, M) items are among those of the (N,) users, or among those that they
        took before (N,) events."""
        pairs = users[:, None] * self.items + items
        at = torch.searchsorted(self.pairs, pairs).clamp_(max=len(self.pairs) - 1)
        found = self.pairs.take(at) == pairs
        return found if before is None else found & (self.first.take(at) < before[:, None])

    def before(self, events: Tensor, distinct: Tensor | None = None) -> Seen:
        """The items that were taken before each of (N,) events by the same user.

        Args:
            distinct: (U,) the items that have a score; None: all. What is returned holds until the next call.
        """
        columns = None
        if distinct is not None:
            self._columns[self._with_columns] = -1
            self._columns[distinct] = torch.arange(len(distinct), device=distinct.device)
            self._with_columns, columns = distinct, self._columns
        ends = torch.searchsorted(self._events, events)
        return Seen(self._taken, self._begins[self.users(events)], ends, columns)
