"""Who asks test queries, and with which filter."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqrec.errors import DataError
from seqrec.experiment import judge, train
from seqrec.experiment.settings import RunSettings

LOG = "user_id,item_id,timestamp\n" + "".join(
    f"{user},{item},{n}\n" for user in "uvwx" for n, item in enumerate("abca")
)
"""Everyone's last item is their first one again: under the filter all are misses."""


def recall(table, k: int = 5) -> float:
    return next(row["value"]["mean"] for row in table.rows if row["metric"] == f"recall@{k}")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


@pytest.mark.parametrize("own", [True, False])
def test_a_run_is_tested_again_with_the_filter_that_is_asked_for(own: bool, log: Path):
    out = log.with_name("out")
    content = {
        "data": {"path": str(log)},
        "model": {"name": "popularity"},
        "evaluate": {"metrics": ["recall@5"], "filter_seen": own},
        "output": {"folder": str(out)},
    }
    found = {filtered: float(not filtered) for filtered in (True, False)}
    assert recall(train.train(RunSettings.of(content, ""), progress=False)[1]) == found[own]
    assert recall(judge.evaluate(str(out))) == found[own]
    for asked in (True, False):
        assert recall(judge.evaluate(str(out), filter_seen=asked)) == found[asked]


@pytest.mark.parametrize("own", [True, False])
def test_lists_are_judged_with_the_filter_that_is_asked_for(own: bool, log: Path):
    """A list with items that were seen is right without the filter, and refused under it."""
    (log.with_name("own.yaml")).write_text(
        "name: own-v1\ntitle: A log of one's own\ndata: {name: log.csv, revision: today}\n"
        f"split: {{name: leave_one_out}}\nfilter_seen: {str(own).lower()}\n"
    )
    lists = log.with_name("lists.csv")
    lists.write_text("user_id,item_id,rank\n" + "".join(f"{user},a,1\n" for user in "uvwx"))
    arguments = str(lists), str(log.with_name("own.yaml")), str(log.parent)
    for asked in (None, True, False):
        if own if asked is None else asked:
            with pytest.raises(DataError, match="already in the history"):
                judge.judge(*arguments, filter_seen=asked)
        else:
            assert recall(judge.judge(*arguments, filter_seen=asked), 1) == 1
