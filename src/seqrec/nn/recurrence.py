"""A GRU layer read step by step, with its own backward pass.

    r = sigmoid(x W_r + h U_r)        n  = tanh(x W_n + r * (h U_n))
    z = sigmoid(x W_z + h U_z)        h' = (1 - z) * n + z * h

(Cho et al., 2014, in the form of torch.nn.GRU, whose weights it takes: ``weight_ih`` (3 width, in),
``weight_hh`` (3 width, width), gates in the order r, z, n.) The input product of all steps is one matrix
multiply; only ``h U`` runs in time. ``torch.nn.GRU`` on a CPU records some twenty operations a step for
automatic differentiation; here a step is one multiply and a few element-wise operations into buffers that are
allocated once, and the gradients of the weights are one multiply over all steps at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class _Recurrence(torch.autograd.Function):
    """x (T, B, I), W (3H, I) and its bias (3H,), initial state (B, H), U (3H, H) and its bias (3H,), resets
    (T, B, 1) bool or None -> states (T, B, H)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b_x: Tensor,
        h0: Tensor,
        u: Tensor,
        b: Tensor,
        resets: Tensor | None,
    ) -> Tensor:
        (steps, rows, _), width = x.shape, u.shape[1]
        # Holds the input's part of r, z, n first, then r, z, n.
        gates = torch.addmm(b_x, x.reshape(-1, x.shape[2]), w.T).to(x.dtype).view(steps, rows, 3 * width)
        states = gates.new_empty(steps, rows, width)
        before = torch.empty_like(states)  # the state each step started from, after resets
        hu = torch.empty_like(gates)
        both = slice(0, 2 * width)
        of_each_step = zip(
            before,
            hu,
            hu[:, :, both],
            hu[:, :, 2 * width :],
            gates[:, :, both],
            *gates.chunk(3, 2),
            states,
            strict=True,
        )
        h = h0
        for t, (start, hu_t, hu_rz, hu_n, rz, r, z, n, end) in enumerate(of_each_step):
            start.copy_(h)
            if resets is not None:
                start.masked_fill_(resets[t], 0)
            torch.addmm(b, start, u.T, out=hu_t)
            rz.add_(hu_rz).sigmoid_()
            # tanh(a) = 2 sigmoid(2 a) - 1: three times as fast on a CPU
            n.addcmul_(r, hu_n).mul_(2).sigmoid_().mul_(2).sub_(1)
            h = torch.lerp(n, start, z, out=end)
        ctx.save_for_backward(x, w, before, gates, hu, u, resets)
        return states

    @staticmethod
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor | None, ...]:
        x, w, before, gates, hu, u, resets = ctx.saved_tensors
        steps, _, width = before.shape
        r, z, n = gates.chunk(3, 2)
        # Everything that does not depend on the gradient flowing back in time, for all steps at once.
        not_z = 1 - z
        dn_factor = torch.addcmul(not_z, not_z * n, n, value=-1)  # (1 - z) (1 - n^2)
        dz_factor = (before - n).mul_(z).mul_(not_z)
        dr_factor = torch.addcmul(r, r, r, value=-1).mul_(hu[:, :, 2 * width :])
        d_gates = torch.empty_like(gates)
        d_hu = torch.empty_like(gates)
        d_r, d_z, d_n = d_gates.chunk(3, 2)
        d_h = None  # the gradient that flows back in time
        for t in range(steps - 1, -1, -1):
            d = d_states[t] if d_h is None else d_h.add_(d_states[t])
            torch.mul(d, dn_factor[t], out=d_n[t])
            torch.mul(d, dz_factor[t], out=d_z[t])
            torch.mul(d_n[t], dr_factor[t], out=d_r[t])
            d_hu[t] = d_gates[t]
            d_hu[t, :, 2 * width :].mul_(r[t])
            if t:  # the initial state takes no gradient
                d_h = torch.addmm(d * z[t], d_hu[t], u)
                if resets is not None:
                    d_h.masked_fill_(resets[t], 0)
        flat, flat_hu = d_gates.view(-1, 3 * width), d_hu.view(-1, 3 * width)
        d_u, d_b = flat_hu.T @ before.view(-1, width), flat_hu.sum(0)
        d_x = torch.mm(flat, w).view_as(x) if ctx.needs_input_grad[0] else None
        return d_x, flat.T @ x.reshape(-1, x.shape[2]), flat.sum(0), None, d_u, d_b, None


