"""Dropout: what is kept, how often, and what flows back."""

from __future__ import annotations

import pytest
import torch

from seqrec.nn.dropout import dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_each_element_is_dropped_on_its_own(p: float):
    torch.manual_seed(0)
    x = torch.full((400, 1003), 2.0)  # not a multiple of four
    y = dropout(x, p, training=True)
    dropped = y == 0
    assert y.unique().tolist() == pytest.approx([0, 2 / (1 - p)], rel=1e-4)
    error = (p * (1 - p) / x.numel()) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(p, abs=5 * error)
    assert y.mean().item() == pytest.approx(2, abs=10 * error / (1 - p))
    # Neighbours come from the same draw, rows from the same stream: neither knows of the other.
    for other in (dropped[:, 1:] & dropped[:, :-1], dropped[1:] & dropped[:-1]):
        assert other.float().mean().item() == pytest.approx(p * p, abs=0.006)


def test_the_gradient_passes_where_the_element_did():
    torch.manual_seed(0)
    x = torch.randn(7, 9, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.3, training=True)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    assert y.dtype == torch.float64


def test_the_seed_decides():
    x = torch.randn(50, 50)
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5, training=True) == 0)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped_where_nothing_should_be(p: float, training: bool):
    x = torch.randn(3, 4)
    assert dropout(x, p, training) is x


@pytest.mark.parametrize("shape", [(0, 5), (1,), (2, 3, 1)])
def test_any_shape(shape: tuple[int, ...]):
    assert dropout(torch.ones(shape), 0.5, training=True).shape == shape
