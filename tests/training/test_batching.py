"""Batches against what they promise. In these sequences every event has its own item, so that a batch tells
which events it holds."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.nn.batch import Batch
from seqrec.splitting import Queries, Split
from seqrec.training import batching


def build(
    ranges: list[tuple[int, int, int]], times: np.ndarray | None = None, positive: np.ndarray | None = None
) -> Split:
    """A split of users with (events before training, training events, events after)."""
    ranges_ = np.array(ranges, dtype=np.int64).reshape(-1, 3)
    offsets = np.concatenate([[0], np.cumsum(ranges_.sum(1))])
    events = int(offsets[-1])
    sequences = Sequences(
        np.arange(events, dtype=np.int32),
        offsets,
        Catalogue(np.arange(events)),
        Catalogue(np.arange(len(ranges))),
        times=times,
    )
    starts = offsets[:-1] + ranges_[:, 0]
    none = Queries.at(sequences, np.empty(0))
    return Split(
        sequences, starts, starts + ranges_[:, 1], none, none, {"name": "by hand"}, positive=positive
    )


def of_lengths(*lengths: int) -> Split:
    return build([(0, length, 0) for length in lengths])


users = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=8)
splits = st.builds(build, users).filter(lambda split: split.train_positions > 0)


@dataclass
class Position:
    """One training target: the event read last before it, the target's event, its row and step in the
    batch."""

    read: int
    target: int
    row: int
    step: int


def positions(batch: Batch) -> list[Position]:
    steps = batch.inputs.items.shape[1]
    assert batch.inputs.items.shape == batch.inputs.mask.shape
    assert not batch.inputs.items[~batch.inputs.mask].any()  # padding is item 0
    return [
        Position(int(batch.inputs.items.ravel()[at]), int(target), int(at) // steps, int(at) % steps)
        for at, target in zip(batch.inputs.at, batch.targets.items)
    ]


def trainable(split: Split) -> list[int]:
    """Every event that is a training target: a training event with a training event of the same user before
    it."""
    return [
        e for a, b in zip(split.train_starts.tolist(), split.train_stops.tolist()) for e in range(a + 1, b)
    ]


def user_of(split: Split, event: int) -> int:
    return next(
        u
        for u in range(split.sequences.users)
        if split.sequences.offsets[u] <= event < split.sequences.offsets[u + 1]
    )


def same(a: Batch, b: Batch) -> bool:
    return (
        a.inputs.items.shape == b.inputs.items.shape
        and torch.equal(a.inputs.items, b.inputs.items)
        and torch.equal(a.targets.items, b.targets.items)
    )


@given(splits, st.integers(1, 6), st.integers(1, 20), st.integers(0, 99))
def test_windows(split, steps, batch_positions, seed):
    trained = []
    for batch in batching.windows(split, steps, batch_positions, np.random.default_rng(seed)):
        assert batch.inputs.items.shape[1] <= steps
        assert 0 < batch.positions < batch_positions + steps
        lengths = batch.inputs.mask.sum(1)
        # padding is on the right
        assert torch.equal(batch.inputs.mask, torch.arange(batch.inputs.items.shape[1]) < lengths[:, None])
        assert batch.positions == int(lengths.sum())
        for p in positions(batch):
            assert p.target == p.read + 1
            # a piece is a run of events
            assert p.step == 0 or int(batch.inputs.items[p.row, p.step - 1]) == p.read - 1
            assert int(batch.inputs.users[p.row]) == user_of(split, p.read) == user_of(split, p.target)
            trained.append(p.target)
    assert sorted(trained) == trainable(split)


def test_windows_worked_example():
    """Five events, three steps: the three ways to cut them that the docstring gives, each about as often."""
    split = of_lengths(5)
    cuts = []
    for seed in range(60):
        pieces = [
            batch.inputs.items[0][batch.inputs.mask[0]].tolist()
            for batch in batching.windows(split, 3, 1, np.random.default_rng(seed))
        ]
        cuts.append(tuple(sorted(map(tuple, pieces))))
    assert set(cuts) == {((0,), (1, 2, 3)), ((0, 1), (2, 3)), ((0, 1, 2), (3,))}
    assert min(cuts.count(cut) for cut in set(cuts)) > 8


def test_windows_of_like_length_stand_together():
    split = of_lengths(*[3] * 40, *[60] * 40)
    for batch in batching.windows(split, 64, 500, np.random.default_rng(0)):
        # all but the one batch where short meets long
        if 2 not in batch.inputs.mask.sum(1) or 59 not in batch.inputs.mask.sum(1):
            assert bool(batch.inputs.mask.all())


@given(splits, st.integers(1, 5), st.integers(1, 4), st.sampled_from(["random", "start"]), st.integers(0, 99))
def test_lanes(split, count, steps, order, seed):
    """Read as a recurrent encoder reads them: a row's state is carried from batch to batch, and zeroed at
    resets."""
    trained, begun = [], []
    state = [-1] * count  # the event that each row read last
    rows_before = count
    for batch in batching.lanes(split, count, steps, order, np.random.default_rng(seed)):
        rows, width = batch.inputs.items.shape
        assert rows <= rows_before  # rows only drop out, at the end, and the others keep their place
        assert width <= steps
        rows_before = rows
        assert batch.inputs.mask[:, 0].all()  # a row without anything left is gone
        assert not batch.inputs.resets[~batch.inputs.mask].any()
        lengths = batch.inputs.mask.sum(1)
        assert torch.equal(batch.inputs.mask, torch.arange(width) < lengths[:, None])
        assert batch.positions == int(lengths.sum())
        for p in positions(batch):
            if bool(batch.inputs.resets[p.row, p.step]):
                assert p.read in split.train_starts[split.train_stops > split.train_starts]
                begun.append(p.read)
            else:
                assert p.read == state[p.row] + 1  # goes on where this row stopped
            state[p.row] = p.read
            assert p.target == p.read + 1
            trained.append(p.target)
        for row in range(rows):
            # short only where the lane ends
            assert int(lengths[row]) == width or state[row] + 2 in split.train_stops
    assert sorted(trained) == trainable(split)
    assert sorted(begun) == split.train_starts[split.train_stops - split.train_starts > 1].tolist()


@given(splits, st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_lanes_tell_the_user_of_each_input(split, count, steps, seed):
    for batch in batching.lanes(
        split, count, steps, "random", np.random.default_rng(seed), frozenset({"users"})
    ):
        assert batch.inputs.users.shape == batch.inputs.items.shape
        for row, step in batch.inputs.mask.nonzero().tolist():
            assert int(batch.inputs.users[row, step]) == user_of(split, int(batch.inputs.items[row, step]))


def test_lanes_worked_example():
    """The drawing of the docstring, a step at a time: [1 2 3], [4 5] and [6 7 8 9] in two lanes."""
    seen = [
        (batch.inputs.items.tolist(), batch.targets.items.tolist(), batch.inputs.resets.tolist())
        for batch in batching.lanes(of_lengths(3, 2, 4), 2, 1, "start", np.random.default_rng(0))
    ]
    # The lane that goes on longer stands first. After one step [4 5] is over, and its lane takes [6 7 8 9].
    assert seen == [
        ([[3], [0]], [4, 1], [[True], [True]]),
        ([[5], [1]], [6, 2], [[True], [False]]),
        ([[6]], [7], [[False]]),
        ([[7]], [8], [[False]]),
    ]


def test_lanes_take_sequences_by_the_time_of_their_first_event():
    split = build([(0, 3, 0), (0, 3, 0), (0, 3, 0)], times=np.array([20, 21, 22, 0, 1, 2, 10, 11, 12]))
    (batch,) = batching.lanes(split, 1, 100, "start", np.random.default_rng(0))
    assert batch.inputs.items[0].tolist() == [3, 4, 6, 7, 0, 1]
    orders = {
        tuple(
            next(iter(batching.lanes(split, 1, 100, "random", np.random.default_rng(seed))))
            .inputs.items[0]
            .tolist()
        )
        for seed in range(50)
    }
    assert len(orders) == 6


def test_lanes_are_filled_evenly():
    split = of_lengths(*np.random.default_rng(0).integers(2, 40, 500))
    rows = [
        batch.inputs.items.shape[0]
        for batch in batching.lanes(split, 16, 1, "random", np.random.default_rng(0))
    ]
    assert sum(rows) == split.train_positions
    assert np.mean([r == 16 for r in rows]) > 0.9


@given(splits, st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_recent(split, width, batch_positions, seed):
    trained = []
    for batch in batching.recent(split, width, batch_positions, np.random.default_rng(seed)):
        assert batch.inputs.items.shape == (batch.positions, width)
        assert batch.positions <= batch_positions
        assert batch.inputs.at.tolist() == list(range(batch.positions))  # one state a row
        for row, target in enumerate(batch.targets.items.tolist()):
            user = user_of(split, target)
            before = list(range(target - 1, int(split.train_starts[user]) - 1, -1))[:width]
            assert batch.inputs.items[row][batch.inputs.mask[row]].tolist() == before
            assert batch.inputs.mask[row].tolist() == [True] * len(before) + [False] * (width - len(before))
            assert int(batch.inputs.users[row]) == user
            trained.append(target)
    assert sorted(trained) == trainable(split)


def test_recent_worked_example():
    (batch,) = batching.recent(of_lengths(5), 3, 100, np.random.default_rng(0))
    rows = {
        int(t): row[mask].tolist()
        for t, row, mask in zip(batch.targets.items, batch.inputs.items, batch.inputs.mask)
    }
    assert rows == {1: [0], 2: [1, 0], 3: [2, 1, 0], 4: [3, 2, 1]}


@given(splits, st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_prefixes(split, steps, batch_positions, seed):
    """Beside the obvious way: user by user, event by event."""
    expected = {}
    for begin, end in zip(split.train_starts.tolist(), split.train_stops.tolist()):
        for target in range(begin + 1, end):
            expected[target] = list(range(begin, target))[-steps:]
    found = {}
    batches = list(batching.prefixes(split, steps, batch_positions, np.random.default_rng(seed)))
    for batch in batches:
        i = batch.inputs
        for row, (position, user) in enumerate(zip(positions(batch), i.users.tolist())):
            length = int(i.mask[row].sum())
            assert i.mask[row].tolist() == [True] * length + [False] * (i.items.shape[1] - length)
            assert (position.row, position.step) == (row, length - 1)  # one state a row: the last
            assert user_of(split, position.target) == user
            assert position.target not in found
            found[position.target] = i.items[row][:length].tolist()
        assert i.items.shape[1] == i.mask.sum(1).max()  # no column of nothing but padding
        assert i.memory is i.resets is None  # no row goes on from another
    assert found == expected
    assert {batch.positions for batch in batches[:-1]} <= {batch_positions}
    assert batches[-1].positions <= batch_positions


def test_prefixes_worked_example():
    (batch,) = batching.prefixes(of_lengths(5), 3, 100, np.random.default_rng(0))
    rows = {
        int(t): row[mask].tolist()
        for t, row, mask in zip(batch.targets.items, batch.inputs.items, batch.inputs.mask)
    }
    assert rows == {1: [0], 2: [0, 1], 3: [0, 1, 2], 4: [1, 2, 3]}


def test_a_batch_of_prefixes_is_of_many_users():
    """A lane of ten steps holds ten targets of one user."""
    split = of_lengths(*[50] * 400)
    batch = next(iter(batching.prefixes(split, 10, 128, np.random.default_rng(0))))
    assert len({user_of(split, t) for t in batch.targets.items.tolist()}) > 90
    batch = next(iter(batching.lanes(split, 12, 10, "random", np.random.default_rng(0))))
    assert len({user_of(split, t) for t in batch.targets.items.tolist()}) == 12


def test_an_epoch_of_prefixes_takes_one_number_a_position():
    """Rows are made batch by batch: memory is that of the order, whatever the steps."""
    split = of_lengths(*[1000] * 200)
    tracemalloc.start()
    try:
        for _ in zip(range(3), batching.prefixes(split, 50, 64, np.random.default_rng(0))):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * split.train_positions + 1_000_000


WALKS = {
    "windows": lambda split, rng: batching.windows(split, 4, 16, rng),
    "lanes": lambda split, rng: batching.lanes(split, 3, 4, "random", rng),
    "prefixes": lambda split, rng: batching.prefixes(split, 4, 16, rng),
    "recent": lambda split, rng: batching.recent(split, 4, 16, rng),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_an_epoch_says_how_many_positions_it_has(walk):
    split = of_lengths(*range(2, 22))
    batches = walk(split, np.random.default_rng(0))
    assert batches.positions == sum(batch.positions for batch in batches) == split.train_positions


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_seed_makes_an_epoch(walk):
    split = of_lengths(*range(2, 22))
    first, again, other = (list(walk(split, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert len(first) == len(again)
    assert all(map(same, first, again))
    assert not (len(first) == len(other) and all(map(same, first, other)))


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_labels_are_of_the_targets(walk):
    events = 12
    positive = np.arange(events) % 3 != 0
    split = build([(0, 5, 1), (1, 5, 0)], positive=positive)
    for batch in walk(split, np.random.default_rng(0)):
        assert batch.targets.labels.tolist() == positive[batch.targets.items].tolist()
    for batch in walk(of_lengths(5, 6), np.random.default_rng(0)):
        assert batch.targets.labels is None


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_users_without_a_target_are_left_out(walk):
    split = build([(0, 0, 4), (0, 1, 3), (0, 2, 2), (2, 0, 0), (0, 0, 0)])
    (batch,) = walk(split, np.random.default_rng(0))
    assert batch.targets.items.tolist() == [9]


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_nothing_to_train_on_is_an_error(walk):
    with pytest.raises(DataError, match="at least one user with two training events"):
        list(walk(build([(0, 1, 3), (0, 0, 2)]), np.random.default_rng(0)))


READING = {
    "windows": lambda split, rng, reads: batching.windows(split, 4, 16, rng, reads),
    "lanes": lambda split, rng, reads: batching.lanes(split, 3, 4, "random", rng, reads),
    "prefixes": lambda split, rng, reads: batching.prefixes(split, 4, 16, rng, reads),
    "recent": lambda split, rng, reads: batching.recent(split, 4, 16, rng, reads),
}


@pytest.mark.parametrize("walk", READING.values(), ids=READING)
def test_times_and_baskets_are_told_to_those_who_read_them(walk):
    """An event's item is its number here, so its time and basket can be looked up."""
    times, baskets = np.arange(11) * 10.0, np.arange(11) // 2
    split = build([(0, 5, 1), (1, 4, 0)], times=times)
    split = replace(split, sequences=replace(split.sequences, baskets=baskets))
    for batch in walk(split, np.random.default_rng(0), frozenset({"times", "baskets"})):
        i, targets = batch.inputs, batch.targets.items.numpy()
        assert i.times.shape == i.baskets.shape == i.items.shape
        assert i.times[i.mask].tolist() == times[i.items[i.mask].numpy()].tolist()
        assert i.baskets[i.mask].tolist() == baskets[i.items[i.mask].numpy()].tolist()
        assert i.asked_at.tolist() == times[targets].tolist()  # the moment of the target, and no more of it
    for batch in walk(split, np.random.default_rng(0), frozenset()):
        assert batch.inputs.times is batch.inputs.baskets is batch.inputs.asked_at is None
    with pytest.raises(DataError, match="times: the model reads the times of events"):
        list(walk(of_lengths(4, 4), np.random.default_rng(0), frozenset({"times"})))


