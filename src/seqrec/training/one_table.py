"""The objective of an encoder that reads histories by the very vectors with which states are compared.

Inputs, targets and negatives of a batch are looked up together, each item once. It is the plain objective in
another order of operations.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqrec.nn.batch import Batch, Inputs
from seqrec.nn.encoder import Encoder
from seqrec.training.negatives import Distinct
from seqrec.training.objective import Objective


class ReadsItems(Encoder):
    """An encoder that can be handed the vectors of its inputs, which are columns of its item vectors."""

    input_width: int

    @abstractmethod
    def read(self, x: Tensor, inputs: Inputs) -> Tensor:
        """(positions, width) states of inputs whose vectors are x, (steps, rows, input_width)."""


class OneTable(Objective):
    """An objective that looks inputs, targets and negatives up together."""

    encoder: ReadsItems

    def beside(self, batches: list[Batch]) -> list[Tensor] | None:
        """The (rows, steps) input items of each batch."""
        return [batch.inputs.items for batch in batches]

    def _loss(self, batch: Batch, drawn: Distinct | None) -> Tensor:
        if drawn is None:
            return super()._loss(batch, drawn)
        vectors, x = _with_inputs(
            self.encoder.item_vectors(drawn.items), drawn.beside, self.encoder.input_width
        )
        with self.precision(batch.inputs):
            states = self.encoder.read(
                x.view(*batch.inputs.items.shape, -1).transpose(0, 1), batch.inputs
            ).float()
        return self.compare(states, vectors, batch, drawn)


class _WithInputs(torch.autograd.Function):
    """vectors (U, columns), at (m,) -> the vectors and (m, width) those of the inputs, whose gradients are
    added to the others' in place."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, at: Tensor, width: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(at)
        return vectors.view_as(vectors), vectors.index_select(0, at)[:, :width]

    @staticmethod
    def backward(ctx: Any, d_vectors: Tensor, d_inputs: Tensor) -> tuple[Tensor | None, ...]:
        d_vectors[:, : d_inputs.shape[1]].index_add_(0, ctx.saved_tensors[0], d_inputs)
        return d_vectors, None, None


_with_inputs: Callable[..., tuple[Tensor, Tensor]] = _WithInputs.apply
