"""SASRec: self-attention reads a history; the state after its last item is compared with every item.

Kang and McAuley: Self-Attentive Sequential Recommendation, ICDM 2018 (arXiv 1808.09781).

    x_t = e(i_t) + p_t                           equation 1 (e scaled by sqrt(width), as in the authors' code)
    x  <- x + dropout(attention(norm(x)))        equations 2 to 4, section III.B
    x  <- x + dropout(feedforward(norm(x)))      equation 5
    score(j | history) = e(j) . norm(x_t)        equation 6, one item table for input and output

Differences from the paper: any loss (the full softmax by default, where the paper has binary cross-entropy
with one negative); windows are padded on the right, so the position of an item counts from the start of its
window and no padding is ever attended to; no dropout on attention weights; drawn negatives may be other items
of the history; ``gated`` feed-forward layers, their width and ``rotary`` positions are options.

With ``pool_baskets`` it reads baskets (``seqrec.nn.baskets``): x_t is the mean or the largest of the vectors
of the items of basket t, and after each basket the items of the next are the targets, whose softmax losses
are averaged.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to the state, norm(x_t) + u.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.nn.baskets import PoolBaskets, pooled
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import add_users, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import basket_batching, batching


class SASRecSettings(Settings):
    """Hyperparameters of the network of SASRec."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of item vectors and states."""
    blocks: int = Field(2, ge=1, le=64)
    """Attention blocks."""
    heads: int = Field(1, ge=1)
    """Attention heads a block; divides the width."""
    length: int = Field(200, ge=1, le=1_000_000)
    """Events that are attended to, from the end of the history; with ``pool_baskets`` baskets."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on inputs and on what each block adds."""
    feedforward: float = Field(1.0, gt=0, le=64)
    """Inner width of the feed-forward layers, in widths (the paper: 1)."""
    gated: bool = False
    """SwiGLU feed-forward layers (Shazeer, 2020) in place of ReLU."""
    positions: Literal["learned", "rotary"] = "learned"
    """A learned vector a position (the paper), or queries and keys rotated by their position, so that
    attention sees distances (Su et al., 2021)."""
    pool_baskets: PoolBaskets | None = None
    """How a basket of the log becomes one step: the ``average`` of its items' vectors or the largest
    (``max``). None reads item after item, whatever baskets there are."""

    @field_validator("heads")
    @classmethod
    def _divides_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", heads)
        if width % heads:
            raise ValueError(f"a divisor of the width, which is {width}")
        return heads

    @field_validator("positions")
    @classmethod
    def _can_rotate(cls, positions: str, info: ValidationInfo) -> str:
        width, heads = info.data.get("width", 2), info.data.get("heads", 1)
        if positions == "rotary" and width // heads % 2:
            raise ValueError(
                f"'learned' where width / heads is odd ({width} / {heads}), since 'rotary' rotates pairs; "
                "or another width or heads"
            )
        return positions


