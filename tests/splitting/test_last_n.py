from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import build, logs, of_items, plain

from seqrec.errors import DataError
from seqrec.splitting import last_n


def obvious(ratings: list[int], n: int, min_rating: float | None) -> dict[str, list]:
    length = len(ratings)
    if length < n + 2:
        return {"train": list(range(length)), "validation": [], "test": []}
    liked = [min_rating is None or rating > min_rating for rating in ratings]
    return {
        "train": list(range(length - n - 1)),
        "validation": [(i, i) for i in [length - n - 1] if liked[i]],
        "test": [(i, i) for i in range(length - n, length) if liked[i]],
    }


@given(logs, st.integers(1, 4), st.sampled_from([None, 0, 2, 4.5]))
def test_against_the_obvious(log, n, min_rating):
    split = last_n(build(log), n=n, min_rating=min_rating)
    ratings = [[rating for _, _, rating in sorted(events, key=lambda e: e[1])] for events in log]
    assert plain(split) == [obvious(r, n, min_rating) for r in ratings]
    if min_rating is None:
        assert split.positive is None
    else:
        assert split.positive.tolist() == [rating > min_rating for user in ratings for rating in user]


def test_worked_example():
    (user,) = plain(last_n(of_items("abcdefgh"), n=3))
    assert user == {"train": [0, 1, 2, 3], "validation": [(4, 4)], "test": [(5, 5), (6, 6), (7, 7)]}


def test_worked_example_with_ratings():
    split = last_n(
        build([[(i % 7, i + 1, rating) for i, rating in enumerate([5, 5, 1, 4, 4, 2, 5, 4])]]),
        n=3,
        min_rating=2,
    )
    (user,) = plain(split)
    assert user["test"] == [(6, 6), (7, 7)]
    assert np.flatnonzero(split.positive & split.train_events)[1:].tolist() == [1, 3]


def test_ratings_are_needed_for_a_rating_rule():
    with pytest.raises(DataError, match="min_rating=2"):
        last_n(of_items("abcdef"), min_rating=2)


def test_an_event_without_a_rating_is_neither_liked_nor_disliked():
    sequences = build([[(i % 7, i + 1, rating) for i, rating in enumerate([5, 1, 4, 5, 2, 4])]])
    sequences.ratings[[0, 3]] = np.nan
    with pytest.raises(
        DataError, match=r"min_rating=2.*: expected a rating for every event. Got 2 of 6 without one"
    ):
        last_n(sequences, n=2, min_rating=2)
    assert last_n(sequences, n=2).positive is None
