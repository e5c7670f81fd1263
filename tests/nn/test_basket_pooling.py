"""Vectors of baskets, by hand."""

from __future__ import annotations

import pytest
import torch

from seqrec.nn.baskets import pooled
from seqrec.nn.batch import Inputs

VECTORS = torch.tensor(
    [[[1.0, -2.0], [3.0, -4.0], [-5.0, 6.0]], [[-7.0, 8.0], [100.0, 100.0], [100.0, 100.0]]],
    dtype=torch.float64,
)
INPUTS = Inputs(
    items=torch.ones(2, 3, dtype=torch.int64),
    mask=torch.tensor([[True, True, True], [True, False, False]]),
    at=torch.tensor([1, 2]),
    baskets=torch.tensor([[0, 0, 1], [0, 5, 5]]),
)


@pytest.mark.parametrize(("how", "first"), [("average", [2.0, -3.0]), ("max", [3.0, -2.0])])
def test_by_hand(how, first):
    vectors = VECTORS.clone().requires_grad_()
    x, inputs = pooled(vectors, INPUTS, how)
    assert x.tolist() == [[first, [-5.0, 6.0]], [[-7.0, 8.0], [0.0, 0.0]]]
    assert inputs.mask.tolist() == [[True, True], [True, False]]
    assert inputs.at.tolist() == [1, 2]
    assert inputs.items.shape == (2, 2)
    x.sum().backward()
    assert (vectors.grad[~INPUTS.mask] == 0).all()
    assert vectors.grad.sum().item() == pytest.approx(6)
    some = VECTORS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: pooled(v, INPUTS, how)[0], (some,))


def test_empty_histories_have_one_basket_of_nothing():
    nothing = Inputs(
        items=torch.zeros(2, 1, dtype=torch.int64),
        mask=torch.zeros(2, 1, dtype=torch.bool),
        at=torch.tensor([0, 1]),
        baskets=torch.zeros(2, 1, dtype=torch.int64),
    )
    for how in ("average", "max"):
        x, inputs = pooled(VECTORS[:, :1], nothing, how)
        assert x.tolist() == [[[0.0, 0.0]], [[0.0, 0.0]]]
        assert not inputs.mask.any()
