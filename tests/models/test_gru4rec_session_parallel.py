"""GRU4Rec trained as its authors do, against an implementation that is nothing but the description: one
session, one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.models.gru4rec import GRU4Rec, GRU4RecNetwork, SessionParallel
from seqrec.splitting.split import Queries, Split
from seqrec.testing import sequences_of
from seqrec.training import losses
from seqrec.training.negatives import Sampler
from seqrec.training.optimizers import AdagradMomentum

ITEMS, WIDTH, LANES = 15, 6, 3
LISTS = [
    np.array(x)
    for x in (
        [0, 1, 2, 3, 4, 5, 6],
        [7, 8],
        [9, 10, 11, 12],
        [13, 14, 0, 2, 4, 6, 8, 10, 12, 1],
        [3],
        [5, 6, 7],
        [2, 2, 2],
    )
]
NEGATIVES = {"count": 9, "alpha": 0.5, "in_batch": True}
AUTHORS = {
    "xe": {
        "loss": "sampled_softmax",
        "negatives": {**NEGATIVES, "logq": 1.0, "logq_form": "counts", "mask_targets": False},
    },
    "bpr_max": {
        "loss": {"name": "bpr_max", "regularisation": 0.7, "elu": 0.5},
        "negatives": {**NEGATIVES, "mask_targets": False},
    },
}


def everything() -> Split:
    """All events train."""
    s = sequences_of(LISTS, ITEMS)
    none = Queries.at(s, np.empty(0, dtype=np.int64))
    return Split(s, s.offsets[:-1], s.offsets[1:], none, none, {"name": "everything"})


def model(kind: str, **settings) -> GRU4Rec:
    train = {"optimizer": "adagrad", "learning_rate": 0.1, "batch_positions": LANES}
    return GRU4Rec(
        **{
            "width": WIDTH,
            "hidden": WIDTH,
            "steps": 1,
            "order": "start",
            "train": train,
            **AUTHORS[kind],
            **settings,
        }
    )


def build(m: GRU4Rec) -> tuple[GRU4RecNetwork, Sampler]:
    torch.manual_seed(0)
    network = m.build(ITEMS, len(LISTS))
    return network, Sampler(m.negatives, torch.from_numpy(everything().item_counts), 5, torch.device("cpu"))


def plain_epoch(m: GRU4Rec) -> dict[str, Tensor]:
    """One epoch by the description: lanes that take the next session when theirs ends, one torch.nn.GRUCell,
    every draw a score of its own."""
    network, sampler = build(m)
    table, cell = network.items.weight.detach().clone(), torch.nn.GRUCell(WIDTH, WIDTH)
    cell.load_state_dict(network.layers[0].state_dict())
    counts = everything().item_counts
    parameters = [table.requires_grad_(), *cell.parameters()]
    squares = [torch.zeros_like(p) for p in parameters]
    waiting = [x.tolist() for x in LISTS if len(x) > 1]
    running = [(waiting.pop(0), torch.zeros(WIDTH)) for _ in range(LANES)]
    while running:
        h = cell(
            torch.stack([table[session[0], :WIDTH] for session, _ in running]),
            torch.stack([h for _, h in running]),
        )
        targets = [session[1] for session, _ in running]
        sampled = sampler.draw((m.negatives.count,)).tolist()
        loss = torch.zeros(())
        for i, target in enumerate(targets):
            others = [*targets[:i], *targets[i + 1 :], *sampled]
            score = table[[target, *others], :WIDTH] @ h[i] + table[[target, *others], WIDTH]
            if m.loss.name == "sampled_softmax":
                q = [counts[j] for j in [target, *targets[:i], *targets[i + 1 :]]] + [
                    counts[j] ** m.negatives.alpha for j in sampled
                ]
                loss = loss - torch.log_softmax(score - torch.tensor(q).float().log(), 0)[0]
            else:
                score = F.elu(score, m.loss.elu)
                w = torch.softmax(score[1:], 0)
                loss = (
                    loss
                    - (w * torch.sigmoid(score[0] - score[1:])).sum().log()
                    + m.loss.regularisation * (w * score[1:] ** 2).sum()
                )
        for p, a, g in zip(parameters, squares, torch.autograd.grad(loss / LANES, parameters)):
            a += g**2
            p.data -= m.train.learning_rate * g / (a + 1e-6).sqrt()
        rest = []
        for (session, _), state in zip(running, h.detach()):
            if len(session) > 2:
                rest.append((session[1:], state))
            elif waiting:
                rest.append((waiting.pop(0), torch.zeros(WIDTH)))
        running = rest
    return {"items.weight": table.detach()} | {f"layers.0.{k}": v for k, v in cell.state_dict().items()}


def fast_epoch(m: GRU4Rec) -> dict[str, Tensor]:
    network, sampler = build(m)
    optimizer = AdagradMomentum(network.parameters(), lr=m.train.learning_rate)
    objective = m.objective(network, sampler)
    for batch, drawn in objective.drawn(network.batches(everything(), LANES, np.random.default_rng(0))):
        optimizer.zero_grad()
        objective.loss(batch, drawn).backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("kind", AUTHORS)
def test_an_epoch_is_the_described_one(kind: str):
    expected, got = plain_epoch(model(kind)), fast_epoch(model(kind))
    assert expected.keys() == got.keys()
    start = build(model(kind))[0].state_dict()
    for name, value in expected.items():
        assert not torch.equal(got[name], start[name]), f"{name} was not trained"
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("kind", AUTHORS)
@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
def test_sparse_gradients_are_the_dense_ones(kind: str, embedding: str):
    gradients = []
    for optimizer in ("adagrad", "adamw"):
        m = model(kind, embedding=embedding, train={"optimizer": optimizer})
        network, sampler = build(m)
        batches = network.batches(everything(), LANES, np.random.default_rng(0))
        objective = m.objective(network, sampler)
        objective.loss(*next(objective.drawn(batches))).backward()
        assert network.items.weight.grad.is_sparse == (optimizer == "adagrad")
        gradients.append(
            {n: p.grad.to_dense() if p.grad.is_sparse else p.grad for n, p in network.named_parameters()}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize("mask_targets", [True, False])
@pytest.mark.parametrize(("elu", "regularisation"), [(0.0, 1.0), (0.5, 0.3), (1.0, 0.0)])
def test_bpr_max_of_distinct_items_is_that_of_the_draws(
    elu: float, regularisation: float, mask_targets: bool
):
    """Values and gradients in float64, against automatic differentiation with every draw a column of its own;
    more rows than are done at once."""
    generator = torch.Generator().manual_seed(0)
    n = losses.CHUNK + 20
    targets = torch.randint(0, ITEMS, (n,), generator=generator)
    states, table = (
        torch.randn(rows, 4, generator=generator, dtype=torch.float64).requires_grad_() for rows in (n, ITEMS)
    )
    m = model("bpr_max", negatives={**NEGATIVES, "mask_targets": mask_targets})
    (_, sampler), (_, again) = build(m), build(m)
    (once,), draws = sampler.distinct([targets]), again.sample(targets)
    weights = tuple(w.double() for w in (once.log_weight, once.target_log_weight, once.own_log_weight))
    got = losses.shared_bpr_max(states, table[once.items], once.at, weights, regularisation, elu)
    negative = (states @ table[draws.items].T).masked_fill(again.excluded(draws, targets), -torch.inf)
    expected = losses.bpr_max((states * table[targets]).sum(1), negative, regularisation, elu)
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad(3 * got, (states, table)), torch.autograd.grad(3 * expected, (states, table))
    ):
        torch.testing.assert_close(a, b)


def test_bpr_max_without_any_negative():
    """A batch of one item and a catalogue of one: nothing to compare with, nothing to learn."""
    states, table = torch.randn(2, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    nothing = torch.full((2,), -torch.inf)
    loss = losses.shared_bpr_max(
        states, table, torch.zeros(2, dtype=torch.int64), (torch.zeros(1), torch.zeros(2), nothing), 1.0, 0.5
    )
    loss.backward()
    assert loss.item() == 0
    assert not states.grad.any()
    assert not table.grad.any()


def test_dropout_of_the_state_is_carried_over():
    """As in the authors' code, what dropout zeroed in the state is zero for the next step too."""
    m = model("xe", dropout_hidden=0.5)
    network, _ = build(m)
    for batch in network.batches(everything(), LANES, np.random.default_rng(0)):
        state = network.encode(batch.inputs)[:, :WIDTH]
        torch.testing.assert_close(batch.inputs.memory.states[0], state)
        assert (state == 0).any()


