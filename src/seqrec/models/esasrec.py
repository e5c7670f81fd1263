"""eSASRec: SASRec with gated residual layers, trained with sampled softmax.

Tikhonovich and others: eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion, RecSys
2025. Its layers are those of LiGR (Borisyuk and others, 2025, arXiv 2502.03417).

    x_t = e(i_t) + p_t
    x  <- x + sigmoid(W1 x + b1) * dropout(attention(norm(x)))
    x  <- x + sigmoid(W2 x + b2) * dropout(feedforward(norm(x)))        feedforward: SwiGLU, 4 widths within
    score(j | history) = e(j) . x_t                                     one item table for input and output

All else is SASRec's (``seqrec.models.sasrec``), whose settings it takes: the gates are new, SwiGLU and the
inner width are other defaults, and states are not normalised at the end. The target is compared with 256
items drawn uniformly for each position.

Differences from the authors' code: those of SASRec here (positions count from the start of a window, no
dropout on attention weights, e scaled by sqrt(width)); the feed-forward layers have biases, and no dropout
within; training follows the log, where theirs has Adam with rate .001.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from seqrec.features.encoding import Features
from seqrec.models.sasrec import Block, SASRec, SASRecNetwork, SASRecSettings
from seqrec.nn.dropout import dropout


class ESASRecSettings(SASRecSettings):
    """Hyperparameters of the network of eSASRec."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout on inputs and on what each layer adds."""
    feedforward: float = Field(4.0, gt=0, le=64)
    """Inner width of the feed-forward layers, in widths."""
    gated: bool = True
    """SwiGLU feed-forward layers (Shazeer, 2020), or ReLU."""


class LiGRBlock(Block):
    """Causal self-attention, then a feed-forward layer; what each adds is multiplied by gates."""

    def __init__(self, s: SASRecSettings):
        super().__init__(s)
        self.gates = nn.ModuleDict(
            {layer: nn.Linear(s.width, s.width) for layer in ("attention", "feedforward")}
        )

    def added(self, x: Tensor, y: Tensor, layer: str) -> Tensor:
        gates: Tensor = self.gates[layer](x).sigmoid()
        return x + gates * dropout(y, self.dropout, self.training)


class ESASRecNetwork(SASRecNetwork):
    """SASRec's network with such blocks, and without the norm at its end."""

    def __init__(self, settings: SASRecSettings, items: int, users: int, features: Features | None = None):
        super().__init__(settings, items, users, features)
        self.blocks = nn.ModuleList(LiGRBlock(settings) for _ in range(settings.blocks))
        self.norm = nn.Identity()


class ESASRec(SASRec):
    name = "esasrec"
    Settings = ESASRecSettings
    Network = ESASRecNetwork
    default_loss: ClassVar = {"name": "sampled_softmax"}
    default_negatives: ClassVar = {"count": 256, "shared": False}
