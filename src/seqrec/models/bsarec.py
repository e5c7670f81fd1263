"""BSARec: self-attention beside a filter that keeps low frequencies and rescales high ones.

Shin, Choi, Wi, Park: An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention,
AAAI 2024 (arXiv 2312.10325).

    x_t  = dropout(norm(e(i_t) + p_t))
    LFC  = F^-1 of the ``low`` lowest frequencies of x, HFC = x - LFC        section 4.2
    f    = norm(x + dropout(LFC + b^2 HFC))                                  b: learned, a number a channel
    a    = norm(x + dropout(attention(x)))                                   causal
    x   <- s f + (1 - s) a                       s: ``filter_share``, alpha there; equation 8
    x   <- norm(x + dropout(W2 gelu(W1 x)))
    score(j | history) = e(j) . x_last                                     one item table for input and output

LFC is a mean over the steps with weights that depend on the distance alone, a product with a matrix.

As in ``seqrec.models.fmlp``, the filter mixes all steps of a window, so only the last state is asked what
comes next: a row for every training event, with the items before it, as in the authors' code. Steps before
the first item are zero at every filter, and not attended to.

Differences from the authors' code: any loss (the full softmax by default, as theirs); steps before the first
item hold a padding item there, which filters read; no dropout on attention weights; ``low`` counts
frequencies, where their c is 2 low - 2 or 2 low - 1.

With a feature schema e(i) is a sum of vectors: the id's own, where the schema names it, and those of the
attributes' values. What it names of the user is a vector added to the state.
"""

from __future__ import annotations

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from seqrec.models.fmlp import FMLP, FMLPNetwork, FMLPSettings, fourier
from seqrec.nn.blocks import Attention, FeedForward
from seqrec.nn.dropout import dropout


class BSARecSettings(FMLPSettings):
    """Hyperparameters of the network of BSARec."""

    heads: int = Field(1, ge=1)
    """Attention heads a block; divides the width."""
    filter_share: float = Field(0.7, ge=0, le=1)
    """Share of the filter; attention has the rest."""
    low: int = Field(3, ge=1, le=5_000)
    """Frequencies that count as low, the mean of the window included."""

    @field_validator("heads")
    @classmethod
    def _divides_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", heads)
        if width % heads:
            raise ValueError(f"a divisor of the width, which is {width}")
        return heads


def low_pass(length: int, low: int) -> Tensor:
    """(length, length) float64: the matrix that keeps the lowest frequencies of a window."""
    there, back = fourier(length)
    kept = (torch.arange(length // 2 + 1) < low).repeat(2)
    return (back * kept) @ there


class Block(nn.Module):
    """A filter and attention side by side, then a feed-forward layer."""

    def __init__(self, s: BSARecSettings):
        super().__init__()
        self.dropout, self.share = s.dropout, s.filter_share
        self.root_high = nn.Parameter(torch.randn(s.width))
        self.norm = nn.LayerNorm(s.width, eps=1e-12)
        self.attention = Attention(s.width, s.heads, s.dropout)
        self.feedforward = FeedForward(s.width, round(s.feedforward * s.width), s.dropout)
        self.low: Tensor
        self.register_buffer("low", low_pass(s.length, s.low).float(), persistent=False)

    def forward(self, x: Tensor, known: Tensor, last: bool) -> Tensor:
        """(rows, steps, width) -> the same; or (rows, 1, width), the last step alone.

        Args:
            x: zero before the first item.
            known: (rows, steps) bool, True where there is an item.
        """
        first = len(self.low) - x.shape[1]
        step = torch.arange(x.shape[1], device=x.device)
        # a step sees itself even before the first item: nothing is no input of a softmax
        seen = (known[:, None] & (step[:, None] >= step)) | (step[:, None] == step)
        low = self.low[first:, first:]
        asking, low, seen = (x[:, -1:], low[-1:], seen[:, -1:]) if last else (x, low, seen)
        lowest = torch.einsum("ts,bsd->btd", low, x)
        filtered = lowest + self.root_high**2 * (asking - lowest)
        filtered = self.norm(asking + dropout(filtered, self.dropout, self.training))
        attended = self.attention(x, seen[:, None], asking)
        x = self.feedforward(self.share * filtered + (1 - self.share) * attended)
        return x


class BSARecNetwork(FMLPNetwork):
    """FMLP-Rec's network with such blocks."""

    Block = Block


class BSARec(FMLP):
    name = "bsarec"
    Settings = BSARecSettings
    Network = BSARecNetwork
