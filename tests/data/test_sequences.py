import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_logs import assert_same

from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import COLUMNS, Sequences, order_of
from seqrec.errors import DataError

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=60)


def arrays(events, kind=np.int64):
    users = np.array([u for u, _ in events], dtype=np.int32)
    return users, np.array([k for _, k in events], dtype=kind)


@pytest.mark.parametrize("kind", [np.int64, np.float64])
@pytest.mark.parametrize("block", [1, 7, 1 << 22])
@given(events=EVENTS)
def test_order_is_a_stable_sort(kind, block, events):
    users, key = arrays(events, kind)
    expected = sorted(range(len(events)), key=lambda row: (users[row], key[row]))
    assert order_of(users, key, block_events=block).tolist() == expected
    by_user = sorted(range(len(events)), key=lambda row: users[row])
    assert order_of(users, None, block_events=block).tolist() == by_user


@given(events=EVENTS, seed=st.integers(0, 5))
def test_random_ties_move_only_ties(events, seed):
    users, key = arrays(events)
    order = order_of(users, key, "random", seed)
    assert sorted(order) == list(range(len(events)))
    assert [(users[r], key[r]) for r in order] == sorted(zip(users, key))
    assert order.tolist() == order_of(users, key, "random", seed).tolist()
    # the file's order is no tie
    assert order_of(users, None, "random", seed).tolist() == order_of(users, None).tolist()


def test_random_ties_are_uniform():
    users, key = np.zeros(3, np.int32), np.zeros(3, np.int64)
    orders = [tuple(order_of(users, key, "random", seed)) for seed in range(600)]
    counts = {order: orders.count(order) for order in set(orders)}
    assert len(counts) == 6
    assert min(counts.values()) > 65  # 100 expected, standard deviation 9


def test_order_refuses_another_tie_order():
    with pytest.raises(DataError, match="tie_order: expected 'file' or 'random'"):
        order_of(np.zeros(1, np.int32), None, "time")


def test_times_extreme_enough_to_overflow_one_number():
    users = np.array([1, 0, 1, 0], dtype=np.int32)
    key = np.array([2**62, 2**62, 0, 0], dtype=np.int64)
    assert order_of(users, key).tolist() == [3, 1, 2, 0]


def made(times=None, positions=None, **columns) -> Sequences:
    return Sequences.from_events(
        np.array([0, 1, 0, 1, 1], dtype=np.int32),
        np.array([2, 0, 1, 2, 2], dtype=np.int32),
        Catalogue(["x", "y"]),
        Catalogue([10, 20, 30]),
        times=times,
        positions=positions,
        **columns,
    )


def test_from_events_orders_every_column():
    s = made(
        times=np.array([5, 9, 3, 9, 1]),
        ratings=np.array([1, 2, 3, 4, 5], dtype=np.float32),
        baskets=np.arange(5),
    )
    assert s.items.tolist() == [1, 2, 2, 0, 2]
    assert s.offsets.tolist() == [0, 2, 5]
    assert s.times.tolist() == [3, 5, 1, 9, 9]
    assert s.ratings.tolist() == [3, 1, 5, 2, 4]
    assert s.baskets.tolist() == [2, 0, 4, 1, 3]
    assert s.sessions is None
    assert (s.users, s.events, s.lengths.tolist()) == (2, 5, [2, 3])
    assert s.of(1).tolist() == [2, 0, 2]
    assert s.bytes_per_event == (5 * (4 + 8 + 4 + 8) + 3 * 8) / 5


def test_positions_order_events_of_one_time_unless_they_contradict_the_times(caplog):
    assert made(positions=np.array([1, 2, 0, 1, 0])).items.tolist() == [1, 2, 2, 2, 0]
    agreeing = made(times=np.array([5, 9, 3, 9, 1]), positions=np.array([1, 2, 0, 1, 0]))
    assert agreeing.times.tolist() == [3, 5, 1, 9, 9]
    assert not caplog.records
    # a slot on a page, say: then the times order
    slots = made(times=np.array([5, 8, 3, 9, 1]), positions=np.array([1, 2, 0, 1, 0]))
    assert_same(slots, made(times=np.array([5, 8, 3, 9, 1])))
    assert "user 'y': a later position has an earlier time" in caplog.text


