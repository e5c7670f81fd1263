"""Histories are views of flat arrays."""

from __future__ import annotations

import numpy as np

from seqrec.data.query import Query


def test_the_last_events_of_histories():
    query = Query.from_lists([np.array([1, 2, 3, 4, 5]), np.array([7]), np.array([], dtype=np.int64)])
    events, mask = query.recent(3)
    assert query.items(events, mask).tolist() == [[5, 4, 3], [7, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    events, mask = query.padded(4)
    assert query.items(events, mask).tolist() == [[2, 3, 4, 5], [7, 0, 0, 0], [0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [4, 1, 0]
    assert query.at(0).tolist() == [1, 2, 3, 4, 5]
    assert len(query.select(np.array([1]))) == 1


def test_users_and_moments_go_with_their_histories():
    query = Query.from_lists([np.array([1]), np.array([2, 3])], np.array([5, 6], dtype=np.int32))
    query = Query(query.events, query.starts, query.stops, query.users, np.array([10.0, 20.0]))
    second = query.select(np.array([1]))
    assert (second.users.tolist(), second.asked_at.tolist(), second.at(0).tolist()) == ([6], [20.0], [2, 3])
