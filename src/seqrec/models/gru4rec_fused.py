"""An update of session-parallel GRU4Rec in a single pass, from the item table to the loss and its
gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqrec.nn.recurrence import step, step_backward
from seqrec.training import losses
from seqrec.training.negatives import Distinct


class _OnePass(torch.autograd.Function):
    """One update of session-parallel training with sampled softmax, from the item table to the loss. Its
    gradients come with it.

    The operations are those of ``encode`` and the loss. What is saved is the time to record them one by one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        w: Tensor,
        b_x: Tensor,
        u: Tensor,
        b: Tensor,
        h0: Tensor,
        resets: Tensor | None,
        drawn: Distinct,
    ) -> tuple[Tensor, Tensor]:
        width = w.shape[1]
        assert drawn.beside is not None
        vectors = table.index_select(0, drawn.items)
        x = vectors.index_select(0, drawn.beside)[:, :width]
        states, kept = step(x, w, b_x, h0, u, b, resets)
        weights = drawn.log_weight, drawn.target_log_weight, drawn.own_log_weight
        loss, d_states, d_vectors = losses.softmax_with_gradients(states, vectors, drawn.at, weights=weights)
        d_x, d_w, d_b_x, d_u, d_b = step_backward(d_states, kept)
        assert d_x is not None
        d_vectors[:, :width].index_add_(0, drawn.beside, d_x)
        # Each item is in it once, in ascending order.
        d_table = torch.sparse_coo_tensor(
            drawn.items[None], d_vectors, table.shape, is_coalesced=True, check_invariants=False
        )
        ctx.gradients = d_table, d_w, d_b_x, d_u, d_b
        ctx.mark_non_differentiable(states)
        ctx.set_materialize_grads(False)
        return loss, states

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients  # a gradient that is held elsewhere would be copied
        if grad.device.type != "cpu" or grad != 1:  # asking a GPU would wait for it
            gradients = [gradient * grad for gradient in gradients]
        return *gradients, None, None, None


one_pass: Callable[..., tuple[Tensor, Tensor]] = _OnePass.apply
"""(item table, input weights and bias, weights and bias of the state, state, resets, drawn items) -> the loss
and (lanes, width) states."""
