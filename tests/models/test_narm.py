"""NARM: attention over the states of torch's own GRU, with loops."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from seqrec.data.query import Query
from seqrec.models.narm import NARMNetwork, NARMSettings
from seqrec.nn.batch import Inputs


def test_the_equations_with_loops():
    torch.manual_seed(0)
    net = NARMNetwork(NARMSettings(width=4, hidden=5, length=6), 20, 5).double().eval()
    gru = nn.GRU(4, 5).double()
    gru.load_state_dict({f"{name}_l0": value for name, value in net.gru.state_dict().items()})
    history = [7, 3, 1, 4, 1, 5, 9]
    h = gru(net.items.weight[history[-6:]])[0]
    expected = []
    for t in range(6):
        found = torch.zeros(5, dtype=torch.float64)
        for s in range(t + 1):
            weight = torch.sigmoid(net.of_now.weight @ h[t] + net.of_then.weight @ h[s])
            found = found + (net.weigh.weight[0] @ weight) * h[s]
        expected.append(net.bilinear.weight @ torch.cat([found, h[t]]))
    whole = Inputs(torch.tensor([history[-6:]]), torch.ones(1, 6, dtype=torch.bool), torch.arange(6))
    torch.testing.assert_close(net.encode(whole), torch.stack(expected), rtol=0, atol=1e-12)
    asked = net.query_inputs(Query.from_lists([np.array(history), np.array([2])]))
    torch.testing.assert_close(net.encode(asked)[0], expected[-1], rtol=0, atol=1e-12)
