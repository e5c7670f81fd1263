"""FPMC: factorised personalised Markov chains. A user's own vector, and the last items' vectors, are each
compared with every item.

Rendle, Freudenthaler, Schmidt-Thieme: Factorizing Personalized Markov Chains for Next-Basket Recommendation,
WWW 2010.

    score(j | u, B) = v_UI(u) . v_IU(j) + mean_(l in B) v_LI(l) . v_IL(j)

(equation 15 without its user-by-last-item term, which changes no ranking). As an encoder: the state is
[v_UI(u), mean_l v_LI(l)] and the vector of an item is [v_IU(j), v_IL(j)]; their dot product is the score.
Training is S-BPR (section 5.2): ``bpr`` with negatives of each position's own.

Differences from the paper: B is the last ``recent`` items where the paper has the last basket (1 by default,
the plain Markov chain); AdamW for plain stochastic gradient descent; a user never seen in training has the
mean of the users' vectors; any other loss.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.sequences import Histories
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batch
from seqrec.nn.encoder import Encoder
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class FPMCSettings(Settings):
    width: int = Field(64, ge=1)
    """Width of each of the four tables."""
    recent: int = Field(1, ge=1)
    """Items of the history that the next one depends on, from its end."""
    initial_std: float = Field(0.05, gt=0)
    """Standard deviation of the vectors before training."""


class FPMCNetwork(Encoder):
    knows_users = True

    def __init__(self, settings: FPMCSettings, items: int, users: int):
        super().__init__()
        self.settings = settings
        self.users = nn.Embedding(users, settings.width)  # v_UI
        self.last_items = nn.Embedding(items, settings.width)  # v_LI
        self.items = nn.Embedding(items, 2 * settings.width)  # v_IU beside v_IL
        for table in (self.users, self.last_items, self.items):
            nn.init.normal_(table.weight, std=settings.initial_std)

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Iterator[Batch]:
        return batching.recent(split, self.settings.recent, positions, rng)

    def history_batch(self, histories: Histories) -> Batch:
        return batching.last_items(histories, self.settings.recent)

    def encode(self, batch: Batch) -> Tensor:
        assert batch.users is not None
        known = batch.users.ge(0)[:, None]
        user = torch.where(known, self.users(batch.users.clamp(min=0)), self.users.weight.mean(0))
        mask = batch.mask[:, :, None]
        last = (self.last_items(batch.items) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.cat([user, last], 1)

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        return self.items.weight if items is None else self.items(items)


class FPMC(NeuralModel):
    name = "fpmc"
    Settings = FPMCSettings
    Network = FPMCNetwork
    default_loss = {"name": "bpr"}
    default_negatives = {"count": 4, "shared": False}
    default_train = {"learning_rate": 3e-3, "batch_positions": 2048, "weight_decay": 0.1, "epochs": 20}
