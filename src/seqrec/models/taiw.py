"""TAIW: an item is due after a while that is its own, for the user and for users like them.

Romanov, Lashinin, Ananyeva, Kolesnikov: Time-Aware Item Weighting for the Next Basket Recommendations, RecSys
2023. Here is TAIWI, whose weights are learned without a base model.

    f(u, i, t)  = sum over the baskets of u with i, at times t_k, of                          section 3.2
                  (1 - p_i) exponential(t - t_k; mean b_i) + p_i normal(t - t_k; m_i, s_i)
    score(i)    = a f(u, i, t) + (1 - a) mean of f(v, i, t_v) over the nearest users v        section 3.3

exponential and normal are densities (of Wang et al., WWW 2019, SLRC: what is bought is soon bought again, or
after its life time), and time is in units of ten weeks. The four numbers of an item are learned from
repurchases alone: each adds -log sigmoid(f) at its moment to the loss, with Adam. Nearest is by the angle
between vectors f; that of another user is what they could have been asked with at their own last basket of
the training data, t_v, knowing what came before it.

Differences from the authors' code: a user is never their own neighbour; neighbours are exact; b and s are at
least a hundredth; a fixed number of epochs. Of our own: popularity, scaled far below, orders what neither
user nor neighbours had; where a query does not say when it is asked, it is at the last moment of the training
data; in a log without times baskets are a week apart. In a log without baskets each event is one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.data.baskets import Entries, begin_of_last, entries_of
from seqrec.data.query import Query
from seqrec.errors import DataError
from seqrec.models.item_knn import FAR_BELOW, sparse
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.models.tifu_knn import by_row_and_column, training_histories
from seqrec.scoring import largest
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions

WEEK = 604_800  # seconds
LEAST = 0.01
"""The least mean and deviation of a time."""
AT_ONCE = 4096
"""Repurchases in an update."""
PARTS = ("share", "mean", "centre", "deviation")
"""The numbers of an item: p, b, m and s."""


class TAIWSettings(Settings):
    """Hyperparameters of ``taiw``."""

    neighbours: int = Field(100, ge=1, le=2**31 - 1)
    """Nearest users."""
    personal: float = Field(0.5, ge=0, le=1)
    """How much the user counts beside the neighbours (a)."""
    epochs: int = Field(5, ge=1, le=10_000)
    """Passes over the repurchases."""
    learning_rate: float = Field(0.01, gt=0)
    """Of Adam."""
    weeks: float = Field(10.0, gt=0, le=10_000)
    """The unit of time; the exponential and the normal density begin with a mean and a deviation of it."""


def density(after: Tensor, share: Tensor, mean: Tensor, centre: Tensor, deviation: Tensor) -> Tensor:
    """What a basket adds to an item's score so long after it, all (n,), in units of time; 0 before it."""
    mean, deviation, share = mean.clamp(min=LEAST), deviation.clamp(min=LEAST), share.clamp(0, 1)
    after = after.clamp(min=0)
    soon = torch.exp(-after / mean) / mean
    due = torch.exp(-0.5 * ((after - centre) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    found: Tensor = (1 - share) * soon + share * due
    return found


class TAIW(Model):
    name = "taiw"
    Settings = TAIWSettings
    reads_baskets = True
    counts_occurrences = True

    def _moments(self, entries: Entries) -> np.ndarray:
        """(entries,) when each was, in units of time since 1970, or in a log without times since the first
        basket.

        Raises:
            DataError: the times are not known, and those of the training data were.
        """
        if not self.timed:
            moments: np.ndarray = entries.basket / self.settings.weeks
            return moments
        if entries.times is None:
            raise DataError(
                "times: taiw was trained on the times of baskets. Got histories without any. Recommend for "
                "users of the training data, or train it on a log without times."
            )
        since: np.ndarray = entries.times / (WEEK * self.settings.weeks)
        return since

    def _asked_at(self, query: Query, entries: Entries) -> np.ndarray:
        """(queries,) when each is asked, as ``_moments`` counts."""
        if not self.timed:
            counts: np.ndarray = entries.counts / self.settings.weeks
            return counts
        asked = np.full(len(query), self.last_moment) if query.asked_at is None else query.asked_at
        moments: np.ndarray = asked / (WEEK * self.settings.weeks)
        return moments

    def _vectors(self, query: Query) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """f of the rows: (entries,) row, item and value, in order of (row, item)."""
        entries, items = entries_of(query), len(self.popularity)
        after = self._asked_at(query, entries)[entries.row] - self._moments(entries)
        parts = (torch.from_numpy(self.parts[name][entries.item]) for name in PARTS)
        each = density(torch.from_numpy(after.astype(np.float32)), *parts).numpy()
        pair, number = np.unique(entries.row * items + entries.item, return_inverse=True)
        values = np.bincount(number, each, minlength=len(pair))
        return pair // items, pair % items, values.astype(np.float32)

    def fit_split(self, split: Split, on: FitOptions) -> None:
        s, items = split.sequences, len(split.sequences.item_catalogue)
        self.popularity = shares(s.items[liked_events(split)], items)
        self.timed = s.times is not None
        trained = split.train_events
        self.last_moment = float(s.times[trained].max()) if s.times is not None and trained.any() else 0.0
        histories = training_histories(split)
        self._learn(entries_of(histories), items, on.seed)
        # Each neighbour as they could have been asked at their last basket.
        begin = begin_of_last(histories, 1)
        asked = None
        if histories.events.times is not None:
            moments = histories.events.times
            asked = moments[np.minimum(begin, len(moments) - 1)] if len(moments) else np.zeros(len(begin))
        row, item, value = self._vectors(replace(histories, stops=begin, asked_at=asked))
        users, row = np.unique(row, return_inverse=True)  # those with two baskets
        state = {"popularity": self.popularity, "users": users.astype(np.int32), "value": value}
        state |= {"row": row.astype(np.int32), "item": item.astype(np.int32)}
        state |= {"timed": np.array([self.timed]), "last_moment": np.array([self.last_moment])}
        self.load_state(state | self.parts, items, s.users)

    def _learn(self, entries: Entries, items: int, seed: int) -> None:
        """The numbers of all items, from when users bought an item again."""
        s = self.settings
        order = np.lexsort((entries.basket, entries.item, entries.row))
        row, item = entries.row[order], entries.item[order]
        moments = self._moments(entries)[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (np.diff(row) != 0) | (np.diff(item) != 0)
        first = np.flatnonzero(new)[np.cumsum(new) - 1] if len(new) else np.zeros(0, dtype=np.int64)
        again = np.flatnonzero(~new)
        interval = float((moments[again] - moments[again - 1]).mean()) if len(again) else 1.0
        starts = (0.5, 1.0, interval, 1.0)
        parts = [torch.full((items,), start, requires_grad=True) for start in starts]
        optimizer = torch.optim.Adam(parts, lr=s.learning_rate)
        rng = np.random.default_rng(seed)
        for _ in range(s.epochs):
            shuffled = rng.permutation(again)
            for begin in range(0, len(shuffled), AT_ONCE):
                some = shuffled[begin : begin + AT_ONCE]
                counts = some - first[some]  # of each what was bought before
                of = np.repeat(np.arange(len(some)), counts)
                before = np.arange(len(of)) + np.repeat(first[some] - np.cumsum(counts) + counts, counts)
                after = torch.from_numpy((moments[some][of] - moments[before]).astype(np.float32))
                at = torch.from_numpy(item[some][of])
                each = density(after, *(part[at] for part in parts))
                total = torch.zeros(len(some)).index_add(0, torch.from_numpy(of), each)
                optimizer.zero_grad()
                loss = -F.logsigmoid(total).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.parts = {name: part.detach().numpy() for name, part in zip(PARTS, parts, strict=True)}

    @torch.no_grad()
    def score(self, query: Query) -> torch.Tensor:
        s, users, items = self.settings, len(self.users), len(self.popularity)
        own = sparse(*self._vectors(query), (len(query), items)).to_dense()
        # (users, queries): the cosine of the angle, but for the query's own length
        cosine = self.directions @ own.T.contiguous()
        if query.users is not None and users:
            at = np.minimum(np.searchsorted(self.users, query.users), users - 1)
            known = np.flatnonzero(self.users[at] == query.users)
            cosine[at[known], known] = -torch.inf
        nearness, nearest = largest(cosine.T.contiguous(), min(s.neighbours, users))
        chosen = torch.isfinite(nearness).float()
        share = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
        weights = torch.zeros(len(query), users).scatter_(1, nearest, share)
        mean = (self.transposed @ weights.T.contiguous()).T
        mean = mean * torch.from_numpy(query.lengths > 0)[:, None]  # after nothing popularity alone
        scores: torch.Tensor = s.personal * own + (1 - s.personal) * mean
        return scores + FAR_BELOW * torch.from_numpy(self.popularity)

    def state(self) -> dict[str, np.ndarray]:
        told = {"timed": np.array([self.timed]), "last_moment": np.array([self.last_moment])}
        return {"popularity": self.popularity, "users": self.users, **self.entries, **self.parts, **told}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = artifact.floats_of(state, "popularity", items)
        self.parts = {name: artifact.floats_of(state, name, items) for name in PARTS}
        self.last_moment = float(artifact.floats_of(state, "last_moment", 1)[0])
        timed = state.get("timed")
        if timed is None or timed.shape != (1,) or timed.dtype != bool:
            raise DataError("its timed is not whether the log had times.")
        self.timed = self.keeps_times = bool(timed[0])
        self.users = artifact.indices_of(state, "users", users)
        row = artifact.indices_of(state, "row", len(self.users))
        item = artifact.indices_of(state, "item", items, len(row))
        value = artifact.floats_of(state, "value", len(row))
        self.entries = {"row": row, "item": item, "value": value}
        lengths = np.sqrt(np.bincount(row, value.astype(np.float64) ** 2, minlength=len(self.users)))
        direction = (value / lengths.clip(min=1e-12)[row]).astype(np.float32)
        shape = (len(self.users), items)
        self.directions, _ = by_row_and_column(row, item, direction, shape)
        _, self.transposed = by_row_and_column(row, item, value, shape)
