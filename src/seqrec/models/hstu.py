"""HSTU: units that transduce a sequence by pointwise attention, each step gated by its own input.

Zhai and others: Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations, ICML 2024 (arXiv 2402.17152).

    x_t = sqrt(width) e(i_t) + p_t
    u, q, v, k = silu(W norm(x))                                          equation 1 (norm without weights)
    a_ts = silu(q_t . k_s + r(t - s) + r'(time between)) / length         equation 2, for s <= t
    x_t <- x_t + O dropout(u_t * norm(sum over s of a_ts v_s)) + o        equation 3
    score(j | history) = cos(e(j), x_t) / temperature                     one item table for input and output

Attention has no softmax, so how much of something a history holds is not lost. r is a learned number a
distance, in each block its own.

With ``times`` the bias r' is added, a learned number for the time from event s to the event that step t
predicts, which is rounded to a power of about 1.35 seconds (section 3.1.2; ``hstu.py`` of the authors). The
moment that is asked for is then part of the input. Such a model needs a log with times, and belongs to
protocols that tell the moment (``ml-1m-time-v1``).

Differences from the authors' code for MovieLens: any loss (by default theirs, sampled softmax with 128 items
drawn uniformly for each position, on cosines); windows are padded on the right; training follows the log,
where theirs has AdamW with rate .001.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to x_t at the end.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

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
from seqrec.nn.embedding import add_users, embedding, rows_of
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import batching

BUCKETS, STEP = 128, 0.301
"""Classes of times between events, and how much longer each is than the one before, as a logarithm."""
EPSILON = 1e-6
"""Of the norms. It matters: what is attended to in a short history is small, and is not blown up."""


class HSTUSettings(Settings):
    """Hyperparameters of the network of HSTU."""

    width: int = Field(64, ge=1, le=16_384)
    """Width of item vectors and states; in each block also of u, v, q and k."""
    blocks: int = Field(2, ge=1, le=64)
    """Transduction units."""
    heads: int = Field(1, ge=1)
    """Heads a unit; divides the width."""
    length: int = Field(200, ge=1, le=1_000_000)
    """Events that are read, from the end of the history."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on inputs and before the output layer of each unit."""
    times: bool = False
    """Whether attention knows the times between events, and the moment that is asked for."""
    temperature: float = Field(0.05, gt=0)
    """Cosines of states and item vectors are divided by it."""

    @field_validator("heads")
    @classmethod
    def _divides_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", heads)
        if width % heads:
            raise ValueError(f"a divisor of the width, which is {width}")
        return heads


