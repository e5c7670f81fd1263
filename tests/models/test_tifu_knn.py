"""TIFU-KNN against its equations, written out slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.baskets import entries_of
from seqrec.data.query import Events, Query
from seqrec.models.item_knn import FAR_BELOW
from seqrec.models.tifu_knn import TIFUKNN, TIFUKNNSettings, weights_of
from seqrec.splitting.everything import everything
from seqrec.testing import sequences_of

ITEMS = 6


def log_of(users: list[list[set[int]]]):
    """A log of these users' baskets."""
    s = sequences_of([np.array([i for b in user for i in b], dtype=np.int64) for user in users], ITEMS)
    sizes = [len(basket) for user in users for basket in user]
    return type(s)(**{**vars(s), "baskets": np.repeat(np.arange(len(sizes)), sizes)})


def slow_vector(baskets: list[set[int]], s: TIFUKNNSettings) -> np.ndarray:
    n, m = len(baskets), s.groups
    decayed = []
    for j, basket in enumerate(baskets):
        b = np.zeros(ITEMS)
        b[list(basket)] = s.within_decay ** (n - 1 - j)
        decayed.append(b)
    if n < m:
        groups, first = [[b] for b in decayed], m - 1
    else:
        groups, at, first = [], 0, m - 1
        for g in range(m):
            size = n // m + (g >= m - n % m)
            groups.append(decayed[at : at + size])
            at += size
    vector = np.zeros(ITEMS)
    for g, group in enumerate(groups):
        vector += s.group_decay ** (first - g) * sum(group) / len(group)
    return vector / max(1, len(groups))


baskets = st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=3)
users = st.lists(st.lists(baskets, min_size=1, max_size=7), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(users, st.integers(1, 4), st.integers(1, 3))
def test_against_the_equations(told, groups, k):
    model = TIFUKNN(groups=groups, neighbours=k, within_decay=0.8, group_decay=0.6, personal=0.3)
    log = log_of(told)
    split = everything(log)
    model.fit(log, stop_after=1)
    query = Query(Events(log.items, baskets=log.baskets), log.offsets[:-1], log.offsets[1:])
    vectors = np.stack([slow_vector(user, model.settings) for user in told])
    own = np.zeros_like(vectors)
    entries = entries_of(query)
    np.add.at(own, (entries.row, entries.item), weights_of(entries, model.settings))
    np.testing.assert_allclose(own, vectors, atol=1e-12)
    counts = np.bincount(split.sequences.items, minlength=ITEMS) + 1.0
    for asked in (np.arange(len(told)), None):  # of unknown users all others are neighbours
        found = model.score(Query(query.events, query.starts, query.stops, asked)).numpy()
        for u in range(len(told)):
            others = [v for v in range(len(told)) if asked is None or v != u]
            distance = {v: float(((vectors[u] - vectors[v]) ** 2).sum()) for v in others}
            order = sorted(others, key=distance.__getitem__)
            if len(order) > k and distance[order[k]] - distance[order[k - 1]] < 1e-5:
                continue  # equally near: any of them
            mean = np.mean([vectors[v] for v in order[:k]], axis=0)
            expected = 0.3 * vectors[u] + 0.7 * mean + FAR_BELOW * counts / counts.sum()
            np.testing.assert_allclose(found[u], expected, atol=1e-6)


def test_groups_of_ten_baskets():
    """Ten baskets of an item each in four groups: two of two baskets, then two of three, so that an item of
    the last group weighs a third, of the first a half, decayed."""
    s = TIFUKNNSettings(groups=4, within_decay=1.0, group_decay=0.5)
    entries = entries_of(Query(Events(np.arange(10, dtype=np.int32)), np.array([0]), np.array([10])))
    expected = [1 / 2 / 8] * 2 + [1 / 2 / 4] * 2 + [1 / 3 / 2] * 3 + [1 / 3] * 3
    assert weights_of(entries, s) == pytest.approx(np.array(expected) / 4)
