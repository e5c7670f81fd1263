"""BERT4Rec beside torch's own transformer layers, and what it may not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.models.bert4rec import BERT4Rec, BERT4RecNetwork, BERT4RecSettings
from seqrec.nn.batch import Inputs

WIDTH, LENGTH = 8, 6


def network() -> BERT4RecNetwork:
    torch.manual_seed(0)
    net = BERT4RecNetwork(BERT4RecSettings(width=WIDTH, heads=2, length=LENGTH), 20, 5).double().eval()
    with torch.no_grad():
        for vectors in net.parameters():
            vectors += 0.3 * torch.randn_like(vectors)
    return net


def torchs_layer(attention, feedforward) -> nn.TransformerEncoderLayer:
    layer = (
        nn.TransformerEncoderLayer(
            WIDTH, 2, 4 * WIDTH, activation="gelu", batch_first=True, layer_norm_eps=1e-12
        )
        .double()
        .eval()
    )
    weights = {
        "self_attn.in_proj_weight": torch.cat([attention.q.weight, attention.kv.weight]),
        "self_attn.in_proj_bias": torch.cat([attention.q.bias, attention.kv.bias]),
    }
    for name, module in {
        "self_attn.out_proj": attention.out,
        "norm1": attention.norm,
        "linear1": feedforward.inner,
        "linear2": feedforward.outer,
        "norm2": feedforward.norm,
    }.items():
        weights |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    layer.load_state_dict(weights)
    return layer


@pytest.mark.parametrize("history", [[], [3], [3, 1, 4, 1, 5, 9, 2]])
def test_the_layers_are_torchs(history):
    net = network()
    read = history[-LENGTH:]
    x = torch.cat([net.items.weight[read, :WIDTH], net.hidden[None]])
    x = net.norm(x + net.places.weight[: len(x)])[None]
    for attention, feedforward in zip(net.attention, net.feedforward):
        x = torchs_layer(attention, feedforward)(x)
    expected = net.norm_project(F.gelu(net.project(x[0, -1])))
    asked = Query.from_lists([np.array(history, np.int32), np.array([7, 7, 7, 7])])
    with torch.no_grad():
        state = net.encode(net.query_inputs(asked))[0]
    torch.testing.assert_close(state, expected, rtol=0, atol=1e-9)
    assert net.item_vectors().shape == (20, WIDTH + 1)


def test_a_hidden_item_is_not_seen_and_both_sides_are():
    net = network()
    rows = torch.tensor([[3, 1, 4, 1, 5], [3, 17, 4, 1, 5], [3, 1, 4, 1, 17]])
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 1] = False
    one, other_hidden, other_later = net.encode(Inputs(rows, mask, torch.tensor([1, 6, 11])))
    assert torch.equal(one, other_hidden)
    assert (one - other_later).abs().max() > 1e-3


def test_several_hidden_items_of_a_row():
    net = network()
    mask = torch.tensor([[True, False, True, False, True]])
    both = net.encode(Inputs(torch.tensor([[3, 0, 4, 0, 5]]), mask, torch.tensor([1, 3])))
    assert (both[0] - both[1]).abs().max() > 1e-3
    for row in range(2):  # the state of one of several is that of a row alone with as many
        again = net.encode(Inputs(torch.tensor([[3, 8, 4, 9, 5]]), mask, torch.tensor([1, 3])))
        torch.testing.assert_close(again[row], both[row], rtol=0, atol=1e-12)


def test_heads_divide_the_width():
    with pytest.raises(SettingsError, match=r"bert4rec\.heads: expected a divisor of the width, which is 64"):
        BERT4Rec(heads=3)
