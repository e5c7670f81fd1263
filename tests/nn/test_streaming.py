"""Going on from a remembered state gives what reading the whole history gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqrec.data.query import Query
from seqrec.models.gru4rec import GRU4Rec, GRU4RecNetwork, GRU4RecSettings
from seqrec.models.hrm import HRM
from seqrec.models.lrurec import LRURecNetwork, LRURecSettings
from seqrec.nn.streaming import Streamed


def query(*histories) -> Query:
    return Query.from_lists([np.array(h, dtype=np.int32) for h in histories])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 2, "hidden": 6},
        {"embedding": "none"},
        {"rows": "prefixes", "steps": 9},
        {"normalise": True, "temperature": 0.5},
    ],
    ids=str,
)
def test_growing_histories_have_the_states_of_whole_ones(changes):
    torch.manual_seed(0)
    settings = GRU4RecSettings.of({"width": 5, "hidden": 4, "longest": 12, **changes}, "gru4rec")
    check_growing(GRU4RecNetwork(settings, 20, 0))


def test_growing_histories_of_linear_recurrent_units():
    torch.manual_seed(0)
    check_growing(LRURecNetwork(LRURecSettings(width=5, length=12), 20, 0))


def check_growing(network):
    network.eval()
    streamed, rng = Streamed(network, 6), np.random.default_rng(0)
    histories = [list(rng.integers(0, 20, n)) for n in (0, 1, 1, 3, 8)]
    for _ in range(25):
        asked = query(*histories)
        with torch.no_grad():
            expected = network.encode(network.query_inputs(asked))
        torch.testing.assert_close(streamed.states(asked), expected, rtol=0, atol=1e-5)
        for history in histories:
            history += list(rng.integers(0, 20, rng.integers(0, 4)))
            if len(history) > 15:
                del history[rng.integers(0, 2) :]
    assert len(streamed._known) <= 6


def test_one_event_more_is_one_step_more():
    network = GRU4RecNetwork(GRU4RecSettings.of({"width": 4, "hidden": 4}, "gru4rec"), 20, 0).eval()
    streamed = Streamed(network, 100)
    for history, steps in (([1, 2, 3], 3), ([1, 2, 3, 4], 1), ([1, 2, 3, 4], 0), ([1, 2, 9], 3)):
        before = streamed.steps
        streamed.states(query(history))
        assert streamed.steps - before == steps


def test_a_model_that_streams_recommends_the_same(ring):
    model = GRU4Rec(width=8, hidden=8, train={"epochs": 1}).fit(ring, progress=False)
    histories = [["i1"], ["i1", "i2"], ["i1", "i2", "i3"], []]
    before = [model.recommend([h]) for h in histories]
    assert model.stream()
    for history, expected in zip(histories, before):
        found = model.recommend([history])
        assert found["item_id"].equals(expected["item_id"])
        np.testing.assert_allclose(found["score"], expected["score"], atol=1e-5)
    model.fit(ring, progress=False)  # another network: nothing is remembered of the old one
    assert model._streamed is None
    assert not HRM(width=4, train={"epochs": 1}).fit(ring, progress=False).stream()
