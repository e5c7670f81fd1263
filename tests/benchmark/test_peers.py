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


def test_this_library_answers_what_is_asked(race: Any, tmp_path: Path) -> None:
    exchange = race.exchange
    user = np.repeat(np.arange(8), 12)
    item = (np.arange(96) + user) % 10
    np.savez(tmp_path / "events.npz", user=user, item=item)
    request = exchange.Request(str(tmp_path), 8, 10, minutes=0.01, width=8, length=12, k=3)
    (tmp_path / "request.json").write_text(json.dumps(race.asdict(request)))
    subprocess.run([sys.executable, PEERS / "with_seqrec.py", tmp_path / "request.json"], check=True)
    found = json.loads((tmp_path / "answer.json").read_text())
    assert found["positions"] > 0
    assert found["train_seconds"] > 0
    assert found["peak_mib"] > 50
    lists = np.load(tmp_path / "lists.npy")
    assert lists.shape == (8, 3)
    for one, best in enumerate(lists):
        assert not set(best[best >= 0]) & set(item[user == one])


def test_the_table_has_ratios_of_medians(race: Any) -> None:
    def side(speed: float, memory: float) -> dict[str, Any]:
        metrics = {"ndcg@10": {"mean": 0.1, "low": 0.0, "high": 0.2}}
        figures = {"positions_per_second": speed, "peak_mib": memory, "recommend_seconds": 1.0}
        return {**figures, "one_history_ms": memory / 100, "validation": metrics, "version": "1.0"}

    shared = {"library": "other", "protocol": "p", "settings": {"minutes": 2}, "threads": 1, "note": "busy"}
    shared |= {"hardware": "a machine", "date": "2026-12-01"}
    results = [{**shared, "ours": side(s, 100), "theirs": side(10, 300)} for s in (20, 70, 30)]
    row = race.table(results).rows[0]
    assert row["library"] == "other 1.0"
    assert row["rounds"] == 3
    assert row["positions/s, ours / theirs"] == 3
    assert row["peak memory, theirs / ours"] == 3
    assert row["lists of all users, theirs / ours"] == 1
    assert "a machine, 2026-12-01, busy" in race.table(results).notes
