"""FMLP-Rec: filters against numpy's Fourier transform, and short histories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqrec.data.query import Query
from seqrec.models.fmlp import FMLPNetwork, FMLPSettings, fourier
from seqrec.nn.batch import Inputs

ITEMS, WIDTH = 20, 4


def disturbed(net):
    with torch.no_grad():
        for vectors in net.parameters():
            vectors += 0.3 * torch.randn_like(vectors)
    return net.double().eval()


def start(net, history, length):
    """(length, width) what the first block reads: zeros before the first item."""
    first = length - len(history)
    x = net.norm(net.items.weight[list(history)] + net.places.weight[first:])
    return torch.cat([x.new_zeros(first, WIDTH), x])


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_the_matrices_are_the_transform(length):
    there, back = fourier(length)
    x = np.random.default_rng(0).normal(size=length)
    found = there.numpy() @ x
    half = length // 2 + 1
    np.testing.assert_allclose(found[:half] + 1j * found[half:], np.fft.rfft(x), atol=1e-12)
    np.testing.assert_allclose(back.numpy() @ found, x, atol=1e-12)


@pytest.mark.parametrize("length", [7, 8])
@pytest.mark.parametrize("history", [[3], [3, 1, 4], [3, 1, 4, 1, 5, 9, 2]])
def test_filters_in_numpy(length, history):
    torch.manual_seed(0)
    net = disturbed(FMLPNetwork(FMLPSettings(width=WIDTH, length=length), ITEMS, 5))
    x = start(net, history, length).detach()
    first = length - len(history)
    for block in net.blocks:
        x[:first] = 0
        gain = torch.complex(*block.gain.detach()).numpy()
        filtered = np.fft.irfft(np.fft.rfft(x.numpy(), axis=0) * gain, length, axis=0)
        y = block.norm(x + torch.from_numpy(filtered))
        layer = block.feedforward
        x = layer.norm(y + layer.outer(F.gelu(layer.inner(y)))).detach()
    # of an even length numpy's inverse leaves the imaginary part of the last frequency out, as ours does
    query = Query.from_lists([np.array(history), np.array([7, 7, 7, 7, 7])])
    with torch.no_grad():
        state = net.encode(net.query_inputs(query))[0]
    torch.testing.assert_close(state, x[-1], rtol=0, atol=1e-6)


def test_what_comes_later_in_a_row_is_not_read():
    torch.manual_seed(0)
    net = disturbed(FMLPNetwork(FMLPSettings(width=WIDTH, length=8), ITEMS, 5))
    rows = torch.tensor([[3, 1, 4, 1, 5], [3, 1, 4, 9, 9]])
    mask = torch.ones(2, 5, dtype=torch.bool)
    states = net.encode(Inputs(rows, mask, torch.tensor([2, 7])))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=1e-12)
