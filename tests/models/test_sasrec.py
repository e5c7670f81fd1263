"""SASRec: what a state may see, the short cut of the last block, and windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.models.sasrec import Block, SASRec, SASRecNetwork, SASRecSettings, rotate
from seqrec.nn.batch import Inputs

ITEMS, LENGTH = 20, 8


def network(**settings) -> SASRecNetwork:
    torch.manual_seed(0)
    return (
        SASRecNetwork(
            SASRecSettings(**{"width": 12, "heads": 2, "length": LENGTH, "dropout": 0.0, **settings}),
            ITEMS,
            5,
        )
        .double()
        .eval()
    )


def all_states(net: SASRecNetwork, items: list[int]) -> torch.Tensor:
    """(len(items), width) the state after each item of one history."""
    n = len(items)
    # two rows, so that a state for each step is not mistaken for one a row
    rows = torch.tensor([items, items])
    at = torch.arange(2 * n)
    return net.encode(Inputs(rows, torch.ones(2, n, dtype=torch.bool), at))[:n]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_later_item_never_changes_an_earlier_state(blocks: int, gated: bool):
    net = network(blocks=blocks, gated=gated)
    items = [3, 1, 4, 1, 5, 9, 2]
    before = all_states(net, items)
    for changed in range(1, len(items)):
        other = items.copy()
        other[changed] = 17
        after = all_states(net, other)
        torch.testing.assert_close(after[:changed], before[:changed], rtol=0, atol=1e-14)
        assert (after[changed:] - before[changed:]).abs().amax(1).min() > 1e-6, (
            "a state does not see its own past"
        )


def test_states_of_a_prefix_are_those_of_the_whole():
    net = network()
    items = [3, 1, 4, 1, 5, 9, 2]
    whole = all_states(net, items)
    for n in range(1, len(items) + 1):
        torch.testing.assert_close(all_states(net, items[:n])[-1], whole[n - 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 3])
def test_one_state_a_row_equals_the_full_last_block(heads: int):
    torch.manual_seed(0)
    block = Block(SASRecSettings(width=12, heads=heads)).double().eval()
    x = torch.randn(4, 6, 12, dtype=torch.float64)
    at = torch.tensor([0, 6 + 5, 12 + 2, 18 + 3])
    torch.testing.assert_close(block(x, at=at), block(x).reshape(24, 12)[at], rtol=0, atol=1e-12)


def test_histories_of_a_batch_get_the_states_of_their_last_items():
    net = network()
    lists = [np.array([3, 1, 4]), np.array([7]), np.arange(12), np.array([5, 5, 5, 5, 5, 5, 5, 5])]
    states = net.encode(net.query_inputs(Query.from_lists(lists)))
    for state, items in zip(states, lists):
        torch.testing.assert_close(state, all_states(net, items[-LENGTH:].tolist())[-1], rtol=0, atol=1e-12)


def test_attention_by_hand():
    """One head, one block, two steps: equations 2 to 5 spelt out."""
    net = network(width=4, heads=1, blocks=1)
    block = net.blocks[0]
    x = net.items.weight[[2, 5]] * math.sqrt(4) + net.places.weight[:2]
    y = F.layer_norm(x, (4,), block.norm_attention.weight, block.norm_attention.bias)
    q, k, v = (y @ block.qkv.weight[i : i + 4].T + block.qkv.bias[i : i + 4] for i in (0, 4, 8))
    share = torch.softmax(torch.stack([q[1] @ k[0], q[1] @ k[1]]) / math.sqrt(4), 0)
    x1 = x[1] + block.out(share[0] * v[0] + share[1] * v[1])
    y1 = F.layer_norm(x1, (4,), block.norm_feedforward.weight, block.norm_feedforward.bias)
    x1 = x1 + block.outer(torch.relu(block.inner(y1)))
    torch.testing.assert_close(all_states(net, [2, 5])[1], net.norm(x1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "heads": 3}, r"sasrec\.heads: expected a divisor of the width, which is 10\. Got 3\."),
        ({"heads": 3}, r"sasrec\.heads: expected a divisor of the width, which is 64\. Got 3\."),
        (
            {"width": 10, "heads": 2, "positions": "rotary"},
            r"sasrec\.positions: expected 'learned' where width / heads is odd \(10 / 2\)",
        ),
        ({"width": 0, "heads": 3}, r"sasrec\.width: expected greater than or equal to 1"),
    ],
)
def test_heads_that_the_width_does_not_have_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        SASRec(**settings)


def test_rotary_positions_turn_each_pair_by_its_own_angle():
    """RoFormer, equation 34: pair i of position t turns by t / 10,000^(2i / size)."""
    size = 6
    net = network(positions="rotary")  # 12 wide, 2 heads
    x = torch.randn(1, 2, LENGTH, size, dtype=torch.float64)
    turned = rotate(x, net.turns)
    for t in range(LENGTH):
        for i in range(size // 2):
            angle = t / 10_000 ** (2 * i / size)
            a, b = x[..., t, i], x[..., t, i + size // 2]
            torch.testing.assert_close(
                turned[..., t, i], a * math.cos(angle) - b * math.sin(angle), rtol=1e-6, atol=1e-6
            )
            torch.testing.assert_close(
                turned[..., t, i + size // 2], a * math.sin(angle) + b * math.cos(angle), rtol=1e-6, atol=1e-6
            )
