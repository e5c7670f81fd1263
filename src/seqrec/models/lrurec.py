"""LRURec: linear recurrent units read a history; the state after its last item is compared with every item.

Yue, Wang, He, Zeng, McAuley, Wang: Linear Recurrent Units for Sequential Recommendation, WSDM 2024 (arXiv
2310.02367), with the units of Orvieto et al., 2023 (arXiv 2303.06349).

    x_t = norm(dropout(e(i_t)))
    h_t = l * h_(t-1) + g * (B x_t + b)          l = exp(-exp(nu) + i exp(theta)), complex, a number a channel
    y_t = norm(x_t + dropout(Re(C h_t + c)))
    x_t <- norm(y_t + dropout(W2 dropout(gelu(W1 y_t))))                 these three lines are a block
    score(j | history) = e(j) . x_t + b(j)       one item table for input and output

nu, theta and log g are learned; at first |l| is between ``radius_min`` and ``radius_max``, and g = sqrt(1 -
|l|^2). Nothing between two steps is nonlinear. So all states of a sequence are found in log2(steps) rounds
(``scan``), each of which joins neighbouring pieces: the states of the right one get the last state of the
left one, times powers of l. And a new event costs one step when serving.

Complex B and C are real layers here: B gives real and imaginary parts in turns, C reads them so.

Differences from the paper: any loss (by default the paper's, the full softmax); windows are padded on the
right, so that no state reads padding; biases of layers and items start at 0, where the authors' code draws
them like the weights; training follows the log, where theirs has AdamW with rate .001, weight decay .01 and
gradients clipped at 5.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.nn.batch import Batches, Inputs
from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import add_users, biases_of, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching


class LRURecSettings(Settings):
    """Hyperparameters of the network of LRURec."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of item vectors and states."""
    blocks: int = Field(2, ge=1, le=64)
    """Blocks: a linear recurrent unit and a feed-forward layer each."""
    expansion: float = Field(2.0, gt=0, le=64)
    """Channels of a recurrent unit, in widths (the authors: 2)."""
    feedforward: float = Field(4.0, gt=0, le=64)
    """Inner width of the feed-forward layers, in widths."""
    length: int = Field(200, ge=1, le=1_000_000)
    """Events that are read, from the end of the history."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on inputs, within feed-forward layers and on what each layer adds."""
    radius_min: float = Field(0.8, ge=0, lt=1)
    """Least share of a state that one step leaves of it, before training."""
    radius_max: float = Field(0.99, gt=0, lt=1)
    """Largest share of a state that one step leaves of it, before training."""

    @field_validator("radius_max")
    @classmethod
    def _above_the_least(cls, radius_max: float, info: ValidationInfo) -> float:
        least = info.data.get("radius_min", 0.0)
        if radius_max <= least:
            raise ValueError(f"more than radius_min, which is {least}")
        return radius_max


def _scan(u: Tensor, decay: Tensor) -> Tensor:
    """``scan`` in place: pieces of 1, 2, 4, ... steps whose states are known are joined in pairs."""
    rows, steps, channels = u.shape
    size, powers = 1, decay[None]
    while size < steps:
        pairs = steps // (2 * size)
        paired = u[:, : pairs * 2 * size].view(rows, pairs, 2, size, channels)
        paired[:, :, 1].addcmul_(powers, paired[:, :, 0, -1:])
        begin = pairs * 2 * size + size  # of a right piece that is shorter
        if begin < steps:
            u[:, begin:].addcmul_(powers[: steps - begin], u[:, begin - 1 : begin])
        size, powers = 2 * size, torch.cat([powers, powers * powers[-1]])
    return u


