"""Recent popularity: what most of the latest training events were about.

    score(j) = recent training events of item j + share of all training events about j

where the second part, below 1, only decides between items that are equally popular lately. Which events are
recent:

- where times are known, the latest ``share`` of all training events (and those of the same second as the
  first of them), or those in the ``days`` before the last one;
- in a log with order only, the last ``share`` of each user's training events (at least one), counted from
  the user's end.

(Ji, Sun, Zhang, Li: A Re-visit of the Popularity Baseline in Recommender Systems, SIGIR 2020, who show how
far popularity in a window of time is ahead of popularity over everything. Difference: one window for all
queries, at the end of training, not one at the time of each query.)
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from seqrec.data.query import Query
from seqrec.errors import DataError
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


class RecentPopularitySettings(Settings):
    """Hyperparameters of ``recent_popularity``."""

    share: float = Field(0.1, gt=0, le=1)
    """Share of the training events that is recent."""
    days: float | None = Field(None, gt=0)
    """Length of the window before the latest training event, in place of ``share``; needs times."""


def recent_events(split: Split, share: float, days: float | None) -> np.ndarray:
    """(events,) bool, True for the recent training events.

    Raises:
        DataError: days of a log without times.
    """
    train, times = split.train_events, split.sequences.times
    recent: np.ndarray
    if times is not None and train.any():
        of_training = times[train]
        latest = int(np.ceil(share * len(of_training)))
        first = (
            of_training.max() - days * 86_400
            if days is not None
            else np.partition(of_training, -latest)[-latest]
        )
        recent = train & (times >= first)
        return recent
    if days is not None and times is None:
        raise DataError(
            f"recent_popularity: days={days} needs times, but this log has none. Use share instead."
        )
    lengths = split.train_stops - split.train_starts
    counts = np.ceil(share * lengths).astype(np.int64)
    at = np.arange(split.sequences.events)
    user = np.repeat(np.arange(split.sequences.users), split.sequences.lengths)
    recent = train & (at >= (split.train_stops - counts)[user])
    return recent


class RecentPopularity(Model):
    name = "recent_popularity"
    reads_order = False
    Settings = RecentPopularitySettings

    def fit_split(self, split: Split, on: FitOptions) -> None:
        items, liked, catalogue = (
            split.sequences.items,
            liked_events(split),
            len(split.sequences.item_catalogue),
        )
        recent = np.bincount(
            items[liked & recent_events(split, self.settings.share, self.settings.days)], minlength=catalogue
        )
        self.scores = (recent + shares(items[liked], catalogue).astype(np.float64)).astype(np.float32)

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool: what it says of anyone is its own."""
        return np.ones(len(query), dtype=bool)

    def score(self, query: Query) -> torch.Tensor:
        return torch.from_numpy(self.scores).repeat(len(query), 1)

    def state(self) -> dict[str, np.ndarray]:
        return {"scores": self.scores}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.scores = artifact.floats_of(state, "scores", items)
