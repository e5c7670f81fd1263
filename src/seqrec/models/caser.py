"""Caser: convolutions over the last few items as over an image.

Tang, Wang: Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding, WSDM 2018
(arXiv 1809.07426).

    E = e(i_(t-L+1)), ..., e(i_t)              L rows of vectors, the last ``recent`` items (equation 1)
    o = max over windows of relu(F_k * E)      horizontal: filters of 1 to L items (equations 3 to 5)
    o' = sum over rows of w_l E_l              vertical: weighted sums of the rows (equations 6 and 7)
    z = relu(W dropout([o'; o]) + b)           equation 8
    score(j | history) = v(j) . [z; u] + b(j)  equation 9: a table of its own for the output

A row without an item, before the first one, is zero. u is the vector of the user, zero for an unknown one.

Differences from the paper: any loss (the full softmax by default, where the paper has binary cross-entropy
with three negatives); one target a row, the next item, where the paper also has the one or two after it (no
skips).

With a feature schema e, v and u are sums of vectors: the id's own, where the schema names it, and those of
the attributes' values.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import biases_of, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class CaserSettings(Settings):
    """Hyperparameters of the network of Caser."""

    width: int = Field(50, ge=1, le=16_384)
    """Width of item vectors and of z; states have twice that, or as much without user vectors."""
    recent: int = Field(5, ge=1, le=1_000)
    """Items that are read, from the end of the history: L."""
    horizontal: int = Field(16, ge=1, le=4_096)
    """Horizontal filters of each height from 1 to L."""
    vertical: int = Field(4, ge=1, le=4_096)
    """Vertical filters."""
    user_vectors: bool = True
    """Whether users have vectors. With a feature schema, its user side says that."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout on what the filters found."""


class CaserNetwork(Encoder):
    """Tables of items and users, filters and a layer: see the top of the file."""

    scores_rows = True

    def __init__(self, settings: CaserSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=s.user_vectors)
        self.reads = frozenset({"users"} if f.user else ())
        self.users = embedding(users, s.width, f.user) if f.user else None
        # the last column of an item is its bias
        width = (2 if f.user else 1) * s.width
        self.items = embedding(items, width + 1, f.item, biases=1)
        self.input_items = embedding(items, s.width, f.sequence)
        for table, columns in ((self.items, width + 1), (self.input_items, s.width), (self.users, s.width)):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.normal_(vectors, std=1 / columns)
        for biases in biases_of(self.items, width):
            nn.init.zeros_(biases)
        self.horizontal = nn.ModuleList(
            nn.Linear(height * s.width, s.horizontal) for height in range(1, s.recent + 1)
        )
        self.vertical = nn.Linear(s.recent, s.vertical)
        self.layer = nn.Linear(s.vertical * s.width + s.recent * s.horizontal, s.width)

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.recent(split, self.settings.recent, positions, rng)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_items(query, self.settings.recent)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_items_of(items, lengths, users, self.settings.recent)

    def encode(self, inputs: Inputs) -> Tensor:
        s = self.settings
        # latest first, as they come: a filter is as good read backwards
        image = self.input_items(inputs.items) * inputs.mask[:, :, None]
        found = [self.vertical(image.transpose(1, 2)).transpose(1, 2).flatten(1)]
        for height, filters in enumerate(self.horizontal, start=1):
            windows = torch.cat(
                [
                    image[:, first : first + height].flatten(1)[:, None]
                    for first in range(s.recent - height + 1)
                ],
                1,
            )
            found.append(filters(windows).relu().amax(1))
        z: Tensor = self.layer(dropout(torch.cat(found, 1), s.dropout, self.training)).relu()
        if self.users is None:
            return z
        assert inputs.users is not None
        known = inputs.users.ge(0)[:, None]
        return torch.cat([z * inputs.mask.any(1)[:, None], self.users(inputs.users.clamp(min=0)) * known], 1)

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class Caser(NeuralModel):
    name = "caser"
    takes_features = True
    Settings = CaserSettings
    Network = CaserNetwork
