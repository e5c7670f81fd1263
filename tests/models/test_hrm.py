"""HRM's two layers of pooling, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqrec.data.query import Events, Query
from seqrec.models.hrm import HRMNetwork, HRMSettings, pool
from seqrec.splitting.everything import everything
from seqrec.testing import sequences_of

VECTORS = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [100.0, 100.0]]])
MASK = torch.tensor([[True, True, False]])


@pytest.mark.parametrize(
    ("how", "expected"), [("max", [3.0, -2.0]), ("average", [2.0, -3.0]), ("sum", [4.0, -6.0])]
)
def test_pooling(how: str, expected: list[float]):
    assert pool(VECTORS, MASK, how)[0].tolist() == expected


@pytest.mark.parametrize("how", ["max", "average", "sum"])
def test_pooling_nothing_gives_zeros(how: str):
    vectors = VECTORS.clone().requires_grad_()
    out = pool(vectors, torch.zeros(1, 3, dtype=torch.bool), how)
    out.sum().backward()
    assert out.tolist() == [[0.0, 0.0]]
    assert vectors.grad.abs().sum() == 0


def network(**settings) -> HRMNetwork:
    net = HRMNetwork(HRMSettings(width=2, recent=2, **settings), 4, 2)
    with torch.no_grad():
        net.items.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [-1.0, 4.0]]))
        if net.input_items is not None:
            net.input_items.weight.copy_(10 * net.items.weight)
        if net.users is not None:
            net.users.weight.copy_(torch.tensor([[2.0, 2.0], [-4.0, 8.0]]))
    return net.eval()


def states(net: HRMNetwork, lists: list[list[int]], users: list[int] | None) -> list[list[float]]:
    histories = Query.from_lists(
        [np.array(x, dtype=np.int32) for x in lists],
        None if users is None else np.array(users, dtype=np.int32),
    )
    return net.encode(net.query_inputs(histories)).tolist()


def test_two_layers_by_hand():
    # history 1 2 3: the transaction is 2 3, its vectors (30, 10) and (-10, 40); the user is (2, 2)
    # ((30, 40) + (2, 2)) / 2
    assert states(network(pool_items="max", pool_user="average"), [[1, 2, 3]], [0]) == [[16.0, 21.0]]
    # max((10, 25), (2, 2))
    assert states(network(pool_items="average", pool_user="max"), [[1, 2, 3]], [0]) == [[10.0, 25.0]]
    # (20, 50) + (-4, 8)
    assert states(network(pool_items="sum", pool_user="sum"), [[1, 2, 3]], [1]) == [[16.0, 58.0]]


def test_a_user_never_seen_leaves_the_transaction_alone():
    net = network(pool_items="sum", pool_user="average")
    assert states(net, [[2, 3]], [-1]) == [[20.0, 50.0]]
    assert states(net, [[2, 3]], None) == [[20.0, 50.0]]


def test_an_empty_history_leaves_the_user_alone():
    assert states(network(pool_items="max", pool_user="average"), [[]], [1]) == [[-4.0, 8.0]]


def test_one_table():
    net = network(shared=True, user_vectors=False, pool_items="sum")
    assert states(net, [[2, 3]], [0]) == [[2.0, 5.0]]
    assert net.item_vectors().tolist() == net.items.weight.tolist()


def test_the_origins_form():
    net = network(user_vectors=False, pool_items="sum", normalise=True, temperature=0.1)
    score = torch.tensor(states(net, [[0]], None)) @ net.item_vectors().T
    assert score[0].tolist() == pytest.approx([10.0, 0.0, 10 * 3 / 10**0.5, -10 / 17**0.5], rel=1e-5)


def test_item_vectors_of_any_shape_have_length_one():
    """Also those of negatives that each position has for itself."""
    vectors = network(normalise=True).item_vectors(torch.tensor([[1, 2, 3], [3, 1, 2]]))
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(2, 3))


def test_dropout_on_what_is_pooled_or_on_the_towers():
    """Pooled: the transaction and the result. Towers: the user, the transaction and the scored items."""

    def zeros(at: str) -> tuple[float, float]:
        net = HRMNetwork(HRMSettings(width=4000, recent=2, dropout=0.5, dropout_at=at, pool_user="sum"), 4, 2)
        query = Query.from_lists([np.array([1, 2], dtype=np.int32)], np.array([0], dtype=np.int32))
        states = net.train().encode(net.query_inputs(query))
        return float((states == 0).double().mean()), float((net.item_vectors() == 0).double().mean())

    assert zeros("pooled") == pytest.approx((0.5, 0), abs=0.05)
    assert zeros("towers") == pytest.approx((0.25, 0.5), abs=0.05)
    net = HRMNetwork(HRMSettings(dropout=0.5, dropout_at="towers"), 4, 2).eval()
    assert torch.equal(net.item_vectors(), net.items.weight)


def test_over_transactions_as_the_paper_has_it():
    """Every item of a basket after the basket before it: pool1 over its items, pool2 over the user and what
    came of that; against the equations, item by item. The second user's only basket says nothing."""
    log = sequences_of([np.array([0, 1, 2, 3, 1, 0, 2]), np.array([3, 2])], 4)
    log = replace(log, baskets=np.array([0, 0, 1, 2, 2, 2, 3, 4, 4]))
    split = everything(log)
    for count in (1, 2):
        net = network(pool_items="max", pool_user="average", baskets=count)
        v, v_in = (table.weight.double() for table in (net.items, net.input_items))
        u = net.users.weight.double()
        baskets = [[0, 1], [2], [3, 1, 0], [2]]
        expected = {}
        for at, basket in enumerate(baskets[1:], 1):
            before = [i for b in baskets[max(0, at - count) : at] for i in b]
            state = (u[0] + v_in[before].amax(0)) / 2
            expected |= {(at, j): v @ state for j in basket}
        found = []
        for batch in net.batches(split, 3, np.random.default_rng(0)):
            scores = net.encode(batch.inputs).double() @ v.T
            assert len(scores) == batch.positions == len(batch.targets.events)
            found += [(int(item), row) for item, row in zip(batch.targets.items, scores)]
        assert sorted(item for item, _ in found) == sorted(j for _, j in expected)
        left = list(expected.items())
        for item, row in found:
            match = next(e for e in left if e[0][1] == item and torch.allclose(e[1], row))
            left = [e for e in left if e is not match]
        events = Events(log.items, baskets=log.baskets)
        query = Query(events, np.array([0, 7]), np.array([6, 9]), np.array([0, -1]))
        before = [3, 1, 0] if count == 1 else [2, 3, 1, 0]
        last = torch.stack([(u[0] + v_in[before].amax(0)) / 2, v_in[[3, 2]].amax(0)])
        torch.testing.assert_close(net.encode(net.query_inputs(query)).double(), last)
    assert split.trained_users(of_baskets=True).tolist() == [True, False]
    assert split.trained_users().tolist() == [True, True]
