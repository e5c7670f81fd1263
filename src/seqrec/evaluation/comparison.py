"""Intervals and tests over users: how sure a number is, and whether one model is better than another.

The user is the unit: all queries of a user stand or fall together. A metric is the mean over queries, so with
s_u the sum of a user's values and n_u the number of their queries it is

    m = sum_u s_u / sum_u n_u

Intervals: bootstrap over users (Efron and Tibshirani, 1993). Tests: paired randomisation by the sign of each
user's difference (Smucker, Allan and Carterette, CIKM 2007), corrected for all pairs of models by the largest
statistic (single-step max-T; Westfall and Young, 1993). Which model is best is seen on the same data, so a
correction for the pairs with the best alone would be too small (Carterette, TOIS 2012).

Both are of the trained models as they are. With several seeds s_u is the mean over them (``over_seeds``):
that another seed would train another model is in neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seqrec.errors import SettingsError

RESAMPLES = 1_000
FLIPS = 10_000
AT_ONCE = 100  # resamples, or rows of signs: 100 x 6,040 weights are 5 MB
CELLS = 1 << 22  # numbers that these have at most, 34 MB: of a million users fewer rows at once


@dataclass(frozen=True)
class UserValues:
    """Metrics by user.

    Attributes:
        users: (users,) int64 in ascending order: those with at least one query.
        counts: (users,) int64 queries of each.
        sums: name of a metric -> (users,) float64 sum of the values of the user's queries.
    """

    users: np.ndarray
    counts: np.ndarray
    sums: dict[str, np.ndarray]

    def mean(self, metric: str) -> float:
        """The mean over queries; 0 without queries."""
        return float(self.sums[metric].sum() / max(1, self.counts.sum()))

    def means(self, metric: str) -> np.ndarray:
        """(users,) each user's mean over their queries."""
        means: np.ndarray = self.sums[metric] / self.counts
        return means


def by_user(values: Mapping[str, np.ndarray], users: np.ndarray) -> UserValues:
    """Puts the queries of each user together.

    Args:
        values: name -> (queries,) value of each query, as ``metrics.from_ranks`` gives them.
        users: (queries,) user of each query, in any order.
    """
    ids, inverse, counts = np.unique(
        np.asarray(users, dtype=np.int64), return_inverse=True, return_counts=True
    )
    return UserValues(
        ids,
        counts,
        {name: np.bincount(inverse, weights=value, minlength=len(ids)) for name, value in values.items()},
    )


def over_seeds(runs: Sequence[UserValues]) -> UserValues:
    """One value a user from several seeds: the mean. So a model is judged as it is on average, on the same
    users.

    Raises:
        SettingsError: no run, or runs that did not ask the same queries.
    """
    if not runs:
        raise SettingsError("runs: expected at least one. Got none.")
    check_paired(*runs)
    names = [name for name in runs[0].sums if all(name in run.sums for run in runs)]
    return UserValues(
        runs[0].users,
        runs[0].counts,
        {name: np.mean([run.sums[name] for run in runs], axis=0) for name in names},
    )


def check_paired(*runs: UserValues) -> None:
    """Refuses runs that did not ask the same queries of the same users.

    Raises:
        SettingsError: these are such runs.
    """
    for run in runs[1:]:
        if not (np.array_equal(run.users, runs[0].users) and np.array_equal(run.counts, runs[0].counts)):
            raise SettingsError(
                f"runs: expected the same users with as many queries each ({len(runs[0].users)} users, "
                f"{runs[0].counts.sum()} queries). "
                f"Got {len(run.users)} users, {run.counts.sum()} queries. Compare runs of one protocol."
            )


