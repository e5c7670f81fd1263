from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import build, busy_logs, lacks_a_part, of_items, plain

from seqrec.errors import DataError, SettingsError
from seqrec.splitting import global_temporal

# The example of the docstring: validation from 10 on, test from 20 on.
EXAMPLE = of_items(
    "abcdefg", "ab", "abc", "ab", times=[[1, 2, 3, 11, 12, 21, 22], [2, 21], [11, 12, 20], [1, 9]]
)


def obvious_window(times: list[int], begin: float, end: float, targets: str) -> list[tuple[int, int]]:
    before = [i for i, t in enumerate(times) if t < begin]
    inside = [i for i, t in enumerate(times) if begin <= t < end]
    if not before or not inside:
        return []
    if targets == "last":
        return [(inside[-1], inside[-1])]
    return [(i, i if targets == "successive" else len(before)) for i in inside]


@given(busy_logs, st.integers(2, 10), st.integers(1, 10), st.sampled_from(["last", "successive", "all"]))
def test_against_the_obvious(log, cut, more, targets):
    sequences = build(log)
    expected = []
    for events in log:
        times = sorted(t for _, t, _ in events)
        expected.append(
            {
                "train": [i for i, t in enumerate(times) if t < cut],
                "validation": obvious_window(times, cut, cut + more, targets),
                "test": obvious_window(times, cut + more, np.inf, targets),
            }
        )
    if lacks_a_part(expected):
        with pytest.raises(DataError, match="at least one"):
            global_temporal(sequences, cut, cut + more, targets)
        return
    split = global_temporal(sequences, cut, cut + more, targets)
    assert plain(split) == expected
    assert sequences.times[split.retrain().train_events].tolist() == [
        t for events in log for _, t, _ in sorted(events, key=lambda e: e[1]) if t < cut + more
    ]


def test_worked_example():
    user_1, user_2, user_3, user_4 = plain(global_temporal(EXAMPLE, 10, 20))
    assert user_1 == {"train": [0, 1, 2], "validation": [(4, 4)], "test": [(6, 6)]}
    assert user_2 == {"train": [0], "validation": [], "test": [(1, 1)]}
    assert user_3 == {"train": [], "validation": [], "test": [(2, 2)]}  # an event at the very cut is after it
    assert user_4 == {"train": [0, 1], "validation": [], "test": []}
    assert plain(global_temporal(EXAMPLE, 10, 20, "successive"))[0]["test"] == [(5, 5), (6, 6)]
    assert plain(global_temporal(EXAMPLE, 10, 20, "all"))[0]["test"] == [(5, 5), (6, 5)]


