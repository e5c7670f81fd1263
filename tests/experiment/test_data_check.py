"""The measures of a log against obvious ones, and against facts known of MovieLens-1M."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_sequences import build, logs, of_items

from seqrec import read_log
from seqrec.errors import DataError
from seqrec.experiment import data_check
from seqrec.experiment.data_check import check, common_ngrams, shuffled
from seqrec.splitting import SplitSettings, last_n, leave_one_out


@given(logs.filter(any))
def test_counts_against_the_obvious(log):
    found = check(build(log))
    events = [(user, item, time) for user, events in enumerate(log) for item, time, _ in events]
    lengths = [len(e) for e in log if e]
    ratings = [rating for events in log for _, _, rating in events]
    assert (found["users"], found["items"], found["events"]) == (
        len(lengths),
        len({item for _, item, _ in events}),
        len(events),
    )
    assert found["density"] == len(events) / (len(lengths) * found["items"])
    assert (found["length_min"], found["length_max"]) == (min(lengths), max(lengths))
    assert found["length_mean"] == pytest.approx(sum(lengths) / len(lengths))
    assert (found["rating_min"], found["rating_max"]) == (min(ratings), max(ratings))
    seconds = Counter((user, time) for user, _, time in events)
    assert found["ties"] == pytest.approx(sum(n for n in seconds.values() if n > 1) / len(events))
    assert found["repeats"] == pytest.approx(
        1 - len({(user, item) for user, item, _ in events}) / len(events)
    )
    assert found["duplicates"] == len(events) - len(set(events))


small = st.tuples(st.integers(0, 2), st.integers(1, 3), st.just(1))


@given(st.lists(st.lists(small, min_size=1, max_size=5), min_size=1, max_size=4))
def test_last_item_ties_against_all_orders(log):
    """Every order of the events of a user's last second is as likely as another."""
    changes = []
    for events in log:
        ordered = sorted(events, key=lambda e: e[1])
        tied = [item for item, time, _ in ordered if time == ordered[-1][1]]
        orders = list(itertools.permutations(tied))
        changes.append(sum(o[-1] != ordered[-1][0] for o in orders) / len(orders))
    assert check(build(log))["last_item_ties"] == pytest.approx(sum(changes) / len(changes))


def test_seconds_are_whole_ones():
    sequences = replace(of_items("abc", "ab"), times=np.array([1.1, 1.9, 2.0, 5.0, 5.0]))
    found = check(sequences)
    assert found["ties"] == pytest.approx(4 / 5)
    assert found["last_item_ties"] == pytest.approx((0 + 1 / 2) / 2)
    assert found["duplicates"] == 0


def test_times_beyond_the_calendar_are_shown_as_numbers():
    found = check(of_items("abc", times=[[1, 2, 10**15]]))
    assert (found["first_time"], found["last_time"]) == ("1970-01-01T00:00:01+00:00", str(10**15))


def test_repeats_and_exact_copies():
    found = check(of_items("abab", "aa", times=[[1, 2, 3, 4], [5, 5]]))
    assert found["repeats"] == pytest.approx(3 / 6)
    assert found["duplicates"] == 1


@given(logs.filter(lambda log: any(len(events) > 2 for events in log)))
def test_cold_targets_and_later_events_against_the_obvious(log):
    sequences = build(log)
    found = check(sequences, split=leave_one_out(sequences))
    by_user = [sorted(events, key=lambda e: e[1]) for events in log]
    trained = {item for e in by_user for item, _, _ in (e[:-2] if len(e) > 2 else e)}
    known = [time for e in by_user for _, time, _ in (e[:-1] if len(e) > 2 else e)]
    asked = [e for e in by_user if len(e) > 2]
    assert found["leave_one_out.test_queries"] == found["leave_one_out.validation_queries"] == len(asked)
    assert found["leave_one_out.test_cold"] == pytest.approx(
        np.mean([e[-1][0] not in trained for e in asked])
    )
    assert found["leave_one_out.validation_cold"] == pytest.approx(
        np.mean([e[-2][0] not in trained for e in asked])
    )
    assert found["leave_one_out.later"] == pytest.approx(
        np.mean([np.mean([t > e[-1][1] for t in known]) for e in asked])
    )
    assert "global_temporal.later" not in found


def test_a_cut_in_time_has_no_later_events():
    sequences = of_items(
        "abcdef", "bcdefa", "cdefab", times=[[1, 2, 3, 4, 5, 10], [1, 2, 3, 4, 50, 60], [7, 8, 9, 40, 50, 60]]
    )
    found = check(
        sequences,
        split=SplitSettings(name="global_temporal", validation_cut=40, test_cut=60, targets="successive"),
    )
    assert found["global_temporal.later"] == 0
    assert found["global_temporal.test_queries"] == 2
    both = check(sequences)
    assert both["leave_one_out.later"] > 0
    assert "global_temporal.test_queries" in both


