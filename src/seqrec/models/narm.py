"""NARM: a recurrent network reads a history; its last state says which of the earlier ones matter.

Li, Ren, Chen, Ren, Lian, Ma: Neural Attentive Session-based Recommendation, CIKM 2017 (arXiv 1711.04725).

    h_t = GRU(dropout(e(i_t)), h_(t-1))                              section 3.3, global encoder
    a_ts = v . sigmoid(A1 h_t + A2 h_s)                              equation 8
    c_t = sum over s <= t of a_ts h_s                                equation 6, local encoder (no softmax)
    score(j | history) = e(j) . B dropout([c_t; h_t])                equation 10; one item table

The score of all items is the bilinear one of the paper (section 3.5), B of size width x 2 hidden.

Differences from the paper: any loss (the full softmax, as the paper has it, by default); the recurrent layer
is torch's GRU, whose reset gate acts after the multiply, with biases; two layers of it are not an option.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to the state.
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
from seqrec.nn.embedding import add_users, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.nn.recurrence import GRULayer
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class NARMSettings(Settings):
    """Hyperparameters of the network of NARM."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of item vectors and of the state that is compared with them."""
    hidden: int = Field(128, ge=1, le=16_384)
    """Units of the recurrent layer and of attention."""
    length: int = Field(50, ge=1, le=1_000_000)
    """Events that are read, from the end of the history."""
    dropout_embedding: float = Field(0.25, ge=0, lt=1)
    """Dropout on the input item vectors."""
    dropout_hidden: float = Field(0.5, ge=0, lt=1)
    """Dropout on what the two encoders found."""


class NARMNetwork(Encoder):
    """An item table, a GRU layer and attention: see the top of the file."""

    scores_rows = True

    def __init__(self, settings: NARMSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width, f.item)
        self.input_items = None if f.item_is_sequence else embedding(items, s.width, f.sequence, self.items)
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset({"users"} if self.users is not None else ())
        for table in (self.items, self.input_items, self.users):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.xavier_normal_(vectors)
        self.gru = GRULayer(s.width, s.hidden)
        self.of_now, self.of_then = (nn.Linear(s.hidden, s.hidden, bias=False) for _ in range(2))
        self.weigh = nn.Linear(s.hidden, 1, bias=False)
        self.bilinear = nn.Linear(2 * s.hidden, s.width, bias=False)

    @property
    def window(self) -> int:
        """See ``seqrec.nn.encoder.Encoder``."""
        return self.settings.length

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.windows(split, self.settings.length, positions, rng)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_states(query, self.settings.length)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_states_of(items, lengths, users, self.settings.length)

    def encode(self, inputs: Inputs) -> Tensor:
        s, at, (rows, steps) = self.settings, inputs.at, inputs.items.shape
        x = dropout((self.input_items or self.items)(inputs.items.T), s.dropout_embedding, self.training)
        h = self.gru(x, x.new_zeros(rows, s.hidden)).transpose(0, 1)
        then = self.of_then(h)
        # which states are asked: of each row the wanted one, if that is all, or every one
        one = at.shape[0] == rows
        place = torch.arange(steps, device=at.device)
        asked = (at - torch.arange(rows, device=at.device) * steps)[:, None] if one else place[None]
        now = h.flatten(0, 1)[at][:, None] if one else h
        weights = self.weigh((self.of_now(now)[:, :, None] + then[:, None]).sigmoid()).squeeze(-1)
        weights = weights * (place <= asked[:, :, None])
        x = torch.cat([weights @ h, now], -1)
        x = x[:, 0] if one else x.flatten(0, 1)[at]
        x = self.bilinear(dropout(x, s.dropout_hidden, self.training))
        if self.users is not None:
            x = add_users(x, self.users, inputs, s.dropout_embedding if self.training else 0.0)
        return x

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class NARM(NeuralModel):
    name = "narm"
    takes_features = True
    Settings = NARMSettings
    Network = NARMNetwork
