"""GRU4Rec: lanes, the carried state, and the three kinds of item embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqrec.data.query import Query
from seqrec.models.gru4rec import GRU4RecNetwork, GRU4RecSettings
from seqrec.splitting.split import Queries, Split
from seqrec.testing import sequences_of
from seqrec.training import losses

ITEMS = 15
LISTS = [
    np.array(x)
    for x in (
        [0, 1, 2, 3, 4, 5, 6],
        [7, 8],
        [9, 10, 11, 12],
        [13, 14, 0, 2, 4, 6, 8, 10, 12, 1],
        [3],
        [5, 6, 7],
    )
]


def everything() -> Split:
    """All events train."""
    s = sequences_of(LISTS, ITEMS)
    none = Queries.at(s, np.empty(0, dtype=np.int64))
    return Split(s, s.offsets[:-1], s.offsets[1:], none, none, {"name": "everything"})


def network(**settings) -> GRU4RecNetwork:
    torch.manual_seed(0)
    net = GRU4RecNetwork(GRU4RecSettings(**{"width": 5, "hidden": 6, **settings}), ITEMS, 4).double()
    torch.nn.init.normal_(net.items.weight[:, net.settings.width :])  # the bias
    return net


def one_run(net: GRU4RecNetwork, items: np.ndarray) -> torch.Tensor:
    return net.encode(net.query_inputs(Query.from_lists([items])))[0]


@pytest.mark.parametrize("lanes", [1, 2, 3, 10])
@pytest.mark.parametrize(("steps", "layers"), [(1, 1), (3, 1), (3, 2), (50, 1)])
def test_lanes_with_the_state_carried_equal_one_long_run(steps: int, layers: int, lanes: int):
    """Whatever the lanes, the state at each position is the one after reading the sequence from its
    beginning."""
    net = network(steps=steps, layers=layers)
    split = everything()
    prefixes = {(tuple(x[:n]), x[n]): one_run(net, x[:n]) for x in LISTS for n in range(1, len(x))}
    seen = []
    for batch in net.batches(split, lanes * steps, np.random.default_rng(0)):
        states = net.encode(batch.inputs)
        assert len(states) == len(batch.targets.items)
        for state, target in zip(states, batch.targets.items.tolist()):
            near = [
                key
                for key, expected in prefixes.items()
                if key[1] == target and torch.allclose(state, expected, rtol=0, atol=1e-10)
            ]
            assert len(near) == 1, "a state is that of no sequence read from its beginning"
            seen += near
    assert sorted(map(str, seen)) == sorted(map(str, prefixes)), (
        "not every position was trained on exactly once"
    )


@pytest.mark.parametrize("settings", [{}, {"layers": 2}, {"embedding": "none", "normalise": True}])
def test_a_step_reads_one_more_item(settings):
    """Serving goes on from a state, at the cost of one event, and gets what the whole history gives."""
    net = network(**settings)
    items = np.stack([LISTS[0][:5], LISTS[3][:5]])
    state = net.start(2)
    for n in range(5):
        state, output = net.step(state, torch.from_numpy(items[:, n]))
        whole = torch.stack([one_run(net, row[: n + 1]) for row in items])
        torch.testing.assert_close(output, whole, rtol=0, atol=1e-12)


def test_a_new_epoch_starts_from_nothing():
    net = network(steps=2)
    first = [net.encode(b.inputs) for b in net.batches(everything(), 4, np.random.default_rng(0))]
    again = [net.encode(b.inputs) for b in net.batches(everything(), 4, np.random.default_rng(0))]
    for a, b in zip(first, again):
        assert torch.equal(a, b)


def test_reading_histories_does_not_disturb_the_lanes():
    net = network(steps=2)
    undisturbed = [net.encode(b.inputs) for b in net.batches(everything(), 4, np.random.default_rng(0))]
    for batch, expected in zip(net.batches(everything(), 4, np.random.default_rng(0)), undisturbed):
        one_run(net, LISTS[0])
        assert torch.equal(net.encode(batch.inputs), expected)


def test_gradients_flow_back_through_the_steps_of_a_batch_only():
    net = network(steps=3, layers=1)
    batches = list(net.batches(everything(), 3, np.random.default_rng(1)))
    for batch in batches[:2]:
        states = net.encode(batch.inputs)
    states.sum().backward()
    touched = (net.items.weight.grad.abs().sum(1) > 0).nonzero()[:, 0].tolist()
    assert set(touched) <= set(batches[1].inputs.items.flatten().tolist())


@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
def test_item_embeddings(embedding: str):
    net = network(embedding=embedding, hidden=5)
    assert (net.input_items is None) == (embedding == "shared")
    state = one_run(net, np.array([2, 7]))
    assert net.item_vectors().shape == (ITEMS, 6)  # with the bias
    torch.testing.assert_close(net.item_vectors(torch.tensor([3, 1])), net.item_vectors()[[3, 1]])
    score = losses.scores(state[None], net.item_vectors())[0, 9]
    torch.testing.assert_close(score, state @ net.items.weight[9, :5] + net.items.weight[9, 5])
    net.zero_grad()
    state.sum().backward()
    reads_output_table = net.items.weight.grad is not None
    assert reads_output_table == (embedding == "shared")


def test_no_embedding_is_one_hot_input():
    """Rows of the input table are the columns of the GRU's input weights: a one-hot input picks one."""
    net = network(embedding="none", hidden=5)
    theirs = torch.nn.GRU(ITEMS, 5).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(net.input_items.weight.T)
        theirs.weight_hh_l0.copy_(net.layers[0].weight_hh)
        theirs.bias_ih_l0.zero_()
        theirs.bias_hh_l0.zero_()
    states, _ = theirs(torch.eye(ITEMS, dtype=torch.float64)[[2, 7, 1]])
    torch.testing.assert_close(one_run(net, np.array([2, 7, 1]))[:5], states[-1])


