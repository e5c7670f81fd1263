"""BSARec: its block by hand, with numpy's Fourier transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_fmlp import ITEMS, WIDTH, disturbed, start

from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.models.bsarec import BSARec, BSARecNetwork, BSARecSettings


@pytest.mark.parametrize("length", [7, 8])
@pytest.mark.parametrize("history", [[3], [3, 1, 4, 1, 5, 9, 2]])
def test_blocks_by_hand(length, history):
    torch.manual_seed(0)
    s = BSARecSettings(width=WIDTH, length=length, heads=2, filter_share=0.3, low=2)
    net = disturbed(BSARecNetwork(s, ITEMS, 5))
    x = start(net, history, length).detach()
    first = length - len(history)
    for block in net.blocks:
        x[:first] = 0
        frequencies = np.fft.rfft(x.numpy(), axis=0)
        frequencies[2:] = 0
        low = torch.from_numpy(np.fft.irfft(frequencies, length, axis=0))
        filtered = block.norm(x + low + block.root_high**2 * (x - low))
        q, k, v = block.attention.q(x), *block.attention.kv(x).chunk(2, 1)
        attended = torch.zeros_like(x)
        for t in range(first, length):
            for head in (slice(0, 2), slice(2, 4)):
                share = torch.softmax(k[first : t + 1, head] @ q[t, head] / 2**0.5, 0)
                attended[t, head] = share @ v[first : t + 1, head]
        attended = block.attention.norm(x + block.attention.out(attended))
        y, layer = 0.3 * filtered + 0.7 * attended, block.feedforward
        x = layer.norm(y + layer.outer(F.gelu(layer.inner(y)))).detach()
    query = Query.from_lists([np.array(history), np.array([7, 7, 7, 7, 7])])
    with torch.no_grad():
        state = net.encode(net.query_inputs(query))[0]
    torch.testing.assert_close(state, x[-1], rtol=0, atol=1e-6)


def test_heads_divide_the_width():
    with pytest.raises(SettingsError, match=r"bsarec\.heads: expected a divisor of the width, which is 64"):
        BSARec(heads=3)
