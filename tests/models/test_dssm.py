"""DSSM: the towers with loops, and what they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seqrec.data.query import Query
from seqrec.models.dssm import DSSM, DSSMNetwork, DSSMSettings
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.testing import small_log
from seqrec.training.options import FitOptions


def through(layers: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """A tower by its weights."""
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    for number, layer in enumerate(linear):
        x = layer.weight @ x + layer.bias
        x = x.tanh() if number + 1 < len(linear) else x
    return x


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("user_vectors", [True, False])
def test_the_equations_with_loops(layers, user_vectors):
    torch.manual_seed(0)
    settings = DSSMSettings(width=4, hidden=5, layers=layers, recent=3, user_vectors=user_vectors)
    net = DSSMNetwork(settings, 9, 6).double().eval()
    histories, users = [[7, 3, 1, 4], [2], []], [4, -1, 0]
    query = Query.from_lists([np.array(h, dtype=np.int32) for h in histories], np.array(users, np.int32))
    with torch.no_grad():
        found = net.encode(net.query_inputs(query)) @ net.item_vectors().T
    for row, (history, user) in enumerate(zip(histories, users)):
        x = torch.zeros(4, dtype=torch.float64)
        for item in history[-3:]:
            x = x + net.items.weight[item] / len(history[-3:])
        if user_vectors:
            u = net.users.weight[user] if user >= 0 else torch.zeros(4, dtype=torch.float64)
            x = torch.cat([u, x])
        a = through(net.of_query, x)
        for item in range(9):
            b = through(net.of_item, net.items.weight[item])
            cosine = (a @ b) / ((a @ a) * (b @ b)).sqrt()
            assert float(found[row, item]) == pytest.approx(cosine.item() / 0.1, abs=1e-9)


def test_some_items_are_as_all():
    net = DSSMNetwork(DSSMSettings(width=4, hidden=5), 9, 6).eval()
    whole = net.item_vectors()
    torch.testing.assert_close(net.item_vectors(slice(2, 5)), whole[2:5])
    rows = torch.tensor([[3, 0], [8, 3]])
    torch.testing.assert_close(net.item_vectors(rows), whole[rows])


def test_with_every_loss():
    on = FitOptions(device="cpu", progress=False, baselines=False)
    for loss in ("softmax", "sampled_softmax", "bpr"):
        model = DSSM(width=8, hidden=8, loss=loss, train={"epochs": 1}, negatives={"count": 5})
        assert math.isfinite(model.fit(leave_one_out(small_log()), on).fit_report.curve[0]["loss"])