def test_only_the_latest_items_are_read():
    net = network(longest=3)
    torch.testing.assert_close(one_run(net, np.array([9, 9, 1, 2, 3])), one_run(net, np.array([1, 2, 3])))


def test_normalised_scores_are_cosines_over_the_temperature():
    net = network(normalise=True, temperature=0.5, item_bias=False)
    state = one_run(net, np.array([2, 7]))
    assert state.norm().item() == pytest.approx(2)
    torch.testing.assert_close(net.item_vectors().norm(dim=1), torch.ones(ITEMS, dtype=torch.float64))


def test_initial_std_is_that_of_both_item_tables():
    network = GRU4RecNetwork(GRU4RecSettings(embedding="separate", initial_std=1e-3), 500, 1)
    assert network.items.weight[:, :-1].std().item() == pytest.approx(1e-3, rel=0.05)
    assert not network.items.weight[:, -1].any()
    assert network.input_items.weight.std().item() == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_prefix_is_read_from_nothing(steps: int, layers: int):
    """Each state is that of the last items before its target, alone."""
    net = network(rows="prefixes", steps=steps, layers=layers)
    expected = {
        (tuple(x[max(0, n - steps) : n]), int(x[n])): one_run(net, x[max(0, n - steps) : n])
        for x in LISTS
        for n in range(1, len(x))
    }
    seen = 0
    for batch in net.batches(everything(), 4, np.random.default_rng(0)):
        states = net.encode(batch.inputs)
        for state, row, mask, target in zip(
            states, batch.inputs.items, batch.inputs.mask, batch.targets.items.tolist()
        ):
            torch.testing.assert_close(state, expected[tuple(row[mask].tolist()), target], rtol=0, atol=1e-12)
            seen += 1
    assert seen == sum(len(x) - 1 for x in LISTS)


def test_prefixes_are_scored_as_they_are_trained():
    """With the last ``steps`` items; lanes carry the state, and read on."""
    items = np.array([9, 9, 1, 2, 3])
    net = network(rows="prefixes", steps=3)
    torch.testing.assert_close(one_run(net, items), one_run(net, items[-3:]))
    net = network(rows="prefixes", steps=50, longest=2)
    torch.testing.assert_close(one_run(net, items), one_run(net, items[-2:]))
    net = network(steps=3)
    assert not torch.allclose(one_run(net, items), one_run(net, items[-3:]))


def test_dropout_between_layers_and_on_items():
    """Between layers, not after the last; on items in training only, and never on their bias."""
    net = network(layers=2, dropout_between=0.5).train()
    inputs = net.query_inputs(Query.from_lists([np.array([1, 2])]))
    assert len({tuple(net.encode(inputs)[0].tolist()) for _ in range(5)}) > 1
    one = network(layers=1, dropout_between=0.5).train()
    assert torch.equal(one.encode(inputs), one.eval().encode(inputs))

    net = network(dropout_item=0.5, width=400, hidden=400).train()
    zeros = (net.item_vectors() == 0).double().mean(1)
    assert ((zeros > 0.4) & (zeros < 0.6)).all()
    assert torch.equal(net.item_vectors()[:, -1], net.items.weight[:, -1])
    assert not net.one_table  # inputs have a dropout of their own
    assert torch.equal(net.eval().item_vectors(), net.items.weight)


def test_an_output_layer_has_biases_at_any_width():
    net = network(width=6, hidden=6, output_layer=True)
    plain = network(width=6, hidden=6)
    assert plain.project is None
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("project.")})
    items = np.array([2, 7])
    torch.testing.assert_close(one_run(net, items), net.project(one_run(plain, items)))
    assert net.project.bias is not None
    assert network(width=5, hidden=6).project.bias is None
