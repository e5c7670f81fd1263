"""Intervals and tests: the fast forms against slow, obvious ones, and their meaning on data with a known
answer."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.errors import SettingsError
from seqrec.evaluation import comparison, metrics
from seqrec.evaluation.comparison import UserValues


def values_of(seed: int, users: int = 200, shift: float = 0.0) -> UserValues:
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, users, 3 * users))
    return comparison.by_user({"m": rng.random(3 * users) + shift}, owner)


def test_queries_of_a_user_are_put_together():
    values = comparison.by_user({"m": np.array([1.0, 0.0, 4.0, 1.0])}, np.array([7, 3, 7, 9]))
    assert values.users.tolist() == [3, 7, 9]
    assert values.counts.tolist() == [1, 2, 1]
    assert values.sums["m"].tolist() == [0, 5, 1]
    assert values.means("m").tolist() == [0, 2.5, 1]
    assert values.mean("m") == 1.5  # over queries, not over users


def test_intervals_are_those_of_a_plain_bootstrap():
    values = values_of(0, users=60)
    n = len(values.users)
    plain = []
    for row in np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), size=1000):
        drawn = np.repeat(np.arange(n), row)
        plain.append(values.sums["m"][drawn].sum() / values.counts[drawn].sum())
    got = comparison.intervals(values, seed=5)["m"]
    assert [got["low"], got["high"]] == pytest.approx(np.quantile(plain, [0.025, 0.975]).tolist())
    assert got["mean"] == pytest.approx(values.sums["m"].sum() / values.counts.sum())


def test_intervals_agree_with_the_binomial_standard_error_and_are_seeded():
    hits = np.random.default_rng(0).random(6040) < 0.32
    values = comparison.by_user({"recall@10": hits.astype(float)}, np.arange(6040))
    got = comparison.intervals(values)["recall@10"]
    assert (got["high"] - got["low"]) / 2 == pytest.approx(1.96 * 0.0060, rel=0.1)
    assert (
        got == comparison.intervals(values)["recall@10"] != comparison.intervals(values, seed=1)["recall@10"]
    )


def test_users_with_many_queries_widen_the_interval():
    rng = np.random.default_rng(0)
    # the queries of a user are alike: as good as 100 observations, not 2,000
    lucky = np.repeat(rng.random(100), 20)
    together = comparison.intervals(comparison.by_user({"m": lucky}, np.repeat(np.arange(100), 20)))["m"]
    apart = comparison.intervals(comparison.by_user({"m": lucky}, np.arange(2000)))["m"]
    assert together["high"] - together["low"] > 3 * (apart["high"] - apart["low"])


def test_no_queries_give_zeros():
    nothing = comparison.by_user(metrics.from_ranks(np.empty(0, dtype=np.int64)), np.empty(0, dtype=np.int64))
    assert comparison.intervals(nothing)["ndcg@10"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("change", [{"level": 1.0}, {"resamples": 0}])
def test_intervals_refuse_senseless_settings(change):
    with pytest.raises(SettingsError, match="level"):
        comparison.intervals(values_of(0), **change)


def test_seeds_are_averaged_user_by_user():
    a, b = (comparison.by_user({"m": np.array(x)}, np.array([1, 2])) for x in ([0.0, 1.0], [1.0, 1.0]))
    assert comparison.over_seeds([a, b]).sums["m"].tolist() == [0.5, 1.0]
    other = comparison.by_user({"m": np.array([1.0])}, np.array([1]))
    with pytest.raises(SettingsError, match="same users"):
        comparison.over_seeds([a, other])
    with pytest.raises(SettingsError, match="at least one"):
        comparison.over_seeds([])


def test_p_is_close_to_that_of_all_sign_flips():
    a, b = (comparison.by_user({"m": np.random.default_rng(s).random(10)}, np.arange(10)) for s in (1, 2))
    d = a.sums["m"] - b.sums["m"]
    exact = np.mean(
        [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-12 for signs in itertools.product([-1, 1], repeat=10)]
    )
    p = comparison.paired_tests([a, b], "m")
    assert p[0, 1] == p[1, 0] == pytest.approx(exact, abs=0.015)
    assert p.diagonal().tolist() == [1, 1]


def test_alike_models_are_alike_and_a_better_one_is_better():
    a = values_of(0)
    better = UserValues(
        a.users,
        a.counts,
        {"m": a.sums["m"] + 0.1 + 0.01 * np.random.default_rng(1).standard_normal(len(a.users))},
    )
    assert comparison.paired_tests([a, a], "m")[0, 1] == 1.0
    assert comparison.paired_tests([better, a], "m")[0, 1] == pytest.approx(1 / 10_001)
    ranked = comparison.compare({"base": a, "copy": a, "better": better}, "m")
    assert [(c.model, c.like_best) for c in ranked] == [("better", True), ("base", False), ("copy", False)]
    assert ranked[0].difference == 0
    assert ranked[1].difference == pytest.approx(ranked[0].mean - ranked[1].mean)
    assert comparison.compare({}, "m") == []


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(150):
        a, b = (comparison.by_user({"m": rng.random(80)}, np.arange(80)) for _ in "ab")
        p.append(comparison.paired_tests([a, b], "m", flips=400)[0, 1])
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) < 0.05) < 0.12


def simulated(rng: np.random.Generator, models: int, better: float = 0.0) -> dict[str, UserValues]:
    """Models that are equally good for users who differ, but for the first, which is better by so much."""
    users = rng.random(80)
    values = (rng.random((models, 80)) < users) + np.where(np.arange(models) == 0, better, 0.0)[:, None]
    return {f"m{n}": comparison.by_user({"m": v}, np.arange(80)) for n, v in enumerate(values)}


@pytest.mark.parametrize("models", [4, 20])
def test_among_equals_any_is_called_worse_than_the_best_with_probability_alpha(models):
    rng = np.random.default_rng(0)
    wrong = [
        not all(c.like_best for c in comparison.compare(simulated(rng, models), "m", flips=1000))
        for _ in range(300)
    ]
    assert 0.02 < np.mean(wrong) < 0.08


def test_a_real_difference_is_found_among_many_models():
    ranked = comparison.compare(simulated(np.random.default_rng(0), 12, better=0.4), "m")
    assert [c.like_best for c in ranked] == [True] + [False] * 11
    assert ranked == comparison.compare(simulated(np.random.default_rng(0), 12, better=0.4), "m")


@given(st.integers(2, 5), st.integers(0, 100))
def test_more_models_never_make_a_pair_more_significant(models, seed):
    runs = list(simulated(np.random.default_rng(seed), models).values())
    alone = comparison.paired_tests(runs[:2], "m", flips=100)[0, 1]
    assert comparison.paired_tests(runs, "m", flips=100)[0, 1] >= alone


def test_many_users_take_no_more_memory(monkeypatch):
    """Fewer resamples, or rows of signs, at once; the draws are the same."""
    a, b = (values_of(seed, users=5_000, shift=shift) for seed, shift in ((0, 0.0), (1, 0.01)))
    b = UserValues(a.users, a.counts, {"m": b.sums["m"][: len(a.users)]})
    intervals, tests = comparison.intervals(a, 200)["m"], comparison.paired_tests([a, b], "m", 200)
    monkeypatch.setattr(comparison, "CELLS", 10_000)
    tracemalloc.start()
    assert comparison.intervals(a, 200)["m"] == pytest.approx(intervals)
    assert comparison.paired_tests([a, b], "m", 200).tolist() == tests.tolist()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # all at once, 8 million
