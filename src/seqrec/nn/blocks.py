"""Layers as BERT has them, which several models share: each is added to what it reads, and the sum is
normalised.

    attention     norm(x + dropout(W attention(x)))
    feedforward   norm(x + dropout(W2 gelu(W1 x)))
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.nn.dropout import dropout
from seqrec.nn.embedding import Mapped


class Attention(nn.Module):
    """Self-attention with several heads.

    Args:
        dropped: share of what it adds that dropout zeroes.
        epsilon: of the norm.
    """

    def __init__(self, width: int, heads: int, dropped: float, epsilon: float = 1e-12):
        super().__init__()
        self.heads, self.dropped = heads, dropped
        self.q, self.kv, self.out = (nn.Linear(width, n * width) for n in (1, 2, 1))
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, x: Tensor, seen: Tensor, asking: Tensor | None = None) -> Tensor:
        """What (rows, asking, width) steps make of all (rows, steps, width) of their row.

        Args:
            seen: bool, True where a step, last, is attended to; of a shape that broadcasts to (rows, heads,
                asking, steps).
            asking: the steps whose states are wanted; None for x.
        """
        rows, _, width = x.shape
        asking = x if asking is None else asking

        def of_heads(part: Tensor) -> Tensor:
            return part.view(rows, -1, self.heads, width // self.heads).transpose(1, 2)

        k, v = self.kv(x).chunk(2, -1)
        found = F.scaled_dot_product_attention(
            of_heads(self.q(asking)), of_heads(k), of_heads(v), attn_mask=seen
        )
        found = self.out(found.transpose(1, 2).reshape(rows, -1, width))
        x = self.norm(asking + dropout(found, self.dropped, self.training))
        return x


class FeedForward(nn.Module):
    """A hidden layer of ``inner`` units. The other arguments are those of ``Attention``."""

    def __init__(self, width: int, inner: int, dropped: float, epsilon: float = 1e-12):
        super().__init__()
        self.dropped = dropped
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same."""
        x = self.norm(x + dropout(self.outer(F.gelu(self.inner(x))), self.dropped, self.training))
        return x


def start_as_bert(network: nn.Module) -> None:
    """Matrices and tables from a normal distribution with standard deviation .02, biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, Mapped):
            nn.init.normal_(module.map, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def right_aligned(items: Tensor, mask: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in which the step whose state is wanted comes last.

    Args:
        items, mask: (rows, steps), as of ``Inputs``.  at: (rows,) one wanted step a row.
    Returns:
        items, and which of them are there, (rows, steps) both.
    """
    rows, steps = items.shape
    step = torch.arange(steps, device=items.device)
    place = step - (steps - 1) + (at - torch.arange(rows, device=items.device) * steps)[:, None]
    there = place.clamp(min=0)
    return items.gather(1, there), mask.gather(1, there) & (place >= 0)