@pytest.mark.parametrize("walk", READING.values(), ids=READING)
def test_targets_tell_which_events_they_are(walk):
    split = build([(0, 5, 1), (2, 1, 0), (1, 4, 0), (0, 9, 2)])
    for batch in walk(split, np.random.default_rng(0), frozenset()):
        assert batch.targets.events.tolist() == batch.targets.items.tolist()


def test_queries_tell_times_and_the_moment_they_are_asked_at():
    split = build([(0, 5, 0), (0, 4, 0)], times=np.arange(9) * 10)
    query = split.query(Queries.at(split.sequences, np.array([4, 8])))
    for inputs in (
        batching.last_states(query, 3, frozenset({"times"})),
        batching.last_items(query, 3, frozenset({"times"})),
    ):
        assert inputs.times[inputs.mask].tolist() == (inputs.items[inputs.mask] * 10).tolist()
        assert inputs.asked_at.tolist() == [40, 80]
    with pytest.raises(DataError, match="asked_at: the model reads the time of the prediction"):
        batching.last_states(replace(query, asked_at=None), 3, frozenset({"times"}))


def test_batches_move_as_a_whole():
    batch = next(iter(batching.lanes(of_lengths(5, 6), 2, 2, "random", np.random.default_rng(0))))
    moved = batch.to(torch.device("meta"))
    assert {
        moved.inputs.items.device.type,
        moved.inputs.mask.device.type,
        moved.inputs.at.device.type,
        moved.targets.items.device.type,
        moved.inputs.resets.device.type,
    } == {"meta"}
    assert moved.inputs.users is None
    assert batch.to(torch.device("cpu")) is batch


