"""What all splits share: queries, histories, the hash."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import ITEMS, build, busy_logs, logs, of_items

from seqrec.data.baskets import derived
from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SeqrecError
from seqrec.splitting import SPLITS, Queries, SplitSettings, last_n, leave_one_out, user_holdout

EVERY_SPLIT = [
    SplitSettings(name="leave_one_out"),
    SplitSettings(name="last_n", n=1),
    SplitSettings(name="last_n", n=3, min_rating=2),
    SplitSettings(name="global_temporal", validation_cut=0.5, test_cut=0.7),
    SplitSettings(name="global_temporal", validation_cut=8, test_cut=14, targets="successive"),
    SplitSettings(name="global_temporal", validation_cut=8, test_cut=14, targets="all"),
    SplitSettings(name="global_temporal", validation_cut=None, test_cut=10, validation_users=1),
    SplitSettings(name="user_holdout", validation_users=1, test_users=2, last=2, seed=3),
    SplitSettings(name="session_temporal", validation_days=4 / 86_400, test_days=5 / 86_400),
    SplitSettings(name="last_sessions", validation_sessions=1, test_sessions=2),
    SplitSettings(name="last_basket"),
]


def with_baskets(log) -> Sequences:
    """What a user has of one time is a basket."""
    s = build(log)
    return replace(s, baskets=derived(s.times, "same_time"))


def test_every_split_is_listed_in_the_properties():
    # files are no split of one log: tests/splitting/test_files_split.py
    assert {settings.name for settings in EVERY_SPLIT} == set(SPLITS) - {"files"}


@pytest.mark.parametrize("settings", EVERY_SPLIT, ids=lambda s: "-".join(map(str, s.model_dump().values())))
@given(log=logs | busy_logs)
def test_properties(settings, log):
    """Roles are disjoint, histories end before their targets, nothing after a cut trains: whatever the
    log."""
    sequences = with_baskets(log)
    try:
        split = settings.apply(sequences)
    except SeqrecError:
        return  # nothing to train on or to ask, or fewer users than are to be held out: refused
    s, train = split.sequences, np.flatnonzero(split.train_events)
    parts = [train, split.validation.targets, split.test.targets]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    assert (
        (s.offsets[:-1] <= split.train_starts)
        & (split.train_starts <= split.train_stops)
        & (split.train_stops <= s.offsets[1:])
    ).all()
    for queries in (split.validation, split.test):
        assert (s.offsets[queries.users] < queries.history_stops).all()
        assert (queries.history_stops <= queries.targets[queries.first_targets[:-1]]).all()
        assert (queries.targets < s.offsets[queries.of_targets + 1]).all()
        assert (np.diff(queries.targets) > 0).all()
        assert np.array_equal(split.query(queries).users, queries.users)
    if "temporal" in settings.name:
        # A session belongs where it ends, and may begin before the cut; a window holds events.
        moments = [
            s.times[s.offsets[q.users + 1] - 1 if settings.name == "session_temporal" else q.targets]
            for q in (split.validation, split.test)
        ]
        assert s.times[train].max() < moments[1].min()
        assert s.times[split.retrain().train_events].max() < moments[1].min()
        if not settings.arguments.get("validation_users"):
            assert s.times[train].max() < moments[0].min()
        assert split.cold_targets_miss
    if split.retrain_stops is not None:
        assert not set(np.flatnonzero(split.retrain().train_events)) & set(split.test.targets)
        assert set(np.flatnonzero(split.retrain().train_events)) >= set(train) | set(split.validation.targets)
    assert split.item_counts.tolist() == np.bincount(s.items[train], minlength=ITEMS).tolist()
    assert split.settings == {"name": settings.name, **split.settings}
    again = SplitSettings(**split.settings).apply(with_baskets(log))
    assert again.hash == split.hash
    assert again.settings == split.settings


@given(log=logs, order=st.permutations(range(ITEMS)))
def test_hash_does_not_see_ids(log, order):
    sequences = build(log)
    renamed = replace(
        sequences,
        items=np.asarray(order, dtype=np.int32)[sequences.items],
        item_catalogue=Catalogue([f"x{i}" for i in range(ITEMS)]),
        user_catalogue=Catalogue(np.arange(sequences.users)),
    )
    assert leave_one_out(renamed).hash == leave_one_out(sequences).hash


def test_hash_sees_order_items_lengths_roles_and_labels():
    hashes = [
        leave_one_out(of_items(*words)).hash
        for words in (["abcd", "ab"], ["abdc", "ab"], ["abcd", "ba"], ["abcd", "aa"], ["abc", "dab"])
    ]
    assert len(set(hashes)) == 4  # the second renames c and d of the first: no difference
    assert hashes[0] == hashes[1]
    rated = build([[(0, 1, 5), (1, 2, 1), (2, 3, 5), (3, 4, 5)]])
    splits = [leave_one_out(rated), last_n(rated, n=1), last_n(rated, n=1, min_rating=2), last_n(rated, n=2)]
    assert [splits[0].hash == other.hash for other in splits] == [True, True, False, False]
    known_less = replace(splits[0], test=Queries.until(rated, splits[0].test.targets, np.array([2])))
    assert known_less.hash != splits[0].hash


def test_hash_stays_what_it_is():
    """Results carry it: a change of this constant makes every earlier result another split's."""
    assert leave_one_out(of_items("abcd", "ab", "cacab")).hash == "6d4427065ebe7fea"


