"""HRM: two layers of pooling. The last items are pooled, and the result is pooled with the user's vector.

Wang, Guo, Lan, Xu, Wan, Cheng: Learning Hierarchical Representation Model for Next Basket Recommendation,
SIGIR 2015.

    t = pool1(v(i) for i in last transaction)       section 3.2, first layer
    q = pool2(u, t)                                 second layer
    score(j | user, transaction) = v'(j) . q

In the paper v' is v: items are scored with the table that is pooled (``shared: true``; independent ports do
so, too). By default here v' is a table of its own. Poolings are ``max`` or ``average`` (the paper) and
``sum`` (the origin). ``dropout`` drops units after each pooling, as in the paper. A user never seen in
training has no vector, and the second layer pools t alone.

With ``baskets: 1`` the transaction is the last basket, as in the paper, or the last few: training asks for
each item of a basket after the basket before it, and the order within baskets means nothing. The softmax loss
of a basket is the mean over its items, so that a small basket counts as much as a large one. By default
baskets are not read: with or without them in the log, the last ``recent`` items stand for the transaction,
and training asks for each event after the items right before it, of the same basket or not.

With a feature schema v, v' and u are sums of vectors: the id's own, where the schema names it, and those of
the attributes' values.

Differences from the paper: ``recent`` items for a transaction unless ``baskets`` is given; two item tables
by default; vectors of length 1 and a temperature (the origin's form); any loss, of which ``bce`` with
negatives drawn by popularity is the paper's negative sampling.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching

Pooling = Literal["max", "average", "sum"]


class HRMSettings(Settings):
    """Hyperparameters of the network of HRM."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of all vectors."""
    recent: int = Field(10, ge=1, le=1_000_000)
    """Items that stand for the last transaction, where ``baskets`` is 0."""
    baskets: int = Field(0, ge=0, le=1_000_000)
    """Baskets of the log that are the last transaction, from the end of the history: 1 in the paper, 0 for
    ``recent`` items."""
    pool_items: Pooling = "max"
    """First layer: over these items."""
    pool_user: Pooling = "average"
    """Second layer: over the user and what came of the first."""
    user_vectors: bool = True
    """Whether users have vectors; without them the second layer has only the items. With a feature schema,
    its user side says that."""
    shared: bool = False
    """One item table for what is pooled and for the score (the paper's), or one each."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on vectors."""
    dropout_at: Literal["pooled", "towers"] = "pooled"
    """Which vectors: what either layer of pooling gives; or (the origin's) what the second layer pools, the
    user and the transaction, and the items that states are compared with."""
    normalise: bool = False
    """The state and the item vectors have length 1."""
    temperature: float = Field(1.0, gt=0)
    """Scores are divided by it."""
    initial_std: float = Field(0.05, gt=0)
    """Standard deviation of the vectors before training."""


def pool(vectors: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """Pools over the second dimension what the mask lets through; zero where it lets nothing through.

    Args:
        vectors: (rows, n, width).  mask: (rows, n) bool.
    Returns:
        (rows, width)
    """
    some = mask.any(1)[:, None]
    m = mask[:, :, None]
    if how == "max":
        return torch.where(some, vectors.masked_fill(~m, -torch.inf).amax(1), torch.zeros_like(vectors[:, 0]))
    total = (vectors * m).sum(1)
    return total if how == "sum" else total / m.sum(1).clamp(min=1)


class HRMNetwork(Encoder):
    """Two layers of pooling: over the last items, then over the user and what came of these."""

    def __init__(self, settings: HRMSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=s.user_vectors)
        self.reads = frozenset({*(["users"] if f.user else []), *(["baskets"] if s.baskets else [])})
        self.items = embedding(items, s.width, f.item)
        self.scores_rows = not s.normalise
        one_table = s.shared and f.item_is_sequence
        self.input_items = (
            None if one_table else embedding(items, s.width, f.sequence, self.items if s.shared else None)
        )
        self.users = embedding(users, s.width, f.user) if f.user else None
        for table in (self.items, self.input_items, self.users):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.normal_(vectors, std=s.initial_std)

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
        s = self.settings
        x = pool((self.input_items or self.items)(inputs.items), inputs.mask, s.pool_items)
        x = dropout(x, s.dropout, self.training)
        if self.users is not None and inputs.users is not None:
            known = inputs.users >= 0
            u = self.users(inputs.users.clamp(min=0))
            if s.dropout_at == "towers":
                u = dropout(u, s.dropout, self.training)
            x = pool(torch.stack([u, x], 1), torch.stack([known, inputs.mask.any(1)], 1), s.pool_user)
            if s.dropout_at == "pooled":
                x = dropout(x, s.dropout, self.training)
        if s.normalise:
            x = F.normalize(x, dim=1)
        x = x / s.temperature
        return x[inputs.at] if s.baskets else x  # all items of a basket have one state

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        s, v = self.settings, rows_of(self.items, items)
        if s.dropout_at == "towers":
            v = dropout(v, s.dropout, self.training)
        return F.normalize(v, dim=-1) if s.normalise else v


class HRM(NeuralModel):
    name = "hrm"
    longest_chunk = 65_536  # of which it reads the last few
    takes_features = True
    Settings = HRMSettings
    Network = HRMNetwork