def step(
    x: Tensor, w: Tensor, b_x: Tensor, h0: Tensor, u: Tensor, b: Tensor, resets: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """A single step, which has nothing to run through or to set aside: x (B, I), resets (B, 1), the rest as
    above.

    Returns:
        (B, H) states, and what ``step_backward`` needs.
    """
    width = u.shape[1]
    start = h0 if resets is None else torch.where(resets, 0.0, h0)
    gates = torch.addmm(b_x, x, w.T).to(x.dtype)
    hu = torch.addmm(b, start, u.T)
    r, z, n = gates.chunk(3, 1)
    hu_n = hu[:, 2 * width :]
    gates[:, : 2 * width].add_(hu[:, : 2 * width]).sigmoid_()
    n.addcmul_(r, hu_n).mul_(2).sigmoid_().mul_(2).sub_(1)
    return torch.lerp(n, start, z), (x, w, u, start, r, z, n, hu_n)


def step_backward(
    d: Tensor, kept: tuple[Any, ...], of_input: bool = True
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    """From the gradient of the states, (B, H), those of x (None unless ``of_input``), W, its bias, U and its
    bias."""
    x, w, u, start, r, z, n, hu_n = kept
    not_z = 1 - z
    d_gates = d.new_empty(len(d), len(u))
    d_r, d_z, d_n = d_gates.chunk(3, 1)
    torch.mul(d, torch.addcmul(not_z, not_z * n, n, value=-1), out=d_n)
    torch.mul(d, (start - n).mul_(z).mul_(not_z), out=d_z)
    torch.mul(d_n, torch.addcmul(r, r, r, value=-1).mul_(hu_n), out=d_r)
    d_x = d_gates @ w if of_input else None
    d_w, d_b_x = d_gates.T @ x, d_gates.sum(0)
    d_n.mul_(r)  # d_gates are those of h U from here on
    return d_x, d_w, d_b_x, d_gates.T @ start, d_gates.sum(0)


class _Step(torch.autograd.Function):
    """``step`` as _Recurrence has it: x (1, B, I) -> states (1, B, H).

    Session-parallel training takes one such step an update, and spends as long on a small operation as on
    starting it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b_x: Tensor,
        h0: Tensor,
        u: Tensor,
        b: Tensor,
        resets: Tensor | None,
    ) -> Tensor:
        states, kept = step(x[0], w, b_x, h0, u, b, None if resets is None else resets[0])
        ctx.save_for_backward(*kept)
        return states[None]

    @staticmethod
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor | None, ...]:
        d_x, d_w, d_b_x, d_u, d_b = step_backward(d_states[0], ctx.saved_tensors, ctx.needs_input_grad[0])
        return None if d_x is None else d_x[None], d_w, d_b_x, None, d_u, d_b, None


class GRULayer(nn.Module):
    """One GRU layer over time-major inputs.

    Args:
        inputs, width: size of the inputs and of the state.
        bias: with biases on the input and on the state, as torch.nn.GRU.
    """

    def __init__(self, inputs: int, width: int, bias: bool = True):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * width, inputs))
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih = nn.Parameter(torch.zeros(3 * width), requires_grad=bias)
        self.bias_hh = nn.Parameter(torch.zeros(3 * width), requires_grad=bias)
        self.width = width
        for weight in (self.weight_ih, self.weight_hh):
            bound = math.sqrt(6.0 / (weight.shape[0] / 3 + weight.shape[1]))
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor, h0: Tensor, resets: Tensor | None = None) -> Tensor:
        """Runs through time.

        Args:
            x: (steps, rows, inputs).
            h0: (rows, width) initial state; no gradient flows into what came before it.
            resets: (steps, rows) bool, True where the state is zeroed before the step.
        Returns:
            (steps, rows, width) the state after each step.
        """
        if torch.compiler.is_exporting():
            return exported(x, self.weight_ih, self.bias_ih, h0, self.weight_hh, self.bias_hh)
        x = x.to(self.weight_hh.dtype)  # float32 also under autocast
        resets = None if resets is None else resets[:, :, None]
        recurrence: Callable[..., Tensor] = _Step.apply if len(x) == 1 else _Recurrence.apply
        return recurrence(x, self.weight_ih, self.bias_ih, h0.detach(), self.weight_hh, self.bias_hh, resets)


def exported(
    x: Tensor, w: Tensor, b_x: Tensor, h0: Tensor, u: Tensor, b: Tensor, reset_after: bool = True
) -> Tensor:
    """The layer as one GRU operator of ONNX, for the exporter alone: it computes nothing here.

    Args:
        x: (steps, rows, inputs).  w, b_x: (3 width, inputs), (3 width,).  h0: (rows, width).
        u, b: (3 width, width), (3 width,).
        reset_after: whether the reset gate acts after the multiply, as in torch.nn.GRU; else before it.
    Returns:
        (steps, rows, width)
    """

    (steps, rows, _), width = x.shape, u.shape[1]

    def ordered(weights: Tensor) -> Tensor:  # r, z, n -> z, r, n
        return torch.cat([weights[width : 2 * width], weights[:width], weights[2 * width :]])

    states, _ = torch.onnx.ops.symbolic_multi_out(
        "GRU",
        [x, ordered(w)[None], ordered(u)[None], torch.cat([ordered(b_x), ordered(b)])[None], None, h0[None]],
        {"hidden_size": width, "linear_before_reset": int(reset_after)},
        dtypes=(x.dtype, x.dtype),
        shapes=((steps, 1, rows, width), (1, rows, width)),
    )
    return states[:, 0]
