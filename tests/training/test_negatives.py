"""Samplers of negatives: what they draw, and what they say about it."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.errors import SettingsError
from seqrec.splitting.split import Queries, Split
from seqrec.testing import sequences_of
from seqrec.training import losses
from seqrec.training.negatives import NegativesSettings, Sampler, alias_table
from seqrec.training.own_items import OwnItems

COUNTS = torch.tensor([0, 1, 2, 4, 8, 16, 0, 9])
TARGETS = torch.tensor([5, 3, 5, 7])


def make(counts: torch.Tensor = COUNTS, seed: int = 0, **settings) -> Sampler:
    return Sampler(NegativesSettings(**settings), counts, seed, torch.device("cpu"))


def share(counts: torch.Tensor, alpha: float) -> np.ndarray:
    """Probability of each item, from the definition."""
    weights = [1.0 if alpha == 0 else float(c) ** alpha for c in counts.tolist()]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("alpha", [0, 0.5, 0.75, 1, 2])
def test_draws_come_as_often_as_they_say(alpha):
    sampler, n = make(alpha=alpha), 200_000
    expected = share(COUNTS, alpha)
    assert np.exp(sampler.log_p.numpy()) == pytest.approx(expected, abs=1e-6)
    seen = np.bincount(sampler.draw((n,)).numpy(), minlength=len(COUNTS))
    # exact where the probability is 0
    assert (abs(seen - n * expected) <= 5 * np.sqrt(n * expected * (1 - expected))).all()


def test_items_never_trained_on_are_never_drawn_unless_uniform():
    counts = torch.zeros(5000, dtype=torch.int64)
    counts[::7] = torch.randint(1, 1000, (len(counts[::7]),), generator=torch.Generator().manual_seed(1))
    for alpha in (0.1, 1.0):
        assert (counts[make(counts, alpha=alpha).draw((100_000,))] > 0).all()
    assert (counts[make(counts, alpha=0.0).draw((100_000,))] == 0).any()


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=30).filter(any))
def test_alias_table_holds_the_distribution(weights):
    """The share of item i: what its own cell keeps, and what the other cells pass on to it."""
    w = np.array(weights)
    keep, other = alias_table(w)
    held = np.zeros(len(w))
    for cell in range(len(w)):
        assert -1e-9 <= keep[cell] <= 1 + 1e-9
        held[cell] += keep[cell]
        held[other[cell]] += 1 - keep[cell]
    assert held / len(w) == pytest.approx(w / w.sum(), abs=1e-9)


def test_rare_items_of_a_large_catalogue_keep_their_share():
    """Half of the weight on one item, the rest spread thin: single precision would lose the thin part."""
    counts = torch.ones(400_000, dtype=torch.int64)
    counts[0] = 400_000
    drawn = make(counts, alpha=1).draw((400_000,)).numpy()
    assert (drawn == 0).mean() == pytest.approx(0.5, abs=0.01)
    for part in np.array_split(np.arange(1, 400_000), 4):
        assert ((drawn >= part[0]) & (drawn <= part[-1])).mean() == pytest.approx(0.125, abs=0.005)


@pytest.mark.parametrize(("shared", "shape"), [(True, (6,)), (False, (4, 6))])
def test_shapes_and_order_of_negatives(shared, shape):
    only_sampled = make(count=6, alpha=1, shared=shared).sample(TARGETS)
    assert only_sampled.items.shape == only_sampled.log_q.shape == shape
    assert only_sampled.target_log_q.shape == (4,)
    both = make(count=6, alpha=1, shared=shared, in_batch=True).sample(TARGETS)
    assert both.items.shape == both.log_q.shape == (*shape[:-1], 10)
    assert (both.items[..., :4] == TARGETS).all()
    # the same draw for a seed, whatever comes beside it
    assert torch.equal(both.items[..., 4:], only_sampled.items)
    batch_only = make(count=0, in_batch=True, shared=shared).sample(TARGETS)
    assert batch_only.items.shape == (*shape[:-1], 4)


@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("count", [0, 5])
def test_log_q_is_how_often_an_item_is_expected(in_batch, count):
    """Counted over many batches whose targets come as often as in training."""
    sampler, n, batches = make(count=count, alpha=0.5, in_batch=in_batch), 4, 5_000
    if not count and not in_batch:
        return  # no negatives at all
    targets = torch.multinomial(
        COUNTS.double(), n * batches, replacement=True, generator=torch.Generator().manual_seed(5)
    ).reshape(batches, n)
    seen, said = np.zeros(len(COUNTS)), {}
    for row in targets:
        negatives = sampler.sample(row)
        seen += np.bincount(negatives.items.numpy(), minlength=len(COUNTS))
        said.update(zip(negatives.items.tolist(), negatives.log_q.tolist()))
        said.update(zip(row.tolist(), negatives.target_log_q.tolist()))
    expected = seen / batches
    assert set(said) == set(np.flatnonzero(COUNTS.numpy()))
    for item, log_q in said.items():
        assert math.exp(log_q) == pytest.approx(expected[item], rel=0.15)


def test_log_q_as_the_authors_of_gru4rec_have_it():
    negatives = make(count=6, alpha=0.5, in_batch=True, logq=1.0, logq_form="counts").sample(TARGETS)
    counts = COUNTS[negatives.items].double()
    assert negatives.log_q[:4].exp().tolist() == pytest.approx(counts[:4].tolist(), rel=1e-5)
    assert negatives.log_q[4:].exp().tolist() == pytest.approx(counts[4:].sqrt().tolist(), rel=1e-5)
    assert negatives.target_log_q.exp().tolist() == pytest.approx(COUNTS[TARGETS].tolist(), rel=1e-5)


def test_log_q_correction_makes_sampled_softmax_estimate_the_full_one():
    """With every item drawn about as often as it says, the corrected sum of exponentials is that of the
    catalogue."""
    scores = torch.linspace(-1, 1, 8, dtype=torch.float64)
    counts = torch.tensor([3, 1, 2, 4, 8, 16, 5, 9])
    negatives = make(counts, count=400_000, alpha=1).sample(TARGETS)
    estimate = torch.logsumexp(scores[negatives.items] - negatives.log_q.double(), 0)
    assert float(estimate) == pytest.approx(float(torch.logsumexp(scores, 0)), abs=0.01)


@pytest.mark.parametrize("mask_targets", [True, False])
@pytest.mark.parametrize("logq_form", ["expected", "counts"])
@pytest.mark.parametrize(("in_batch", "count"), [(False, 20), (True, 20), (True, 0)])
@pytest.mark.parametrize("logq", [0.0, 0.5, 1.0])
def test_distinct_negatives_weigh_what_the_draws_do(logq, in_batch, count, logq_form, mask_targets):
    """Each item once with its weight, or every draw for itself: the same softmax, for each position."""
    settings = {
        "count": count,
        "alpha": 0.75,
        "in_batch": in_batch,
        "logq": logq,
        "logq_form": logq_form,
        "mask_targets": mask_targets,
    }
    draws, (once,) = make(**settings).sample(TARGETS), make(**settings).distinct([TARGETS])
    assert once.items.tolist() == sorted(set(TARGETS.tolist()) | set(draws.items.tolist()))
    assert torch.equal(once.items[once.at], TARGETS)
    generator = torch.Generator().manual_seed(3)
    states, vectors = (
        torch.randn(rows, 3, generator=generator, dtype=torch.float64) for rows in (4, len(COUNTS))
    )
    total = []
    for i, target in enumerate(TARGETS.tolist()):
        positive = math.exp(float(states[i] @ vectors[target]) - logq * float(draws.target_log_q[i]))
        negative = 0.0
        for m, item in enumerate(draws.items.tolist()):
            is_own_place = in_batch and m == i
            if is_own_place or (mask_targets and item == target):
                continue
            negative += math.exp(float(states[i] @ vectors[item]) - logq * float(draws.log_q[m]))
        total.append(-math.log(positive / (positive + negative)))
    weights = (once.log_weight.double(), once.target_log_weight.double(), once.own_log_weight.double())
    loss = losses.shared_sampled_softmax(states, vectors[once.items], once.at, weights)
    assert float(loss) == pytest.approx(np.mean(total), abs=1e-5)


@pytest.mark.parametrize("mask_targets", [True, False])
@pytest.mark.parametrize("logq_form", ["expected", "counts"])
@pytest.mark.parametrize(("in_batch", "count"), [(False, 20), (True, 20), (True, 0)])
@pytest.mark.parametrize("beside", [True, False])
def test_many_batches_at_once_are_each_of_them(beside, in_batch, count, logq_form, mask_targets):
    settings = {
        "count": count,
        "alpha": 0.75,
        "in_batch": in_batch,
        "logq": 0.5,
        "logq_form": logq_form,
        "mask_targets": mask_targets,
    }
    targets = [TARGETS, TARGETS[:1], TARGETS[:0], TARGETS.flip(0)]
    others = [
        torch.tensor([[0], [7]]),
        torch.tensor([5]),
        torch.tensor([3, 3]),
        torch.zeros(0, dtype=torch.int64),
    ]
    one_by_one, together = make(**settings), make(**settings).distinct(targets, others if beside else None)
    for i, got in enumerate(together):
        (expected,) = one_by_one.distinct([targets[i]], [others[i]] if beside else None)
        for field in fields(expected):
            a, b = getattr(got, field.name), getattr(expected, field.name)
            assert (a is None) == (b is None)
            if a is not None:
                # nan: weights of a batch without targets, which nobody uses
                torch.testing.assert_close(a, b, equal_nan=True)
        assert torch.equal(got.items[got.at], targets[i])
        if beside:
            assert torch.equal(got.items[got.beside], others[i].flatten())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("mask_targets", [True, False])
def test_which_negatives_do_not_count(mask_targets, in_batch, shared):
    """With masked targets every copy of the position's own target; without, only the position's own place in
    the batch."""
    sampler = make(count=50, in_batch=in_batch, shared=shared, mask_targets=mask_targets)
    negatives = sampler.sample(TARGETS)
    excluded = sampler.excluded(negatives, TARGETS).expand(4, negatives.items.shape[-1])
    items = negatives.items.expand(4, -1).tolist()
    for i, target in enumerate(TARGETS.tolist()):
        expected = [
            item == target if mask_targets else in_batch and m == i for m, item in enumerate(items[i])
        ]
        assert excluded[i].tolist() == expected


LISTS = [[5, 3, 5, 7, 4], [2], [0, 1, 2, 3], [4, 5, 6, 7, 3, 2, 1]]
FIRST = torch.tensor([0, 5, 6, 10])  # event of each


def of_users(held_out: int = 0, **settings) -> Sampler:
    """Of a log whose users have these items, the last few of each held out."""
    sequences = sequences_of([np.array(x) for x in LISTS], len(COUNTS))
    none = Queries.at(sequences, np.empty(0, dtype=np.int64))
    stops = np.maximum(sequences.offsets[1:] - held_out, sequences.offsets[:-1])
    split = Split(sequences, sequences.offsets[:-1], stops, none, none, {"name": "by hand"})
    cpu = torch.device("cpu")
    return Sampler(NegativesSettings(shared=False, **settings), torch.ones(8), 3, cpu, OwnItems(split, cpu))


@pytest.mark.parametrize("held_out", [0, 2])
@pytest.mark.parametrize("in_batch", [True, False])
def test_own_items_do_not_count(in_batch, held_out):
    """Those of training events, and no others: a held-out item stays a negative."""
    sampler = of_users(held_out, count=50, in_batch=in_batch, own="exclude", mask_targets=False)
    users, targets = torch.tensor([0, 3, 0, 2, 1]), torch.tensor([3, 5, 7, 1, 2])
    negatives = sampler.sample(targets)
    excluded = sampler.excluded(negatives, targets, FIRST[users])
    for i, user in enumerate(users.tolist()):
        own = LISTS[user][: len(LISTS[user]) - held_out]
        assert excluded[i].tolist() == [
            item in own or (in_batch and m == i) for m, item in enumerate(negatives.items[i].tolist())
        ]


def test_without_repeats_items_come_as_often_as_in_a_set():
    """A set of all that is drawn for a user in an epoch, minus the user's own, as MetaSpore's code has it:
    ``set(choice(items, size, p=p)) - set(own)``."""
    epochs, count, rng = 3000, 3, np.random.default_rng(0)
    sampler = of_users(count=count, alpha=1.0, own="exclude", repeats=False)
    weights = np.array([1, 1, 1, 1, 2, 4, 8, 30.0])
    counts = torch.from_numpy(weights)
    sampler = Sampler(sampler.settings, counts, 3, sampler.device, sampler.own)
    for user, items in enumerate(LISTS):
        positions = len(items) - 1
        slow = np.zeros(8)
        for _ in range(epochs):
            drawn = rng.choice(8, size=positions * count, p=weights / weights.sum())
            slow[list(set(drawn.tolist()) - set(items))] += 1
        users = torch.full((positions * epochs,), user)
        targets = torch.full((positions * epochs,), items[0])
        negatives = sampler.sample(targets)
        counted = negatives.items[~sampler.excluded(negatives, targets, FIRST[users])]
        ours = np.bincount(counted.numpy(), minlength=8)
        # the standard deviation of a count is at most sqrt(epochs) for the set, and above it for draws
        assert (abs(ours - slow) <= 5 * np.sqrt(2 * np.maximum(slow, 1))).all(), (user, ours, slow)


def test_without_repeats_alone_own_items_stay():
    sampler = of_users(count=40, repeats=False, mask_targets=False)
    users, targets = torch.tensor([0] * 200), torch.tensor([3] * 200)
    negatives = sampler.sample(targets)
    counted = negatives.items[~sampler.excluded(negatives, targets, FIRST[users])]
    # 160 draws of 8 items leave about one of each in an epoch of 4 positions
    assert np.bincount(counted.numpy(), minlength=8) == pytest.approx([50] * 8, abs=25)


@pytest.mark.parametrize("settings", [{"own": "exclude"}, {"repeats": False}])
def test_negatives_of_users_need_to_know_the_events(settings):
    sampler = of_users(count=5, **settings)
    with pytest.raises(SettingsError, match="need batches that tell which event"):
        sampler.excluded(sampler.sample(TARGETS), TARGETS)


def test_a_seed_of_its_own():
    """Draws depend on the sampler's seed, and on nothing else that is random."""
    torch.manual_seed(1)
    first = make(seed=7).sample(TARGETS).items
    torch.manual_seed(2)
    torch.rand(100)
    assert torch.equal(make(seed=7).sample(TARGETS).items, first)
    assert not torch.equal(make(seed=8).sample(TARGETS).items, first)
    sampler = make(seed=7)
    assert torch.equal(sampler.sample(TARGETS).items, first)
    assert not torch.equal(sampler.sample(TARGETS).items, first)  # and the next draw is another


