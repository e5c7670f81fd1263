"""FuXi-alpha: the equations with loops, with times and without; and the short cut of the last block."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqrec.data.query import Events, Query
from seqrec.models.fuxi import FuXiNetwork, FuXiSettings
from seqrec.nn.batch import Inputs

WIDTH, LENGTH = 6, 9
HISTORY, TIMES, MOMENT = [3, 1, 4, 1, 5], [100, 103, 103, 900, 5000], 90_000


def norm(x):
    return x / (x.square().mean() + 1e-6).sqrt()


@pytest.mark.parametrize("times", [False, True])
def test_the_equations_with_loops(times):
    torch.manual_seed(0)
    settings = FuXiSettings(width=WIDTH, heads=2, length=LENGTH, times=times, feedforward=1.5)
    net = FuXiNetwork(settings, 20, 5).double().eval()
    with torch.no_grad():
        for vectors in net.parameters():
            vectors += 0.5 * torch.randn_like(vectors)
    x = [net.items.weight[i] * math.sqrt(WIDTH) + net.places.weight[t] for t, i in enumerate(HISTORY)]
    asked = [*TIMES[1:], MOMENT]
    for block in net.units:
        before = list(x)
        q = [F.silu(block.q(norm(y))) for y in before]
        v, k = zip(*(F.silu(block.vk(norm(y))).split(WIDTH) for y in before))
        for t in range(len(HISTORY)):
            of_place, of_time, of_meaning = (torch.zeros(WIDTH, dtype=torch.float64) for _ in range(3))
            for s in range(t + 1):
                of_place += block.of_distance[t - s] * v[s]
                if times:
                    of_time += block.of_time[int(math.log(max(1, asked[t] - TIMES[s])) / 0.301)] * v[s]
                for head in (slice(0, 3), slice(3, 6)):
                    of_meaning[head] += F.silu(q[t][head] @ k[s][head]) / LENGTH * v[s][head]
            channels = torch.cat([of_place, of_time, of_meaning] if times else [of_place, of_meaning])
            o = before[t] + block.out(F.silu(block.u(norm(before[t]))) * norm(channels))
            x[t] = o + block.down(F.silu(block.gate(norm(o))) * block.up(norm(o)))
    expected = F.normalize(torch.stack(x), dim=1) / 0.05
    both = Inputs(
        torch.tensor([HISTORY]),
        torch.ones(1, 5, dtype=torch.bool),
        torch.arange(5),
        times=torch.tensor([TIMES]),
        asked_at=torch.tensor(asked) if times else None,
    )
    torch.testing.assert_close(net.encode(both), expected, rtol=0, atol=1e-12)
    events = Events(np.array(HISTORY, np.int32), np.array(TIMES))
    query = Query(events, np.array([0]), np.array([5]), None, np.array([MOMENT]))
    torch.testing.assert_close(net.encode(net.query_inputs(query))[0], expected[-1], rtol=0, atol=1e-12)
