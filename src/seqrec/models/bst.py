"""BST: a Transformer layer reads the history and the candidate as one sequence.

Chen, Zhao, Li, Huang, Ou: Behavior Sequence Transformer for E-commerce Recommendation in Alibaba, DLP-KDD
2019, arXiv 1905.06874.

    x_i   = e(i) + p(age of i)                 age: that of an event in the sequence, 0 of the candidate
    S     = LayerNorm(x + Dropout(MH(x)))      equations 4 and 5
    F     = LayerNorm(S + Dropout(LeakyReLU(S W1 + b1) W2 + b2))
    score = w . MLP([u, F])                    dense layers with LeakyReLU over all of F, laid end to end

With ``times`` the age is the time from the event to the moment that is asked about, as in the paper, in
classes that double (a table for every second would be endless); else it is the event's place, counted from
the end.

Differences from the paper: ids instead of groups of features (with a feature schema vectors are sums over
attributes), p is added to e instead of laid beside it, and two dense layers instead of three. Trained as a
choice among the target and drawn negatives; the paper's binary cross-entropy is ``loss: bce``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.errors import SettingsError
from seqrec.features.encoding import Features
from seqrec.models.pairs import PairModel, PairNetwork
from seqrec.nn.batch import Inputs
from seqrec.nn.dropout import dropout
from seqrec.settings.base import Settings

CLASSES = 32
"""Of ages: up to a second, two, four ... and 34 years, the last one."""


class BSTSettings(Settings):
    """Hyperparameters of the network of BST."""

    width: int = Field(32, ge=1, le=16_384)
    """Width of the vectors of items and users."""
    heads: int = Field(2, ge=1, le=64)
    """Attention heads, of width / heads each (the paper: 8)."""
    blocks: int = Field(1, ge=1, le=16)
    """Transformer layers (the paper: 1 was best of 1 to 3)."""
    hidden: int = Field(128, ge=1, le=16_384)
    """Width of the first dense layer (the paper: 1024); the second has half of it."""
    recent: int = Field(20, ge=1, le=100_000)
    """Items of a history that are read, from its end (the paper: 20)."""
    times: bool = False
    """Whether ages are times, which needs a log with times and the moment that is asked about; else places in
    the history."""
    user_vectors: bool = False
    """Whether users have vectors. With a feature schema, its user side says that."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout (the paper: .2)."""


class BSTNetwork(PairNetwork):
    """Transformer layers over history and candidate, and dense layers: see the top of the file.

    Raises:
        SettingsError: heads that do not divide the width.
    """

    def __init__(self, settings: BSTSettings, items: int, users: int, features: Features | None = None):
        super().__init__(settings, items, users, features)
        s = settings
        if s.width % s.heads:
            raise SettingsError(f"model.heads: expected a divisor of width ({s.width}). Got {s.heads}.")
        self.ages = nn.Embedding((CLASSES if s.times else s.recent) + 1, s.width)
        nn.init.normal_(self.ages.weight, std=s.width**-0.5)
        if s.times:
            self.reads = self.reads | {"times"}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                *(s.width, s.heads, 4 * s.width), dropout=s.dropout, activation=F.leaky_relu, batch_first=True
            )
            for _ in range(s.blocks)
        )
        inputs = (s.recent + 1 + (self.users is not None)) * s.width
        half = max(1, s.hidden // 2)
        self.dense = nn.Sequential(
            nn.Linear(inputs, s.hidden),
            nn.LeakyReLU(),
            nn.Linear(s.hidden, half),
            nn.LeakyReLU(),
            nn.Linear(half, 1),
        )

    def ages_of(self, inputs: Inputs) -> Tensor:
        """(rows, steps) the class of the age of each event, from 1 on."""
        if not self.settings.times:
            return torch.arange(1, inputs.items.shape[1] + 1, device=inputs.items.device).expand_as(
                inputs.items
            )
        assert inputs.times is not None
        assert inputs.asked_at is not None
        seconds = (inputs.asked_at[:, None] - inputs.times).clamp(min=1).double()
        return (1 + seconds.log2().long()).clamp(max=CLASSES)

    def compare(self, inputs: Inputs, candidates: Tensor) -> Tensor:
        s, (rows, count) = self.settings, candidates.shape
        history = self.of_history(inputs) + self.ages(self.ages_of(inputs))
        candidate = self.items(candidates) + self.ages(torch.zeros_like(candidates))
        x = torch.cat([candidate[:, :, None], history[:, None].expand(-1, count, -1, -1)], 2).flatten(0, 1)
        x = dropout(x, s.dropout, self.training)
        known = F.pad(inputs.mask, (1, 0), value=True).repeat_interleave(count, 0)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~known)
        found = [(x * known[:, :, None]).flatten(1)]
        if self.users is not None:
            found.append(self.of_users(inputs).repeat_interleave(count, 0))
        scores: Tensor = self.dense(torch.cat(found, 1)).view(rows, count)
        return scores


class BST(PairModel):
    name = "bst"
    Settings = BSTSettings
    Network = BSTNetwork
