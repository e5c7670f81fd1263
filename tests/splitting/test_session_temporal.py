from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import build, busy_logs, lacks_a_part, of_items, plain

from seqrec.errors import DataError
from seqrec.splitting import session_temporal

DAY = 86_400


@given(busy_logs, st.integers(1, 6), st.integers(1, 6))
def test_against_the_obvious(log, validation, test):
    end = max(t for events in log for _, t, _ in events)
    expected = []
    for events in log:
        over = max((t for _, t, _ in events), default=-np.inf)
        role = "test" if over >= end - test else "validation" if over >= end - test - validation else "train"
        told = {"train": [], "validation": [], "test": []}
        told[role] = list(range(len(events))) if role == "train" else [(i, i) for i in range(1, len(events))]
        expected.append(told)
    if lacks_a_part(expected):
        with pytest.raises(DataError, match="at least one"):
            session_temporal(build(log), validation / DAY, test / DAY)
        return
    assert plain(session_temporal(build(log), validation / DAY, test / DAY)) == expected


def test_worked_example():
    # validation from 48 on, test from 72 on
    hours = [[1, 2, 3, 4], [40, 41, 49], [55, 56], [71, 74, 75], [96]]
    split = session_temporal(
        of_items("abcd", "abc", "ab", "abc", "a", times=[[3600 * h for h in session] for session in hours])
    )
    assert plain(split) == [
        {"train": [0, 1, 2, 3], "validation": [], "test": []},
        {"train": [], "validation": [(1, 1), (2, 2)], "test": []},
        {"train": [], "validation": [(1, 1)], "test": []},
        {"train": [], "validation": [], "test": [(1, 1), (2, 2)]},
        {"train": [], "validation": [], "test": []},
    ]
    assert np.flatnonzero(split.retrain().train_events).tolist() == list(range(9))


def test_each_user_is_one_session():
    sequences = of_items("abc", "ab", "ab", times=[[1, 2, 3], [DAY * 2 - 1, DAY * 2 - 1], [DAY * 3, DAY * 3]])
    # neighbours may share a number: they are other users
    one = replace(sequences, sessions=np.array([4, 4, 4, 7, 7, 7, 7]))
    assert session_temporal(one).hash == session_temporal(sequences).hash
    with pytest.raises(DataError, match="several of one user"):
        session_temporal(replace(sequences, sessions=np.array([4, 4, 5, 7, 7, 7, 7])))


def test_needs_times_and_sessions_in_every_part():
    with pytest.raises(DataError, match=r"'session_temporal'.*Got order only"):
        session_temporal(of_items("abc"))
    with pytest.raises(DataError, match="at least one training target"):
        session_temporal(of_items("abc", "ab", times=[[1, 2, 3], [5, 6]]))
