"""HSTU: the equations with loops, with times and without; and the short cut of the last unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqrec.data.query import Events, Query
from seqrec.errors import DataError, SettingsError
from seqrec.models.hstu import HSTU, HSTUNetwork, HSTUSettings
from seqrec.nn.batch import Inputs
from seqrec.splitting import leave_one_out
from seqrec.testing import small_log

WIDTH, LENGTH = 6, 9
HISTORY, TIMES, MOMENT = [3, 1, 4, 1, 5], [100, 103, 103, 900, 5000], 90_000


def network(**settings) -> HSTUNetwork:
    torch.manual_seed(0)
    net = HSTUNetwork(HSTUSettings(width=WIDTH, heads=2, length=LENGTH, **settings), 20, 5).double().eval()
    with torch.no_grad():
        for vectors in net.parameters():
            vectors += 0.5 * torch.randn_like(vectors)
    return net


def norm(x):
    return F.layer_norm(x, x.shape, eps=1e-6)


@pytest.mark.parametrize("times", [False, True])
def test_the_equations_with_loops(times):
    net = network(times=times)
    x = [net.items.weight[i] * math.sqrt(WIDTH) + net.places.weight[t] for t, i in enumerate(HISTORY)]
    asked = [*TIMES[1:], MOMENT]
    for unit in net.units:
        before = list(x)
        u, q = zip(*(F.silu(unit.uq(norm(y))).split(WIDTH) for y in before))
        v, k = zip(*(F.silu(unit.vk(norm(y))).split(WIDTH) for y in before))
        for t in range(len(HISTORY)):
            found = torch.zeros(WIDTH, dtype=torch.float64)
            for head in (slice(0, 3), slice(3, 6)):
                for s in range(t + 1):
                    bias = unit.of_distance[t - s]
                    if times:
                        bias = bias + unit.of_time[int(math.log(max(1, asked[t] - TIMES[s])) / 0.301)]
                    found[head] += F.silu(q[t][head] @ k[s][head] + bias) / LENGTH * v[s][head]
            x[t] = before[t] + unit.out(u[t] * norm(found))
    expected = F.normalize(torch.stack(x), dim=1) / 0.05
    moments = torch.tensor(asked) if times else None
    both = Inputs(
        torch.tensor([HISTORY]),
        torch.ones(1, 5, dtype=torch.bool),
        torch.arange(5),
        times=torch.tensor([TIMES]),
        asked_at=moments,
    )
    torch.testing.assert_close(net.encode(both), expected, rtol=0, atol=1e-12)
    events = Events(np.array(HISTORY, np.int32), np.array(TIMES))
    query = Query(events, np.array([0]), np.array([5]), None, np.array([MOMENT]))
    torch.testing.assert_close(net.encode(net.query_inputs(query))[0], expected[-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(net.item_vectors(), F.normalize(net.items.weight, dim=1))


def test_times_must_be_known():
    with pytest.raises(DataError, match="times: the model reads the times of events"):
        HSTU(width=4, times=True).fit(leave_one_out(small_log()), progress=False)
    with pytest.raises(SettingsError, match=r"hstu\.heads: expected a divisor of the width, which is 6"):
        HSTU(width=6, heads=4)
