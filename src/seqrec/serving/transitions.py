"""What usually comes after the last item, as numbers to add to a network's scores. No torch is needed.

    last item i of a history   ->   level[j] of every item j, and above[p] of the successors of i

See ``seqrec.models.prior``, which makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqrec.data.query import Query
from seqrec.serving import artifact


@dataclass(frozen=True)
class Transitions:
    """
    Attributes:
        level: (items,) float32 what each item gets after any history.
        offsets: (items + 1,) int64: the successors of item i are ``[offsets[i], offsets[i + 1])`` of the
            others.
        successors: (n,) int32 items.
        above: (n,) float32 what each gets more.
    """

    level: np.ndarray
    offsets: np.ndarray
    successors: np.ndarray
    above: np.ndarray

    def add(self, scores: np.ndarray, query: Query, begin: int = 0) -> None:
        """Adds them, in place.

        Args:
            scores: (queries, columns) float32, contiguous, of the items from ``begin`` on.
        """
        columns = scores.shape[1]
        scores += self.level[begin : begin + columns]
        events, known = query.recent(1)
        last = query.items(events, known)[:, 0]
        first = self.offsets[last]
        counts = (self.offsets[last + 1] - first) * known[:, 0]
        row = np.repeat(np.arange(len(last)), counts)
        at = np.arange(len(row)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        column = self.successors[at].astype(np.int64) - begin
        inside = (column >= 0) & (column < columns)
        # a successor stands once behind its item, so that none is added to twice
        scores.reshape(-1)[row[inside] * columns + column[inside]] += self.above[at[inside]]

    def arrays(self) -> dict[str, np.ndarray]:
        """Named arrays, (n,) each."""
        return {name: np.ascontiguousarray(value) for name, value in vars(self).items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], items: int) -> Transitions:
        """From what ``arrays`` gave.

        Args:
            arrays: (n,) each.

        Raises:
            DataError: the arrays are none of so many items.
        """
        successors = artifact.indices_of(arrays, "successors", items)
        return cls(
            artifact.floats_of(arrays, "level", items),
            artifact.offsets_of(arrays, "offsets", items, len(successors)),
            successors,
            artifact.floats_of(arrays, "above", len(successors)),
        )
