"""DIN: a candidate picks from the history what it is interested in.

Zhou, Zhu, Song, Fan, Zhu, Ma, Yan, Jin, Li, Gai: Deep Interest Network for Click-Through Rate Prediction, KDD
2018, arXiv 1706.06978.

    a(e_i, c) = w2 . act(W1 [e_i, c, e_i - c, e_i * c] + b1) + b2     section 4.3, figure 2 (right)
    v(c)      = sum over the history of a(e_i, c) e_i                 equation 3: no softmax over the history
    score     = w4 . act(W3 [u, v(c), c, v(c) * c] + b3) + b4         two dense layers on top of that

e_i are vectors of the last items, c is that of the candidate, u the user's. act is PReLU or Dice (equation
4).

Differences from the paper: ids instead of advertisements' groups of features (with a feature schema vectors
are sums over attributes); the product v * c beside its factors; the difference and the product of a pair in
the attention, where the paper has their outer product. Dice takes mean and variance over the units of a
layer instead of over a batch, so that a score does not hang on what else is asked. One hidden layer for
attention, two on top. Trained as a choice among the target and drawn negatives; the paper's binary
cross-entropy is ``loss: bce``.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.features.encoding import Features
from seqrec.models.pairs import PairModel, PairNetwork
from seqrec.nn.batch import Inputs
from seqrec.nn.dropout import dropout
from seqrec.settings.base import Settings


class DINSettings(Settings):
    """Hyperparameters of the network of DIN."""

    width: int = Field(32, ge=1, le=16_384)
    """Width of the vectors of items and users."""
    attention: int = Field(32, ge=1, le=16_384)
    """Width of the hidden layer of the attention (the paper: 36)."""
    hidden: int = Field(128, ge=1, le=16_384)
    """Width of the first dense layer (the paper: 200); the second has half of it."""
    recent: int = Field(20, ge=1, le=100_000)
    """Items of a history that are read, from its end."""
    activation: Literal["prelu", "dice"] = "prelu"
    """Of all layers."""
    user_vectors: bool = False
    """Whether users have vectors. With a feature schema, its user side says that."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on the vectors of items and users, and on what the first dense layer gives."""


class Dice(nn.Module):
    """p x + (1 - p) alpha x with p = sigmoid of x, standardised: equation 4.

    Args:
        units: of the layer, the last axis.
    """

    def __init__(self, units: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """(..., units) -> (..., units)."""
        p = torch.sigmoid(F.layer_norm(x, [x.shape[-1]]))
        return x * (p + (1 - p) * self.alpha)


class DINNetwork(PairNetwork):
    """Attention of a candidate, and dense layers: see the top of the file."""

    def __init__(self, settings: DINSettings, items: int, users: int, features: Features | None = None):
        super().__init__(settings, items, users, features)
        s = settings

        def act(units: int) -> nn.Module:
            return Dice(units) if s.activation == "dice" else nn.PReLU()

        self.first = nn.Linear(4 * s.width, s.attention)
        self.second = nn.Sequential(act(s.attention), nn.Linear(s.attention, 1))
        inputs = (3 if self.users is None else 4) * s.width
        half = max(1, s.hidden // 2)
        self.dense = nn.Sequential(nn.Linear(inputs, s.hidden), act(s.hidden))
        self.last = nn.Sequential(nn.Linear(s.hidden, half), act(half), nn.Linear(half, 1))

    def weights(self, history: Tensor, candidates: Tensor) -> Tensor:
        """(rows, steps, candidates) a(e_i, c) of (rows, steps, width) and (rows, candidates, width).

        W1 [e, c, e - c, e * c] is summed from its parts, of which only the last one is of pairs.
        """
        of_item, of_candidate, of_difference, of_product = self.first.weight.chunk(4, 1)
        rows, steps, width = history.shape
        scaled = (candidates[:, :, None] * of_product).view(rows, -1, width)
        x = torch.bmm(history, scaled.transpose(1, 2)).view(rows, steps, candidates.shape[1], -1)
        x = x + F.linear(history, of_item + of_difference)[:, :, None]
        x = x + F.linear(candidates, of_candidate - of_difference, self.first.bias)[:, None]
        found: Tensor = self.second(x).squeeze(3)
        return found

    def compare(self, inputs: Inputs, candidates: Tensor) -> Tensor:
        s = self.settings
        e = dropout(self.of_history(inputs), s.dropout, self.training)
        c = dropout(self.items(candidates), s.dropout, self.training)
        v = torch.bmm((self.weights(e, c) * inputs.mask[:, :, None]).transpose(1, 2), e)
        x = [v, c, v * c]
        if self.users is not None:
            x.append(dropout(self.of_users(inputs), s.dropout, self.training)[:, None].expand_as(c))
        hidden = dropout(self.dense(torch.cat(x, 2)), s.dropout, self.training)
        found: Tensor = self.last(hidden).squeeze(2)
        return found


class DIN(PairModel):
    name = "din"
    Settings = DINSettings
    Network = DINNetwork