def test_last_queries_of_users():
    split = last_n(of_items("abcdef", "ab", "fedcba"), n=3)
    assert split.test.targets.tolist() == [3, 4, 5, 11, 12, 13]
    assert split.test.last().targets.tolist() == [5, 13]
    assert split.test.last().users.tolist() == [0, 2]
    nothing = split.test.select(np.zeros(6, dtype=bool))
    assert len(nothing.last()) == 0


def test_histories_hold_what_is_known():
    s = of_items("abcdef")
    split = replace(leave_one_out(s), test=Queries.until(s, [3, 5], np.array([4])))
    histories = split.query(split.test)
    assert [s.items[a:b].tolist() for a, b in zip(histories.starts, histories.stops)] == [
        [0, 1, 2],
        [0, 1, 2, 3],
    ]
    assert split.targets(split.test).tolist() == [3, 5]
    assert split.train_positions == 3


def test_histories_say_whose_they_are_and_the_split_who_trained():
    split = user_holdout(of_items(*["abc"] * 6), validation_users=1, test_users=2)
    assert split.query(split.test).users.tolist() == split.test.users.tolist()
    assert not split.trained_users()[split.test.users].any()
    assert split.trained_users().sum() == 3
    assert split.retrain().trained_users()[split.validation.users].all()
    # one training event is no target
    assert leave_one_out(of_items("abc", "abcd")).trained_users().tolist() == [False, True]


def test_a_user_whose_every_target_is_disliked_is_not_trained():
    rated = build(
        [
            [(0, 1, 5), (1, 2, 1), (2, 3, 1), (3, 4, 5), (4, 5, 5)],  # liked: the first event only
            [(0, 1, 1), (1, 2, 1), (2, 3, 5), (3, 4, 5), (4, 5, 5)],  # the last training event
            [(0, 1, 1), (1, 2, 5), (2, 3, 1), (3, 4, 1), (4, 5, 5)],
        ]
    )
    split = last_n(rated, n=1, min_rating=2)
    assert (split.train_stops - split.train_starts).tolist() == [3, 3, 3]
    assert split.trained_users().tolist() == [False, True, True]
    assert split.trained_users(disliked=True).tolist() == [True, True, True]
    assert last_n(rated, n=1).trained_users().all()


def test_retraining_is_for_splits_that_have_it():
    with pytest.raises(DataError, match=r"last_n.*no retraining"):
        last_n(of_items("abc"), 1).retrain()


def test_empty_splits_are_refused_with_advice():
    with pytest.raises(DataError, match=r"'last_n'.*at least one validation query.*Take longer sequences"):
        last_n(of_items("abcd"), n=3).not_empty("Take longer sequences.")


@pytest.mark.parametrize("kind", [np.int32, np.int64, list])
def test_queries_are_in_the_order_of_their_targets(ring, kind):
    queries = Queries.at(ring, [40, 3] if kind is list else np.array([40, 3], dtype=kind))
    assert queries.targets.tolist() == queries.history_stops.tolist() == [3, 40]
    assert queries.users.tolist() == [0, 2]
    assert {queries.targets.dtype, Queries.at(ring, np.empty(0)).targets.dtype} == {np.dtype(np.int64)}
