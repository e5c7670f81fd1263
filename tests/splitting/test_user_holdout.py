from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import build, busy_logs, of_items, plain

from seqrec.errors import SeqrecError, SettingsError
from seqrec.splitting import user_holdout


@given(busy_logs, st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(0, 5))
def test_against_the_obvious(log, validation_users, test_users, last, seed):
    able = [u for u, events in enumerate(log) if len(events) > last]
    if validation_users + test_users > len(able) or validation_users + test_users == len(log):
        with pytest.raises(SeqrecError, match="expected at"):
            user_holdout(build(log), validation_users, test_users, last, seed)
        return
    split = user_holdout(build(log), validation_users, test_users, last, seed)
    validates, tests = set(split.validation.users.tolist()), set(split.test.users.tolist())
    assert len(validates) == validation_users
    assert len(tests) == test_users
    assert not validates & tests
    assert validates | tests <= set(able)
    expected = []
    for user, events in enumerate(log):
        targets = [(i, i) for i in range(len(events) - last, len(events))]
        expected.append(
            {
                "train": [] if user in validates | tests else list(range(len(events))),
                "validation": targets if user in validates else [],
                "test": targets if user in tests else [],
            }
        )
    assert plain(split) == expected


def test_seed_decides_and_shares_are_of_the_users_that_can_be_asked():
    sequences = of_items(*["abcd"] * 50, *["a"] * 10)
    split = user_holdout(sequences, 0.1, 0.2, seed=1)
    assert (len(split.validation), len(split.test)) == (5, 10)
    assert max(split.test.users.max(), split.validation.users.max()) < 50
    assert (
        user_holdout(sequences, 0.1, 0.2, seed=1).hash
        == split.hash
        != user_holdout(sequences, 0.1, 0.2, seed=2).hash
    )


def test_the_test_users_stay_out_of_retraining():
    split = user_holdout(of_items(*["abcd"] * 10), 2, 3).retrain()
    assert np.flatnonzero(split.train_stops == split.train_starts).tolist() == split.test.users.tolist()


def test_too_many_users():
    with pytest.raises(SettingsError, match=r"expected at most 4 in all, who have more than 1 events. Got 5"):
        user_holdout(of_items(*["ab"] * 4), 2, 3)
    with pytest.raises(
        SettingsError,
        match=r"test_users: expected at least 1 and fewer than the 4 users.*Got 0.1, which is 0",
    ):
        user_holdout(of_items(*["ab"] * 4), 1, 0.1)
