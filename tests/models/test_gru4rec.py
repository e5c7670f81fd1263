"""GRU4Rec: lanes, the carried state, and the three kinds of item embedding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call

from seqrec.data.query import Query
from seqrec.errors import DataError
from seqrec.models.gru4rec import GRU4Rec, GRU4RecNetwork, GRU4RecSettings
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


def by_the_formula(net: GRU4RecNetwork, items: list[int]) -> list[torch.Tensor]:
    """The state of the first layer of ``embedding: none`` after each item, unit by unit: the reset gate acts
    on the state before the multiply, each gate has one bias, and the update gate lets the new state in."""
    layer, width = net.layers[0], net.settings.hidden
    w, u, b = (t.tolist() for t in (net.input_items.weight, layer.state_weight, layer.bias))

    def gate(number: int, item: int, h: list[float]) -> list[float]:
        return [
            w[item][k] + sum(h[j] * u[k][j] for j in range(width)) + b[k]
            for k in range(number * width, (number + 1) * width)
        ]

    def sigmoid(values: list[float]) -> list[float]:
        return [1 / (1 + math.exp(-v)) for v in values]

    h, states = [0.0] * width, []
    for item in items:
        r, z = sigmoid(gate(0, item, h)), sigmoid(gate(1, item, h))
        n = [math.tanh(v) for v in gate(2, item, [r_k * h_k for r_k, h_k in zip(r, h)])]
        h = [(1 - z_k) * h_k + z_k * n_k for z_k, h_k, n_k in zip(z, h, n)]
        states.append(torch.tensor(h, dtype=torch.float64))
    return states


@pytest.mark.parametrize("steps", [1, 3])
def test_the_first_layer_without_embedding_is_the_authors(steps: int):
    """States against the formula, where resets are, and with the state carried from batch to batch; gradients
    against differences."""
    net = network(embedding="none", hidden=5, steps=steps)
    with torch.no_grad():
        net.layers[0].bias.normal_()
        net.input_items.weight.normal_()
    expected: dict[int, list[torch.Tensor]] = {}
    for x in LISTS:
        for state, target in zip(by_the_formula(net, x[:-1]), x[1:]):
            expected.setdefault(int(target), []).append(state)
    found = 0
    for batch in net.batches(everything(), 2 * steps, np.random.default_rng(0)):
        for state, target in zip(net.encode(batch.inputs), batch.targets.items.tolist()):
            found += any(torch.allclose(state, s, rtol=0, atol=1e-12) for s in expected[target])
    assert found == everything().train_positions
    history = np.array([2, 7, 1, 2])
    torch.testing.assert_close(one_run(net, history), by_the_formula(net, history)[-1], rtol=0, atol=1e-12)

    layer, x = net.layers[0], net.input_items.weight[:4, None].detach().expand(4, 2, 15).clone()
    resets = torch.tensor([[True, False], [False, True], [False, False], [False, False]])
    h0 = torch.randn(2, 5, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def states(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, dict(zip(names, parameters)), (x, h0, resets))

    assert torch.autograd.gradcheck(states, (x.requires_grad_(), *layer.parameters()))


def test_without_embedding_there_is_one_bias_a_gate_in_the_first_layer():
    shapes = {name: tuple(p.shape) for name, p in network(embedding="none", layers=2).named_parameters()}
    assert {name: shape for name, shape in shapes.items() if "bias" in name} == {
        "layers.0.bias": (18,),
        "layers.1.bias_ih": (18,),
        "layers.1.bias_hh": (18,),
    }
    assert shapes["input_items.weight"] == (ITEMS, 18)


def test_dropout_without_embedding_is_on_the_output_of_the_first_layer():
    """As in the authors' code, where the first layer's state after dropout is what is carried on."""
    net = network(embedding="none", steps=1, layers=2, dropout_embedding=0.5, dropout_hidden=0.0).train()
    batch = next(iter(net.batches(everything(), 4, np.random.default_rng(0))))
    net.encode(batch.inputs)
    first, second = batch.inputs.memory.states
    whole = torch.stack([by_the_formula(net, [int(item)])[0] for item in batch.inputs.items])
    kept = first != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(first[kept], 2 * whole[kept], rtol=1e-4, atol=0)
    assert (second != 0).all()


def test_a_model_saved_with_another_first_layer_is_refused(tmp_path):
    """Versions before had torch's GRU there, whose weights mean something else."""
    split = everything()
    model = GRU4Rec(width=5, hidden=5, embedding="none", train={"epochs": 1}).fit(split, progress=False)
    state = model.state()
    state["network.layers.0.weight_hh"] = state.pop("network.layers.0.state_weight")
    state["network.layers.0.bias_ih"] = state["network.layers.0.bias_hh"] = state.pop("network.layers.0.bias")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "state", lambda: state)
        model.save(tmp_path)
    with pytest.raises(DataError, match=r"cannot open this gru4rec.*train the model again") as refused:
        GRU4Rec.load(tmp_path)
    assert "\n" not in str(refused.value)


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
