import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.samples import unseen


def drawn(users, weights, wanted, seed=0, repeats=True):
    """For each user of item lists, the items and the events that were drawn."""
    stops = np.cumsum([len(items) for items in users])
    starts = stops - [len(items) for items in users]
    flat = np.array([i for items in users for i in items], dtype=np.int32)
    found = [([], []) for _ in users]
    for owners, items, events in unseen.draw(flat, starts, stops, weights, np.array(wanted), seed, repeats):
        for user, item, event in zip(owners, items.tolist(), events.tolist()):
            found[user][0].append(item)
            found[user][1].append(event - starts[user])
    return found


def test_weights_are_proportional_and_items_without_counts_have_none():
    weights = unseen.weights_of(np.array([0, 1, 16, 81]), 0.75)
    assert weights[0] == 0
    assert weights / weights.sum() == pytest.approx([0, 1 / 36, 8 / 36, 27 / 36], rel=1e-9)
    assert (unseen.weights_of(np.array([0, 1, 5]), 0.0)[1:] == unseen.SCALE // 2).all()
    # never nothing for an item that has a count
    assert unseen.weights_of(np.array([0, 10**18, 1]), 2.0).tolist()[2] == 1


@given(
    users=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=6),
    counts=st.lists(st.integers(0, 4), min_size=6, max_size=6),
    wanted=st.integers(0, 5),
    block=st.sampled_from([1, 7, 1 << 20]),
)
def test_what_is_drawn_was_never_taken(users, counts, wanted, block):
    counts = np.array(counts) + np.bincount([i for items in users for i in items], minlength=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unseen, "BLOCK", block)
        for taken, (items, events) in zip(
            users, drawn(users, unseen.weights_of(counts, 0.75), [wanted] * len(users))
        ):
            left = {i for i in range(6) if counts[i]} - set(taken)
            assert len(items) == len(events) == (wanted if left else 0)
            assert set(items) <= left
            assert all(0 <= event < len(taken) for event in events)


@pytest.mark.parametrize("taken", [[3], [0, 5, 5], [1, 2, 3, 4], [7], [0, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_the_distribution_is_that_of_the_items_left(taken, alpha):
    """Chi-square over ten seeds, beside another user whose draws must not matter; its expectation is the
    degrees of freedom."""
    counts = np.array([5, 40, 1, 100, 7, 300, 2, 9])
    n, seeds = 10_000, 10
    found = [
        drawn([[6, 1], taken], unseen.weights_of(counts, alpha), [50, n], seed)[1] for seed in range(seeds)
    ]
    expected = counts.astype(float) ** alpha
    expected[taken] = 0
    expected *= n / expected.sum()
    seen = np.array([np.bincount(items, minlength=8) for items, _ in found])
    left = expected > 0
    assert seen[:, ~left].sum() == 0
    freedom = seeds * (left.sum() - 1)
    assert abs((np.square(seen - expected)[:, left] / expected[left]).sum() - freedom) <= 4 * np.sqrt(
        2 * freedom
    )
    each = np.array([np.bincount(events, minlength=len(taken)) for _, events in found])
    assert abs(each - n / len(taken)).max() < 4 * np.sqrt(n)


@pytest.mark.parametrize("taken", [[3], [0, 5, 5], [1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_without_repeats_it_is_the_set_of_draws_without_the_taken(taken):
    """Beside ``set(draws) - set(taken)``, for a user beside another: how often each item is left, and how
    many."""
    counts, n, rounds = np.array([5, 40, 1, 100, 7, 300, 2, 9]), 20, 3000
    p, rng = counts**0.75 / (counts**0.75).sum(), np.random.default_rng(0)
    slow = [set(rng.choice(8, n, p=p).tolist()) - set(taken) for _ in range(rounds)]
    users = [taken if i % 2 else [6, 1] for i in range(2 * rounds)]
    found = [x for x, _ in drawn(users, unseen.weights_of(counts, 0.75), [n] * len(users), 0, False)[1::2]]
    assert all(len(set(items)) == len(items) and not set(items) & set(taken) for items in found)
    for item in range(8):
        a, b = (np.mean([item in items for items in sets]) for sets in (slow, found))
        assert abs(a - b) <= 5 * np.sqrt(2 * max(a * (1 - a), 1 / rounds) / rounds), item
    a, b = (np.array([len(items) for items in sets]) for sets in (slow, found))
    assert abs(a.mean() - b.mean()) <= 5 * np.sqrt((a.var() + b.var()) / rounds)


def test_blocks_differ_and_seeds_repeat(monkeypatch):
    monkeypatch.setattr(unseen, "BLOCK", 50)
    weights = unseen.weights_of(np.arange(1, 101), 0.75)
    users = [[1], [1]]
    once = drawn(users, weights, [50, 50])
    assert once == drawn(users, weights, [50, 50])
    assert once != drawn(users, weights, [50, 50], seed=1)
    assert once[0] != once[1]
