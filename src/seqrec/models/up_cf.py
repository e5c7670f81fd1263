"""UP-CF@r: how often users like this one take an item, of late.

Faggioli, Polato, Aiolli: Recency Aware Collaborative Filtering for Next Basket Recommendation, UMAP 2020.

    p(v, j)      = baskets with j among the last r of v / min(r, baskets of v)      user-wise popularity
    w(u, v)      = |I_u and I_v| / (|I_u|^alpha |I_v|^(1 - alpha))                  asymmetric cosine
    score(j | u) = sum_v w(u, v)^q p(v, j)                                          (section 4)

I_u are all items that u ever had. The sum is over u itself, with w = 1, and the ``neighbours`` most similar
other users, by their training histories. (The paper's is over all users; its code cuts it, too.)

Of our own: popularity, scaled far below, orders what none of them had. In a log without baskets each event is
one.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from seqrec.data.baskets import Entries, entries_of
from seqrec.data.query import Query
from seqrec.models.item_knn import FAR_BELOW, sparse
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.models.tifu_knn import by_row_and_column, training_histories
from seqrec.scoring import largest
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


class UPCFSettings(Settings):
    """Hyperparameters of ``up_cf``."""

    recent: int | None = Field(None, ge=1, le=1_000_000)
    """Baskets of a user that count for what they take, from the end (r); None: all."""
    asymmetry: float = Field(0.25, ge=0, le=1)
    """How much of the similarity is over this user's items (alpha), and not the other's."""
    locality: float = Field(10.0, gt=0, le=100)
    """Power of the similarity (q): the higher, the more only the most similar count."""
    neighbours: int = Field(1000, ge=1, le=2**31 - 1)
    """Most similar users that count."""


class UPCF(Model):
    name = "up_cf"
    Settings = UPCFSettings
    reads_baskets = True
    counts_occurrences = True

    def _popularities(self, entries: Entries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """p of the rows: (entries,) row, item and value, in order of (row, item), 0 for items of old."""
        items = len(self.popularity)
        recent = entries if self.settings.recent is None else entries.recent(self.settings.recent)
        pair = np.unique(entries.row * items + entries.item)
        number = np.searchsorted(pair, recent.row * items + recent.item)
        values = np.bincount(number, 1 / recent.counts[recent.row], minlength=len(pair))
        return pair // items, pair % items, values.astype(np.float32)

    def fit_split(self, split: Split, on: FitOptions) -> None:
        items = len(split.sequences.item_catalogue)
        self.popularity = shares(split.sequences.items[liked_events(split)], items)
        row, item, value = self._popularities(entries_of(training_histories(split)))
        users, row = np.unique(row, return_inverse=True)  # those with any event
        state = {"popularity": self.popularity, "users": users.astype(np.int32), "value": value}
        state |= {"row": row.astype(np.int32), "item": item.astype(np.int32)}
        self.load_state(state, items, split.sequences.users)

    @torch.no_grad()
    def score(self, query: Query) -> torch.Tensor:
        s, users = self.settings, len(self.users)
        row, item, value = self._popularities(entries_of(query))
        shape = (len(query), len(self.popularity))
        own = sparse(row, item, value, shape).to_dense()
        had = sparse(row, item, np.ones(len(row)), shape).to_dense()
        sizes = had.sum(1).clamp(min=1)
        # (queries, users)
        common = (self.had @ had.T.contiguous()).T
        similarity = common / (sizes[:, None] ** s.asymmetry * self.sizes ** (1 - s.asymmetry))
        if query.users is not None and users:
            at = np.minimum(np.searchsorted(self.users, query.users), users - 1)
            known = np.flatnonzero(self.users[at] == query.users)
            similarity[known, at[known]] = 0  # as they are now they count below
        weights = (
            similarity if s.neighbours >= users else _only_largest(similarity, s.neighbours)
        ) ** s.locality
        others = (self.transposed @ weights.T.contiguous()).T
        scores: torch.Tensor = own + others
        return scores + FAR_BELOW * torch.from_numpy(self.popularity)

    def state(self) -> dict[str, np.ndarray]:
        return {"popularity": self.popularity, "users": self.users, **self.entries}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = artifact.floats_of(state, "popularity", items)
        self.users = artifact.indices_of(state, "users", users)
        row = artifact.indices_of(state, "row", len(self.users))
        item = artifact.indices_of(state, "item", items, len(row))
        value = artifact.floats_of(state, "value", len(row))
        self.entries = {"row": row, "item": item, "value": value}
        shape = (len(self.users), items)
        self.had, _ = by_row_and_column(row, item, np.ones(len(row)), shape)
        _, self.transposed = by_row_and_column(row, item, value, shape)
        sizes = np.bincount(row, minlength=len(self.users)).clip(min=1)
        self.sizes = torch.from_numpy(sizes.astype(np.float32))


def _only_largest(similarity: torch.Tensor, k: int) -> torch.Tensor:
    """(rows, users) similarities, all but the k largest of each row 0."""
    values, columns = largest(similarity.contiguous(), k)
    return torch.zeros_like(similarity).scatter_(1, columns, values)
