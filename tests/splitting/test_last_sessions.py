from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import build, busy_logs, lacks_a_part, of_items, plain

from seqrec.errors import DataError, SettingsError
from seqrec.splitting import last_sessions


@given(busy_logs, st.integers(1, 2), st.integers(1, 2))
def test_against_the_obvious(log, validation, test):
    if validation + test >= len(log):
        with pytest.raises(SettingsError, match="_sessions: expected at least 1 and fewer than"):
            last_sessions(build(log), validation, test)
        return
    order = sorted(range(len(log)), key=lambda u: min(t for _, t, _ in log[u]))  # a stable sort
    expected = []
    for user, events in enumerate(log):
        later = len(log) - order.index(user)
        role = "test" if later <= test else "validation" if later <= test + validation else "train"
        told = {"train": [], "validation": [], "test": []}
        told[role] = list(range(len(events))) if role == "train" else [(i, i) for i in range(1, len(events))]
        expected.append(told)
    if lacks_a_part(expected):
        with pytest.raises(DataError, match="at least one"):
            last_sessions(build(log), validation, test)
        return
    assert plain(last_sessions(build(log), validation, test)) == expected


def test_worked_example():
    split = last_sessions(
        of_items("abc", "abc", "ab", "abc", times=[[1, 2, 3], [2, 8, 9], [5, 6], [6, 7, 8]]), 0.34, 0.25
    )
    assert plain(split) == [
        {"train": [0, 1, 2], "validation": [], "test": []},
        {"train": [0, 1, 2], "validation": [], "test": []},
        {"train": [], "validation": [(1, 1)], "test": []},
        {"train": [], "validation": [], "test": [(1, 1), (2, 2)]},
    ]
    assert np.flatnonzero(split.retrain().train_events).tolist() == list(range(8))
    assert split.cold_targets_miss


def test_needs_times():
    with pytest.raises(DataError, match=r"'last_sessions'.*Got order only"):
        last_sessions(of_items("abc", "ab", "ab"))