def test_a_split_without_test_queries_says_so():
    sequences = of_items("ab", times=[[1, 2]])
    assert check(sequences, split=last_n(sequences))["last_n.test_cold"] is None


@given(logs.filter(any), st.integers(1, 3), st.integers(1, 3))
def test_common_ngrams_against_the_obvious(log, n, support):
    sequences = build(log)
    users_of = defaultdict(set)
    for user in range(sequences.users):
        items = sequences.of(user).tolist()
        for i in range(len(items) - n + 1):
            users_of[tuple(items[i : i + n])].add(user)
    user = np.repeat(np.arange(sequences.users), sequences.lengths)
    expected = sum(len(users) >= support for users in users_of.values())
    assert common_ngrams(sequences.items, user, n, support) == expected
    # Far-apart numbers, whose products leave 64 bits unless counted anew.
    assert common_ngrams(sequences.items.astype(np.int64) * 100_000_000, user, n, support) == expected


def test_worked_example_of_ngrams():
    assert common_ngrams(np.array([1, 2, 3, 1, 2, 2, 3, 1, 2]), np.repeat([0, 1, 2], 3), 2, 3) == 1


@given(logs.filter(any), st.integers(0, 9))
def test_shuffling_stays_within_groups(log, seed):
    sequences = build(log)
    user = np.repeat(np.arange(sequences.users), sequences.lengths)
    items = shuffled(sequences.items, user, np.random.default_rng(seed))
    for u in range(sequences.users):
        assert sorted(items[user == u]) == sorted(sequences.of(u))


def test_shuffling_makes_every_order_alike():
    orders = Counter(
        tuple(shuffled(np.arange(3), np.zeros(3, int), np.random.default_rng(seed))) for seed in range(3000)
    )
    assert len(orders) == 6
    assert all(abs(count - 500) < 6 * math.sqrt(500) for count in orders.values())


def test_order_matters_in_a_chain_and_not_in_noise():
    """200 users walk along a ring of 50 items, or draw them at random: the same items, with order and
    without."""
    rng = np.random.default_rng(0)
    ring = [
        [(int((start + step) % 50), step + 1, 5) for step in range(30)] for start in rng.integers(0, 50, 200)
    ]
    noise = [
        [(int(item), step + 1, 5) for step, item in enumerate(rng.permutation(50)[:30])] for _ in range(200)
    ]
    ordered, disordered = check(build(ring, items=50)), check(build(noise, items=50))
    assert ordered["2grams"] == 50
    assert ordered["3grams_lost"] > 0.9
    assert ordered["3grams_lost_in_ties"] == 0  # no two events share a second
    assert abs(disordered["2grams_lost"]) < 0.1
    assert any("Order matters" in warning for warning in ordered.warnings)
    assert any("order matters little" in warning for warning in disordered.warnings)


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_short_sessions_lose_is_known(length, seed):
    """A run of a ring keeps 1 of its ``length`` orders of each pair when it is shuffled; a shuffled one loses
    nothing more."""
    rng = np.random.default_rng(seed)
    ring = [[(start + step) % 20 for step in range(length)] for start in rng.integers(0, 20, 3000)]
    mixed = [list(rng.permutation(session)) for session in ring]

    def found(log):
        return check(build([[(int(i), step + 1, 5) for step, i in enumerate(s)] for s in log], items=20))

    assert found(ring)["2grams_lost"] == pytest.approx(1 - 1 / length, abs=0.02)
    assert found(mixed)["2grams_lost"] == pytest.approx(0, abs=0.04)
    assert any("Order matters" in warning for warning in found(ring).warnings)
    assert any("order matters little" in warning for warning in found(mixed).warnings)


def test_order_matters_on_real_sessions_until_they_are_shuffled(shared_data):
    log = read_log(shared_data / "yoochoose-clicks" / "events.tsv.gz", columns={"user_id": "session_id"})
    found = check(log)
    assert 0.3 < found["2grams_lost"] < 0.4
    assert 0.4 < found["3grams_lost"] < 0.6
    assert any("Order matters" in warning for warning in found.warnings)
    assert any("session_temporal" in warning for warning in found.warnings)
    s = log.sequences()
    user = np.repeat(np.arange(s.users), s.lengths)
    mixed = check(replace(s, items=shuffled(s.items, user, np.random.default_rng(1))))
    assert abs(mixed["2grams_lost"]) < 0.02
    assert any("order matters little" in warning for warning in mixed.warnings)


