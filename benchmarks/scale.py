"""Time and memory by the size of the catalogue; and two processes beside one.

    python benchmarks/scale.py items [--items 3416 100000 1000000 5000000] [--events 1000000] [--table jpq]
                               [--write FILE]
    python benchmarks/scale.py processes [--items 100000] [--events 2000000] [--rounds 3] [--write FILE]

    items      SASRec (2 blocks, 64 wide, windows of 50) with 2,048 shared negatives, whose tables adagrad
               trains by rows, on one thread, an epoch with a checkpoint; each size in a process of its own.
               Speeds are positions a processor second; the first size is the reference. With --table jpq
               items share parts of their vectors (RecJPQ), and adamw trains all: no table has rows then.
    processes  An epoch of GRU4Rec (64 wide, 128 units, lanes of 8 steps) with 2,048 shared negatives and 2
               streams, by one process and by two in turns, each with one thread that is pinned to a core:
               wall clock.

The logs are made up: users of 50 events, items by a power law (the r-th most popular has a share proportional
to 1 / r). Memory is the peak of the process, log included. ``large_log.py`` has logs of 100 million events.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 50


def split_of(items: int, events: int) -> Any:
    """A made-up log, split leave-one-out."""
    from seqrec.data.catalogue import Catalogue
    from seqrec.data.sequences import Sequences
    from seqrec.splitting import leave_one_out

    rng = np.random.default_rng(0)
    users = max(1, events // LENGTH)
    shares = np.cumsum(1.0 / np.arange(1, items + 1))
    found = np.searchsorted(shares, rng.random(users * LENGTH) * shares[-1], side="right")
    flat = rng.permutation(items).astype(np.int32)[found.clip(max=items - 1)]
    offsets = np.arange(users + 1, dtype=np.int64) * LENGTH
    return leave_one_out(Sequences(flat, offsets, Catalogue(np.arange(items)), Catalogue(np.arange(users))))


def peak_gib() -> float:
    """Peak resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("no VmHWM in /proc/self/status")


TRAIN = {"epochs": 1, "batch_positions": 2048, "tables": {"optimizer": "adagrad", "learning_rate": 0.03}}
SAMPLED = {"loss": "sampled_softmax", "negatives": {"count": 2048}}


def of_items(items: int, events: int, queries: int, item_table: str | None) -> dict[str, float]:
    """What one size takes, in this process."""
    import torch

    import seqrec
    from seqrec.evaluation import ranking

    torch.set_num_threads(1)
    split = split_of(items, events)
    train = TRAIN if item_table is None else {k: v for k, v in TRAIN.items() if k != "tables"}
    model = seqrec.SASRec(width=64, blocks=2, length=LENGTH, **SAMPLED, train=train, item_table=item_table)
    no_validation = split.validation.select(np.arange(0))
    from dataclasses import replace

    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        model.fit(
            replace(split, validation=no_validation),
            progress=False,
            threads=1,
            checkpoint=Path(folder) / "checkpoint.safetensors",
        )
        trained = time.process_time() - begin
        some = split.test.select(np.arange(min(queries, len(split.test))))
        begin = time.process_time()
        ranking.rank(model, split, some)
        ranked = time.process_time() - begin
        histories = [split.sequences.of(u)[-20:].tolist() for u in range(30)]
        model.recommend(histories[:1])
        each = []
        for history in histories:
            begin = time.process_time()
            model.recommend([history])
            each.append(time.process_time() - begin)
        begin = time.process_time()
        model.save(Path(folder) / "model")
        saved = time.process_time() - begin
    return {
        "epoch, s": trained,
        "positions/s": split.train_positions / trained,
        "evaluate, ms/query": 1000 * ranked / len(some),
        "recommend, ms": 1000 * float(np.median(each)),
        "save, s": saved,
        "item table, MB": sum(
            t.numel() * t.element_size() / 1e6 for k, t in model.network.state_dict().items() if "items." in k
        ),
        "peak, GiB": peak_gib(),
    }


def of_processes(items: int, events: int) -> None:
    """An epoch, in one of the processes that share it."""
    import torch

    import seqrec
    from seqrec import processes

    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["LOCAL_RANK"])]})
    torch.set_num_threads(1)
    from dataclasses import replace

    split = split_of(items, events)
    split = replace(split, validation=split.validation.select(np.arange(0)))
    with processes.joined():
        model = seqrec.GRU4Rec(
            width=64, hidden=128, steps=8, **SAMPLED, train=TRAIN | {"streams": 2, "batch_positions": 4096}
        )
        model.fit(split, progress=False, threads=1)
        report = model.fit_report
        if processes.first():
            weights = sum(float(p.detach().double().abs().sum()) for p in model.network.parameters())
            speed = report.curve[0]["positions_per_second"]
            print(
                json.dumps(
                    {"seconds": report.curve[0]["positions"] / speed, "positions/s": speed, "sum": weights}
                )
            )


def json_of(command: list[Any]) -> dict[str, float]:
    """The last line that a program prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("items", "processes"))
    parser.add_argument("--items", type=int, nargs="+")
    parser.add_argument("--events", type=int)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--table", choices=("jpq",), help="how the vectors of items are stored")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", help="also write the table (.md, .csv or .json)")
    a = parser.parse_args()
    by_items = a.what == "items"
    sizes = a.items or ([3_416, 100_000, 1_000_000, 5_000_000] if by_items else [100_000])
    events = a.events or (1_000_000 if by_items else 2_000_000)
    if a.one and by_items:
        print(json.dumps(of_items(sizes[0], events, a.queries, a.table)))
        return
    if a.one:
        of_processes(sizes[0], events)
        return

    from seqrec.benchmark import provenance
    from seqrec.tables import Table

    rows: list[dict[str, Any]] = []
    for items in sizes:
        own = [__file__, a.what, "--one", "--items", items, "--events", events, "--queries", a.queries]
        own += ["--table", a.table] if a.table else []
        if by_items:
            found = json_of([sys.executable, *own])
            speed = found["positions/s"] / (rows[0]["positions/s"] if rows else found["positions/s"])
            rows.append({"items": items, **found, "of the first": speed})
            continue
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        of_counts: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for _ in range(a.rounds):
            for count, measured in of_counts.items():
                measured.append(json_of([*run, f"--nproc-per-node={count}", *own]))
        seconds = {count: float(np.median([m["seconds"] for m in ms])) for count, ms in of_counts.items()}
        equal = len({m["sum"] for ms in of_counts.values() for m in ms}) == 1
        for count, taken in seconds.items():
            rows.append(
                {
                    "items": items,
                    "processes": count,
                    "epoch, s": taken,
                    "times as fast": seconds[1] / taken,
                    "equal weights": equal,
                }
            )
    notes = [
        f"{events:,} events; {provenance.hardware()}, a thread a process, commit {provenance.commit()}.",
    ]
    formats: dict[str, Any] = {"items": lambda n: f"{n:,}"}
    table = Table(f"Scale: {a.what}", list(rows[0]), rows, notes, formats)
    table.print()
    if a.write:
        table.write(a.write)


if __name__ == "__main__":
    main()
