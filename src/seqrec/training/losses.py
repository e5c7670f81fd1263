"""Losses as pure functions of scores. All are means over positions unless said.

Legend: N positions, M negatives, C items, D width.

    states (N, D), item_vectors (C, D), targets (N,)      for the full softmax; item_vectors with a column
                                                          more have each item's bias in the last
    positive (N,)     score of each position's target
    negative (N, M)   scores of its negatives; -inf where a negative must not count (it is the target itself)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.training.own_items import Seen

Weights = tuple[Tensor, Tensor, Tensor]
"""Logarithms of weights: (C,) of each distinct item as a negative, (N,) of each target as the positive, (N,)
of each target's own item as a negative (-inf: not at all)."""

CHUNK = 256  # rows of logits alive at once: 256 x 3,417 floats stay in the last-level cache


def scores(states: Tensor, item_vectors: Tensor) -> Tensor:
    """(N, D) states and (C, D or D + 1) item vectors -> (N, C)."""
    vectors, bias = _with_bias(item_vectors, states.shape[1])
    return states @ vectors.T if bias is None else torch.addmm(bias, states, vectors.T)


def scores_of_one(state: Tensor, item_vectors: Tensor) -> Tensor:
    """(1, D) state and (C, D or D + 1) item vectors -> (1, C), reading a large table once, biases with it."""
    whole = F.pad(state[0], (0, item_vectors.shape[1] - state.shape[1]), value=1.0)
    return torch.mv(item_vectors, whole)[None]


def scores_of_own(states: Tensor, item_vectors: Tensor) -> Tensor:
    """(N, D) states and (N, M, D or D + 1) vectors of each one's own items -> (N, M)."""
    vectors, bias = _with_bias(item_vectors, states.shape[1])
    products = torch.einsum("nd,nmd->nm", states, vectors)
    return products if bias is None else products + bias


def _into(out: Tensor, states: Tensor, vectors: Tensor, bias: Tensor | None) -> None:
    if bias is None:
        torch.mm(states, vectors.T, out=out)
    else:
        torch.addmm(bias, states, vectors.T, out=out)


def _with_bias(item_vectors: Tensor, width: int) -> tuple[Tensor, Tensor | None]:
    """(..., width) vectors and (...,) biases, None where there are none."""
    return item_vectors[..., :width], item_vectors[..., width].contiguous() if item_vectors.shape[
        -1
    ] > width else None


