"""LRURec: the recurrence one step after the other, and the scans that are to give the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.models.lrurec import LRURec, LRURecNetwork, LRURecSettings, scan, scan_in_reals

WIDTH, LENGTH = 6, 9


def network() -> LRURecNetwork:
    torch.manual_seed(0)
    net = LRURecNetwork(LRURecSettings(width=WIDTH, length=LENGTH), 20, 5).double().eval()
    with torch.no_grad():  # what starts as zeros or ones counts, too
        for vectors in net.parameters():
            vectors += 0.1 * torch.randn_like(vectors)
    return net


def norm(x, layer):
    return F.layer_norm(x, (WIDTH,), layer.weight, layer.bias)


def test_the_equations_one_step_after_the_other():
    net = network()
    history = [3, 1, 4, 1, 5]
    x = [norm(net.items.weight[i, :WIDTH], net.norm) for i in history]
    for block in net.blocks:
        decay = torch.exp(torch.complex(-block.nu.exp(), block.theta.exp()))
        b, bias = (torch.complex(part[0::2], part[1::2]) for part in (block.read.weight, block.read.bias))
        c = torch.complex(block.write.weight[:, 0::2], -block.write.weight[:, 1::2])
        h = torch.zeros(2 * WIDTH, dtype=torch.complex128)
        for t, x_t in enumerate(x):
            h = decay * h + block.log_gain.exp() * (b @ x_t.to(h.dtype) + bias)
            y = norm(x_t + (c @ h).real + block.write.bias, block.norm_unit)
            x[t] = norm(y + block.outer(F.gelu(block.inner(y))), block.norm_feedforward)
    with torch.no_grad():
        state = net.encode(net.query_inputs(Query.from_lists([np.array(history)])))[0]
    torch.testing.assert_close(state, x[-1], rtol=0, atol=1e-12)
    vectors = net.item_vectors()
    assert vectors.shape == (20, WIDTH + 1)  # the last column is the bias, which nothing reads
    with torch.no_grad():
        net.items.weight[:, WIDTH] += 1
    assert torch.equal(net.encode(net.query_inputs(Query.from_lists([np.array(history)])))[0], state)


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 11])
def test_scans_are_the_recurrence(steps):
    torch.manual_seed(0)
    u = torch.randn(2, steps, 3, dtype=torch.complex128, requires_grad=True)
    decay = torch.polar(torch.rand(3).double(), torch.randn(3).double()).requires_grad_()
    h, states = torch.zeros(2, 3, dtype=torch.complex128), []
    for t in range(steps):
        h = decay * h + u[:, t]
        states.append(h)
    torch.testing.assert_close(scan(u, decay), torch.stack(states, 1), rtol=0, atol=1e-12)
    in_reals = scan_in_reals(torch.view_as_real(u), torch.view_as_real(decay), 11)
    torch.testing.assert_close(torch.view_as_complex(in_reals), scan(u, decay), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(scan, (u, decay))


def test_a_later_item_never_changes_an_earlier_state():
    net, items = network(), torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    changed = items.clone()
    changed[0, 4] = 17
    before, after = (net.blocks[0](net.input_vectors(rows))[0] for rows in (items, changed))
    assert torch.equal(after[:4], before[:4])
    assert (after[4:] - before[4:]).abs().amax(1).min() > 1e-6


def test_radii_begin_where_they_are_said_to():
    net = LRURecNetwork(LRURecSettings(width=64, radius_min=0.5, radius_max=0.6), 20, 5)
    radius = torch.linalg.vector_norm(net.blocks[0].decay(), dim=-1)
    assert 0.5 <= radius.min() < 0.52
    assert 0.58 < radius.max() <= 0.6
    torch.testing.assert_close(net.blocks[0].log_gain.exp() ** 2, 1 - radius**2)
    with pytest.raises(SettingsError, match=r"lrurec\.radius_max: expected more than radius_min, which is 0"):
        LRURec(radius_min=0.9, radius_max=0.8)
