"""FuXi-alpha: what HSTU adds up before it attends, meaning, place and time, attends here by itself.

Ye and others: FuXi-alpha: Scaling Recommendation Model with Feature Interaction Enhanced Transformer, WWW
2025 (arXiv 2502.03036).

    x_t = sqrt(width) e(i_t) + p_t
    u, q, k, v = silu(W norm(x))                                   norm by the root mean square, no weights
    a_ts = silu(q_t . k_s) / length,   b_ts = r(t - s),   c_ts = r'(time between)         for s <= t
    h_t = u_t * norm([sum b_ts v_s, sum c_ts v_s, sum a_ts v_s])   three channels side by side
    o_t = x_t + O dropout(h_t)                                     first stage
    x_t <- o_t + W_3 (silu(W_1 norm(o_t)) * W_2 norm(o_t))         second stage
    score(j | history) = cos(e(j), x_t) / temperature              one item table for input and output

r and r' are learned numbers, of a distance and of a class of times, in each block their own. Times are told
apart as HSTU tells them, and are those from event s to the event that step t predicts; without ``times`` that
channel is left out.

Differences from the authors' code for MovieLens: as of HSTU, whose network this one is but for its blocks.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.models.hstu import BUCKETS, EPSILON, HSTUNetwork, HSTUSettings
from seqrec.models.neural import NeuralModel
from seqrec.nn.dropout import dropout


class FuXiSettings(HSTUSettings):
    """Hyperparameters of the network of FuXi-alpha."""

    feedforward: float = Field(1.0, gt=0, le=64)
    """Width of the second stage of each block, in widths of the item vectors."""


class FuXiBlock(nn.Module):
    """Attention by three channels and two stages after it."""

    def __init__(self, s: FuXiSettings):
        super().__init__()
        self.heads, self.dropout, self.length = s.heads, s.dropout, s.length
        channels = 3 if s.times else 2
        self.u = nn.Linear(s.width, channels * s.width, bias=False)
        self.q = nn.Linear(s.width, s.width, bias=False)
        self.vk = nn.Linear(s.width, 2 * s.width, bias=False)
        self.of_distance = nn.Parameter(torch.empty(s.length))
        self.of_time = nn.Parameter(torch.empty(BUCKETS + 1)) if s.times else None
        self.out = nn.Linear(channels * s.width, s.width)
        inner = max(1, round(s.feedforward * s.width))
        self.gate = nn.Linear(s.width, inner, bias=False)
        self.up = nn.Linear(s.width, inner, bias=False)
        self.down = nn.Linear(inner, s.width, bias=False)
        for weights in (self.u.weight, self.q.weight, self.vk.weight, self.of_distance, self.of_time):
            if weights is not None:
                nn.init.normal_(weights, std=0.02)
        for layer in (self.out, self.gate, self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor, spans: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """(rows, steps, width) -> the same; arguments as of ``seqrec.models.hstu.Unit``."""
        rows, steps, width = x.shape
        y = norm(x)
        place = torch.arange(steps, device=x.device)
        asking, asked = y, place[None]
        if at is not None:
            x, asking = x.flatten(0, 1)[at][:, None], y.flatten(0, 1)[at][:, None]
            asked = (at - torch.arange(rows, device=x.device) * steps)[:, None]
        q = F.silu(self.q(asking)).view(rows, -1, self.heads, width // self.heads)
        v, k = F.silu(self.vk(y)).chunk(2, -1)
        distance = asked[:, :, None] - place  # (1 or rows, steps or 1, steps)
        before = distance >= 0
        channels = [(self.of_distance[distance.clamp(min=0)] * before) @ v]
        if spans is not None:
            assert self.of_time is not None
            channels.append((self.of_time[spans] * before) @ v)
        a = torch.einsum("bthd,bshd->bhts", q, k.view(rows, steps, self.heads, -1))
        a = F.silu(a) / self.length * before[:, None]
        channels.append(torch.einsum("bhts,bshd->bthd", a, v.view(rows, steps, self.heads, -1)).flatten(2))
        found = F.silu(self.u(asking)) * norm(torch.cat(channels, -1))
        x = x + self.out(dropout(found, self.dropout, self.training))
        y = dropout(norm(x), self.dropout, self.training)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return x if at is None else x[:, 0]


def norm(x: Tensor) -> Tensor:
    """(..., width) over its root mean square."""
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON)


class FuXiNetwork(HSTUNetwork):
    """See the top of the file."""

    unit = FuXiBlock


class FuXi(NeuralModel):
    name = "fuxi"
    takes_features = True
    Settings = FuXiSettings
    Network = FuXiNetwork
    default_loss: ClassVar = {"name": "sampled_softmax"}
    default_negatives: ClassVar = {"count": 128, "shared": False}
