"""TIFU-KNN: what the user takes often, of late most, and what users like them take.

Hu, He, Gao, Zhang: Modeling Personalized Item Frequency Information for Next-basket Recommendation, SIGIR
2020.

A user's baskets b_1 .. b_n (vectors of 0 and 1) are cut into m groups of neighbouring baskets, as many in
each as in any other or, in the later groups, one more. With fewer baskets than m each is a group.

    v_g    = sum_j r_b^(n - j) b_j / |g|                  over the baskets j of group g         (section 4.2)
    u      = sum_g r_g^(m - g) v_g / groups               g = m is the group of the last basket
    score  = a u + (1 - a) mean of u' over the k nearest users                                 (section 4.3)

Nearest is by Euclidean distance of these vectors, among the training histories of all users but the one who
is asked for.

Differences from the paper, both as in the authors' code: the decay r_b goes on over the whole history, where
the paper begins anew in each group; the groups of a user with n < m baskets count from the first on, so that
the last of them weighs r_g^(m - n), the vector is smaller, and the neighbours weigh more. Of our own:
popularity, scaled far below, orders what neither user nor neighbours had. In a log without baskets each event
is one.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from pydantic import Field

from seqrec.data.baskets import Entries, entries_of
from seqrec.data.query import Events, Query
from seqrec.models.item_knn import FAR_BELOW, sparse
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.scoring import largest
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


class TIFUKNNSettings(Settings):
    """Hyperparameters of ``tifu_knn``; by default those of the paper for Ta-Feng."""

    neighbours: int = Field(300, ge=1, le=2**31 - 1)
    """Nearest users (k)."""
    within_decay: float = Field(0.9, gt=0, le=1)
    """How much a basket counts beside the one after it (r_b)."""
    group_decay: float = Field(0.7, gt=0, le=1)
    """How much a group counts beside the one after it (r_g)."""
    personal: float = Field(0.7, ge=0, le=1)
    """How much the user counts beside the neighbours (a; the paper's alpha)."""
    groups: int = Field(7, ge=1, le=1_000_000)
    """Groups of baskets (m)."""


def training_histories(split: Split) -> Query:
    """The training events of each user, without those that are disliked, as histories."""
    s, liked = split.sequences, liked_events(split)
    running = np.concatenate([[0], np.cumsum(liked)])
    times, baskets = (None if column is None else column[liked] for column in (s.times, s.baskets))
    return Query(
        Events(s.items[liked], times, baskets), running[split.train_starts], running[split.train_stops]
    )


def weights_of(entries: Entries, s: TIFUKNNSettings) -> np.ndarray:
    """(entries,) what each entry adds to its user's vector."""
    m, n = s.groups, entries.counts[entries.row]
    few = n < m
    size = np.where(few, 1, n // m)
    larger = np.where(few, 0, n % m)  # groups with a basket more: the last ones
    cut = np.where(few, n, (m - larger) * size)
    of_larger = entries.basket >= cut
    group = np.where(of_larger, m - larger + (entries.basket - cut) // (size + 1), entries.basket // size)
    decay = s.within_decay**entries.age * s.group_decay ** (m - 1 - group)
    found: np.ndarray = decay / (size + of_larger) / np.minimum(n, m)
    return found


def by_row_and_column(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix of (entries,) in order of (row, column), and its transpose, both compressed by row: products
    with them are up to three times as fast as with ``item_knn.sparse``."""
    matrix = sparse(row, column, value, shape)
    with warnings.catch_warnings():  # of torch: compressed matrices may change
        warnings.simplefilter("ignore", UserWarning)
        return matrix.to_sparse_csr(), matrix.t().coalesce().to_sparse_csr()


class TIFUKNN(Model):
    name = "tifu_knn"
    Settings = TIFUKNNSettings
    reads_baskets = True
    counts_occurrences = True

    def _vectors(self, query: Query) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The users' vectors: (entries,) row, item and value, in order of (row, item)."""
        entries, items = entries_of(query), len(self.popularity)
        pair, number = np.unique(entries.row * items + entries.item, return_inverse=True)
        values = np.bincount(number, weights_of(entries, self.settings), minlength=len(pair))
        return pair // items, pair % items, values.astype(np.float32)

    def fit_split(self, split: Split, on: FitOptions) -> None:
        items = len(split.sequences.item_catalogue)
        self.popularity = shares(split.sequences.items[liked_events(split)], items)
        row, item, value = self._vectors(training_histories(split))
        users, row = np.unique(row, return_inverse=True)  # those with any event
        state = {"popularity": self.popularity, "users": users.astype(np.int32), "value": value}
        state |= {"row": row.astype(np.int32), "item": item.astype(np.int32)}
        self.load_state(state, items, split.sequences.users)

    @torch.no_grad()
    def score(self, query: Query) -> torch.Tensor:
        s, users, items = self.settings, len(self.users), len(self.popularity)
        own = sparse(*self._vectors(query), (len(query), items)).to_dense()
        # (users, queries): the square of the distance, but for that of the query's own length
        distance = self.squares[:, None] - 2 * (self.of_users @ own.T.contiguous())
        if query.users is not None and users:
            at = np.minimum(np.searchsorted(self.users, query.users), users - 1)
            known = np.flatnonzero(self.users[at] == query.users)
            distance[at[known], known] = torch.inf
        nearness, nearest = largest(-distance.T.contiguous(), min(s.neighbours, users))
        chosen = torch.isfinite(nearness).float()
        share = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
        weights = torch.zeros(len(query), users).scatter_(1, nearest, share)
        mean = (self.transposed @ weights.T.contiguous()).T
        mean = mean * torch.from_numpy(query.lengths > 0)[:, None]  # after nothing popularity alone
        scores: torch.Tensor = s.personal * own + (1 - s.personal) * mean
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
        self.of_users, self.transposed = by_row_and_column(row, item, value, (len(self.users), items))
        squares = np.bincount(row, value.astype(np.float64) ** 2, minlength=len(self.users))
        self.squares = torch.from_numpy(squares.astype(np.float32))
