"""What an encoder reads, and what its states are compared with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Input of an encoder.

    Attributes:
        items: (rows, steps) int64 input items, 0 where there is none.
        mask: (rows, steps) bool, True where there is an item. In windows and lanes padding is on the right.
        at: (positions,) int64 index into the rows * steps inputs: the states that are wanted. State i sees
            inputs up to ``at[i]``.
        targets: (positions,) int64 the item that comes next; empty when not training.
        users: (rows,) int64 user of each row, -1 for unknown; in lanes, which mix users in a row, (rows,
            steps) of each input, if they were asked for; None where nobody is known.
        resets: (rows, steps) bool, True where a new sequence begins in a lane: the hidden state is zeroed
            before that step.
        labels: (positions,) bool, False where the target is disliked; None: all are liked.
        weight: what the mean loss of its positions is multiplied by.
    """

    items: Tensor
    mask: Tensor
    at: Tensor
    targets: Tensor
    users: Tensor | None = None
    resets: Tensor | None = None
    labels: Tensor | None = None
    weight: float = 1.0

    @property
    def positions(self) -> int:
        return len(self.at)

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            f.name: v.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)
