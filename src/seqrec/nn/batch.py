"""What an encoder reads, and what its states are compared with.

Batch = Inputs + Targets + weight
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Tensors:
    """A frozen dataclass of tensors, some of which may be missing."""

    def to(self, device: torch.device) -> Self:
        """The same on a device; what is no tensor is shared."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


@dataclass
class Memory:
    """What the lanes of a recurrent encoder carry from one batch of an epoch to the next. It starts empty.

    Attributes:
        states: (lanes, width) of each layer, and whatever else an encoder carries, in the order of the lanes.
            A later batch may have fewer lanes, and reads the first ones.
    """

    states: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Inputs(_Tensors):
    """Histories as an encoder reads them.

    Attributes:
        items: (rows, steps) int64 input items, 0 where there is none.
        mask: (rows, steps) bool, True where there is an item. In windows and lanes padding is on the right.
        at: (positions,) int64 index into the rows * steps inputs: the states that are wanted. State i sees
            inputs up to ``at[i]``.
        users: (rows,) int64 user of each row, -1 for unknown; in lanes, which mix users in a row, (rows,
            steps) of each input, for encoders that read users; None where nobody is known.
        resets: (rows, steps) bool, True where a new sequence begins in a lane: the hidden state is zeroed
            before that step.
        times: (rows, steps) seconds since 1970, for encoders that read times; arbitrary where masked.
        asked_at: (positions,) the moment that each wanted state predicts for, for encoders that read times.
        baskets: (rows, steps) int64 basket of each item, for encoders that read baskets; arbitrary where
            masked.
        memory: of the lanes; None where rows stand alone.
    """

    items: Tensor
    mask: Tensor
    at: Tensor
    users: Tensor | None = None
    resets: Tensor | None = None
    times: Tensor | None = None
    asked_at: Tensor | None = None
    baskets: Tensor | None = None
    memory: Memory | None = None


@dataclass(frozen=True)
class Targets(_Tensors):
    """What comes next at each position.

    Attributes:
        items: (positions,) int64.
        labels: (positions,) bool, False where the target is disliked; None: all are liked.
        events: (positions,) int64 which event of the sequences each is; None where the batches do not tell.
    """

    items: Tensor
    labels: Tensor | None = None
    events: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Inputs and their targets, in the order of ``inputs.at``.

    Attributes:
        inputs, targets: what is read, and what comes next.
        weight: what the mean loss of its positions is multiplied by.
    """

    inputs: Inputs
    targets: Targets
    weight: float = 1.0

    @property
    def positions(self) -> int:
        """Targets in the loss."""
        return len(self.targets.items)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        return Batch(self.inputs.to(device), self.targets.to(device), self.weight)


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, made one by one as they are iterated over.

    Attributes:
        positions: of the loss in the whole epoch. Training that masks targets has fewer than events.
        batches: gives them in order, once or as often as it is iterated over.
    """

    positions: int
    batches: Iterable[Batch]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)