class _Scan(torch.autograd.Function):
    """Its gradient is a scan from the end: what flows into h_t also flows into h_(t-1), times conj(l)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, decay: Tensor) -> Tensor:
        states = _scan(u.clone(), decay)
        ctx.save_for_backward(states, decay)
        return states

    @staticmethod
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor]:
        states, decay = ctx.saved_tensors
        d_u = _scan(d_states.flip(1), decay.conj()).flip(1)
        return d_u, (d_u[:, 1:] * states[:, :-1].conj()).sum((0, 1))


def scan(u: Tensor, decay: Tensor) -> Tensor:
    """The states h_t = decay * h_(t-1) + u_t after each step, from h_0 = 0.

    Args:
        u: (rows, steps, channels) complex.
        decay: (channels,) complex.
    Returns:
        (rows, steps, channels)
    """
    apply: Callable[..., Tensor] = _Scan.apply
    return apply(u, decay)


def scan_in_reals(u: Tensor, decay: Tensor, longest: int) -> Tensor:
    """``scan`` for graphs, which know neither complex numbers nor how many steps there are: in each round
    every state gets the one 1, 2, 4, ... steps before it.

    Args:
        u: (rows, steps, channels, 2) real and imaginary parts.
        decay: (channels, 2).
        longest: the most steps that there can be.
    Returns:
        (rows, steps, channels, 2)
    """
    steps = u.shape[1]
    real, imaginary = u.unbind(-1)
    a, b = decay.unbind(-1)
    for distance in (1 << n for n in range((longest - 1).bit_length())):
        r, i = (F.pad(part, (0, 0, distance, 0))[:, :steps] for part in (real, imaginary))
        real, imaginary = real + a * r - b * i, imaginary + a * i + b * r
        a, b = a * a - b * b, 2 * a * b
    return torch.stack([real, imaginary], -1)


class Block(nn.Module):
    """A linear recurrent unit, then a feed-forward layer; each is added to what it reads."""

    def __init__(self, s: LRURecSettings):
        super().__init__()
        self.dropout, self.longest = s.dropout, s.length
        channels, inner = round(s.expansion * s.width), round(s.feedforward * s.width)
        low, high = s.radius_min**2, s.radius_max**2
        radius = (low + (high - low) * torch.rand(channels)).sqrt()
        self.nu = nn.Parameter((-radius.log()).log())
        self.theta = nn.Parameter((2 * math.pi * torch.rand(channels)).clamp(min=1e-6).log())
        self.log_gain = nn.Parameter(0.5 * (1 - radius**2).log())
        self.read = nn.Linear(s.width, 2 * channels)
        self.write = nn.Linear(2 * channels, s.width)
        self.norm_unit = nn.LayerNorm(s.width)
        self.inner = nn.Linear(s.width, inner)
        self.outer = nn.Linear(inner, s.width)
        self.norm_feedforward = nn.LayerNorm(s.width)
        for layer in (self.read, self.write, self.inner, self.outer):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(layer.bias)

    def inputs(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., channels, 2) what enters the recurrence, real and imaginary part."""
        u = self.read(x).float() if self.nu.dtype == torch.float32 else self.read(x)
        pairs: Tensor = u.unflatten(-1, (-1, 2)) * self.log_gain.exp()[:, None]
        return pairs

    def decay(self) -> Tensor:
        """(channels, 2) real and imaginary part of l."""
        radius, angle = (-self.nu.exp()).exp(), self.theta.exp()
        return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)

    def outputs(self, x: Tensor, h: Tensor) -> Tensor:
        """(..., width) inputs and (..., channels, 2) states after them -> (..., width)."""
        x = self.norm_unit(x + dropout(self.write(h.flatten(-2)), self.dropout, self.training))
        y = dropout(F.gelu(self.inner(x)), self.dropout, self.training)
        x = self.norm_feedforward(x + dropout(self.outer(y), self.dropout, self.training))
        return x

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(rows, steps, width) -> the same; or, with ``at``, only the states at these flat positions,
        (len(at), width)."""
        u = self.inputs(x)
        if torch.compiler.is_exporting():
            h = scan_in_reals(u, self.decay(), self.longest)
        else:
            h = torch.view_as_real(scan(torch.view_as_complex(u), torch.view_as_complex(self.decay())))
        return self.outputs(x, h) if at is None else self.outputs(x.flatten(0, 1)[at], h.flatten(0, 1)[at])


class LRURecNetwork(Encoder):
    """An item table, whose last column is the items' biases, and blocks: see the top of the file."""

    scores_rows = True

    def __init__(self, settings: LRURecSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width + 1, f.item, biases=1)
        self.input_items = (
            None if f.item_is_sequence else embedding(items, s.width + 1, f.sequence, self.items, 1)
        )
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset({"users"} if self.users is not None else ())
        for table in (self.items, self.input_items, self.users):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.trunc_normal_(vectors, std=0.02, a=-0.04, b=0.04)
                for biases in biases_of(table, s.width):
                    nn.init.zeros_(biases)
        self.norm = nn.LayerNorm(s.width)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.blocks))

    @property
    def window(self) -> int:
        """See ``seqrec.nn.encoder.Encoder``."""
        return self.settings.length

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.windows(split, self.settings.length, positions, rng)

    @property
    def longest(self) -> int:
        """See ``seqrec.nn.encoder.Streaming``: a step knows no user."""
        return 0 if self.users is not None else self.settings.length

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_states(query, self.settings.length)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_states_of(items, lengths, users, self.settings.length)

    def input_vectors(self, items: Tensor) -> Tensor:
        """(...) items -> (..., width) what the first block reads."""
        s, x = self.settings, (self.input_items or self.items)(items)
        return self.norm(dropout(x[..., : s.width], s.dropout, self.training))  # type: ignore[no-any-return]

    def encode(self, inputs: Inputs) -> Tensor:
        x = self.input_vectors(inputs.items)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, inputs.at)
        if self.users is not None:
            x = add_users(x, self.users, inputs, self.settings.dropout if self.training else 0.0)
        return x

    def start(self, rows: int) -> list[Tensor]:
        """(rows, channels, 2) zeros of each block: the state before any event."""
        nus = [block.nu for block in self.blocks if isinstance(block, Block)]
        return [nu.new_zeros(rows, len(nu), 2) for nu in nus]

    def step(self, state: list[Tensor], items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Reads one more item, (rows,), of each history: see ``seqrec.nn.encoder.Streaming``. Users are
        unknown."""
        x, after = self.input_vectors(items), []
        for block, h in zip(self.blocks, state, strict=True):
            assert isinstance(block, Block)
            before = torch.view_as_complex(h) * torch.view_as_complex(block.decay())
            after.append(block.inputs(x) + torch.view_as_real(before))
            x = block.outputs(x, after[-1])
        return after, x

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return rows_of(self.items, items)


class LRURec(NeuralModel):
    name = "lrurec"
    takes_features = True
    Settings = LRURecSettings
    Network = LRURecNetwork
