"""Result files as a benchmark would write them, of models with known quality."""

import json
from pathlib import Path

import numpy as np

from seqrec.benchmark import results
from seqrec.evaluation import comparison, metrics
from seqrec.evaluation.ranking import Ranks

USERS, ITEMS = 300, 1000


def ranks_of(scale: float, seed: int) -> Ranks:
    """Two queries a user; small scale, small ranks. The users are alike for all models."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(99).random(2 * USERS)
    filtered = np.clip(
        (scale * hard**2 * ITEMS * rng.uniform(0.9, 1.1, 2 * USERS)).astype(np.int64), 1, ITEMS
    )
    none = np.empty((0, 0), dtype=np.int32)
    return Ranks(
        filtered,
        filtered + 3,
        none,
        none,
        np.zeros_like(filtered),
        np.zeros_like(filtered),
        np.repeat(np.arange(USERS), 2),
    )


def write_results(folder: Path, protocol: str = "made-up-v1") -> None:
    for model, scale in (("good", 0.2), ("similar", 0.201), ("poor", 1.0)):
        for seed in (0, 1):
            ranks = ranks_of(scale, seed)

            def measure(values, users=ranks.users):
                return comparison.intervals(
                    comparison.by_user(metrics.from_ranks(values), users), resamples=50
                )

            neural = model != "poor"
            content = {
                "protocol": protocol,
                "title": "Made up",
                "model": model,
                "seed": seed,
                "settings": {"model": model},
                "filter_seen": True,
                "headline": ["ndcg@10", "recall@10"],
                "metrics": measure(ranks.filtered),
                "metrics_unfiltered": measure(ranks.unfiltered),
                "validation_metrics": measure(ranks.filtered),
                "train_seconds": 2.0 + seed,
                "peak_memory_mb": 500.0,
                "positions_per_second": 1000.0 if neural else None,
                "curve": [{"epoch": e, "loss": 1.0, "ndcg@10": 0.1 * e, "seconds": 1.0} for e in (1, 2)]
                if neural
                else [],
                "lists": {"coverage@10": 0.2 * scale},
                "items": ITEMS,
                "users": USERS,
                "queries": 2 * USERS,
                "ties": 0,
                "split_hash": "0" * 16,
                "commit": "c0ffee",
                "hardware": "a machine",
                "data": {"name": "made-up", "revision": "first", "source": "nowhere"},
                "date": "2026-01-02T03:04:05Z",
                "by_history_length": results.by_bin(
                    np.arange(2 * USERS) + 1, ranks.filtered, ["ndcg@10", "recall@10"]
                ),
                "by_item_popularity": results.by_bin(
                    np.arange(2 * USERS), ranks.filtered, ["ndcg@10", "recall@10"]
                ),
                "examples": [
                    {
                        "user": "7",
                        "history": ["A <1>"],
                        "recommended": ["B & C", "D"],
                        "target": "D",
                        "rank": 2,
                    }
                ],
                "ranks": results.pack_ranks(ranks),
            }
            path = folder / protocol / model / f"seed-{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
