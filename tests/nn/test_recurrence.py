"""The GRU layer against torch.nn.GRU with the same weights: states and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqrec.nn.recurrence import GRULayer

STEPS, ROWS, INPUTS, WIDTH = 7, 4, 3, 5


def pair(bias: bool = True) -> tuple[GRULayer, nn.GRU]:
    """Our layer and torch's, in float64, with the same random weights."""
    torch.manual_seed(0)
    ours, theirs = GRULayer(INPUTS, WIDTH, bias).double(), nn.GRU(INPUTS, WIDTH, bias=bias).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.weight_ih)
        theirs.weight_hh_l0.copy_(ours.weight_hh)
        if bias:
            theirs.bias_ih_l0.copy_(ours.bias_ih.normal_())
            theirs.bias_hh_l0.copy_(ours.bias_hh.normal_())
    return ours, theirs


def random_input() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS, ROWS, INPUTS, generator=generator, dtype=torch.float64)
    h0 = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    return x, h0, torch.randn(STEPS, ROWS, WIDTH, generator=generator, dtype=torch.float64)


def gradients(layer: nn.Module, x: Tensor, states: Tensor, weight: Tensor) -> list[Tensor]:
    return list(
        torch.autograd.grad((states * weight).sum(), [x, *(p for p in layer.parameters() if p.requires_grad)])
    )


@pytest.mark.parametrize("bias", [True, False])
def test_states_and_gradients_are_torchs(bias: bool):
    ours, theirs = pair(bias)
    x, h0, weight = random_input()
    x.requires_grad_()
    got, (expected, _) = ours(x, h0), theirs(x, h0[None])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    by_name = dict(
        zip(
            ["x", *(n for n, p in ours.named_parameters() if p.requires_grad)],
            gradients(ours, x, got, weight),
        )
    )
    by_name_theirs = dict(
        zip(
            ["x", *(n.removesuffix("_l0") for n, _ in theirs.named_parameters())],
            gradients(theirs, x, expected, weight),
        )
    )
    assert by_name.keys() == by_name_theirs.keys()
    for name, gradient in by_name.items():
        torch.testing.assert_close(gradient, by_name_theirs[name], rtol=1e-10, atol=1e-12)


def test_resets_are_separate_sessions():
    """Two rows with resets in the middle equal their pieces run one by one from zero; a reset at the first
    step drops the state carried in."""
    ours, theirs = pair()
    x, h0, weight = random_input()
    x.requires_grad_()
    resets = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    resets[3, 0] = resets[1, 1] = resets[4, 1] = resets[0, 2] = True  # row 3 runs through
    pieces = [(0, 0, 3), (0, 3, 7), (1, 0, 1), (1, 1, 4), (1, 4, 7), (2, 0, 7), (3, 0, 7)]

    expected = torch.empty(STEPS, ROWS, WIDTH, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for row, begin, end in pieces:
        before = h0[row] if begin == 0 and not resets[0, row] else torch.zeros(WIDTH, dtype=torch.float64)
        states, _ = theirs(x[begin:end, row], before[None])
        expected[begin:end, row] = states.detach()
        total = total + (states * weight[begin:end, row]).sum()
    got = ours(x, h0, resets)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)

    ours_gradients = gradients(ours, x, got, weight)
    theirs_gradients = dict(
        zip(
            ["x", *(n for n, _ in theirs.named_parameters())],
            torch.autograd.grad(total, [x, *theirs.parameters()]),
        )
    )
    for name, gradient in zip(["x", *(n for n, _ in ours.named_parameters())], ours_gradients):
        torch.testing.assert_close(
            gradient, theirs_gradients[name if name == "x" else f"{name}_l0"], rtol=1e-10, atol=1e-12
        )


def test_two_windows_with_the_state_carried_equal_one_run():
    ours, _ = pair()
    x, h0, _ = random_input()
    first = ours(x[:4], h0)
    second = ours(x[4:], first[-1])
    torch.testing.assert_close(torch.cat([first, second]), ours(x, h0), rtol=1e-12, atol=1e-12)


def test_no_gradient_flows_into_the_state_carried_in():
    ours, _ = pair()
    x, h0, _ = random_input()
    h0.requires_grad_()
    assert torch.autograd.grad(ours(x, h0).sum(), h0, allow_unused=True) == (None,)


def test_one_step_by_hand():
    """h' = (1 - z) n + z h with every weight 1, no bias, one unit: x = 1, h = 2."""
    layer = GRULayer(1, 1)
    with torch.no_grad():
        layer.weight_ih.fill_(1.0)
        layer.weight_hh.fill_(1.0)
    r = z = torch.sigmoid(torch.tensor(3.0))
    n = torch.tanh(1 + r * 2)
    h = layer(torch.ones(1, 1, 1), torch.full((1, 1), 2.0))
    torch.testing.assert_close(h.squeeze(), (1 - z) * n + z * 2)


@pytest.mark.parametrize("with_resets", [False, True])
def test_a_single_step_is_torchs(with_resets: bool):
    """One step goes a shorter way: its states and gradients, with rows reset too."""
    ours, theirs = pair()
    x, h0, weight = (t[:1] if t.dim() == 3 else t for t in random_input())
    resets = torch.tensor([[True, False, False, True]]) if with_resets else None
    start = h0 if resets is None else h0 * ~resets.T
    x.requires_grad_()
    expected = theirs(x, start[None])[0]
    of_theirs = torch.autograd.grad((expected * weight).sum(), [x, *theirs.parameters()])
    got = ours(x, h0, resets)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    of_ours = torch.autograd.grad(
        (got * weight).sum(), [x, ours.weight_ih, ours.weight_hh, ours.bias_ih, ours.bias_hh]
    )
    for ours_gradient, theirs_gradient in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-10, atol=1e-12)
    assert not torch.equal(h0, start) or resets is None  # the state carried in stays as it was