@given(logs.filter(any), st.integers(2, 3), st.integers(0, 9))
def test_occurrences_against_the_obvious(log, n, seed):
    sequences = build(log)
    user = np.repeat(np.arange(sequences.users), sequences.lengths)
    first = np.random.default_rng(seed).random(sequences.users) < 0.5
    expected = 0
    for half in (first, ~first):
        users_of, others = defaultdict(set), []
        for u in range(sequences.users):
            items = sequences.of(u).tolist()
            for run in (tuple(items[i : i + n]) for i in range(len(items) - n + 1)):
                users_of[run].add(u) if half[u] else others.append(run)
        expected += sum(len(users_of[run]) >= data_check.SUPPORT_OF_HALF for run in others)
    items = sequences.items
    assert data_check.occurrences(items, [items], user, first[user], n) == [expected]
    # far-apart numbers, whose products leave 64 bits
    far = items.astype(np.int64) * 100_000_007
    assert data_check.occurrences(far, [far], user, first[user], n) == [expected]


def test_what_to_beware_of_is_said_with_its_setting():
    twice = check(of_items("abab", "cdcd", times=[[1, 1, 1, 1], [1, 1, 1, 1]]))
    assert (twice["copies"], twice["early_times"]) == (2, 1)
    text = " ".join(twice.warnings)
    assert "data.tie_order=random" in text
    assert "stands 2 times" in text
    assert "data.duplicates=drop" in text
    assert "before 1980" in text
    assert "leave_one_out has only 2 test queries" in text


def test_shuffling_ties_loses_an_order_that_lies_within_seconds():
    ring = [[((start + step) % 50, 1, 5) for step in range(30)] for start in range(200)]
    found = check(build(ring, items=50))
    assert found["ties"] == 1
    assert found["3grams_lost_in_ties"] > 0.9


def test_order_only_logs_leave_open_what_needs_times():
    found = check(of_items("abcd", "abda"))
    for name in (
        "first_time",
        "ties",
        "last_item_ties",
        "duplicates",
        "rating_min",
        "leave_one_out.later",
        "2grams_lost_in_ties",
        "global_temporal.test_queries",
    ):
        assert found[name] is None
    assert any("No times" in warning for warning in found.warnings)


def test_logs_are_turned_into_sequences():
    class Log:
        def sequences(self):
            return of_items("abc")

    assert check(Log())["events"] == 3
    with pytest.raises(DataError, match="at least one event"):
        check(build([[]]))
    with pytest.raises(StopIteration):
        check(Log())["tie"]


def test_table_prints_and_writes(tmp_path):
    found = check(of_items("abcab", "ab", times=[[1, 1, 2, 3, 4], [5, 5]]))
    table = found.table("a log")
    table.write(tmp_path / "check.json")
    written = {row["name"]: row["value"] for row in json.loads((tmp_path / "check.json").read_text())["rows"]}
    assert written["events"] == 7
    assert written["ties"] == found["ties"]
    assert "share of events in the same second" in table.markdown()
    assert table.markdown().startswith(f"- {found.warnings[0]}")  # verdicts first
    assert all(finding.meaning for finding in found.findings)
    assert len({finding.name for finding in found.findings}) == len(found.findings)


def test_facts_of_ml_1m(shared_data):
    """Users 1 to 2999: 77.5% of events share their second, 26.5% of last items hang on ties, 44.9% of
    training is later than the test event."""
    with gzip.open(shared_data / "ml-1m" / "ratings-users-1-to-2999.dat.gz", "rt") as stream:
        rows = np.array([line.split("::") for line in stream], dtype=np.int64)
    log: list[list[tuple[int, int, int]]] = [[] for _ in range(2999)]
    for user, item, rating, time in rows.tolist():
        log[user - 1].append((item, time, rating))
    found = check(build(log, items=3953))
    assert round(found["ties"], 3) == 0.775
    assert round(found["last_item_ties"], 3) == 0.265
    assert round(found["leave_one_out.later"], 3) == 0.449
    assert found["global_temporal.later"] == 0
    assert (found["users"], found["items"], found["events"], found["repeats"], found["duplicates"]) == (
        2999,
        3615,
        487_650,
        0,
        0,
    )
    assert (found["rating_min"], found["rating_max"]) == (1, 5)
    assert found["3grams_lost"] > 0.99
    assert data_check.SUPPORT == 5


def test_baskets_and_what_of_them_was_bought_before():
    """{a, b}, {a, c, c}, {c} and {a}: of the four events after a user's first basket a and the last c were
    bought before; c twice in one basket was not."""
    s = replace(of_items("abaccc", "a"), baskets=np.array([0, 0, 1, 1, 1, 2, 3]))
    found = check(s)
    assert (found["baskets"], found["baskets_mean"]) == (4, 2.0)
    assert (found["basket_size_max"], found["basket_size_median"]) == (3, 1.5)
    assert found["basket_repeats"] == pytest.approx(2 / 4)
    assert found["last_basket.validation_repeats"] == pytest.approx(1 / 2)
    assert found["last_basket.test_repeats"] == 1.0
    assert "baskets" not in check(of_items("abc", "ab"))
