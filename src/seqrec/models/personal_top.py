"""Personal top: what the user takes most often, and then what everyone does.

    score(j | u) = n_uj + n_j / (1 + max_i n_i)

n_uj counts the baskets of the user's history that have item j, n_j the training events of j. So items are
ordered by the user's own frequency; equals among them, and what the user has never had, by popularity. It is
GP-TopFreq of Li, Jullien, Ariannezhad, de Rijke: A Next Basket Recommendation Reality Check, TOIS 2023,
section 3.2 (also "personal top" or "top personal"). With ``recent`` only the last baskets count, as in
UWPop@r of Faggioli, Polato, Aiolli: Recency Aware Collaborative Filtering for Next Basket Recommendation,
UMAP 2020.

In a log without baskets each event is one. Difference from the papers: popularity orders equals.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from seqrec.data.baskets import entries_of
from seqrec.data.query import Query
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions


class PersonalTopSettings(Settings):
    """Hyperparameters of ``personal_top``."""

    recent: int | None = Field(None, ge=1, le=1_000_000)
    """Baskets of the history that count, from its end; None: all."""


class PersonalTop(Model):
    name = "personal_top"
    Settings = PersonalTopSettings
    reads_baskets = True
    counts_occurrences = True

    def fit_split(self, split: Split, on: FitOptions) -> None:
        items = len(split.sequences.item_catalogue)
        counts = np.bincount(split.sequences.items[liked_events(split)], minlength=items)
        self.popularity = (counts / (1 + counts.max(initial=0))).astype(np.float32)

    def score(self, query: Query) -> torch.Tensor:
        entries = entries_of(query)
        if self.settings.recent is not None:
            entries = entries.recent(self.settings.recent)
        scores = np.tile(self.popularity, (len(query), 1))
        np.add.at(scores, (entries.row, entries.item), 1)
        return torch.from_numpy(scores)

    def state(self) -> dict[str, np.ndarray]:
        return {"popularity": self.popularity}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = artifact.floats_of(state, "popularity", items)