def softmax_with_gradients(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    bfloat16: bool = False,
    weights: Weights | None = None,
    seen: Seen | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy in chunks of rows, ``softmax`` or with weights ``shared_sampled_softmax``: the loss and
    its gradients with respect to states and item vectors, in one pass over logits that never leave the
    cache."""
    (n, width), c = states.shape, len(item_vectors)
    s, (v, bias) = states.detach(), _with_bias(item_vectors.detach(), width)
    if bfloat16:
        s, v = s.bfloat16(), v.bfloat16()
    rows = CHUNK if s.device.type == "cpu" else 8 * CHUNK
    logits = states.new_empty(min(rows, n), c)
    d_states = torch.empty_like(s)
    gradient = torch.empty_like(item_vectors)
    d_vectors, d_bias = gradient[:, :width], None if bias is None else torch.zeros_like(bias)
    loss = logits.new_zeros(())
    for i in range(0, n, rows):
        a, t = s[i : i + rows], targets[i : i + rows, None]
        x = logits[: len(a)]
        if bfloat16:
            x.copy_(torch.mm(a, v.T))
            x += 0 if bias is None else bias
        else:
            _into(x, a, v, bias)
        at_target = x.gather(1, t).squeeze(1)
        if seen is not None:
            seen.leave_out(x, i)
            x.scatter_(1, t, at_target[:, None])  # the target stays, seen or not
        if weights is not None:
            log_weight, positive, own = weights
            x += log_weight
            x.scatter_(1, t, (at_target + torch.logaddexp(positive, own)[i : i + rows])[:, None])
            at_target = at_target + positive[i : i + rows]
        mean = x.mean(1) if smoothing else None
        # log p(target) = x_target - logsumexp; log-sum-exp comes from the largest logit and the largest
        # probability, which softmax has.
        top = x.amax(1)
        torch.softmax(x, 1, out=x)
        log_z = top - x.amax(1).log()
        loss += (
            log_z - (at_target if mean is None else (1 - smoothing) * at_target + smoothing * mean)
        ).sum()
        if smoothing:
            x -= smoothing / c
        x.scatter_add_(1, t, x.new_full((len(a), 1), smoothing - 1))
        if d_bias is not None:
            d_bias.add_(x.sum(0), alpha=1 / n)
        x, d = x.to(a.dtype), d_states[i : i + rows]
        torch.addmm(d, x, v, beta=0, alpha=1 / n, out=d)  # the gradient of the mean
        if bfloat16:
            d_vectors.copy_(
                torch.add(d_vectors, torch.mm(x.T, a), alpha=1 / n) if i else torch.mm(x.T, a) / n
            )
        else:
            torch.addmm(d_vectors, x.T, a, beta=float(i > 0), alpha=1 / n, out=d_vectors)
    if d_bias is not None:
        gradient[:, width] = d_bias
    return loss / n, d_states.to(states.dtype), gradient


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        targets: Tensor,
        smoothing: float,
        bfloat16: bool,
        weights: Weights | None,
        seen: Seen | None,
    ) -> Tensor:
        loss, *gradients = softmax_with_gradients(
            states, item_vectors, targets, smoothing, bfloat16, weights, seen
        )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_vectors = ctx.saved_tensors
        if grad.device.type != "cpu" or grad != 1:  # asking a GPU would wait for it
            d_states, d_vectors = d_states * grad, d_vectors * grad
        return d_states, d_vectors, None, None, None, None, None


_softmax: Callable[..., Tensor] = _Softmax.apply


def softmax(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    bfloat16: bool = False,
    seen: Seen | None = None,
) -> Tensor:
    """Cross-entropy over the whole catalogue.

    ``L = mean_i [ logsumexp_c(s_i . v_c) - sum_c q_ic s_i . v_c ]`` with ``q = 1 - smoothing`` on the target,
    plus ``smoothing / C`` everywhere (label smoothing: Szegedy et al., 2016, section 7).

    Args:
        states: (N, D).  item_vectors: (C, D or D + 1).  targets: (N,) int64.
        bfloat16: multiply in bfloat16 (float32 sums); for hardware that has it.
        seen: histories whose items are left out of the sum over c, but for the target. Not with smoothing.
    """
    return _softmax(states, item_vectors, targets, smoothing, bfloat16, None, seen)


class _SoftmaxOfSets(torch.autograd.Function):
    """Loss and both gradients in chunks of rows, as ``softmax_with_gradients``; each state is compared with
    the catalogue once, however many targets it has."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        targets: Tensor,
        of: Tensor,
        smoothing: float,
        bfloat16: bool,
    ) -> Tensor:
        (n, width), c = states.shape, len(item_vectors)
        s, (v, bias) = states.detach(), _with_bias(item_vectors.detach(), width)
        if bfloat16:
            s, v = s.bfloat16(), v.bfloat16()
        rows = CHUNK if s.device.type == "cpu" else 8 * CHUNK
        logits = states.new_empty(min(rows, n), c)
        d_states, gradient = torch.empty_like(states), torch.zeros_like(item_vectors)
        counts = torch.bincount(of, minlength=n)
        share = counts.clamp(min=1).to(states.dtype).reciprocal()[of]
        first = [0, *counts.cumsum(0)[rows - 1 :: rows].tolist(), len(of)]
        loss = logits.new_zeros(())
        for chunk, i in enumerate(range(0, n, rows)):
            a, x, some = s[i : i + rows], logits[: n - i], slice(first[chunk], first[chunk + 1])
            at, each = (of[some] - i, targets[some]), share[some]
            if bfloat16:
                x.copy_(torch.mm(a, v.T))
                x += 0 if bias is None else bias
            else:
                _into(x, a, v, bias)
            asked = (counts[i : i + rows] > 0).to(x.dtype)
            loss -= (1 - smoothing) * (each * x[at]).sum()
            if smoothing:
                loss -= smoothing * (asked * x.mean(1)).sum()
            top = x.amax(1)
            torch.softmax(x, 1, out=x)
            loss += (asked * (top - x.amax(1).log())).sum()
            if smoothing:
                x -= smoothing / c
            x *= asked[:, None]
            x.index_put_(at, (smoothing - 1) * each, accumulate=True)
            if bias is not None:
                gradient[:, width] += x.sum(0)
            x = x.to(a.dtype)
            d_states[i : i + rows] = torch.mm(x, v)
            gradient[:, :width] += torch.mm(x.T, a)
        sets = (counts > 0).sum()
        ctx.save_for_backward(d_states.div_(sets), gradient.div_(sets))
        return loss / sets

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_vectors = ctx.saved_tensors
        return d_states * grad, d_vectors * grad, None, None, None, None


_softmax_of_sets: Callable[..., Tensor] = _SoftmaxOfSets.apply


def softmax_of_sets(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    of: Tensor,
    smoothing: float = 0.0,
    bfloat16: bool = False,
) -> Tensor:
    """``softmax`` where a state has several targets, such as the items of a basket: the mean over them, then
    over the states that have any. Each state is compared with the catalogue once.

    ``L = mean_r [ logsumexp_c(s_r . v_c) - mean_(i of r) s_r . v_t(i) ]``

    Args:
        states: (R, D).  item_vectors: (C, D or D + 1).
        targets: (N,) int64.  of: (N,) int64, the state of each, ascending.
        smoothing, bfloat16: as of ``softmax``.
    """
    return _softmax_of_sets(states, item_vectors, targets, of, smoothing, bfloat16)


