"""Vectors joined of shared parts, against the dense table that they make, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrec.errors import DataError, SettingsError
from seqrec.features.encoding import Codes, Features
from seqrec.nn.embedding import biases_of, embedding, rows_of
from seqrec.nn.jpq import JPQEmbedding
from seqrec.training import losses

ITEMS, SPLITS, EACH, WIDTH = 50, 3, 5, 12


def codes() -> Codes:
    return Codes(np.random.default_rng(0).integers(0, EACH, (SPLITS, ITEMS)).astype(np.uint8), EACH)


def table(biases: int = 0) -> JPQEmbedding:
    torch.manual_seed(0)
    side = Features.ids_only(users=False).coded(codes()).item
    made = embedding(ITEMS, WIDTH + biases, side, biases=biases).double()
    assert isinstance(made, JPQEmbedding)
    assert made.parts.weight.shape == (SPLITS * EACH, WIDTH // SPLITS)
    for own in biases_of(made, WIDTH):
        torch.nn.init.normal_(own)
    return made


def dense(t: JPQEmbedding) -> Tensor:
    """(items, width + biases) a part at a time."""
    parts = t.parts.weight.view(SPLITS, EACH, -1)
    rows = []
    for item, of_item in enumerate(codes().of_rows.T):
        own = [] if t.biases is None else [t.biases[item]]
        rows.append(torch.cat([*(parts[s, int(code)] for s, code in enumerate(of_item)), *own]))
    return torch.stack(rows)


@pytest.mark.parametrize("biases", [0, 1])
@pytest.mark.parametrize("sparse", [False, True])
def test_rows_ranges_and_all(biases, sparse):
    t = table(biases)
    t.sparse = sparse
    expected, rows = dense(t), torch.tensor([[3, 0, 3], [2, 5, 49]])
    assert torch.equal(t.weight, expected)
    assert torch.equal(t(rows), expected[rows])
    assert torch.equal(rows_of(t, slice(7, 20)), expected[7:20])
    assert t(torch.tensor(3)).shape == (WIDTH + biases,)


@pytest.mark.parametrize("biases", [0, 1])
@pytest.mark.parametrize("states", [1, 3, 20])
def test_scores_are_products(biases, states, monkeypatch):
    monkeypatch.setattr("seqrec.nn.jpq.BLOCK", 8)
    t, x = table(biases), torch.randn(states, WIDTH, dtype=torch.float64)
    expected = losses.scores(x, dense(t))
    with torch.no_grad():
        torch.testing.assert_close(t.scores(x, 0, ITEMS), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(t.scores(x, 9, 31), expected[:, 9:31], rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["softmax", "sampled"])
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_those_of_the_dense_table(loss, sparse):
    t, x = table(1), torch.randn(6, WIDTH, dtype=torch.float64)
    targets, negatives = torch.tensor([4, 4, 9, 0, 30, 2]), torch.tensor([9, 9, 1, 48])

    def value(vectors_of):
        if loss == "softmax":
            return losses.softmax(x, vectors_of(None), targets)
        positive = losses.scores_of_own(x, vectors_of(targets)[:, None])
        return torch.cat([positive, losses.scores(x, vectors_of(negatives))], 1).log_softmax(1)[:, 0].sum()

    found: list[list[Tensor]] = []
    for way in (lambda rows: dense(t) if rows is None else dense(t)[rows], lambda rows: rows_of(t, rows)):
        t.sparse = sparse
        t.zero_grad()
        value(way).backward()
        found.append([p.grad.to_dense() for p in t.parameters()])
    for expected, gradient in zip(*found, strict=True):
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)


def test_what_nothing_is_known_of_can_be_forgotten():
    t = table()
    t.forget()
    lost = codes().of_rows == 0
    assert torch.equal(t.weight.view(ITEMS, SPLITS, -1).eq(0).all(2).T, torch.from_numpy(lost))


def test_splits_that_do_not_divide():
    with pytest.raises(SettingsError, match=r"item_table.splits: expected a divisor .* 10. Got 3"):
        embedding(ITEMS, 10, Features.ids_only(users=False).coded(codes()).item)


def test_codes_of_no_part():
    t = table()
    t.check()
    t.codes[1, 7] = EACH
    with pytest.raises(DataError, match="codes are not below 5"):
        t.check()
