"""The best items in blocks, against sorting whole rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec import scoring
from seqrec.data.query import Query
from seqrec.errors import TrainingError
from seqrec.scoring import Scores, best
from seqrec.topk import Filter


class Table:
    """Scores of row i are row ``i % rows`` of a table, given in blocks of some width."""

    name = "table"

    def __init__(self, table: np.ndarray, width: int):
        self.table, self.width = torch.from_numpy(table), width

    def numbering(self):
        return {}

    def score_blocks(self, query: Query, rows: int = scoring.ROWS):
        items = self.table.shape[1]
        for begin in range(0, len(query), rows):
            some = np.arange(begin, min(begin + rows, len(query)))
            edges = [*range(0, items, self.width), items]
            of_rows = self.table[torch.from_numpy(some) % len(self.table)]
            yield Scores(some, query.select(some), edges, lambda a, b, scores=of_rows: scores[:, a:b].clone())


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 40),
    width=st.integers(1, 45),
    levels=st.integers(1, 30),
    k=st.integers(1, 45),
    seen=st.booleans(),
    restricted=st.sampled_from(["", "allow", "deny", "both"]),
    rows=st.integers(1, 5),
)
def test_the_best_are_those_of_sorted_rows(seed, items, width, levels, k, seen, restricted, rows):
    """Whatever the blocks: few levels make many ties, which go by ascending index."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, levels, (4, items)).astype(np.float32)
    lists = [rng.integers(0, items, rng.integers(0, 6)) for _ in range(4)]
    some = {name: rng.integers(0, items, rng.integers(0, items + 1)) for name in ("allow", "deny")}
    filter = Filter(
        seen,
        some["allow"] if restricted in ("allow", "both") else None,
        some["deny"] if restricted in ("deny", "both") else None,
    )
    found = best(Table(table, width), Query.from_lists(lists), k, filter, rows)
    assert found.items.shape == found.scores.shape == (4, min(k, items))
    for row in range(4):
        left = [
            item
            for item in range(items)
            if not (seen and item in lists[row])
            and (filter.allow is None or item in filter.allow)
            and (filter.deny is None or item not in filter.deny)
        ]
        expected = sorted(left, key=lambda item: (-table[row, item], item))[:k]
        expected += [-1] * (min(k, items) - len(expected))
        assert found.items[row].tolist() == expected
        scores = [table[row, item] if item >= 0 else -np.inf for item in expected]
        assert found.scores[row].tolist() == scores


def test_no_history_at_all():
    assert best(Table(np.ones((1, 3), dtype=np.float32), 2), Query.from_lists([]), 2).items.shape == (0, 0)


def test_all_of_a_long_history_is_filtered():
    """However long ago it was."""
    table = np.arange(2001, 0, -1, dtype=np.float32)[None]  # the first of the history are the best
    found = best(Table(table, 512), Query.from_lists([np.arange(2000)]), 3)
    assert found.items.tolist() == [[2000, -1, -1]]


@pytest.mark.parametrize("at", [0, 5])
def test_a_score_that_is_no_number_is_refused(at: int):
    table = np.zeros((1, 6), dtype=np.float32)
    table[0, at] = np.nan
    with pytest.raises(TrainingError, match="table: scores are not finite"):
        best(Table(table, 2), Query.from_lists([np.array([1])]), 3)


@given(st.integers(1, 30), st.integers(1, 60), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_largest_are_ordered_by_index_among_equals(k: int, items: int, levels: int, seed: int):
    scores = torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (3, items)).astype(np.float32))
    scores[scores == 0] = -torch.inf
    values, columns = scoring.largest(scores, k)
    for row, found, highest in zip(scores.tolist(), columns.tolist(), values.tolist()):
        assert found == sorted(range(items), key=lambda i: (-row[i], i))[:k]
        assert highest == [row[i] for i in found]


@given(st.integers(1, 9), st.integers(288, 700), st.integers(1, 200), st.booleans(), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_looking_at_groups_first_finds_the_same(k: int, items: int, levels: int, filtered: bool, seed: int):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, levels, (4, items)).astype(np.float32))
    if filtered:
        scores[torch.from_numpy(rng.random((4, items)) < 0.5)] = -torch.inf
        scores[3, 5:] = -torch.inf
    found, expected = scoring._of_groups(scores, k), scoring._sorted(scores, k)
    assert found is None or (torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1]))
    if levels > 150 and not filtered:
        assert found is not None


@pytest.mark.parametrize("at", [0, 70_000, 70_399])
def test_the_largest_of_many(at: int):
    scores = torch.rand(2, 70_400)
    scores[1, at] = 2
    values, columns = scoring.largest(scores, 20)
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(values, expected.values[:, :20])
    assert torch.equal(columns, expected.indices[:, :20])
    assert columns[1, 0] == at
    scores[0, at] = torch.nan
    assert torch.isnan(scoring.largest(scores, 20)[0][0, 0])  # which ``best`` refuses