def shared_sampled_softmax(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    weights: Weights,
    bfloat16: bool = False,
    seen: Seen | None = None,
) -> Tensor:
    """``sampled_softmax`` of negatives that all positions share.

    Each distinct item is scored once, however often it was drawn.

    ``L = mean_i -log[ W_i exp(s_i . v_t) / (W_i exp(s_i . v_t) + sum_c w_ic exp(s_i . v_c)) ]``, where
    ``w_c`` adds up ``exp(-log q)`` over the draws of item c.

    Args:
        states: (N, D).
        item_vectors: (C, D or D + 1) of the distinct items.
        targets: (N,) int64, index into the distinct items.
        seen: histories whose items are left out of the sum over c.
    """
    return _softmax(states, item_vectors, targets, 0.0, bfloat16, weights, seen)


def sampled_softmax(positive: Tensor, negative: Tensor) -> Tensor:
    """Cross-entropy against the sampled negatives only; with scores corrected by logQ it estimates the full
    softmax.

    ``L = mean -log[ exp(p) / (exp(p) + sum_m exp(n_m)) ]`` (Bengio and Senecal, 2008; logQ: see
    ``seqrec.training.negatives``).
    """
    return -F.log_softmax(torch.cat([positive[:, None], negative], 1), 1)[:, 0].mean()


def bce(positive: Tensor, negative: Tensor, labels: Tensor | None = None) -> Tensor:
    """Binary cross-entropy: ``L = mean [ -log sig(p) - sum_m log(1 - sig(n_m)) ]`` (Kang and McAuley, 2018,
    equation 5).

    Args:
        labels: (N,) bool, False where the "positive" is a disliked item, which then counts as a negative.
    """
    sign = 1.0 if labels is None else torch.where(labels, 1.0, -1.0)
    return (F.softplus(-positive * sign) + F.softplus(negative).sum(1)).mean()


def gbce(positive: Tensor, negative: Tensor, items: int, t: float = 0.75) -> Tensor:
    """Generalised BCE, which undoes the overconfidence of negative sampling (Petrov and Macdonald, 2023,
    equations 9 and 12).

    ``L = mean [ -beta log sig(p) - sum_m log(1 - sig(n_m)) ]``, ``beta = a (t (1 - 1/a) + 1/a)``, ``a = M /
    (items - 1)``.

    Args:
        items: size of the catalogue.  t: calibration, 0 (plain BCE) to 1 (fully calibrated).
    """
    a = negative.shape[1] / max(1, items - 1)
    beta = a * (t * (1 - 1 / a) + 1 / a)
    return (beta * F.softplus(-positive) + F.softplus(negative).sum(1)).mean()


