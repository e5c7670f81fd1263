"""Popularity: everyone is recommended what most events of the training data were about.

    score(j) = training events of item j

The floor of every comparison (called "Pop" or "hot" elsewhere). Events that a split marks as disliked are not
counted.
"""

from __future__ import annotations

import numpy as np
import torch

from seqrec.data.query import Query
from seqrec.models.model import Model
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


def liked_events(split: Split) -> np.ndarray:
    """(events,) bool, True for training events that may be recommended for (all, where the split marks none
    as disliked)."""
    return split.train_events if split.positive is None else split.train_events & split.positive


def shares(events: np.ndarray, items: int) -> np.ndarray:
    """(items,) float32 share of the events (item indices) that are about each item, one added to each count:
    never 0, sums to 1."""
    counts = np.bincount(events, minlength=items) + 1.0
    found: np.ndarray = (counts / counts.sum()).astype(np.float32)
    return found


class PopularitySettings(Settings):
    """Popularity has none."""


class Popularity(Model):
    name = "popularity"
    reads_order = False
    Settings = PopularitySettings

    def fit_split(self, split: Split, on: FitOptions) -> None:
        self.counts = np.bincount(
            split.sequences.items[liked_events(split)], minlength=len(split.sequences.item_catalogue)
        ).astype(np.float32)

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool: what it says of anyone is its own."""
        return np.ones(len(query), dtype=bool)

    def score(self, query: Query) -> torch.Tensor:
        return torch.from_numpy(self.counts).repeat(len(query), 1)

    def state(self) -> dict[str, np.ndarray]:
        return {"counts": self.counts}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.counts = artifact.floats_of(state, "counts", items)
