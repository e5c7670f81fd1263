"""UP-CF against its equations, written out slowly."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.query import Events, Query
from seqrec.models.item_knn import FAR_BELOW
from seqrec.models.up_cf import UPCF
from seqrec.testing import sequences_of

ITEMS = 6
baskets = st.sets(st.integers(0, ITEMS - 1), min_size=1, max_size=3)
users = st.lists(st.lists(baskets, min_size=1, max_size=5), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(users, st.sampled_from([None, 1, 3]), st.integers(1, 3))
def test_against_the_equations(told, recent, k):
    s = sequences_of([np.array([i for b in user for i in b], dtype=np.int64) for user in told], ITEMS)
    sizes = [len(basket) for user in told for basket in user]
    log = type(s)(**{**vars(s), "baskets": np.repeat(np.arange(len(sizes)), sizes)})
    model = UPCF(recent=recent, asymmetry=0.25, locality=3, neighbours=k).fit(log, stop_after=1)
    p, had = np.zeros((len(told), ITEMS)), [set().union(*user) for user in told]
    for u, user in enumerate(told):
        last = user if recent is None else user[-recent:]
        for basket in last:
            p[u, list(basket)] += 1 / len(last)
    counts = np.bincount(log.items, minlength=ITEMS) + 1.0
    query = Query(Events(log.items, baskets=log.baskets), log.offsets[:-1], log.offsets[1:])
    for asked in (np.arange(len(told)), None):
        found = model.score(Query(query.events, query.starts, query.stops, asked)).numpy()
        for u in range(len(told)):
            others = [v for v in range(len(told)) if asked is None or v != u]
            w = {v: len(had[u] & had[v]) / (len(had[u]) ** 0.25 * len(had[v]) ** 0.75) for v in others}
            order = sorted(others, key=w.__getitem__, reverse=True)
            if len(order) > k and w[order[k - 1]] - w[order[k]] < 1e-5:
                continue  # equally similar: any of them
            expected = p[u] + sum(w[v] ** 3 * p[v] for v in order[:k]) + FAR_BELOW * counts / counts.sum()
            np.testing.assert_allclose(found[u], expected, atol=1e-6)
