"""The race beside other libraries (benchmarks/peers), as far as it runs without them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with its neighbours."""
    monkeypatch.syspath_prepend(PEERS)
    import race

    return race


def test_a_library_is_given_the_events_as_they_are(race: Any, tmp_path: Path, monkeypatch: Any) -> None:
    user, item = np.array([0, 0, 2, 2, 2]), np.array([3, 1, 4, 1, 5])
    request = race.exchange.Request(str(tmp_path), 4, 6, minutes=1.5, gru4rec={"layers": [8]})
    monkeypatch.setattr(sys, "argv", ["with_one.py", str(request.write(user, item))])
    assert (found := race.exchange.read()) == request
    assert [x.tolist() for x in found.events()] == [user.tolist(), item.tolist()]
    assert [x.tolist() for x in found.histories()] == [[3, 1], [], [4, 1, 5], []]


def test_lists_are_made_on_no_ones_time(race: Any, tmp_path: Path, monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(race.exchange.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(race.exchange.time, "process_time", lambda: now[0] / 2)

    def lists() -> np.ndarray:
        now[0] += 1000
        return np.zeros((1, 3))

    request = race.exchange.Request(str(tmp_path), 1, 3, minutes=1, check_minutes=0.4)
    clock = race.exchange.Clock(request, lists)
    clock.start()
    over = []
    for _ in range(6):
        now[0] += 10
        over.append(clock.update(5))
    assert over == [False] * 5 + [True]
    clock.check()
    assert [check["seconds"] for check in clock.checks] == [30, 50, 60]
    assert [check["processor_seconds"] for check in clock.checks] == [15, 25, 30]
    clock.answer("1.0", 2.0)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["train_seconds"] == 60
    assert answer["positions"] == 30
    assert answer["positions_per_second"] == 25 / 50
    assert answer["recommend_seconds"] == 1000
    assert (tmp_path / "lists-2.npy").exists()


def test_this_library_answers_what_is_asked(race: Any, tmp_path: Path) -> None:
    user = np.repeat(np.arange(8), 12)
    item = (np.arange(96) + user) % 10
    request = race.exchange.Request(
        str(tmp_path), 8, 10, epochs=2, check_minutes=1e-6, batch=4, width=8, length=12, k=3
    )
    path = request.write(user, item)
    subprocess.run([sys.executable, PEERS / "with_seqrec.py", path], check=True)
    found = json.loads((tmp_path / "answer.json").read_text())
    assert found["positions"] == 2 * 8 * 11  # nothing is held out
    assert found["epochs"] == 2
    assert 4 <= found["updates"] <= 6  # batches have about as many targets as four users
    assert found["peak_mib"] > 50
    assert found["versions"]["torch"]
    assert len(found["checks"]) > 1
    for number in range(len(found["checks"])):
        lists = np.load(tmp_path / f"lists-{number}.npy")
        assert lists.shape == (8, 3)
        for one, best in enumerate(lists):
            assert not set(best[best >= 0]) & set(item[user == one])


def turn(speed: float, memory: float, ndcg: float = 0.1) -> dict[str, Any]:
    """What a driver answers after two minutes, with half of its NDCG after one."""
    return {
        "version": "1.0",
        "versions": {"torch": "2"},
        "python": "3.11",
        "positions_per_second": speed,
        "positions_per_processor_second": 2 * speed,
        "train_seconds": 120.0,
        "peak_mib": memory,
        "recommend_seconds": 1.0,
        "one_history_ms": memory / 100,
        "validation": {"ndcg@10": {"mean": ndcg, "low": 0.0, "high": 0.2}},
        "checks": [{"seconds": 60.0, "ndcg@10": ndcg / 2}, {"seconds": 120.0, "ndcg@10": ndcg}],
    }


SHARED = {
    "library": "other",
    "protocol": "p",
    "users": None,
    "settings": {"minutes": 2, "epochs": None, "batch": 16, "model": "sasrec"},
    "threads": 1,
    "cores": [1],
    "note": "busy",
    "hardware": "a machine",
    "date": "2026-12-01",
    "commit": "0123456789abcdef",
}


def test_the_table_is_made_of_files(race: Any, tmp_path: Path) -> None:
    for number, speed in enumerate((20, 70, 30)):
        ours = [turn(speed - 5, 100), turn(speed + 5, 100)]
        result = {**SHARED, "round": number, "ours": ours, "theirs": turn(10, 300, 0.05)}
        (tmp_path / f"{number}.json").write_text(json.dumps(result))
    race.write_table(tmp_path, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert "cores 1, 2026-12-01, commit 0123456789, busy" in text
    row = race.table([json.loads(file.read_text()) for file in tmp_path.glob("*.json")]).rows[0]
    assert row["library"] == "other 1.0"
    assert row["rounds"] == 3
    assert row["positions/s, ours / theirs"] == 3
    assert row["positions a processor second, ours / theirs"] == 3
    assert row["peak memory, theirs / ours"] == pytest.approx(3)
    assert row["lists of all users, theirs / ours"] == 1
    assert row["time to ndcg@10, theirs / ours"] == "2.00, 2.00, 2.00"


def test_time_to_a_value_that_somebody_misses(race: Any) -> None:
    result = {"ours": [turn(1, 1, 0.1), turn(1, 1, 0.1)], "theirs": turn(1, 1, 0.05)}
    assert race.time_ratio(result, 0.1) == "> 1.00"
    assert race.time_ratio(result, 0.2) is None
    result = {"ours": [turn(1, 1, 0.1), turn(1, 1, 0.01)], "theirs": turn(1, 1, 0.05)}
    assert race.time_ratio(result, 0.05) == "not in each turn here"


def test_an_environment_that_cannot_be_made_says_why(race: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def create(folder: Path, with_pip: bool) -> None:
        (folder / "bin").mkdir(parents=True)
        pip = folder / "bin" / "pip"
        pip.write_text("#!/bin/sh\necho no such version >&2\nexit 1\n")
        pip.chmod(0o755)

    monkeypatch.setattr(race.venv, "create", create)
    assert race.install(tmp_path, ["rectools", "replay"]) == ["rectools", "replay"]
    assert "no such version" in (tmp_path / "replay" / "failed").read_text()
    assert not (tmp_path / "replay" / "installed").exists()
