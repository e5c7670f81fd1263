"""FMLP-Rec: learned filters of the frequencies of a history; its last state is compared with every item.

Zhou, Yu, Zhao, Wen: Filter-enhanced MLP is All You Need for Sequential Recommendation, WWW 2022 (arXiv
2202.13556).

    x_t = dropout(norm(e(i_t) + p_t))
    X   = F x                                    the real Fourier transform over the ``length`` steps
    x  <- norm(x + dropout(F^-1 (W * X)))        equations 3 to 5; W: a complex number a frequency and channel
    x  <- norm(x + dropout(W2 gelu(W1 x)))       equation 6
    score(j | history) = e(j) . x_last           one item table for input and output

A filter mixes all steps of a window, later ones too, so only the last state may be asked what comes next. The
authors' code trains it for the last item of each window, and so does this one: every training event has a row
of its own, with the items before it (``batching.prefixes``). Rows are read with their last item at the end.

The transform is a product with a matrix: no slower at these lengths, and a graph can have it. Steps before
the first item are zero at every filter. So they need not be computed, and a short history costs less.

Differences from the paper: any loss (the full softmax by default, where the paper has binary cross-entropy
with one negative); in the authors' code the steps before the first item hold a padding item, which filters
read.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to the state.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.blocks import FeedForward, right_aligned, start_as_bert
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import add_users, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class FMLPSettings(Settings):
    """Hyperparameters of the network of FMLP-Rec."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of item vectors and states."""
    blocks: int = Field(2, ge=1, le=64)
    """Blocks: a filter and a feed-forward layer each."""
    length: int = Field(50, ge=1, le=10_000)
    """Events that are read, from the end of the history."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout on inputs and on what each layer adds."""
    feedforward: float = Field(4.0, gt=0, le=64)
    """Inner width of the feed-forward layers, in widths."""


def fourier(length: int) -> tuple[Tensor, Tensor]:
    """The real Fourier transform as matrices: real parts of the length // 2 + 1 frequencies, then imaginary
    ones.

    Returns:
        there: (2 frequencies, length) float64.  back: (length, 2 frequencies), its inverse.
    """
    frequency, step = torch.arange(length // 2 + 1), torch.arange(length)
    angle = 2 * math.pi * (frequency[:, None] * step % length).double() / length
    # a frequency stands for its mirror image, too, but for the first and, of an even length, the last
    weight = torch.where((frequency == 0) | (2 * frequency == length), 1.0, 2.0).double() / length
    back = torch.cat([weight * angle.cos().T, -weight * angle.sin().T], 1)
    return torch.cat([angle.cos(), -angle.sin()]), back


class Block(nn.Module):
    """A learned filter, then a feed-forward layer."""

    def __init__(self, s: FMLPSettings):
        super().__init__()
        self.dropout, self.length = s.dropout, s.length
        self.gain = nn.Parameter(0.02 * torch.randn(2, s.length // 2 + 1, s.width))
        self.norm = nn.LayerNorm(s.width, eps=1e-12)
        self.feedforward = FeedForward(s.width, round(s.feedforward * s.width), s.dropout)
        self.there: Tensor
        self.back: Tensor
        for name, matrix in zip(("there", "back"), fourier(s.length), strict=True):
            self.register_buffer(name, matrix.float(), persistent=False)

    def forward(self, x: Tensor, known: Tensor, last: bool) -> Tensor:
        """(rows, steps, width) -> the same; or (rows, 1, width), the last step alone.

        Args:
            x: zero before the first item.
            known: (rows, steps) bool, True where there is an item.
        """
        first = self.length - x.shape[1]
        real, imaginary = torch.einsum("fs,bsd->bfd", self.there[:, first:], x).chunk(2, 1)
        a, b = self.gain
        filtered = torch.cat([real * a - imaginary * b, real * b + imaginary * a], 1)
        x, wanted = (x[:, -1:], self.back[-1:]) if last else (x, self.back[first:])
        filtered = torch.einsum("sf,bfd->bsd", wanted, filtered)
        x = self.feedforward(self.norm(x + dropout(filtered, self.dropout, self.training)))
        return x


class FMLPNetwork(Encoder):
    """An item table, positions and blocks: see the top of the file."""

    scores_rows = True

    Block: ClassVar[type[nn.Module]] = Block

    def __init__(self, settings: FMLPSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width, f.item)
        self.input_items = None if f.item_is_sequence else embedding(items, s.width, f.sequence, self.items)
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset({"users"} if self.users is not None else ())
        self.places = nn.Embedding(s.length, s.width)
        self.norm = nn.LayerNorm(s.width, eps=1e-12)
        self.blocks = nn.ModuleList(type(self).Block(s) for _ in range(s.blocks))
        start_as_bert(self)

    @property
    def window(self) -> int:
        """See ``seqrec.nn.encoder.Encoder``."""
        return self.settings.length

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.prefixes(split, self.settings.length, positions, rng, self.reads)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_states(query, self.settings.length)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_states_of(items, lengths, users, self.settings.length)

    def encode(self, inputs: Inputs) -> Tensor:
        s = self.settings
        items, known = right_aligned(inputs.items, inputs.mask, inputs.at)
        x: Tensor = (self.input_items or self.items)(items)
        x = x + self.places.weight[s.length - items.shape[1] :]
        x = dropout(self.norm(x), s.dropout, self.training)
        for n, block in enumerate(self.blocks):
            x = block(x * known[:, :, None], known, last=n + 1 == s.blocks)
        x = x[:, -1]
        if self.users is not None:
            x = add_users(x, self.users, inputs, s.dropout if self.training else 0.0)
        return x

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class FMLP(NeuralModel):
    name = "fmlp"
    takes_features = True
    Settings = FMLPSettings
    Network = FMLPNetwork