def intervals(
    values: UserValues, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Percentile bootstrap intervals over users, for all metrics from the same resamples.

    A resample draws as many users as there are, with replacement: a row of multinomial counts W. The products
    W @ sums and W @ counts give every metric of every resample.

    Returns:
        ``{"ndcg@10": {"mean": 0.17, "low": 0.165, "high": 0.175}, ...}``

    Raises:
        SettingsError: a level that is no share, or no resamples.
    """
    if not 0 < level < 1 or resamples < 1:
        raise SettingsError(
            f"level: expected a share between 0 and 1, and at least 1 of resamples. Got {level} and "
            f"{resamples}."
        )
    n = len(values.users)
    if not n:
        return {name: {"mean": 0.0, "low": 0.0, "high": 0.0} for name in values.sums}
    rng = np.random.default_rng(seed)
    columns = np.stack([*values.sums.values(), values.counts.astype(np.float64)], axis=1)
    at_once = max(1, min(AT_ONCE, CELLS // n))
    totals = np.concatenate(
        [
            rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - begin)).astype(np.float64)
            @ columns
            for begin in range(0, resamples, at_once)
        ]
    )
    resampled = totals[:, :-1] / totals[:, -1:]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        name: {"mean": values.mean(name), "low": float(low[i]), "high": float(high[i])}
        for i, name in enumerate(values.sums)
    }


def paired_tests(runs: Sequence[UserValues], metric: str, flips: int = FLIPS, seed: int = 0) -> np.ndarray:
    """Two-sided p values of "these two models are equally good" for all pairs, corrected for their number.

    If two models were alike, each user's difference d_u could as well have the other sign, so their statistic

        T = |sum_u d_u| / sqrt(sum_u d_u^2)

    is compared with what it is under random signs, one a user, the same for all pairs. The p value is the
    share of draws in which the largest T of any pair is at least as large as the pair's own: where no models
    differ, one of all p values is below alpha with probability alpha. The observed signs are counted in: p =
    (1 + extreme) / (1 + flips).

    Returns:
        (runs, runs) p values, 1 on the diagonal.
    """
    check_paired(*runs)
    p = np.ones((len(runs), len(runs)))
    if len(runs) < 2:
        return p
    first, second = np.array(list(itertools.combinations(range(len(runs)), 2))).T
    sums = np.stack([run.sums[metric] for run in runs], axis=1)
    # sums of the same numbers in another order are equal
    differences = (sums[:, first] - sums[:, second]).round(12)
    norms = np.linalg.norm(differences, axis=0)
    differences /= np.where(norms > 0, norms, 1)
    observed = np.abs(differences.sum(0))
    rng = np.random.default_rng(seed)
    extreme = np.zeros(len(first), dtype=np.int64)
    at_once = max(1, min(AT_ONCE, CELLS // max(1, len(differences))))
    for begin in range(0, flips, AT_ONCE):
        rows = min(AT_ONCE, flips - begin)
        signs = rng.integers(0, 2, size=(rows, len(differences)), dtype=np.int8)
        for some in np.split(signs, range(at_once, rows, at_once)):
            largest = np.abs((some * np.float64(2) - 1) @ differences).max(1)
            extreme += (largest[:, None] >= observed - 1e-9).sum(0)
    p[first, second] = p[second, first] = (1 + extreme) / (1 + flips)
    return p


@dataclass(frozen=True)
class Comparison:
    """One model against the best.

    Attributes:
        model, mean: its name, and its mean of the metric over the queries.
        difference: best minus this, 0 for the best itself.
        p: paired test against the best, corrected for all pairs of the models compared; 1 for the best
            itself.
        like_best: the difference is not significant at the level asked for.
    """

    model: str
    mean: float
    difference: float
    p: float
    like_best: bool


def compare(
    models: Mapping[str, UserValues], metric: str, alpha: float = 0.05, flips: int = FLIPS, seed: int = 0
) -> list[Comparison]:
    """All models against the best of them on one metric, best first (ties by name)."""
    if not models:
        return []
    means = {name: values.mean(metric) for name, values in models.items()}
    order = sorted(models, key=lambda name: (-means[name], name))
    p = paired_tests([models[name] for name in order], metric, flips, seed)[0]
    best = means[order[0]]
    return [
        Comparison(name, means[name], best - means[name], float(one), bool(one >= alpha))
        for name, one in zip(order, p, strict=True)
    ]