@settings(max_examples=25, deadline=None)
@given(events=EVENTS.filter(len), timed=st.booleans(), data=st.data())
def test_save_and_load_round_trip(events, timed, data, tmp_path_factory):
    users, times = arrays(events)
    present = sorted(set(users.tolist()))
    users = np.array([present.index(u) for u in users], dtype=np.int32)
    items = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=len(users), max_size=len(users))), dtype=np.int32
    )
    ratings = data.draw(st.sampled_from([None, np.linspace(0, 1, len(users), dtype=np.float32)]))
    s = Sequences.from_events(
        users,
        items,
        Catalogue(present),
        Catalogue(["a", "b", "c"]),
        times=times if timed else None,
        ratings=ratings,
    )
    folder = tmp_path_factory.mktemp("sequences")
    s.save(folder)
    loaded = Sequences.load(folder)
    for name in ("items", "offsets", *COLUMNS):
        saved, found = getattr(s, name), getattr(loaded, name)
        assert (saved is None) == (found is None)
        if saved is not None:
            np.testing.assert_array_equal(saved, found)
            assert saved.dtype == found.dtype
            assert isinstance(found, np.memmap) or found.base is not None
    assert loaded.item_catalogue.ids.to_list() == ["a", "b", "c"]
    assert loaded.user_catalogue.ids.to_list() == present


def test_load_refuses_what_is_no_folder_of_sequences(tmp_path):
    with pytest.raises(DataError, match=r"expected a folder written by `seqrec prepare`"):
        Sequences.load(tmp_path)
    made().save(tmp_path)
    np.save(next(tmp_path.glob("items-*.npy")), np.zeros(2, np.int32))
    with pytest.raises(DataError, match="size differs"):
        Sequences.load(tmp_path)


def test_the_large_log_benchmark_runs_small(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "large_log.py"
    command = [
        sys.executable,
        str(script),
        "--events",
        "100000",
        "--users",
        "1000",
        "--items",
        "500",
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "generate" in done.stdout
    assert "bytes per event" in done.stdout.splitlines()[-1]
    s = Sequences.load(tmp_path / "sequences")
    assert s.events == 100_000
    counts = np.sort(np.bincount(s.items))[::-1]
    assert counts[0] > 50 * np.median(counts)  # a power law
    inside = np.ones(s.events, dtype=bool)
    inside[s.offsets[:-1]] = False
    assert (np.diff(s.times, prepend=0)[inside] >= 0).all()


@pytest.mark.parametrize("part", ["items.npy", "offsets.npy", "item_catalogue.parquet", "sequences.json"])
def test_a_flipped_bit_in_a_prepared_folder_is_noticed(tmp_path, part):
    made().save(tmp_path)
    files = json.loads((tmp_path / "sequences.json").read_text())["files"]
    path = tmp_path / files.get(part, part)
    content = bytearray(path.read_bytes())
    content[-12] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"checksum differs|digest differs|not valid JSON"):
        Sequences.load(tmp_path)


def test_large_files_are_not_read_when_a_folder_is_opened_unless_asked(tmp_path):
    one = made()
    large = replace(
        one,
        items=np.zeros(5_000_000, np.int32),
        offsets=np.linspace(0, 5_000_000, len(one.offsets)).astype(np.int64),
        **dict.fromkeys(("times", "ratings", "baskets", "sessions")),
    )
    large.save(tmp_path)
    path = next(tmp_path.glob("items-*.npy"))
    with open(path, "r+b") as file:
        file.seek(10_000_000)
        file.write(b"\1")
    assert Sequences.load(tmp_path).events == 5_000_000
    with pytest.raises(DataError, match="checksum differs"):
        Sequences.load(tmp_path, verify=True)


def test_offsets_and_items_must_belong_together():
    one = made()
    with pytest.raises(DataError, match="has the item"):
        replace(one, items=one.items + len(one.item_catalogue)).check()
    with pytest.raises(DataError, match="offsets"):
        replace(one, offsets=one.offsets[::-1]).check()


def test_last_times_are_those_before_each_stop():
    s = Sequences(
        np.array([0, 1, 0, 1, 0], dtype=np.int32),
        np.array([0, 3, 4, 5]),
        Catalogue(["x", "y"]),
        Catalogue([10, 20, 30]),
        times=np.array([5, 7, 9, 4, 3]),
    )
    assert s.last_times(np.array([2, 4, 4])).tolist() == [7, 4, -np.inf]
    assert replace(s, times=None).last_times(s.offsets[1:]) is None
