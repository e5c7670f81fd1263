"""The Markov chain against counting in a dictionary."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.query import Query
from seqrec.models.markov import Markov
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.testing import sequences_of


def slowly(split: Split, last: int | None, strength: float, window: int) -> list[float]:
    """Scores of every item after one item (or none)."""
    s, items = split.sequences, len(split.sequences.item_catalogue)
    transitions: dict[tuple[int, int], float] = defaultdict(float)
    popularity = Counter(range(items))
    liked = np.ones(s.events, dtype=bool) if split.positive is None else split.positive
    for start, stop in zip(split.train_starts, split.train_stops):
        for event in range(start, stop):
            if liked[event]:
                popularity[int(s.items[event])] += 1
                for d in range(1, window + 1):
                    if event - d >= start:
                        transitions[int(s.items[event - d]), int(s.items[event])] += 1 / d
    p = [popularity[j] / sum(popularity.values()) for j in range(items)]
    if last is None:
        return [strength * x for x in p]
    total = sum(n for (i, _), n in transitions.items() if i == last)
    return [(transitions[last, j] + strength * p[j]) / (total + strength) for j in range(items)]


@settings(max_examples=40, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=10), min_size=1, max_size=6),
    strength=st.sampled_from([0.5, 1.0, 20.0]),
    liked=st.one_of(st.none(), st.integers(0, 1000)),
    window=st.integers(1, 4),
)
def test_scores_are_the_counts(lists: list[list[int]], strength: float, liked: int | None, window: int):
    split = leave_one_out(sequences_of([np.array([0, 1, 2, 3]), *map(np.array, lists)], 7))
    if liked is not None:
        split = replace(split, positive=np.random.default_rng(liked).random(split.sequences.events) < 0.7)
    model = Markov(strength=strength, window=window)
    model.fit(split)
    histories: list[list[int]] = [[], *([5, i] for i in range(7))]
    scores = model.score(Query.from_lists([np.array(h, dtype=np.int32) for h in histories]))
    for row, history in zip(scores.tolist(), histories):
        assert row == pytest.approx(
            slowly(split, history[-1] if history else None, strength, window), rel=1e-5
        )
    assert scores[1:].sum(1).tolist() == pytest.approx([1.0] * 7, rel=1e-5)
