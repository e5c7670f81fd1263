"""eSASRec: its layers by hand. What it shares with SASRec is tested there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from seqrec.models.esasrec import ESASRec, ESASRecNetwork, ESASRecSettings
from seqrec.nn.batch import Inputs


def test_layers_by_hand():
    torch.manual_seed(0)
    net = ESASRecNetwork(ESASRecSettings(width=4, blocks=1, length=8), 20, 5).double().eval()
    block = net.blocks[0]
    x = net.items.weight[[2, 5]] * math.sqrt(4) + net.places.weight[:2]
    y = block.norm_attention(x)
    q, k, v = (y @ block.qkv.weight[i : i + 4].T + block.qkv.bias[i : i + 4] for i in (0, 4, 8))
    share = torch.softmax(torch.stack([q[1] @ k[0], q[1] @ k[1]]) / math.sqrt(4), 0)
    state = x[1]
    gate = torch.sigmoid(block.gates["attention"](state))
    state = state + gate * block.out(share[0] * v[0] + share[1] * v[1])
    gate = torch.sigmoid(block.gates["feedforward"](state))
    a, b = block.inner(block.norm_feedforward(state)).split(16)
    state = state + gate * block.outer(F.silu(a) * b)
    for at in ([1], [0, 1]):  # one state a row, and all of them
        inputs = Inputs(torch.tensor([[2, 5]]), torch.ones(1, 2, dtype=torch.bool), torch.tensor(at))
        torch.testing.assert_close(net.encode(inputs)[-1], state, rtol=0, atol=1e-12)


def test_its_training_is_the_papers():
    model = ESASRec()
    assert model.loss.name == "sampled_softmax"
    assert (model.negatives.count, model.negatives.alpha, model.negatives.shared) == (256, 0, False)
