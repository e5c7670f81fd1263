"""Files of one's own as a split."""

from pathlib import Path

import numpy as np
import pytest
from random_logs import write

from seqrec import read_log
from seqrec.errors import DataError, SettingsError
from seqrec.experiment.data import read_split
from seqrec.experiment.prepare import prepare_run
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.train import train
from seqrec.splitting import SplitSettings
from seqrec.splitting.files import from_logs

CASES = Path(__file__).parents[1] / "sources" / "cases_columns"
HEADER = "user_id,item_id,timestamp\n"


def raw(split, queries):
    """(user, history, target) of each query, as raw ids."""
    s = split.sequences
    return [
        (
            s.user_catalogue.ids[int(user)],
            s.item_catalogue.decode(s.items[s.offsets[user] : stop]).to_list(),
            s.item_catalogue.ids[int(s.items[target])],
        )
        for user, stop, target in zip(queries.users, queries.history_stops, queries.targets)
    ]


def test_train_and_test_files_are_a_split(caplog):
    given = {"name": "files", "train": str(CASES / "train.csv"), "test": str(CASES / "test.csv")}
    split, source, _ = read_split(RunSettings.of({"split": given}, ""))
    assert raw(split, split.test) == [(f"u{u}", ["i0", "i1", "i2", "i3"], "i4") for u in range(5)]
    assert raw(split, split.validation) == [(f"u{u}", ["i0", "i1", "i2"], "i3") for u in range(5)]
    assert split.train_events.sum() == 15
    assert split.retrain().train_events.sum() == 20
    assert split.settings == {**given, "validation": None}
    assert source == f"{given['train']}, {given['test']}"
    assert "no file validates, so the last training event of each user with at least 3 does: 5" in caplog.text
    assert "a leak" not in caplog.text
    logs = [read_log(given[name]) for name in ("train", "test")]
    assert from_logs(*logs).hash == split.hash
    assert split.without_test().sequences.events == 20


def test_a_file_may_validate_and_the_first_event_of_a_user_is_no_target(tmp_path):
    train_file = write(tmp_path, HEADER + "1,a,1\n1,b,0\n1,c,2\n2,a,1\n2,b,3\n", "train.csv")
    valid = write(tmp_path, HEADER + "1,d,4\n", "valid.csv")
    test = write(tmp_path, HEADER + "1,f,7\n1,e,6\n2,c,5\n3,a,1\n3,b,2\n", "test.csv")
    split = from_logs(read_log(train_file), read_log(test), read_log(valid))
    assert raw(split, split.validation) == [(1, ["b", "a", "c"], "d")]
    assert raw(split, split.test) == [
        (1, ["b", "a", "c", "d"], "e"),
        (1, ["b", "a", "c", "d", "e"], "f"),
        (2, ["a", "b"], "c"),
        (3, ["a"], "b"),
    ]
    assert split.train_events.sum() == 5
    assert split.retrain().train_events.sum() == 6


@pytest.mark.parametrize("times", [True, False])
def test_each_file_keeps_its_events_together_and_in_order(tmp_path, times):
    rng = np.random.default_rng(0)
    logs, expected = [], {u: [] for u in range(4)}
    for part in range(3):
        rows = [(int(u), int(i), int(t)) for u, i, t in rng.integers(0, [4, 9, 50], (20, 3))]
        text = "".join(f"{u},{i},{t + 1000 * part}\n" if times else f"{u},{i}\n" for u, i, t in rows)
        head = HEADER if times else "user_id,item_id\n"
        logs.append(read_log(write(tmp_path, head + text, f"{part}.csv")))
        for u in range(4):
            own = [(t, i) for v, i, t in rows if v == u]
            expected[u] += [i for _, i in (sorted(own, key=lambda e: e[0]) if times else own)]
    split = from_logs(logs[0], logs[2], logs[1])
    s = split.sequences
    for u in range(4):
        user = s.user_catalogue.ids.to_list().index(u)
        assert s.item_catalogue.decode(s.of(user)).to_list() == expected[u]
    assert len(split.test) == 20
    assert (s.times is not None) == times


def test_histories_in_a_test_file_are_no_targets(tmp_path, caplog):
    caplog.set_level("INFO", logger="seqrec")
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    train_file = write(tmp_path, header + "1\t2\t3\n1\t2 3\t4\n2\t7\t8\n", "a.inter")
    valid = write(tmp_path, header + "1\t2 3 4\t5\n", "b.inter")
    test = write(tmp_path, header + "1\t2 3 4 5\t6\n2\t7 8\t9\n", "c.inter")
    split = from_logs(*(read_log(path) for path in (train_file, test, valid)))
    assert "9 events are in an earlier file too, at the same position: they are history" in caplog.text
    assert raw(split, split.validation) == [(1, [2, 3, 4], 5)]
    assert raw(split, split.test) == [(1, [2, 3, 4, 5], 6), (2, [7, 8], 9)]


def test_leaks_are_reported(tmp_path, caplog):
    train_file = write(tmp_path, HEADER + "1,a,1\n1,b,2\n1,c,9\n2,a,1\n2,b,2\n2,c,3\n", "train.csv")
    test = write(tmp_path, HEADER + "1,d,5\n2,c,3\n", "test.csv")
    from_logs(read_log(train_file), read_log(test))
    assert "a leak: 1 events of the validation or test file are in another file too" in caplog.text
    assert "such as user 2 and item 'c'" in caplog.text
    assert "a leak: 1 users have events in the test file that are earlier" in caplog.text
    assert "such as user 1" in caplog.text


def test_what_makes_no_split_of_files_is_refused(tmp_path):
    given = {"name": "files", "train": str(CASES / "train.csv"), "test": str(CASES / "test.csv")}
    with pytest.raises(SettingsError, match=r"split\.test: expected"):
        SplitSettings.of({"name": "files", "train": "train.csv"}, "split")
    with pytest.raises(SettingsError, match=r"data\.path: cannot be given, since split\.name is files"):
        RunSettings.of({"data": {"path": "log.csv"}, "split": given}, "").check_data()
    with pytest.raises(
        SettingsError, match=r"data\.min_user_count: cannot be given, since the split's files"
    ):
        read_split(RunSettings.of({"data": {"min_user_count": 3}, "split": given}, ""))
    with pytest.raises(SettingsError, match="split 'files': expected no other log"):
        SplitSettings.of(given, "split").apply(read_log(given["train"]).sequences())
    bare = write(tmp_path, "user_id,item_id\nu0,i4\n", "bare.csv")
    with pytest.raises(DataError, match="no column for timestamp"):
        from_logs(read_log(given["train"]), read_log(bare))
    new = write(tmp_path, HEADER + "u9,i4,5\n", "new.csv")
    with pytest.raises(DataError, match="expected at least one test query"):
        from_logs(read_log(given["train"]), read_log(new))


def test_a_run_trains_and_is_prepared_on_files(tmp_path):
    run = RunSettings.of(
        {
            "split": {"name": "files", "train": str(CASES / "train.csv"), "test": str(CASES / "test.csv")},
            "model": {"name": "markov"},
            "output": {"folder": str(tmp_path / "run")},
            "data": {"tie_order": "random"},
        },
        "",
    )
    train(run)
    assert (tmp_path / "run" / "model" / "model.json").exists()
    lines = prepare_run(run, str(tmp_path / "sequences"), str(tmp_path / "samples"))
    assert any("test.parquet: 5 rows" in line for line in lines), lines
