"""VSKNN, sequence-aware nearest neighbours: what the sequences most like the end of the history hold.

Ludewig, Jannach: Evaluation of Session-based Recommendation Algorithms, UMUAI 2018 (arXiv 1803.09587),
section 3.2 (V-SkNN).

    similarity(h, s) = sum_i w(i) [i in s]
    score(j | h) = sum_s similarity(h, s) w(i*(h, s)) [j in s]      over the ``neighbours`` most similar s

w falls linearly: 1 for the last of the n items of h, 1/n for the first. i* is the last item of h that s has.

Neighbours are looked for among the ``sample`` latest sequences that share an item. As in VMIS-kNN (Kersbergen
et al.: Serenade, SIGMOD 2022), an index keeps for each item the latest ``sample`` sequences only, so that a
query's work does not grow with the log.

Differences from the paper:
- a sequence here is all that a user did, not a session: it is cut where the session of the log changes (where
  a log has sessions) and into pieces of at most ``length`` events, counted from its end, each a neighbour of
  its own; only the last ``recent`` items of a history are compared;
- a known user's own training pieces are no neighbours: they would only recommend what was seen;
- among equally similar sequences the latest are taken (by the time of their last event; in a log with order
  only, by how near they are to their user's end);
- popularity, scaled far below any score, orders the items that no neighbour has.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from seqrec.data.query import Query
from seqrec.models.item_knn import FAR_BELOW
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


class VSKNNSettings(Settings):
    """Hyperparameters of ``vsknn``."""

    neighbours: int = Field(500, ge=1, le=2**31 - 1)
    """Most similar sequences whose items are recommended."""
    sample: int = Field(5000, ge=1, le=2**31 - 1)
    """Latest sequences sharing an item among which they are looked for."""
    recent: int = Field(10, ge=1, le=1_000_000)
    """Items of the history that are compared, from its end."""
    length: int = Field(10, ge=1, le=1_000_000)
    """Longer training sequences are cut into pieces of this many events."""


def pieces(split: Split, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the training sequences are cut: (pieces,) start and stop of each, in the order of the log."""
    s = split.sequences
    event = np.flatnonzero(split.train_events)
    user = np.searchsorted(s.offsets, event, side="right") - 1
    cut = (split.train_stops[user] - event) % length == 0
    cut |= np.diff(user, prepend=-1) != 0
    if s.sessions is not None:
        cut |= np.diff(s.sessions[event], prepend=-1) != 0
    starts = event[cut]
    lengths = np.diff(np.append(np.flatnonzero(cut), len(event)))
    return starts, starts + lengths


def ragged(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges laid end to end: (total,) number of the range and (total,) index. ``[2, 5), [7, 8)`` gives 0 0 0
    1 and 2 3 4 7."""
    lengths = stops - starts
    number = np.repeat(np.arange(len(starts)), lengths)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)


class VSKNN(Model):
    name = "vsknn"
    Settings = VSKNNSettings

    def fit_split(self, split: Split, on: FitOptions) -> None:
        s, liked, catalogue = split.sequences, liked_events(split), len(split.sequences.item_catalogue)
        starts, stops = pieces(split, self.settings.length)
        owner = np.searchsorted(s.offsets, starts, side="right") - 1
        end = s.times[stops - 1] if s.times is not None else stops - split.train_stops[owner]
        latest_last = np.argsort(end, kind="stable")
        number, event = ragged(starts[latest_last], stops[latest_last])
        number, event = number[liked[event]], event[liked[event]]
        pairs = np.unique(number * catalogue + s.items[event])
        self.load_state(
            {
                "items": (pairs % catalogue).astype(np.int32),
                "offsets": np.searchsorted(pairs, np.arange(len(starts) + 1) * catalogue),
                "owners": owner[latest_last].astype(np.int32),
                "popularity": shares(s.items[liked], catalogue),
            },
            catalogue,
            s.users,
        )

    def score(self, query: Query) -> torch.Tensor:
        events, mask = query.recent(self.settings.recent)
        recent = query.items(events, mask)
        users = np.full(len(query), -1) if query.users is None else query.users
        scores = np.empty((len(query), len(self.popularity)), dtype=np.float32)
        for row, (items, length, user) in enumerate(zip(recent, mask.sum(1), users)):
            scores[row] = self._score(items[:length], int(user))
        return torch.from_numpy(scores + FAR_BELOW * self.popularity)

    def _score(self, items: np.ndarray, user: int) -> np.ndarray:
        """(items,) score after one history, given its latest items, latest first."""
        weights = 1 - np.arange(len(items)) / max(1, len(items))
        _, first = np.unique(items, return_index=True)  # an item that comes twice counts where it came last
        first.sort()
        items, weights = items[first], weights[first]
        number, at = ragged(
            np.maximum(self.index_offsets[items], self.index_offsets[items + 1] - self.settings.sample),
            self.index_offsets[items + 1],
        )
        # Entries are latest item first, so the first entry of a sequence is that of the last item it shares.
        sequence, last, entry = np.unique(self.index[at], return_index=True, return_inverse=True)
        similarity = np.bincount(entry, weights=weights[number], minlength=len(sequence))
        last_weight = weights[number[last]]
        if user >= 0:
            others = self.owners[sequence] != user
            sequence, similarity, last_weight = sequence[others], similarity[others], last_weight[others]
        # sequences are numbered by time, so these are the latest
        sampled = slice(-self.settings.sample, None)
        sequence, similarity, last_weight = sequence[sampled], similarity[sampled], last_weight[sampled]
        best = np.argsort(similarity, kind="stable")[-self.settings.neighbours :]
        number, at = ragged(self.offsets[sequence[best]], self.offsets[sequence[best] + 1])
        return np.bincount(
            self.items[at], weights=(similarity * last_weight)[best][number], minlength=len(self.popularity)
        )

    def state(self) -> dict[str, np.ndarray]:
        return {
            "items": self.items,
            "offsets": self.offsets,
            "owners": self.owners,
            "popularity": self.popularity,
        }

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = artifact.floats_of(state, "popularity", items)
        self.items = artifact.indices_of(state, "items", items)
        self.offsets = artifact.offsets_of(state, "offsets", None, len(self.items))
        self.owners = artifact.indices_of(state, "owners", users, len(self.offsets) - 1)
        # The sequences of item i, earliest first, are entries [index_offsets[i], index_offsets[i + 1]) of
        # index.
        number, _ = ragged(self.offsets[:-1], self.offsets[1:])
        self.index = number[np.argsort(self.items, kind="stable")].astype(np.int32)
        self.index_offsets = np.concatenate(
            [[0], np.cumsum(np.bincount(self.items, minlength=len(self.popularity)))]
        )
