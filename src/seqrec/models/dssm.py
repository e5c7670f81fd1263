"""DSSM: two towers of dense layers. One reads a user and what they took last, the other an item; the score is
the cosine of what comes out.

Huang, He, Gao, Deng, Acero, Heck: Learning Deep Structured Semantic Models for Web Search using Clickthrough
Data, CIKM 2013.

    x_q = [u, mean of e(i) over the last items]         what is asked with; in the paper a query's words
    x_j = e(j)                                          in the paper a document's words
    l_n = tanh(W_n l_(n-1) + b_n)                       equation 3, a tower of these layers for each
    score(j | user, history) = cos(y_q, y_j) / temperature      equations 4 and 5 (gamma is 1 / temperature)

Differences from the paper: users and items in place of words, whose letter n-grams are hashed there (for
titles ``seqrec embed`` does the like: ``features.item: [title_embedding]``); any loss, by default sampled
softmax as in equation 5, with 256 negatives that a batch shares, where the paper draws 4 for each click; no
activation after the last layer. A user never seen in training has no vector.

With a feature schema e(i) and u are sums of vectors: the id's own, where the schema names it, and those of
the attributes' values. Items are scored by their tower, so that an item vector costs as much as a state.
"""

from __future__ import annotations

from typing import ClassVar

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


class DSSMSettings(Settings):
    """Hyperparameters of the network of DSSM."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of the vectors that go into the towers, and of those that come out."""
    hidden: int = Field(128, ge=1, le=16_384)
    """Width of the layers in between (the paper: 300)."""
    layers: int = Field(1, ge=1, le=8)
    """Such layers of each tower (the paper: 2)."""
    recent: int = Field(10, ge=1, le=1_000_000)
    """Items of a history that are read, from its end."""
    user_vectors: bool = True
    """Whether users have vectors. With a feature schema, its user side says that."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on what goes into the towers."""
    temperature: float = Field(0.1, gt=0)
    """Cosines are divided by it."""


def tower(inputs: int, s: DSSMSettings) -> nn.Sequential:
    """(..., inputs) -> (..., width)."""
    layers: list[nn.Module] = []
    for _ in range(s.layers):
        layers += [nn.Linear(inputs, s.hidden), nn.Tanh()]
        inputs = s.hidden
    return nn.Sequential(*layers, nn.Linear(inputs, s.width))


class DSSMNetwork(Encoder):
    """A table of items, one of users, and two towers: see the top of the file."""

    def __init__(self, settings: DSSMSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=s.user_vectors)
        self.items = embedding(items, s.width, f.item)
        self.input_items = None if f.item_is_sequence else embedding(items, s.width, f.sequence, self.items)
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset({"users"} if self.users is not None else ())
        for table in (self.items, self.input_items, self.users):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.normal_(vectors, std=s.width**-0.5)
        self.of_query = tower((2 if f.user else 1) * s.width, s)
        self.of_item = tower(s.width, s)

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.recent(split, self.settings.recent, positions, rng)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_items(query, self.settings.recent)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_items_of(items, lengths, users, self.settings.recent)

    def encode(self, inputs: Inputs) -> Tensor:
        s, mask = self.settings, inputs.mask[:, :, None]
        x = ((self.input_items or self.items)(inputs.items) * mask).sum(1) / mask.sum(1).clamp(min=1)
        if self.users is not None:
            users = inputs.users if inputs.users is not None else inputs.at.new_full((len(x),), -1)
            x = torch.cat([self.users(users.clamp(min=0)) * users.ge(0)[:, None], x], 1)
        y: Tensor = self.of_query(dropout(x, s.dropout, self.training))
        return F.normalize(y, dim=-1) / s.temperature

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        x = dropout(rows_of(self.items, items), self.settings.dropout, self.training)
        return F.normalize(self.of_item(x), dim=-1)


class DSSM(NeuralModel):
    name = "dssm"
    longest_chunk = 65_536  # of which it reads the last few
    takes_features = True
    Settings = DSSMSettings
    Network = DSSMNetwork
    default_loss: ClassVar = {"name": "sampled_softmax"}
