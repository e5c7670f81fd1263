"""Speed and memory of recommending at large: a Parquet file of histories in, one of recommendations out.

    python benchmarks/batch_recommend.py --data-dir DATA [--histories 100000 1000000] [--write batch.md]

The histories have 50 events, drawn at random from the users of MovieLens-1M (50 events in a row); the models
have that catalogue, and weights as before training, on which no speed depends:

    hrm      64 wide, the last 10 items
    sasrec   2 blocks of 128, length 200

Each is asked for the exact best 20, seen items filtered, in a process of its own. Memory is its peak above
what it held with the model ready. The limit is the float32 speed of large matrix multiplies, measured in the
same process before and after, over the multiplications of a history.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

EVENTS = 50
K = 20
MODELS: dict[str, dict[str, Any]] = {
    "hrm": {"width": 64, "recent": 10},
    "sasrec": {"width": 128, "blocks": 2, "heads": 2, "length": 200},
}


def flops(name: str, items: int) -> float:
    """Multiplications and additions of a history: the network, and the scores of all items."""
    width = MODELS[name]["width"]
    scores = 2 * width * items
    if name == "hrm":
        return scores
    per_token = 2 * 6 * width**2  # queries, keys, values, output and two of the feed-forward layer
    attended = 2 * 2 * width * (EVENTS + 1) / 2
    last = 2 * 4 * width**2 + 2 * 2 * width * EVENTS + EVENTS * 2 * 2 * width**2  # of one state a history
    return scores + EVENTS * (per_token + attended) + last


def untrained(name: str, data_dir: str | None) -> Any:
    """A model of MovieLens-1M's catalogue, as before training."""
    import speed

    from seqrec import models

    split = speed.split_of(data_dir)
    model: Any = models.get(name)(**MODELS[name])
    model.popularity, model.trained_users = split.item_counts, split.trained_users()
    model.item_catalogue, model.sequences = split.sequences.item_catalogue, split.sequences
    model.known_stops = split.known_stops
    torch.manual_seed(0)
    model.network = model.build(len(split.sequences.item_catalogue), split.sequences.users)
    model.network.eval()
    return model


def write_histories(path: str, sequences: Any, histories: int) -> None:
    """Some events in a row of random users, as raw ids."""
    import pyarrow as pa
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    long = np.flatnonzero(sequences.lengths >= EVENTS)
    ids = sequences.item_catalogue.ids.to_numpy()
    writer = None
    for begin in range(0, histories, 100_000):
        users = rng.choice(long, min(100_000, histories - begin))
        start = sequences.offsets[users] + rng.integers(0, sequences.lengths[users] - EVENTS + 1)
        items = ids[sequences.items[start[:, None] + np.arange(EVENTS)]].ravel()
        lists = pa.ListArray.from_arrays(np.arange(len(users) + 1, dtype=np.int32) * EVENTS, items)
        table = pa.table({"user_id": np.arange(begin, begin + len(users)), "item_id": lists})
        writer = writer or pa.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def measure(name: str, data_dir: str | None, histories: int) -> dict[str, float]:
    """Histories a second, peak MiB and the limit, in this process."""
    import speed
    from large_catalogue import memory

    from seqrec.serving import batch

    model = untrained(name, data_dir)
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/histories.parquet", f"{folder}/recommendations.parquet"
        write_histories(f"{folder}/few.parquet", model.sequences, 10_000)
        batch.recommend(model, f"{folder}/few.parquet", target, k=K, progress=False)
        write_histories(source, model.sequences, histories)
        limit = speed.multiply_limit()
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        begin = time.perf_counter()
        batch.recommend(model, source, target, k=K, progress=False)
        seconds = time.perf_counter() - begin
    peak = memory("VmHWM") - before
    limit = max(limit, speed.multiply_limit())
    per_history = flops(name, len(model.item_catalogue))
    return {
        "histories/s": histories / seconds,
        "MiB": peak,
        "GFLOP/s of the limit": limit / 1e9,
        "share": histories / seconds * per_history / limit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument("--histories", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", help="also write the table (.md, .csv or .json)")
    a = parser.parse_args()
    if a.one:
        logging.disable()
        print(json.dumps(measure(a.models[0], a.data_dir, a.histories[0])))
        return

    from seqrec.benchmark import provenance
    from seqrec.tables import Table

    rows = []
    for name in a.models:
        for histories in a.histories:
            command = [sys.executable, __file__, "--one", "--models", name, "--histories", str(histories)]
            command += ["--data-dir", a.data_dir] if a.data_dir else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"model": name, "histories": histories, **json.loads(done.stdout)})
            print(rows[-1], file=sys.stderr, flush=True)
    notes = [
        f"Histories of {EVENTS} events of MovieLens-1M, the exact {K} best, Parquet to Parquet; "
        f"{provenance.hardware()}, {torch.get_num_threads()} threads, torch {torch.__version__}, commit "
        f"{provenance.commit()}."
    ]
    formats: dict[str, Any] = {
        "histories": lambda n: f"{n:,}",
        "histories/s": lambda v: f"{v:,.0f}",
        "MiB": lambda v: f"{v:,.0f}",
        "GFLOP/s of the limit": lambda v: f"{v:,.0f}",
        "share": lambda v: f"{v:.0%}",
    }
    columns = ["model", "histories", "histories/s", "MiB", "GFLOP/s of the limit", "share"]
    table = Table("Recommending at large", columns, rows, notes, formats)
    table.print()
    if a.write:
        table.write(a.write)


if __name__ == "__main__":
    main()