def test_the_last_lanes_weigh_no_more():
    """Losses are summed over the lanes and divided by their number at the start."""
    m = model("xe")
    network, _ = build(m)
    scales = [
        (batch.positions, batch.weight)
        for batch in network.batches(everything(), LANES, np.random.default_rng(0))
    ]
    assert scales[0] == (LANES, 1.0)
    assert scales[-1][0] < LANES
    assert all(scale == positions / LANES for positions, scale in scales)


def test_one_pass_is_encode_and_loss(monkeypatch):
    m = model("xe")
    taken, takes = [], SessionParallel.takes_one_pass
    monkeypatch.setattr(
        SessionParallel, "takes_one_pass", lambda self, batch: taken.append(takes(self, batch)) or taken[-1]
    )
    got = fast_epoch(m)
    assert taken
    assert all(taken)
    monkeypatch.setattr(SessionParallel, "takes_one_pass", lambda self, batch: False)
    for name, value in fast_epoch(m).items():
        torch.testing.assert_close(got[name], value)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout_hidden": 0.1},
        {"layers": 2},
        {"steps": 2},
        {"hidden": WIDTH + 1},
        {"embedding": "separate"},
        {"normalise": True},
        {"temperature": 2.0},
        {"train": {"optimizer": "adamw"}},
    ],
    ids=str,
)
def test_what_one_pass_does_not_know_goes_the_long_way(settings):
    m = model("xe", **settings)
    network, sampler = build(m)
    network.train()
    objective = m.objective(network, sampler)
    batch, drawn = next(objective.drawn(network.batches(everything(), LANES, np.random.default_rng(0))))
    assert not (isinstance(objective, SessionParallel) and objective.takes_one_pass(batch))
    assert torch.isfinite(objective.loss(batch, drawn))
