"""Popularity over everything, and lately."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seqrec import models
from seqrec.data.query import Query
from seqrec.errors import DataError, SettingsError
from seqrec.models.popularity import Popularity, shares
from seqrec.models.recent_popularity import RecentPopularity, recent_events
from seqrec.splitting.last_n import last_n
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.testing import sequences_of
from seqrec.topk import Filter

NOBODY = Query.from_lists([np.array([0])])


def split_of(*lists: list[int], times: list[float] | None = None, items: int = 6) -> Split:
    sequences = sequences_of([np.array(x) for x in lists], items)
    return leave_one_out(replace(sequences, times=None if times is None else np.array(times)))


def test_counts_training_events_only():
    model = Popularity()
    model.fit(split_of([0, 0, 1, 5, 5], [1, 2, 0, 5, 4]))
    assert model.score(NOBODY).tolist() == [[3, 2, 1, 0, 0, 0]]


def test_disliked_events_are_not_counted():
    split = split_of([0, 0, 1, 5, 5], [1, 2, 0, 5, 4])
    model = Popularity()
    model.fit(replace(split, positive=np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1], dtype=bool)))
    assert model.score(NOBODY).tolist() == [[2, 1, 1, 0, 0, 0]]


def test_shares():
    assert shares(np.array([0, 0, 2]), 3).tolist() == pytest.approx([3 / 6, 1 / 6, 2 / 6])


def test_recent_by_time():
    # training events at times 1 2 3 | 10 11 12 (the last two of each user are held out)
    split = split_of([0, 1, 2, 5, 5], [3, 4, 0, 5, 5], times=[1, 2, 3, 90, 91, 10, 11, 12, 80, 81])
    events = recent_events(split, 0.5, None)
    assert split.sequences.times[events].tolist() == [10, 11, 12]
    model = RecentPopularity(share=0.5)
    model.fit(split)
    scores = model.score(NOBODY)[0].tolist()
    assert np.floor(scores).tolist() == [1, 0, 0, 1, 1, 0]
    assert scores[0] > scores[3] == scores[4]  # popular over all time decides
    assert scores[1] == scores[2] > scores[5] > 0


def test_recent_days():
    day = 86_400
    split = split_of(
        [0, 1, 2, 5, 5], [3, 4, 0, 5, 5], times=[t * day for t in (1, 2, 3, 90, 91, 10, 11, 12, 80, 81)]
    )
    assert (split.sequences.times[recent_events(split, 0.1, 1.0)] / day).tolist() == [11, 12]


def test_recent_by_position():
    split = split_of([0, 1, 2, 3, 5, 5], [3, 4, 5, 5], [1])
    events = recent_events(split, 0.5, None)
    assert np.flatnonzero(events).tolist() == [2, 3, 7, 10]  # the last 2 of 4, 1 of 2, 1 of 1


def test_days_need_times():
    with pytest.raises(DataError, match=r"days=3\.0 needs times"):
        RecentPopularity(days=3).fit(split_of([0, 1, 2, 3]))


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1.5}, {"days": -1}])
def test_settings_out_of_range(wrong: dict[str, float]):
    with pytest.raises(SettingsError, match="recent_popularity"):
        RecentPopularity(**wrong)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("markov", {}),
        ("item_knn", {}),
        ("vsknn", {}),
        ("fpmc", {"width": 4, "train": {"epochs": 1}}),
        ("hrm", {"width": 4, "train": {"epochs": 1}}),
    ],
)
def test_what_nothing_is_known_of_gets_is_popularity_of_what_was_liked(name, settings):
    """Events that the split marks as disliked count for no model. Networks leave out items of which they have
    learned nothing."""
    rng = np.random.default_rng(0)
    sequences = sequences_of([rng.integers(0, 20, 12) ** 2 // 20 for _ in range(30)], 20)
    ratings = rng.integers(1, 6, sequences.events).astype(np.float32)
    split = last_n(replace(sequences, ratings=ratings), n=1, min_rating=3)
    empty = Query.from_lists([np.empty(0, np.int32)])
    popularity, model = (m.fit(split, progress=False) for m in (Popularity(), models.get(name)(**settings)))
    expected, found = (m.best(empty, 20, Filter()).items[0].tolist() for m in (popularity, model))
    left = [item for item in expected if item not in model.unlearned]
    assert found == left + [-1] * (len(expected) - len(left))