class Unit(nn.Module):
    """One transduction unit; what it makes is added to what it reads."""

    def __init__(self, s: HSTUSettings):
        super().__init__()
        self.heads, self.dropout, self.length = s.heads, s.dropout, s.length
        self.uq = nn.Linear(s.width, 2 * s.width, bias=False)
        self.vk = nn.Linear(s.width, 2 * s.width, bias=False)
        self.out = nn.Linear(s.width, s.width)
        self.of_distance = nn.Parameter(torch.empty(s.length))
        self.of_time = nn.Parameter(torch.empty(BUCKETS + 1)) if s.times else None
        for weights in (self.uq.weight, self.vk.weight, self.of_distance, self.of_time):
            if weights is not None:
                nn.init.normal_(weights, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, x: Tensor, spans: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """(rows, steps, width) -> the same; or, with ``at``, only the states at these flat positions,
        (len(at), width), one a row.

        Args:
            spans: (rows, steps, steps) or, with ``at``, (rows, 1, steps) classes of the time from each event
                to the one that is predicted.
        """
        rows, steps, width = x.shape
        y = F.layer_norm(x, (width,), eps=EPSILON)
        place = torch.arange(steps, device=x.device)
        asking, asked = y, place[None]
        if at is not None:
            x, asking = x.flatten(0, 1)[at][:, None], y.flatten(0, 1)[at][:, None]
            asked = (at - torch.arange(rows, device=x.device) * steps)[:, None]
        u, q = F.silu(self.uq(asking)).chunk(2, -1)
        q = q.view(rows, -1, self.heads, width // self.heads)
        v, k = (part.view(rows, steps, self.heads, -1) for part in F.silu(self.vk(y)).chunk(2, -1))
        distance = asked[:, :, None] - place  # (1 or rows, steps or 1, steps)
        bias = self.of_distance[distance.clamp(min=0)]
        if spans is not None:
            assert self.of_time is not None
            bias = bias + self.of_time[spans]
        a = torch.einsum("bthd,bshd->bhts", q, k) + bias[:, None]
        a = F.silu(a) / self.length * (distance >= 0)[:, None]
        found = torch.einsum("bhts,bshd->bthd", a, v).flatten(2)
        found = u * F.layer_norm(found, (width,), eps=EPSILON)
        x = x + self.out(dropout(found, self.dropout, self.training))
        return x if at is None else x[:, 0]


class HSTUNetwork(Encoder):
    """An item table, positions and transduction units: see the top of the file.

    Attributes:
        unit: class of the units, made of the settings.
    """

    unit: ClassVar[Any] = Unit

    def __init__(self, settings: HSTUSettings, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=False)
        self.items = embedding(items, s.width, f.item)
        self.input_items = None if f.item_is_sequence else embedding(items, s.width, f.sequence, self.items)
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset(
            name for name, read in (("users", self.users is not None), ("times", s.times)) if read
        )
        self.places = nn.Embedding(s.length, s.width)
        nn.init.trunc_normal_(self.places.weight, std=1 / math.sqrt(s.width), a=-2, b=2)
        for table in (self.items, self.input_items, self.users):
            if table is not None:
                for vectors in table.parameters():
                    nn.init.trunc_normal_(vectors, std=0.02)
        self.units = nn.ModuleList(self.unit(s) for _ in range(s.blocks))

    @property
    def window(self) -> int:
        """See ``seqrec.nn.encoder.Encoder``."""
        return self.settings.length

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.windows(split, self.settings.length, positions, rng, self.reads)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_states(query, self.settings.length, self.reads)

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        return batching.last_states_of(items, lengths, users, self.settings.length)

    def encode(self, inputs: Inputs) -> Tensor:
        s, (rows, steps) = self.settings, inputs.items.shape
        x = (self.input_items or self.items)(inputs.items) * math.sqrt(s.width) + self.places.weight[:steps]
        x = dropout(x, s.dropout, self.training)
        spans = spans_of(inputs) if s.times else None
        for unit in self.units[:-1]:
            x = unit(x, spans)
        # one state a row is wanted: the last unit computes no other
        if inputs.at.shape[0] == rows:
            place = inputs.at - torch.arange(rows, device=x.device) * steps
            if spans is not None:
                spans = spans[torch.arange(rows, device=x.device), place][:, None]
            x = self.units[-1](x, spans, inputs.at)
        else:
            x = self.units[-1](x, spans).flatten(0, 1)[inputs.at]
        if self.users is not None:
            x = add_users(x, self.users, inputs, s.dropout if self.training else 0.0)
        return F.normalize(x, dim=-1) / s.temperature

    def item_vectors(self, items: ItemRows = None) -> Tensor:
        return F.normalize(rows_of(self.items, items), dim=-1)


def spans_of(inputs: Inputs) -> Tensor:
    """(rows, steps, steps) the class of the time from each event, last, to the one that each step predicts:
    the next one of the row, or the moment that is asked for."""
    assert inputs.times is not None
    assert inputs.asked_at is not None
    times = inputs.times
    asked = torch.cat([times[:, 1:], times[:, -1:]], 1).flatten()
    asked = asked.index_copy(0, inputs.at, inputs.asked_at.to(asked.dtype)).view(times.shape)
    between = (asked[:, :, None] - times[:, None]).abs().clamp(min=1)
    return (between.double().log() / STEP).long().clamp(max=BUCKETS)


class HSTU(NeuralModel):
    name = "hstu"
    takes_features = True
    Settings = HSTUSettings
    Network = HSTUNetwork
    default_loss: ClassVar = {"name": "sampled_softmax"}
    default_negatives: ClassVar = {"count": 128, "shared": False}
