"""Caser: its filters as torch's convolutions over an image of the last items."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from seqrec.data.query import Query
from seqrec.models.caser import CaserNetwork, CaserSettings

WIDTH, RECENT = 4, 3


def test_filters_are_convolutions():
    torch.manual_seed(0)
    s = CaserSettings(width=WIDTH, recent=RECENT, horizontal=5, vertical=2)
    net = CaserNetwork(s, 20, 6).double().eval()
    query = Query.from_lists([np.array([9, 3, 1, 4]), np.array([7, 8])], np.array([2, -1], np.int32))
    states = net.encode(net.query_inputs(query))
    for state, latest, user in zip(states, ([4, 1, 3], [8, 7]), (2, None)):
        image = torch.zeros(1, 1, RECENT, WIDTH, dtype=torch.float64)
        image[0, 0, : len(latest)] = net.input_items.weight[latest]
        kernel = net.vertical.weight[:, None, :, None]
        found = [F.conv2d(image, kernel, net.vertical.bias).flatten()]
        for height, filters in enumerate(net.horizontal, start=1):
            kernel = filters.weight.view(5, 1, height, WIDTH)
            found.append(F.conv2d(image, kernel, filters.bias)[0].relu().flatten(1).amax(1))
        z = net.layer(torch.cat(found)).relu()
        u = torch.zeros(WIDTH, dtype=torch.float64) if user is None else net.users.weight[user]
        torch.testing.assert_close(state, torch.cat([z, u]), rtol=0, atol=1e-12)
    assert net.item_vectors().shape == (20, 2 * WIDTH + 1)
    assert CaserNetwork(CaserSettings(width=4, user_vectors=False), 20, 6).item_vectors().shape == (20, 5)