def test_targets_never_counted_have_a_finite_log_q():
    for in_batch in (False, True):
        negatives = make(count=3, alpha=1, in_batch=in_batch).sample(torch.tensor([0, 5]))
        assert torch.isfinite(negatives.target_log_q).all()
        assert torch.isfinite(negatives.log_q).all()


@pytest.mark.parametrize(
    "wrong", [{"count": -1}, {"alpha": 2.5}, {"logq": 1.5}, {"logq_form": "count"}, {"in_bach": True}]
)
def test_wrong_settings(wrong):
    with pytest.raises(SettingsError, match=f"negatives.{next(iter(wrong))}"):
        NegativesSettings.of(wrong, "negatives")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"own": "exclude"}, "shared: false with own: exclude"),
        ({"repeats": False}, "shared: false with own: exclude or repeats: false"),
        ({"repeats": False, "shared": False, "logq": 1.0}, "logq: 0 with repeats: false"),
    ],
)
def test_settings_that_do_not_fit(wrong, expected):
    with pytest.raises(SettingsError, match=f"^negatives: expected {expected}"):
        NegativesSettings.of(wrong, "negatives")


@pytest.mark.parametrize("items", [20, 100_000])
def test_a_batch_costs_no_walk_through_the_catalogue(items):
    """Distinct items are marked in a small catalogue, and sorted where most of it would be walked through in
    vain; they are the same."""
    counts = torch.ones(items, dtype=torch.int64)
    s = NegativesSettings(count=4, in_batch=True)
    sampler, other = (Sampler(s, counts, 0, torch.device("cpu")) for _ in range(2))
    targets = [torch.tensor([7, 7, 3]), torch.tensor([19, 3])]
    for found, target in zip(sampler.distinct(targets), targets, strict=True):
        drawn = other.draw((4,))
        assert found.items.tolist() == sorted({*drawn.tolist(), *target.tolist()})
        assert found.items[found.at].tolist() == target.tolist()
    assert len(sampler.seen) == (2 * items if items == 20 else 0)
