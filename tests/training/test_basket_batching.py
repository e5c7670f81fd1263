"""Rows of baskets against obvious ones. In these sequences every event has its own item."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_batching import build, of_lengths

from seqrec.data.query import Events, Query
from seqrec.errors import DataError
from seqrec.splitting.split import Split
from seqrec.training.basket_batching import basket_windows, last_baskets_in_order


def split_of(users: list[tuple[int, list[int], int]]) -> Split:
    """Of each user how many events come before training, the sizes of the training baskets, and how many
    come after; the first and the last basket may reach beyond what is trained on."""
    split = build([(before, sum(sizes), after) for before, sizes, after in users])
    number, baskets = 0, []
    for before, sizes, after in users:
        for at, size in enumerate(sizes or [0]):
            number += 1
            whole = size + (before if at == 0 else 0) + (after if at == len(sizes or [0]) - 1 else 0)
            baskets += [number % 3] * whole  # numbers come again
    return replace(split, sequences=replace(split.sequences, baskets=np.array(baskets, dtype=np.int64)))


user = st.tuples(st.integers(0, 2), st.lists(st.integers(1, 3), max_size=6), st.integers(0, 2))


@given(st.lists(user, min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_against_the_obvious(users, steps, positions, seed):
    split = split_of([*users, (0, [1, 2], 0)])
    expected = {}  # target -> the events of the basket before it
    for start, (_, sizes, _) in zip(split.train_starts, [*users, (0, [1, 2], 0)]):
        begins = start + np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        baskets = [list(range(a, b)) for a, b in itertools.pairwise(begins)]
        expected |= {int(t): before for before, now in itertools.pairwise(baskets) for t in now}
    batches = basket_windows(split, steps, positions, np.random.default_rng(seed))
    found = {}
    for batch in batches:
        i = batch.inputs
        count = int(i.baskets.max()) + 1
        assert count <= steps
        for at, target in zip(i.at.tolist(), batch.targets.items.tolist()):
            row, step = divmod(at, count)
            read = i.items[row][i.mask[row] & (i.baskets[row] == step)].tolist()
            assert i.users[row] == np.searchsorted(split.sequences.offsets, target, side="right") - 1
            found[target] = read
            if step:  # the basket before is the one before
                assert i.items[row][i.mask[row] & (i.baskets[row] == step - 1)].tolist() == expected[read[0]]
    assert found == expected
    assert batches.positions == len(expected)


def test_worked_example():
    split = split_of([(0, [2, 1, 2, 1], 0)])
    cuts = set()
    for seed in range(20):
        cut = []
        for batch in basket_windows(split, 2, 1, np.random.default_rng(seed)):
            i, target = batch.inputs, batch.targets.items.tolist()
            cut.append((tuple(i.items[0][i.mask[0]].tolist()), tuple(i.baskets[0].tolist()), tuple(target)))
        cuts.add(tuple(sorted(cut)))
    assert cuts == {
        (((0, 1), (0, 0), (2,)), ((2, 3, 4), (0, 1, 1), (3, 4, 5))),
        (((0, 1, 2), (0, 0, 1), (2, 3, 4)), ((3, 4), (0, 0), (5,))),
    }


def test_without_baskets_or_a_second_one():
    with pytest.raises(DataError, match=r"baskets: the model reads the baskets of events. Got a log without"):
        basket_windows(of_lengths(4), 2, 4, np.random.default_rng(0))
    with pytest.raises(DataError, match="expected at least one user with two training baskets"):
        basket_windows(split_of([(0, [3], 2), (1, [], 2)]), 2, 4, np.random.default_rng(0))


@given(st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=5), st.integers(1, 4))
def test_queries_against_the_obvious(rows, longest):
    sizes = [size for row in rows for size in row]
    baskets = np.append(np.repeat(np.arange(len(sizes)), sizes), 99)
    lengths = np.array([sum(row) for row in rows])
    stops = np.cumsum(lengths)
    query = Query(Events(np.arange(len(baskets), dtype=np.int32), baskets=baskets), stops - lengths, stops)
    i = last_baskets_in_order(query, longest)
    count = int(i.baskets.max()) + 1
    assert len(i.at) == len(rows)
    for row, told in enumerate(rows):
        last = told[-longest:]
        events = np.arange(stops[row] - sum(last), stops[row])
        assert i.items[row][i.mask[row]].tolist() == events.tolist()
        assert i.baskets[row][i.mask[row]].tolist() == np.repeat(np.arange(len(last)), last).tolist()
        assert int(i.at[row]) == row * count + max(0, len(last) - 1)
    with pytest.raises(DataError, match=r"baskets: the model reads the baskets of histories. Got items"):
        last_baskets_in_order(replace(query, events=Events(query.events.items)), longest)
    assert i.mask.dtype == torch.bool
