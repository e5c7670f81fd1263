from __future__ import annotations

from hypothesis import given
from random_sequences import build, logs, of_items, plain

from seqrec.splitting import leave_one_out


def obvious(length: int) -> dict[str, list]:
    if length < 3:
        return {"train": list(range(length)), "validation": [], "test": []}
    return {
        "train": list(range(length - 2)),
        "validation": [(length - 2, length - 2)],
        "test": [(length - 1, length - 1)],
    }


@given(logs)
def test_against_the_obvious(log):
    assert plain(leave_one_out(build(log))) == [obvious(len(events)) for events in log]


def test_worked_example():
    split = leave_one_out(of_items("abcdefg", "abcd", "ab"))
    assert plain(split) == [
        {"train": [0, 1, 2, 3, 4], "validation": [(5, 5)], "test": [(6, 6)]},
        {"train": [0, 1], "validation": [(2, 2)], "test": [(3, 3)]},
        {"train": [0, 1], "validation": [], "test": []},
    ]
    assert plain(split.retrain()) == [
        {"train": [0, 1, 2, 3, 4, 5], "validation": [(5, 5)], "test": [(6, 6)]},
        {"train": [0, 1, 2], "validation": [(2, 2)], "test": [(3, 3)]},
        {"train": [0, 1], "validation": [], "test": []},
    ]
    assert not split.cold_targets_miss


def test_ml_1m_has_a_query_of_each_kind_for_every_user(ml_1m_sequences):
    split = leave_one_out(ml_1m_sequences)
    assert len(split.validation) == len(split.test) == 6040
    assert int(split.train_events.sum()) == 999_610 - 2 * 6040