def rotate(x: Tensor, turns: Tensor | None) -> Tensor:
    """Rotates pairs of dimensions (i, i + size / 2) by an angle that grows with the position.

    (RoFormer, Su et al., 2021, equation 34.)

    Args:
        x: (rows, heads, steps, size).
        turns: (2, ..., steps, size / 2) cosines and sines, or None to leave x as it is.
    """
    if turns is None:
        return x
    (cos, sin), (a, b) = turns, x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """Causal self-attention, then a feed-forward layer; each is added to what it reads."""

    def __init__(self, s: SASRecSettings):
        super().__init__()
        self.heads, self.dropout, self.gated = s.heads, s.dropout, s.gated
        self.norm_attention = nn.LayerNorm(s.width)
        self.norm_feedforward = nn.LayerNorm(s.width)
        self.qkv = nn.Linear(s.width, 3 * s.width)
        self.out = nn.Linear(s.width, s.width)
        inner = round(s.feedforward * s.width)
        self.inner = nn.Linear(s.width, 2 * inner if s.gated else inner)
        self.outer = nn.Linear(inner, s.width)

    def forward(self, x: Tensor, turns: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """(rows, steps, width) -> the same; or, with ``at``, only the states at these flat positions,
        (len(at), width), one a row."""
        rows, steps, width = x.shape
        y = self.norm_attention(x)
        if at is None:
            q, k, v = self.qkv(y).view(rows, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(rotate(q, turns), rotate(k, turns), v, is_causal=True)
            a = a.transpose(1, 2).reshape(rows, steps, width)
        else:
            x = x.reshape(rows * steps, width)[at]
            wq, bq = self.qkv.weight[:width], self.qkv.bias[:width]
            q = (
                F.linear(y.reshape(rows * steps, width)[at], wq, bq)
                .view(rows, 1, self.heads, -1)
                .transpose(1, 2)
            )
            k, v = (
                F.linear(y, self.qkv.weight[width:], self.qkv.bias[width:])
                .view(rows, steps, 2, self.heads, -1)
                .permute(2, 0, 3, 1, 4)
            )
            place = at - torch.arange(rows, device=x.device) * steps
            known = torch.arange(steps, device=x.device) <= place[:, None]
            turned = None if turns is None else turns[:, place][:, :, None, None]
            a = F.scaled_dot_product_attention(
                rotate(q, turned), rotate(k, turns), v, attn_mask=known[:, None, None, :]
            )
            a = a.reshape(rows, width)
        x = self.added(x, self.out(a), "attention")
        y = self.inner(self.norm_feedforward(x))
        if self.gated:
            gate, y = y.chunk(2, -1)
            y = F.silu(gate) * y
        else:
            y = F.relu(y)
        return self.added(x, self.outer(y), "feedforward")

    def added(self, x: Tensor, y: Tensor, layer: str) -> Tensor:
        """What a layer read, x, and what it made of that, y, both (..., width): the two together."""
        return x + dropout(y, self.dropout, self.training)


class SASRecNetwork(Encoder):
    """An item table, positions and blocks of attention: see the top of the file."""

    scores_rows = True

    def __init__(self, settings: SASRecSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width, f.item)
        self.input_items = None if f.item_is_sequence else embedding(items, s.width, f.sequence, self.items)
        self.places = nn.Embedding(s.length, s.width) if s.positions == "learned" else None
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset(
            {*(["users"] if self.users is not None else []), *(["baskets"] if s.pool_baskets else [])}
        )
        for table in (self.items, self.input_items, self.places, self.users):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.normal_(vectors, std=1 / math.sqrt(s.width))
        if s.positions == "rotary":
            half = s.width // s.heads // 2
            angles = torch.arange(s.length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
            self.turns: Tensor
            self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]), persistent=False)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.blocks))
        self.norm: nn.Module = nn.LayerNorm(s.width)

    @property
    def window(self) -> int:
        """See ``seqrec.nn.encoder.Encoder``."""
        return 0 if self.settings.pool_baskets else self.settings.length

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        if self.settings.pool_baskets:
            return basket_batching.basket_windows(split, self.settings.length, positions, rng)
        return batching.windows(split, self.settings.length, positions, rng)

    def query_inputs(self, query: Query) -> Inputs:
        if self.settings.pool_baskets:
            return basket_batching.last_baskets_in_order(query, self.settings.length)
        return batching.last_states(query, self.settings.length)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_states_of(items, lengths, users, self.settings.length)

    def encode(self, inputs: Inputs) -> Tensor:
        x = (self.input_items or self.items)(inputs.items)
        if self.settings.pool_baskets:
            x, inputs = pooled(x, inputs, self.settings.pool_baskets)
        rows, steps = inputs.items.shape
        x = x * math.sqrt(self.settings.width)
        if self.places is not None:
            x = x + self.places.weight[:steps]
        turns = None if self.places is not None else self.turns[:, :steps]
        x = dropout(x, self.settings.dropout, self.training)
        for block in self.blocks[:-1]:
            x = block(x, turns)
        # one state a row is wanted: the last block computes no other
        if inputs.at.shape[0] == rows:
            x = self.blocks[-1](x, turns, inputs.at)
        else:
            x = self.blocks[-1](x, turns).reshape(rows * steps, -1)[inputs.at]
        x = self.norm(x)
        return (
            x
            if self.users is None
            else add_users(x, self.users, inputs, self.settings.dropout if self.training else 0.0)
        )

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class SASRec(NeuralModel):
    name = "sasrec"
    takes_features = True
    Settings = SASRecSettings
    Network = SASRecNetwork
