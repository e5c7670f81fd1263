"""First-order Markov chain: what came next in training after the item that came last.

    score(j | history ending in i) = (n_ij + strength p_j) / (n_i + strength)

n_ij counts how often j followed i directly in a training sequence, n_i is the sum over j, and p_j is the
popularity of j, one added to each count: the transition probabilities of a Markov chain (as in Shani,
Heckerman, Brafman: An MDP-Based Recommender System, JMLR 2005) under a Dirichlet prior around the popularity
(MacKay, Bauman Peto: A hierarchical Dirichlet language model, 1995, equation 14). After an item that nothing
followed, or after nothing, it is the popularity itself.

With a ``window`` above 1 an item also counts as following those before the last one, the d-th of them 1 / d
times: in i, x, j the pair (i, j) counts half. (Skipping, as Shani et al. have it in section 3.2.2, with
another weight: theirs is 2^-(d - 1).)

Difference from the MDP recommender: one item of context, and no clustering of states.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from seqrec.data.query import Query
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


class MarkovSettings(Settings):
    """Hyperparameters of ``markov``."""

    strength: float = Field(1.0, gt=0)
    """How many observed transitions the popularity weighs as much as."""
    window: int = Field(1, ge=1, le=1000)
    """Events before an item that it counts as following, the d-th with weight 1 / d."""


class Markov(Model):
    name = "markov"
    Settings = MarkovSettings

    def fit_split(self, split: Split, on: FitOptions) -> None:
        items, liked, catalogue = (
            split.sequences.items,
            liked_events(split),
            len(split.sequences.item_catalogue),
        )
        target = np.flatnonzero(liked)
        user = np.searchsorted(split.sequences.offsets, target, side="right") - 1
        before = target - split.train_starts[user]  # training events of the user before it
        pairs: np.ndarray = np.empty(0, np.int64)
        counts: np.ndarray = np.empty(0)
        for d in range(1, self.settings.window + 1):
            at = target[before >= d]
            found, often = np.unique(
                items[at - d].astype(np.int64) * catalogue + items[at], return_counts=True
            )
            pairs, place = np.unique(np.concatenate([pairs, found]), return_inverse=True)
            counts = np.bincount(place, weights=np.concatenate([counts, often / d]), minlength=len(pairs))
        self.popularity = shares(items[liked], catalogue)
        # Transitions from item i are entries [offsets[i], offsets[i + 1]) of successors and counts.
        self.offsets = np.searchsorted(pairs, np.arange(catalogue + 1) * catalogue)
        self.successors, self.counts = (pairs % catalogue).astype(np.int32), counts.astype(np.float32)

    def score(self, query: Query) -> torch.Tensor:
        events, known = query.recent(1)
        last = query.items(events, known)
        scores = np.tile(self.settings.strength * self.popularity, (len(query), 1))
        for row in np.flatnonzero(known[:, 0]):
            of_last = slice(self.offsets[last[row, 0]], self.offsets[last[row, 0] + 1])
            scores[row, self.successors[of_last]] += self.counts[of_last]
            scores[row] /= self.counts[of_last].sum() + self.settings.strength
        return torch.from_numpy(scores)

    def state(self) -> dict[str, np.ndarray]:
        return {
            "popularity": self.popularity,
            "offsets": self.offsets,
            "successors": self.successors,
            "counts": self.counts,
        }

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = artifact.floats_of(state, "popularity", items)
        self.successors = artifact.indices_of(state, "successors", items)
        self.counts = artifact.floats_of(state, "counts", len(self.successors))
        self.offsets = artifact.offsets_of(state, "offsets", items, len(self.successors))