def _counted(negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(scores with 0 where excluded, 1.0 where counted, how many are counted a row)."""
    counted = torch.isfinite(negative)
    return (
        torch.where(counted, negative, torch.zeros_like(negative)),
        counted.to(negative.dtype),
        counted.sum(1).clamp(min=1),
    )


def _some(negative: Tensor) -> Tensor:
    """Scores without rows of nothing but excluded ones, whose softmax is no number: such a row becomes
    zeros."""
    return torch.where(torch.isneginf(negative).all(1, keepdim=True), torch.zeros_like(negative), negative)


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """``L = mean [ -1/M sum_m log sig(p - n_m) ]`` (Rendle et al., 2009; Hidasi et al., 2016, section
    3.1.3)."""
    n, counted, m = _counted(negative)
    return ((F.softplus(n - positive[:, None]) * counted).sum(1) / m).mean()


def top1(positive: Tensor, negative: Tensor) -> Tensor:
    """``L = mean [ 1/M sum_m sig(n_m - p) + sig(n_m^2) ]`` (Hidasi et al., 2016, section 3.1.3). The
    regulariser sees negatives only."""
    n, counted, m = _counted(negative)
    return (((torch.sigmoid(n - positive[:, None]) + torch.sigmoid(n**2)) * counted).sum(1) / m).mean()


def top1_max(positive: Tensor, negative: Tensor) -> Tensor:
    """``L = mean [ sum_m w_m (sig(n_m - p) + sig(n_m^2)) ]``, ``w = softmax(n)`` (Hidasi and Karatzoglou,
    2018, equation 8)."""
    n, counted, _ = _counted(negative)
    w = torch.softmax(_some(negative), 1) * counted
    return (w * (torch.sigmoid(n - positive[:, None]) + torch.sigmoid(n**2))).sum(1).mean()


def bpr_max(positive: Tensor, negative: Tensor, regularisation: float = 1.0, elu: float = 0.0) -> Tensor:
    """``L = mean [ -log sum_m w_m sig(p - n_m) + regularisation sum_m w_m n_m^2 ]``, ``w = softmax(n)``
    (Hidasi and Karatzoglou, 2018, equation 10).

    Args:
        elu: where above 0, scores first pass through ``ELU`` with this alpha, as in the authors' code.
    """
    if elu > 0:
        positive, negative = (
            F.elu(positive, elu),
            torch.where(torch.isfinite(negative), F.elu(negative, elu), negative),
        )
    n, counted, _ = _counted(negative)
    log_w = torch.log_softmax(_some(negative), 1)
    # log sum_m w_m sig(p - n_m), in logarithms: no term underflows
    log_mean = torch.logsumexp(log_w + F.logsigmoid(positive[:, None] - n), 1) * counted.amax(1)
    return (-log_mean + regularisation * (log_w.exp() * n**2).sum(1)).mean()


class _SharedBPRMax(torch.autograd.Function):
    """BPR-max over distinct items in chunks of rows: loss and both gradients in one pass.

    With s = ELU(x), w = softmax over the negatives, sig = sig(s_t - s), m = sum w sig and q = sum w s^2:

        dL/ds_c = w_c (1 + R (s_c^2 + 2 s_c - q) - sig_c^2 / m)        dL/ds_t = sum_c w_c sig_c^2 / m - 1
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        targets: Tensor,
        weights: Weights,
        regularisation: float,
        alpha: float,
        seen: Seen | None,
    ) -> Tensor:
        (n, width), c = states.shape, len(item_vectors)
        a, (v, bias) = states.detach(), _with_bias(item_vectors.detach(), width)
        log_weight, _, own = weights
        rows = CHUNK if a.device.type == "cpu" else 8 * CHUNK
        buffers = torch.empty((3, min(rows, n), c), dtype=a.dtype, device=a.device)
        d_states, gradient = torch.empty_like(a), torch.empty_like(item_vectors)
        d_vectors, d_bias = gradient[:, :width], None if bias is None else torch.zeros_like(bias)
        loss = torch.zeros((), dtype=a.dtype, device=a.device)
        for i in range(0, n, rows):
            t = targets[i : i + rows, None]
            s, w, sig = buffers[:, : len(t)]
            _into(s, a[i : i + rows], v, bias)
            if alpha > 0:
                F.elu_(s, alpha)
            positive = s.gather(1, t)
            torch.add(s, log_weight, out=w)
            if seen is not None:
                seen.leave_out(w, i)
            w.scatter_(1, t, positive + own[i : i + rows, None])
            torch.softmax(w, 1, out=w)
            w.nan_to_num_(0.0)  # a row in which no negative counts
            torch.sub(positive, s, out=sig).sigmoid_()
            d = sig * w
            m = d.sum(1, keepdim=True).clamp_(min=1e-30)
            d.mul_(sig).div_(m)
            d_positive = d.sum(1, keepdim=True) - w.sum(1, keepdim=True)
            torch.mul(s, s, out=sig)
            q = torch.linalg.vecdot(w, sig)[:, None]
            loss += (regularisation * q - m.log() * (w.sum(1, keepdim=True) > 0)).sum()
            torch.addcmul(w, w, sig.add_(s, alpha=2).sub_(q), value=regularisation, out=sig)
            torch.sub(sig, d, out=d).scatter_add_(1, t, d_positive)
            if alpha > 0:
                d.mul_(torch.where(s > 0, 1.0, s + alpha))  # the derivative of ELU, from its value
            d.div_(n)
            torch.mm(d, v, out=d_states[i : i + rows])
            torch.addmm(d_vectors, d.T, a[i : i + rows], beta=float(i > 0), out=d_vectors)
            if d_bias is not None:
                d_bias += d.sum(0)
        if d_bias is not None:
            gradient[:, width] = d_bias
        ctx.save_for_backward(d_states, gradient)
        return loss / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_vectors = ctx.saved_tensors
        return d_states * grad, d_vectors * grad, None, None, None, None, None


_shared_bpr_max: Callable[..., Tensor] = _SharedBPRMax.apply


def shared_bpr_max(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    weights: Weights,
    regularisation: float = 1.0,
    elu: float = 0.0,
    seen: Seen | None = None,
) -> Tensor:
    """``bpr_max`` of negatives that all positions share.

    Each distinct item is scored once; its weight counts its draws.

    Args:
        states: (N, D).
        item_vectors: (C, D or D + 1) of the distinct items.
        targets: (N,) int64, index into the distinct items.
        seen: histories whose items are no negatives.
    """
    return _shared_bpr_max(states, item_vectors, targets, weights, regularisation, elu, seen)