@given(busy_logs, st.integers(2, 10), st.integers(1, 10), st.integers(0, 2), st.booleans())
def test_baskets_against_the_obvious(log, cut, more, same, every):
    """Baskets of neighbours, some of which reach over a cut, where they belong to what comes before it."""
    log = [*log, [(0, t, 1) for t in [1] * 6 + [cut] * 3 + [cut + more] * 3]]  # so that no part is empty
    sequences = build(log)
    number = np.concatenate([np.arange(len(events)) // (same + 1) for events in log]).astype(np.int64)
    sequences = replace(sequences, baskets=number)

    def obvious(begin: float, end: float) -> list[tuple[list[int], int]]:
        found = []
        for user, (a, b) in enumerate(zip(sequences.offsets, sequences.offsets[1:])):
            times, of = sequences.times[a:b], number[a:b]
            baskets = [np.flatnonzero(of == n) for n in range(int(of.max(initial=-1)) + 1)]
            inside = [e[times[e] < end] for e in baskets if begin <= times[e[0]] < end]
            if (times < begin).any():
                found += [(sorted(set(sequences.items[a + e])), user) for e in inside[: None if every else 1]]
        return found

    targets = "baskets" if every else "next_basket"
    split = global_temporal(sequences, cut, cut + more, targets)
    for queries, (begin, end) in (
        (split.validation, (cut, cut + more)),
        (split.test, (cut + more, np.inf)),
    ):
        answers = np.split(sequences.items[queries.targets], queries.offsets[1:-1])
        found = [(sorted(one), user) for one, user in zip(map(list, answers), queries.users)]
        assert found == obvious(begin, end)
        assert (queries.history_stops == queries.targets[queries.offsets[:-1]]).all()
    assert split.without_test().validation.users.tolist() == split.validation.users.tolist()


def test_baskets_of_a_log_without_any():
    with pytest.raises(DataError, match=r"expected a log with baskets, since its targets are. Got none"):
        global_temporal(EXAMPLE, 10, 20, "next_basket")


def test_last_targets_are_the_last_of_the_successive_ones():
    assert (
        global_temporal(EXAMPLE, 10, 20, "successive").test.last().targets.tolist()
        == global_temporal(EXAMPLE, 10, 20).test.targets.tolist()
    )


def test_validation_users():
    split = global_temporal(EXAMPLE, None, 20, "successive", validation_users=2, seed=5)
    drawn = np.flatnonzero(split.train_stops == split.train_starts)
    assert sorted(split.validation.users) == sorted(drawn)
    assert len(drawn) == 2
    told = plain(split)
    before_cut = [5, 1, 2, 2]
    for user in range(4):
        held_out = user in drawn
        last = before_cut[user] - 1
        assert told[user]["train"] == ([] if held_out else list(range(before_cut[user])))
        assert told[user]["validation"] == ([(last, last)] if held_out else [])
    assert split.test.targets.tolist() == [5, 6, 8, 11]
    assert split.retrain().train_events.sum() == sum(before_cut)
    hashes = {global_temporal(EXAMPLE, None, 20, validation_users=2, seed=seed).hash for seed in range(8)}
    assert len(hashes) > 1
    # of the three who can be asked
    assert global_temporal(EXAMPLE, None, 20, validation_users=0.67).validation.users.shape == (2,)


def test_quantiles_are_of_all_events():
    sequences = of_items("abcdef", "abcd", times=[[1, 2, 3, 4, 5, 6], [3, 7, 8, 10]])  # 1 2 3 3 4 5 6 7 8 10
    split = global_temporal(sequences, 0.5, 0.75, "successive")  # moments 4.5 and 6.75
    assert plain(split) == [
        {"train": [0, 1, 2, 3], "validation": [(4, 4), (5, 5)], "test": []},
        {"train": [0], "validation": [], "test": [(1, 1), (2, 2), (3, 3)]},
    ]
    assert split.hash == global_temporal(sequences, 4.5, 6.75, "successive").hash


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_cut": 20, "test_cut": 20}, "validation_cut: expected a moment before test_cut"),
        ({"validation_cut": 0.8, "test_cut": 0.3}, "validation_cut: expected a moment before test_cut"),
        ({"validation_cut": None}, "expected one of the two"),
        ({"validation_users": 0.1}, "expected one of the two"),
        (
            {"validation_cut": None, "test_cut": 20, "validation_users": 4},
            "validation_users: expected at least 1 and fewer than the 3 users",
        ),
        (
            {"validation_cut": None, "test_cut": 20, "validation_users": 1.5},
            "validation_users: expected a share below 1, or a whole number",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(SettingsError, match=message):
        global_temporal(EXAMPLE, **arguments)


def test_logs_without_time_or_out_of_order_are_refused():
    with pytest.raises(DataError, match=r"'global_temporal'.*Got order only.*leave_one_out"):
        global_temporal(of_items("abc"))
    with pytest.raises(DataError, match=r"User 2's are not"):
        global_temporal(of_items("ab", "abc", times=[[9, 9], [1, 3, 2]]))


def test_an_empty_log_is_refused():
    with pytest.raises(DataError, match="at least one event"):
        global_temporal(build([[]]))


def test_ml_100k_protocol(shared_data):
    """The protocol's cuts against a plain reading of the file: successive targets, then the last of them."""
    rows = [line.split("\t") for line in (shared_data / "ml-100k" / "u.data").read_text().splitlines()]
    log: list[list[tuple[int, int, int]]] = [[] for _ in range(943)]
    for user, item, rating, time in rows:
        log[int(user) - 1].append((int(item) - 1, int(time), int(rating)))
    ordered = sorted(int(row[3]) for row in rows)
    cuts = []
    for quantile in (0.8, 0.9):
        place = quantile * (len(ordered) - 1)
        low = ordered[int(place)]
        cuts.append(low + (ordered[int(place) + 1] - low) * (place - int(place)))
    expected = []
    for events in log:
        times = sorted(t for _, t, _ in events)
        train = [i for i, t in enumerate(times) if t < cuts[0]]
        windows = [
            obvious_window(times, cuts[0], cuts[1], "successive"),
            obvious_window(times, cuts[1], np.inf, "successive"),
        ]
        expected.append({"train": train, "validation": windows[0], "test": windows[1]})
    sequences = build(log, items=1682)
    split = global_temporal(sequences, targets="successive")
    assert plain(split) == expected
    last = global_temporal(sequences)
    assert last.test.targets.tolist() == split.test.last().targets.tolist()
    assert last.validation.targets.tolist() == split.validation.last().targets.tolist()


def test_cuts_beyond_the_log_are_refused_with_its_span():
    with pytest.raises(DataError, match=r"at least one test query.*1970-01-01T00:00:01.*1970-01-01T00:00:22"):
        global_temporal(EXAMPLE, 10, 23)
    with pytest.raises(DataError, match="at least one training target"):
        global_temporal(EXAMPLE, 1, 20)


def test_times_below_the_second():
    sequences = replace(EXAMPLE, times=EXAMPLE.times + 0.25)
    assert global_temporal(sequences, 10.25, 20.25).hash == global_temporal(EXAMPLE, 10, 20).hash


def test_times_beyond_the_calendar_are_split_like_others():
    far = replace(EXAMPLE, times=EXAMPLE.times * 10**12)
    assert plain(global_temporal(far, 10 * 10**12, 20 * 10**12)) == plain(global_temporal(EXAMPLE, 10, 20))
    with pytest.raises(DataError, match="times go from 1000000000000 to 22000000000000"):
        global_temporal(far, 10, 20)