def test_lanes_take_no_memory_for_the_longest_sequence():
    """A user with most of the events fills a lane; the others are not padded to it."""
    split = of_lengths(20_000, *[4] * 2_000)
    tracemalloc.start()
    next(iter(batching.lanes(split, 512, 1, "random", np.random.default_rng(0))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * split.sequences.events  # padded there are 512 times as many


@pytest.mark.parametrize("longest", [1, 3, 7, 50])
def test_histories_as_tensors_are_read_as_they_are_from_arrays(longest: int):
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 9, n).astype(np.int32) for n in (0, 1, 7, 3, 12, 6)]
    users = np.arange(6, dtype=np.int32) - 1
    query = Query.from_lists(lists, users)
    items = torch.full((6, 15), 4)
    for row, history in enumerate(lists):
        items[row, : len(history)] = torch.from_numpy(history)
    told = items, torch.tensor([len(one) for one in lists]), torch.from_numpy(users.astype(np.int64))
    expected, found = batching.last_items(query, longest), batching.last_items_of(*told, longest)
    for name in ("items", "mask", "at", "users"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    expected, found = batching.last_states(query, longest), batching.last_states_of(*told, longest)
    steps, wider = expected.items.shape[1], found.items.shape[1]
    assert wider == min(15, longest) >= steps  # more padding, as the batch had
    assert torch.equal(found.items[:, :steps], expected.items)
    assert torch.equal(found.mask[:, :steps], expected.mask)
    assert not found.mask[:, steps:].any()
    assert torch.equal(found.at % wider, expected.at % steps)
    assert torch.equal(found.users, expected.users)


def test_hidden_items_are_the_targets_and_are_not_told():
    split = build([(0, 1, 0), (2, 2, 1), (0, 7, 0), (1, 40, 3)])
    found = []
    for seed in range(200):
        for batch in batching.hidden(split, 8, 0.25, 12, np.random.default_rng(seed)):
            inputs, at = batch.inputs, batch.inputs.at
            assert not inputs.mask.flatten()[at].any()
            assert not inputs.items[~inputs.mask].any()
            row = at // inputs.items.shape[1]
            assert row.unique().tolist() == list(range(len(inputs.items)))  # each piece has a target
            whole = inputs.items.flatten().index_copy(0, at, batch.targets.items).view(inputs.items.shape)
            lengths = inputs.mask.sum(1) + torch.bincount(row)
            for items, length in zip(whole, lengths):
                assert length <= 8
                assert torch.equal(items[:length], torch.arange(items[0], items[0] + length))
            found.append(batch.targets.items)
    counts = torch.bincount(torch.cat(found), minlength=split.sequences.events)
    assert counts.nonzero().flatten().tolist() == [3, 4, *range(6, 13), *range(14, 54)]
    assert (counts[14:54] > 0.15 * 200).all()
