"""VSKNN against the same thing done one sequence at a time in Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.query import Query
from seqrec.models.item_knn import FAR_BELOW
from seqrec.models.vsknn import VSKNN, pieces, ragged
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.testing import sequences_of

ITEMS = 8


def training_pieces(split: Split, length: int) -> list[tuple[int, set[int]]]:
    """(user, items) of each piece, the latest last."""
    found = []
    for user, (start, stop) in enumerate(zip(split.train_starts, split.train_stops)):
        for end in range(stop, start, -length):
            begin = max(start, end - length)
            end_time = end - stop if split.sequences.times is None else split.sequences.times[end - 1]
            found.append((end_time, begin, user, set(split.sequences.items[begin:end].tolist())))
    return [(user, items) for _, _, user, items in sorted(found, key=lambda piece: piece[:2])]


def slowly(split: Split, history: list[int], user: int, s) -> np.ndarray:
    latest = history[::-1][: s.recent]
    weights: dict[int, float] = {}
    for age, item in enumerate(latest):
        weights.setdefault(item, 1 - age / len(latest))
    sharing = []
    for number, (owner, items) in enumerate(training_pieces(split, s.length)):
        if owner != user and items & set(weights):
            shared = [weights[i] for i in items & set(weights)]
            sharing.append((sum(shared), number, max(shared), items))
    neighbours = sorted(sharing, key=lambda found: (-round(found[0], 9), -found[1]))[: s.neighbours]
    scores = np.zeros(ITEMS)
    for similarity, _, last, items in neighbours:
        scores[list(items)] += similarity * last
    return scores


@settings(max_examples=80, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, ITEMS - 2), min_size=1, max_size=12), min_size=1, max_size=6),
    neighbours=st.sampled_from([1, 3, 100]),
    length=st.sampled_from([2, 4, 50]),
    history=st.lists(st.integers(0, ITEMS - 1), max_size=9),
    user=st.integers(-1, 2),
    timed=st.booleans(),
)
def test_scores_are_the_obvious_ones(
    lists: list[list[int]], neighbours: int, length: int, history: list[int], user: int, timed: bool
):
    sequences = sequences_of([np.array([0, 1, 2, 3]), *map(np.array, lists)], ITEMS)
    if timed:
        sequences = replace(sequences, times=np.random.default_rng(0).permutation(sequences.events))
        for u in range(sequences.users):
            sequences.times[sequences.offsets[u] : sequences.offsets[u + 1]].sort()
    split = leave_one_out(sequences)
    # 4 recent items: their weights are quarters (or thirds), whose sums differ by far more than rounding does
    model = VSKNN(neighbours=neighbours, length=length, recent=4)
    model.fit(split)
    histories = Query.from_lists(
        [np.array([1]), np.array(history, dtype=np.int32)], np.array([-1, user], dtype=np.int32)
    )
    expected = slowly(split, history, user, model.settings) + FAR_BELOW * model.popularity
    assert model.score(histories)[1].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_worked_example():
    # two pieces share items with the history 0 1 2 3 (weights 1/4 1/2 3/4 1): {1, 3, 4} with 1/2 + 1 and {2,
    # 5} with 3/4
    model = VSKNN(recent=4)
    model.fit(leave_one_out(sequences_of([np.array([1, 3, 4, 6, 6]), np.array([2, 5, 6, 6])], ITEMS)))
    scores = model.score(Query.from_lists([np.array([0, 1, 2, 3])]))[0].tolist()
    # times the weight of the last item shared: 3 (1) and 2 (3/4)
    assert scores == pytest.approx([0, 1.5, 0.5625, 1.5, 1.5, 0.5625, 0, 0], abs=1e-5)


def test_only_the_latest_sequences_are_looked_at():
    split = leave_one_out(sequences_of([np.array([0, i, 7, 7]) for i in (1, 2, 3)], ITEMS))
    model = VSKNN(sample=2)
    model.fit(split)
    scores = model.score(Query.from_lists([np.array([0])]))[0]
    # in a log without times, later in the log is later
    assert (scores[[1, 2, 3]] > 0.5).tolist() == [False, True, True]


def test_a_known_users_own_sequence_is_no_neighbour():
    model = VSKNN()
    model.fit(leave_one_out(sequences_of([np.array([0, 1, 7, 7]), np.array([0, 2, 7, 7])], ITEMS)))
    histories = Query.from_lists([np.array([0])] * 2, np.array([0, -1], dtype=np.int32))
    of_user, of_nobody = model.score(histories)
    assert (of_user[[1, 2]] > 0.5).tolist() == [False, True]
    assert (of_nobody[[1, 2]] > 0.5).tolist() == [True, True]


def test_sequences_are_cut_from_their_end_and_at_sessions():
    sequences = sequences_of([np.arange(7), np.array([0, 1, 2])], ITEMS)
    split = leave_one_out(sequences)  # training events 0 to 4, and 7
    starts, stops = pieces(split, 2)
    assert list(zip(starts.tolist(), stops.tolist())) == [(0, 1), (1, 3), (3, 5), (7, 8)]
    with_sessions = replace(
        split, sequences=replace(sequences, sessions=np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 3]))
    )
    starts, stops = pieces(with_sessions, 50)
    assert list(zip(starts.tolist(), stops.tolist())) == [(0, 2), (2, 4), (4, 5), (7, 8)]


def test_ragged():
    number, index = ragged(np.array([2, 5, 7]), np.array([5, 5, 8]))
    assert number.tolist() == [0, 0, 0, 2]
    assert index.tolist() == [2, 3, 4, 7]
