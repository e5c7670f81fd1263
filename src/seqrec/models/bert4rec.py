"""BERT4Rec: attention to both sides fills in hidden items; the next item is one hidden after the history.

Sun, Liu, Wu, Pei, Lin, Ou, Jiang: BERT4Rec: Sequential Recommendation with Bidirectional Encoder
Representations from Transformer, CIKM 2019 (arXiv 1904.06690).

    x_t = dropout(norm(e(i_t) + p_t)), or norm(m + p_t) where the item is hidden           section 3.4
    x  <- norm(x + dropout(attention(x)))         to all items of the window               equations 1 to 3
    x  <- norm(x + dropout(W2 gelu(W1 x)))                                                 equation 4
    y_t = norm(gelu(W x_t))                       where something is hidden
    score(j) = e(j) . y_t + b(j)                  equation 7, one item table for input and output

In training a random share of the items of every window is hidden, and found again from the items on both
sides (equation 8): each update has as many targets, for more inputs, so it takes more epochs than models that
predict every next item (Petrov, Macdonald, 2022, arXiv 2207.07483). To recommend, the step after the last
item is hidden.

Differences from the paper: any loss (the full softmax, as the paper has it, by default); each epoch cuts
windows and hides items anew, where the authors' code prepares ten copies and adds windows with the last item
hidden; windows are padded on the right; no dropout on attention weights.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to y_t.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.blocks import Attention, FeedForward, start_as_bert
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import add_users, biases_of, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class BERT4RecSettings(Settings):
    """Hyperparameters of the network of BERT4Rec."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of item vectors and states."""
    blocks: int = Field(2, ge=1, le=64)
    """Blocks: attention and a feed-forward layer each."""
    heads: int = Field(2, ge=1)
    """Attention heads a block; divides the width."""
    length: int = Field(200, ge=1, le=1_000_000)
    """Events that are read, from the end of the history, beside the step that is asked for. Windows in
    training have one more."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on inputs and on what each layer adds."""
    feedforward: float = Field(4.0, gt=0, le=64)
    """Inner width of the feed-forward layers, in widths."""
    hide: float = Field(0.2, gt=0, lt=1)
    """Share of the items of a window that are hidden in training."""

    @field_validator("heads")
    @classmethod
    def _divides_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", heads)
        if width % heads:
            raise ValueError(f"a divisor of the width, which is {width}")
        return heads


def ask_after(inputs: Inputs) -> Inputs:
    """One step more for each row: the one after its items is hidden, and its state is wanted."""
    rows, steps = inputs.items.shape
    ends = inputs.mask.sum(1) + torch.arange(rows, device=inputs.items.device) * (steps + 1)
    return Inputs(F.pad(inputs.items, (0, 1)), F.pad(inputs.mask, (0, 1)), ends, inputs.users)


class BERT4RecNetwork(Encoder):
    """An item table, whose last column is the items' biases, positions and blocks: see the top of the file.
    Hidden are the steps whose states are wanted."""

    scores_rows = True

    def __init__(self, settings: BERT4RecSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width + 1, f.item, biases=1)
        self.input_items = (
            None if f.item_is_sequence else embedding(items, s.width + 1, f.sequence, self.items, 1)
        )
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset({"users"} if self.users is not None else ())
        self.places = nn.Embedding(s.length + 1, s.width)
        self.hidden = nn.Parameter(0.02 * torch.randn(s.width))
        self.norm = nn.LayerNorm(s.width, eps=1e-12)
        self.attention = nn.ModuleList(Attention(s.width, s.heads, s.dropout) for _ in range(s.blocks))
        inner = round(s.feedforward * s.width)
        self.feedforward = nn.ModuleList(FeedForward(s.width, inner, s.dropout) for _ in range(s.blocks))
        self.project = nn.Linear(s.width, s.width)
        self.norm_project = nn.LayerNorm(s.width, eps=1e-12)
        start_as_bert(self)
        for table in (self.items, self.input_items):
            if table is not None:
                for biases in biases_of(table, s.width):
                    nn.init.zeros_(biases)

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.hidden(split, self.settings.length + 1, self.settings.hide, positions, rng)

    def query_inputs(self, query: Query) -> Inputs:
        return ask_after(batching.last_states(query, self.settings.length))

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return ask_after(batching.last_states_of(items, lengths, users, self.settings.length))

    def encode(self, inputs: Inputs) -> Tensor:
        s, at, (rows, steps) = self.settings, inputs.at, inputs.items.shape
        asked = torch.zeros(rows * steps, dtype=torch.bool, device=at.device).index_fill(0, at, True)
        asked = asked.view(rows, steps)
        x: Tensor = (self.input_items or self.items)(inputs.items)[..., : s.width]
        x = torch.where(asked[:, :, None], self.hidden, x) + self.places.weight[:steps]
        x = dropout(self.norm(x), s.dropout, self.training)
        seen = (inputs.mask | asked)[:, None, None]
        for attention, feedforward in zip(self.attention[:-1], self.feedforward[:-1], strict=True):
            x = feedforward(attention(x, seen))
        if at.shape[0] == rows:  # one state a row is wanted: the last block computes no other
            x = self.attention[-1](x, seen, x.flatten(0, 1)[at][:, None])[:, 0]
        else:
            x = self.attention[-1](x, seen).flatten(0, 1)[at]
        x = self.norm_project(F.gelu(self.project(self.feedforward[-1](x))))
        if self.users is not None:
            known = inputs.mask.any(1, keepdim=True).expand(rows, steps)
            x = add_users(x, self.users, replace(inputs, mask=known), s.dropout if self.training else 0.0)
        return x

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class BERT4Rec(NeuralModel):
    name = "bert4rec"
    takes_features = True
    Settings = BERT4RecSettings
    Network = BERT4RecNetwork
