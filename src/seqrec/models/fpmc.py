"""FPMC: factorised personalised Markov chains. A user's own vector, and the last items' vectors, are each
compared with every item.

Rendle, Freudenthaler, Schmidt-Thieme: Factorizing Personalized Markov Chains for Next-Basket Recommendation,
WWW 2010.

    score(j | u, B) = v_UI(u) . v_IU(j) + mean_(l in B) v_LI(l) . v_IL(j)

(equation 15 without its user-by-last-item term, which changes no ranking). As an encoder: the state is
[v_UI(u), mean_l v_LI(l)] and the vector of an item is [v_IU(j), v_IL(j)]; their dot product is the score.
Training is S-BPR (section 5.2): ``bpr`` with negatives of each position's own.

With ``baskets: 1`` B is the last basket, as in the paper, and training asks for each item of a basket after
the basket before it (with ``softmax``, a basket's loss is the mean over its items).

Differences from the paper: B is the last ``recent`` items (1 by default, the plain Markov chain), whatever
baskets the log has, unless ``baskets`` is given; AdamW for plain stochastic gradient descent; a user
never seen in training has the mean of the vectors of those who were; any other loss.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.embedding import rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class FPMCSettings(Settings):
    """Hyperparameters of the network of FPMC."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of each of the four tables."""
    recent: int = Field(1, ge=1, le=1_000_000)
    """Items of the history that the next one depends on, from its end, where ``baskets`` is 0."""
    baskets: int = Field(0, ge=0, le=1_000_000)
    """Baskets of the log that the next one depends on, from the end of the history: 1 in the paper, 0 for
    ``recent`` items."""
    initial_std: float = Field(0.05, gt=0)
    """Standard deviation of the vectors before training."""


class FPMCNetwork(Encoder):
    """The user and the last items as one state of two halves: see the top of the file."""

    reads = frozenset({"users"})

    def __init__(self, settings: FPMCSettings, items: int, users: int):
        super().__init__()
        self.settings = settings
        self.reads = frozenset({"users", "baskets"} if settings.baskets else {"users"})
        self.users = nn.Embedding(users, settings.width)  # v_UI
        self.last_items = nn.Embedding(items, settings.width)  # v_LI
        self.items = nn.Embedding(items, 2 * settings.width)  # v_IU beside v_IL
        for table in (self.users, self.last_items, self.items):
            nn.init.normal_(table.weight, std=settings.initial_std)
        self.share: Tensor  # (users, 1) of each in the mean user; not saved: it follows from trained_users
        self.register_buffer("share", torch.full((users, 1), 1 / max(1, users)), persistent=False)

    def average(self, users: Tensor) -> None:
        """Says which users an unknown one is the mean of, (users,) bool: those whose vectors are trained."""
        self.share = users[:, None].to(self.share) / users.sum().clamp(min=1)

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        if self.settings.baskets:
            return batching.baskets(split, self.settings.baskets, positions, rng)
        return batching.recent(split, self.settings.recent, positions, rng)

    def query_inputs(self, query: Query) -> Inputs:
        if self.settings.baskets:
            return batching.last_baskets(query, self.settings.baskets)
        return batching.last_items(query, self.settings.recent)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_items_of(items, lengths, users, self.settings.recent)

    def encode(self, inputs: Inputs) -> Tensor:
        assert inputs.users is not None
        known = inputs.users.ge(0)[:, None]
        mean_user = (self.share * self.users.weight).sum(0)
        user = torch.where(known, self.users(inputs.users.clamp(min=0)), mean_user)
        mask = inputs.mask[:, :, None]
        last = (self.last_items(inputs.items) * mask).sum(1) / mask.sum(1).clamp(min=1)
        state = torch.cat([user, last], 1)
        return state[inputs.at] if self.settings.baskets else state  # all items of a basket have one

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class FPMC(NeuralModel):
    name = "fpmc"
    longest_chunk = 65_536  # of which it reads the last few
    Settings = FPMCSettings
    Network = FPMCNetwork
    default_loss = {"name": "bpr"}
    default_negatives = {"count": 4, "shared": False}
    default_train = {"learning_rate": 3e-3, "weight_decay": 0.1}

    def build(self, items: int, users: int) -> Encoder:
        """As ``NeuralModel.build``; an unknown user is the mean of those who are trained."""
        network = super().build(items, users)
        assert isinstance(network, FPMCNetwork)
        if self.trained_users is not None:
            network.average(torch.from_numpy(self.trained_users))
        return network
