"""Item-kNN against sets in Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.query import Query
from seqrec.models import item_knn
from seqrec.models.item_knn import FAR_BELOW, ItemKNN
from seqrec.splitting.everything import everything
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.testing import sequences_of, small_log

ITEMS = 8


def similarities(split: Split, shrinkage: float, neighbours: int) -> list[dict[int, float]]:
    users = [
        {
            u
            for u, (a, b) in enumerate(zip(split.train_starts, split.train_stops))
            if i in split.sequences.items[a:b]
        }
        for i in range(ITEMS)
    ]
    table = []
    for i in range(ITEMS):
        row = {
            j: len(users[i] & users[j]) / ((len(users[i]) * len(users[j])) ** 0.5 + shrinkage)
            for j in range(ITEMS)
            if j != i and users[i] & users[j]
        }
        table.append(dict(sorted(row.items(), key=lambda pair: (-pair[1], pair[0]))[:neighbours]))
    return table


@settings(max_examples=40, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, ITEMS - 2), min_size=1, max_size=10), min_size=1, max_size=6),
    neighbours=st.sampled_from([2, 100]),
    shrinkage=st.sampled_from([0.0, 3.0]),
    decay=st.sampled_from([1.0, 0.5]),
    history=st.lists(st.integers(0, ITEMS - 1), max_size=6),
)
def test_scores_are_the_obvious_ones(
    lists: list[list[int]], neighbours: int, shrinkage: float, decay: float, history: list[int]
):
    split = leave_one_out(sequences_of([np.array([0, 1, 2, 3]), *map(np.array, lists)], ITEMS))
    model = ItemKNN(neighbours=neighbours, shrinkage=shrinkage, decay=decay, recent=4)
    model.fit(split)
    table = similarities(split, shrinkage, neighbours)
    expected = np.zeros(ITEMS)
    for age, item in enumerate(history[::-1][:4]):
        for j, similarity in table[item].items():
            expected[j] += decay**age * similarity
    expected += FAR_BELOW * model.popularity
    scores = model.score(Query.from_lists([np.array([1], dtype=np.int32), np.array(history, dtype=np.int32)]))
    assert scores[1].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("pairs", [1, 500])
def test_counting_in_parts_changes_nothing(pairs: int, monkeypatch: pytest.MonkeyPatch):
    split = leave_one_out(small_log())
    whole, parts = ItemKNN(neighbours=5), ItemKNN(neighbours=5)
    whole.fit(split)
    monkeypatch.setattr(item_knn, "PAIRS", pairs)
    parts.fit(split)
    for name, array in whole.state().items():
        np.testing.assert_array_equal(parts.state()[name], array)


def test_items_that_never_occur_together():
    model = ItemKNN()
    # training: 0 alone and 3 alone
    model.fit(leave_one_out(sequences_of([np.array([0, 1, 2]), np.array([3, 1, 2])], 4)))
    assert len(model.state()["item"]) == 0
    scores = model.score(Query.from_lists([np.array([0])]))[0]
    assert scores[0] == scores[3] > scores[1] == scores[2] > 0


def test_of_a_user_with_very_many_items_the_latest_count():
    """Each once, the events of others as they are: the pairs to be counted do not grow with its square."""
    split = everything(sequences_of([[0, 1, 2, 1, 3, 2, 0], [4, 5, 6], [7]], ITEMS))

    def items_of(most):
        pairs = item_knn.who_had_what(split.sequences, item_knn.liked_events(split), most)
        assert pairs.tolist() == sorted(pairs.tolist())
        return [[int(pair % ITEMS) for pair in pairs if pair // ITEMS == user] for user in range(3)]

    assert items_of(4) == [[0, 1, 2, 3], [4, 5, 6], [7]]
    assert items_of(3) == [[0, 2, 3], [4, 5, 6], [7]]
    assert items_of(2) == [[0, 2], [5, 6], [7]]
