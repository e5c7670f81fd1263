"""Models that compare a vector of each history with one of each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from seqrec.data.query import Query
from seqrec.topk import Known, TopK


@dataclass(frozen=True)
class ItemVectors:
    """What states are compared with: score(j | history) = state . vectors[j] + bias[j].

    Attributes:
        vectors: (items, width) float32.
        bias: (items,) float32, or None where there is none.
    """

    vectors: np.ndarray
    bias: np.ndarray | None = None

    @classmethod
    def of(cls, table: np.ndarray, width: int) -> ItemVectors:
        """Those of a table, (items, width) or with the bias as one column more."""
        return cls(table[:, :width], table[:, width] if table.shape[1] > width else None)


class Embeds(Known, Protocol):
    """A model with a vector for each item and one for each history; or with neighbours of its own."""

    def nearest(self, items: np.ndarray, k: int, by: str) -> TopK:
        """The k items nearest to each of (n,) items, which are never their own neighbours."""
        ...

    def vectors(self) -> ItemVectors:
        """Those of all items."""
        ...

    def state_vectors(self, query: Query) -> np.ndarray:
        """(queries, width) float32 state after each history."""
        ...
