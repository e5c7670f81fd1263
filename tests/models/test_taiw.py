"""TAIW against its formula, item by item."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqrec.data.query import Events, Query
from seqrec.errors import DataError
from seqrec.models.taiw import PARTS, TAIW, WEEK, density
from seqrec.splitting.everything import everything
from seqrec.testing import sequences_of

BASKETS = [[(0, [0, 1]), (7, [0]), (21, [2, 0])], [(1, [0, 2]), (15, [1, 2]), (16, [3])], [(3, [3])]]
"""Of each user the days on which they bought what."""


def log_of(users: list[list[tuple[int, list[int]]]], items: int, times: bool = True):
    lists = [np.array([i for _, basket in user for i in basket]) for user in users]
    rows = [(day, n) for user in users for n, (day, basket) in enumerate(user) for _ in basket]
    days, number = np.array(rows).T
    log = replace(sequences_of(lists, items), baskets=number)
    return replace(log, times=days * 86_400) if times else log


def f(user: list[tuple[float, list[int]]], asked: float, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The vector of a user; days and baskets in units of time."""
    found = np.zeros(len(parts["mean"]))
    for moment, basket in user:
        for i in basket:
            p, b, m, s = (float(parts[name][i]) for name in PARTS)
            after = asked - moment
            soon = math.exp(-after / b) / b
            due = math.exp(-((after - m) ** 2) / (2 * s**2)) / math.sqrt(2 * math.pi * s**2)
            found[i] += (1 - p) * soon + p * due
    return found


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("neighbours", [1, 2])
def test_scores_against_the_formula(times: bool, neighbours: int):
    log = log_of(BASKETS, 5, times)
    model = TAIW(neighbours=neighbours, personal=0.3, epochs=2, weeks=2).fit(everything(log), progress=False)
    if times:
        told = [[(day / 14, basket) for day, basket in user] for user in BASKETS]
        asked = [30 / 14, 35 / 14, 30 / 14]
    else:
        told = [[(n / 2, basket) for n, (_, basket) in enumerate(user)] for user in BASKETS]
        asked = [len(user) / 2 for user in told]
    others = [f(user[:-1], user[-1][0], model.parts) for user in told[:2]]  # the third has one basket
    query = Query(
        Events(log.items, log.times, log.baskets),
        log.offsets[:-1],
        log.offsets[1:],
        np.array([0, 1, 2], np.int32),
        np.array([30, 35, 30]) * 86_400 if times else None,
    )
    found = model.score(query).numpy()
    for user in range(3):
        own = f(told[user], asked[user], model.parts)
        cosine = {
            v: own @ others[v] / max(1e-12, np.linalg.norm(own) * np.linalg.norm(others[v]))
            for v in range(2)
            if v != user
        }
        nearest = sorted(cosine, key=cosine.__getitem__, reverse=True)[:neighbours]
        expected = 0.3 * own + 0.7 * np.mean([others[v] for v in nearest], axis=0)
        np.testing.assert_allclose(found[user], expected, rtol=1e-4, atol=1e-6)


def test_density_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    after, share, mean, centre, deviation = (torch.rand(50, generator=generator) + 0.1 for _ in range(5))
    share = share.clamp(max=1)
    soon = torch.distributions.Exponential(1 / mean).log_prob(after).exp()
    due = torch.distributions.Normal(centre, deviation).log_prob(after).exp()
    expected = (1 - share) * soon + share * due
    torch.testing.assert_close(density(after, share, mean, centre, deviation), expected)


def test_when_an_item_is_due_is_learned():
    """Item 0 is bought every week, item 1 every fifth."""
    rng = np.random.default_rng(0)
    users = []
    for _ in range(60):
        week, user = int(rng.integers(0, 5)), []
        for n in range(15):
            user.append((7 * (week + n), [0, *([1] if n % 5 == 0 else []), int(rng.integers(2, 6))]))
        users.append(user)
    log = log_of(users, 6)
    model = TAIW(weeks=5, epochs=60, learning_rate=0.02, personal=1).fit(everything(log), progress=False)
    assert model.parts["mean"][0] < model.parts["mean"][1]
    # who bought both a moment ago is due for 0 in a week; and for 1 in five
    one = Query(
        Events(np.array([1], np.int32), np.array([0]), np.array([0])),
        np.array([0, 0]),
        np.array([1, 1]),
        asked_at=np.array([2.5, 5.0]) * WEEK,
    )
    between, due = model.score(one)[:, 1].tolist()
    assert due > between


def test_a_query_without_a_moment_is_asked_at_the_last_one(tmp_path):
    log = log_of(BASKETS, 5)
    model = TAIW(neighbours=1).fit(everything(log), progress=False)
    last = Query(Events(log.items, log.times, log.baskets), log.offsets[:-1], log.offsets[1:])
    told = replace(last, asked_at=np.full(3, 21 * 86_400))
    assert torch.equal(model.score(last), model.score(told))
    assert model.recommend(users=[100], k=2, filter_seen=False)["item_id"].to_list()[0] == "i0"
    model.save(tmp_path)
    found = TAIW.load(tmp_path).recommend(users=[100], k=2, filter_seen=False)
    assert found.equals(model.recommend(users=[100], k=2, filter_seen=False))
    with pytest.raises(DataError, match=r"times: taiw was trained on the times of baskets. Got histories"):
        model.recommend([[["i0"], ["i1"]]])
    TAIW(neighbours=1).fit(everything(log_of(BASKETS, 5, False))).recommend([[["i0"], ["i1"]]])
