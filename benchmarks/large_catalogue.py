"""Time and memory of recommending and evaluating with a large catalogue, each in a process of its own.

    python benchmarks/large_catalogue.py [--items 1000000] [--queries 512] [--write catalogue.md]

    recommend   the 10 best of all items for each history, seen ones filtered
    one query   the same of one history at a time, in process: the median of 30
    evaluate    the rank of each target, filtered and not, and both lists of 20
    whole rows  the same evaluation with all scores of the queries at once, as a reference: one multiply, the
                counts, two top-k

The model is an untrained GRU4Rec, 64 wide, 128 units; histories have 20 made-up items. Memory is the peak of
the process above what it held with the model ready.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

STAGES = ("recommend", "one query", "evaluate", "whole rows")


def memory(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key} in /proc/self/status")


def untrained(items: int, queries: int) -> Any:
    """A model and a split of as many users."""
    from seqrec.models.gru4rec import GRU4Rec
    from seqrec.splitting.leave_one_out import leave_one_out
    from seqrec.testing import sequences_of

    rng = np.random.default_rng(0)
    split = leave_one_out(sequences_of([rng.integers(0, items, 22) for _ in range(queries)], items))
    model = GRU4Rec(width=64, hidden=128)
    model.popularity, model.trained_users = split.item_counts, split.trained_users()
    model.item_catalogue, model.sequences = split.sequences.item_catalogue, split.sequences
    model.known_stops = split.sequences.offsets[1:].copy()
    torch.manual_seed(0)
    model.network = model.build(items, queries)
    model.network.eval()
    return model, split


@torch.no_grad()
def whole_rows(model: Any, split: Any) -> None:
    """Every score of every query at once."""
    from seqrec.topk import distinct_seen
    from seqrec.training import losses

    query, targets = split.query(split.test), torch.from_numpy(split.targets(split.test).astype(np.int64))
    scores = losses.scores(model.states(query), model.network.item_vectors())
    own = scores.gather(1, targets[:, None])
    assert torch.isfinite(own).all()
    assert not torch.isnan(scores).any()
    (scores >= own).sum(1)
    (scores == own).sum(1)
    torch.topk(scores, 36)
    row, item = (torch.from_numpy(x) for x in distinct_seen(query))
    scores[row, item] = -torch.inf
    torch.topk(scores, 36)


def measure(stage: str, items: int, queries: int) -> dict[str, float]:
    """Seconds (the median of three; of single queries that of thirty) and MiB of a stage, in this process."""
    from seqrec.evaluation import ranking
    from seqrec.training.memory import keep_freed_memory

    keep_freed_memory()
    model, split = untrained(items, queries)
    histories = split.sequences.item_catalogue.decode(split.sequences.items).to_list()
    raw = [histories[begin : begin + 20] for begin in range(0, len(histories), 22)]
    work = {
        "recommend": lambda: model.recommend(raw, k=10),
        "one query": lambda: model.recommend(raw[:1], k=10),
        "evaluate": lambda: ranking.rank(model, split, split.test),
        "whole rows": lambda: whole_rows(model, split),
    }[stage]
    model.recommend([raw[0]])  # the catalogue's own index is made once
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    seconds = []
    for _ in range(30 if stage == "one query" else 3):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return {"seconds": float(np.median(seconds)), "MiB": memory("VmHWM") - before}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 500_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--write", help="also write the table (.md, .csv or .json)")
    a = parser.parse_args()
    if a.stage:
        print(json.dumps(measure(a.stage, a.items[0], a.queries)))
        return

    from seqrec.benchmark import provenance
    from seqrec.tables import Table

    rows = []
    for items in a.items:
        of_stages = {}
        for stage in STAGES:
            command = [sys.executable, __file__, "--items", items, "--queries", a.queries, "--stage", stage]
            done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
            of_stages[stage] = json.loads(done.stdout)
        for stage, found in of_stages.items():
            reference = of_stages["whole rows"]["seconds"]
            ratio = found["seconds"] / reference if stage == "evaluate" else None
            rows.append({"items": items, "what": stage, **found, "of whole rows": ratio})
    notes = [
        f"{a.queries} histories of 20 items; {provenance.hardware()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, commit {provenance.commit()}."
    ]
    formats: dict[str, Any] = {"items": lambda n: f"{n:,}", "MiB": lambda v: f"{v:,.0f}"}
    columns = ["items", "what", "seconds", "MiB", "of whole rows"]
    table = Table("A large catalogue", columns, rows, notes, formats)
    table.print()
    if a.write:
        table.write(a.write)


if __name__ == "__main__":
    main()
