"""Models with default settings beside popularity and the Markov chain, on small logs and larger ones.

    python benchmarks/defaults.py --json defaults.json [--data-dir ../shared/data] [--logs a,b] [--models a,b]
                                  [--markdown defaults.md]

Leave one out: the default settings choose their epochs on validation, and the test queries are asked once,
after training. All models of a log have the same filter of seen items: on for ratings and purchases, off for
clicks, which come back to what they had. The made-up logs are ``seqrec.testing.markov_chain`` of 50 items, in
which 9 of 10 events follow from the one before: five of each size, seeds 0 to 4. Training has seed 0. The
table has NDCG@10 on test, and its ratio to the better of popularity and Markov, as means over the logs of a
name.

A run that is in the JSON file already is not run again; one that was stopped goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from seqrec import models, testing
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import Sequences
from seqrec.evaluation import metrics, ranking
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.tables import Table, fraction

BASELINES = ("popularity", "markov")
MODELS = ("gru4rec", "sasrec", "hrm", "fpmc")
SEEDS = range(5)  # of the made-up logs


def _table(path: Path, users: str = "user_id", **reading: Any) -> Sequences:
    frame = pl.read_csv(path, separator="\t", **reading).rename({users: "user_id"})
    return Interactions.from_frame(frame.select("user_id", "item_id", "timestamp")).sequences()


def _ml_100k(data: Path) -> Sequences:
    columns = ["user_id", "item_id", "rating", "timestamp"]
    return _table(data / "ml-100k/u.data", has_header=False, new_columns=columns)


def _beauty(data: Path) -> Sequences:
    rows = [line.split() for line in (data / "beauty/Beauty.txt").read_text().splitlines()]
    users = [user for user, *items in rows for _ in items]
    items = [item for _, *items in rows for item in items]
    return Interactions.from_frame(pl.DataFrame({"user_id": users, "item_id": items})).sequences()


REAL: dict[str, tuple[Callable[[Path], Sequences], bool]] = {
    "ml-100k": (_ml_100k, True),
    "yoochoose-clicks": (
        lambda data: _table(data / "yoochoose-clicks/events.tsv.gz", users="session_id"),
        False,
    ),
    "games": (lambda data: _table(data / "games/events.tsv.gz"), True),
    "beauty": (_beauty, True),
}
"""How each log is read, and whether seen items are filtered."""
MADE_UP = {"chain-1000x10": (1000, 10), "chain-200x6": (200, 6)}
"""Users and events of each."""
LOGS = (*MADE_UP, *REAL)


def read(log: str, seed: int, data: Path) -> tuple[Sequences, bool]:
    """The log, and whether seen items are filtered."""
    if log in REAL:
        reader, filter_seen = REAL[log]
        return reader(data), filter_seen
    users, length = MADE_UP[log]
    return testing.markov_chain(users, length, items=50, seed=seed), True


def run(log: str, seed: int, name: str, data: Path, checkpoint: Path) -> dict[str, Any]:
    """Trains a model with default settings and asks it."""
    sequences, filter_seen = read(log, seed, data)
    split = leave_one_out(sequences)
    cls = models.get(name)
    settings = {"train": {"filter_seen": filter_seen}} if "train" in cls.sections else {}
    begin = time.perf_counter()
    model = cls(**settings).fit(
        split.without_test(), device="cpu", checkpoint=checkpoint, baselines=False, progress=name in MODELS
    )
    report = model.fit_report

    def ndcg(queries: Any) -> float:
        ranks = ranking.rank(model, split, queries, lists=False).headline(filter_seen)
        return float(metrics.ndcg(ranks, 10).mean())

    found = {
        "log": log,
        "seed": seed,
        "model": name,
        "filter_seen": filter_seen,
        "train_positions": split.train_positions,
        "validation": ndcg(split.validation),
        "test": ndcg(split.test),
        "seconds": time.perf_counter() - begin,
        "train_seconds": report.train_seconds,
        "threads": torch.get_num_threads(),
        "plan": report.plan,
        "epochs": report.epochs,
        "best_epoch": report.best_epoch,
        "updates": report.updates,
    }
    checkpoint.unlink(missing_ok=True)
    return found


def table(found: list[dict[str, Any]]) -> Table:
    """A row a log and model: means over the log's seeds."""
    by_key = {(one["log"], one["seed"], one["model"]): one for one in found}
    rows = []
    for log in LOGS:
        for name in (*BASELINES, *MODELS):
            own = [one for one in found if (one["log"], one["model"]) == (log, name)]
            if not own:
                continue
            row = {
                "log": log,
                "logs": len(own),
                "model": name,
                "NDCG@10": float(np.mean([one["test"] for one in own])),
                "on validation": float(np.mean([one["validation"] for one in own])),
            }
            beside = [[by_key.get((log, one["seed"], base)) for base in BASELINES] for one in own]
            if name in MODELS and all(None not in bases for bases in beside):
                best = [max(base["test"] for base in bases if base) for bases in beside]
                row["of the better baseline"] = float(
                    np.mean([one["test"] / b for one, b in zip(own, best, strict=True)])
                )
            if name in MODELS:
                row["batch"] = own[0]["plan"]["batch_positions"]
                row["updates"] = int(np.mean([one["updates"] for one in own]))
                row["train seconds"] = float(np.mean([one["train_seconds"] for one in own]))
            rows.append(row)
    columns = ["log", "logs", "model", "NDCG@10", "on validation", "of the better baseline", "batch"]
    columns += ["updates", "train seconds"]
    show: dict[str, Callable[[Any], str]] = {
        "NDCG@10": fraction,
        "on validation": fraction,
        "of the better baseline": lambda ratio: f"{ratio:.3f}",
        "updates": lambda updates: f"{updates:,}",
        "train seconds": lambda seconds: f"{seconds:,.0f}",
    }
    return Table("Default settings", columns, rows, formats=show)


def main() -> None:
    """Runs what is not in the JSON file yet, and prints the table of all that is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="results, read and written")
    parser.add_argument("--markdown", type=Path, help="the table")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(os.environ.get("SEQREC_SHARED_DATA", "../shared/data"))
    )
    parser.add_argument("--logs", default=",".join(LOGS))
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    for log in arguments.logs.split(","):
        for name in (*BASELINES, *arguments.models.split(",")):
            for seed in SEEDS if log in MADE_UP else (0,):
                if any((one["log"], one["seed"], one["model"]) == (log, seed, name) for one in found):
                    continue
                checkpoint = arguments.json.with_name(
                    f".{arguments.json.stem}-{log}-{name}-{seed}.safetensors"
                )
                found.append(run(log, seed, name, arguments.data_dir, checkpoint))
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    made = table(found)
    made.print()
    if arguments.markdown is not None:
        arguments.markdown.write_text(made.markdown() + "\n")


if __name__ == "__main__":
    main()
