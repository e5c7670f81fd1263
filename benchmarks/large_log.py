"""From a large log to sequences on disk: seconds, peak memory and bytes per event.

    python benchmarks/large_log.py --events 100000000 --users 1000000 --items 500000 --folder /tmp/large_log

Makes a synthetic log (Parquet, written in chunks) and converts it with ``seqrec.sources.preparing.prepare``,
each in a process of its own, so that each has its own peak. Items follow a power law (the r-th most popular
has a share proportional to 1 / r), users a log-normal activity; times rise through the log, out of order
within a chunk.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from seqrec import storage
from seqrec.sources.preparing import prepare

CHUNK = 1_000_000
START, SECONDS = 1_500_000_000, 2 * 365 * 86_400
LIMIT_GIB = 12


def generate(path: Path, events: int, users: int, items: int, seed: int) -> None:
    """Writes the log a chunk at a time."""
    rng = np.random.default_rng(seed)
    item_shares = np.cumsum(1.0 / np.arange(1, items + 1))
    user_shares = np.cumsum(rng.lognormal(sigma=1.0, size=users))
    # so that ids tell nothing of popularity
    item_ids, user_ids = rng.permutation(items), rng.permutation(users)
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])
    with storage.open_write(path) as stream, pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for first in range(0, events, CHUNK):
            n = min(CHUNK, events - first)
            user = user_ids[np.searchsorted(user_shares, rng.random(n) * user_shares[-1], side="right")]
            item = item_ids[np.searchsorted(item_shares, rng.random(n) * item_shares[-1], side="right")]
            at = START + (SECONDS * (first + n * rng.random(n)) / events).astype(np.int64)
            writer.write_table(pa.table([user, item, at], schema=schema))


def peak_gib() -> float:
    """Peak resident memory of this process, not of the one that started it (which ``ru_maxrss`` may count
    in)."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (2**30 if sys.platform == "darwin" else 2**20)


def on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())


def stage(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Runs one stage in this process and measures it."""
    log, out = args.folder / "log.parquet", args.folder / "sequences"
    started = time.perf_counter()
    if name == "generate":
        generate(log, args.events, args.users, args.items, args.seed)
    else:
        prepare(log, out)
    seconds = time.perf_counter() - started
    size = on_disk(log if name == "generate" else out)
    return {"seconds": seconds, "peak_gib": peak_gib(), "bytes": size, "bytes_per_event": size / args.events}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("events", 100_000_000), ("users", 1_000_000), ("items", 500_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--folder", type=Path, default=Path("large_log"), help="where the log and the sequences go"
    )
    parser.add_argument(
        "--stage",
        choices=("generate", "convert"),
        help="only this stage, in this process, its figures as JSON",
    )
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(stage(args.stage, args)))
        return 0
    print(f"{args.events:,} events, {args.users:,} users, {args.items:,} items")
    within = True
    for name in ("generate", "convert"):
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--stage", name], stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            return done.returncode
        got = json.loads(done.stdout)
        print(
            f"{name:>9}  {got['seconds']:8.1f} s  {args.events / got['seconds'] / 1e6:6.2f} million "
            "events/s  "
            f"peak {got['peak_gib']:5.2f} GiB  {got['bytes_per_event']:5.1f} bytes per event on disk"
        )
        within = within and got["peak_gib"] <= LIMIT_GIB
    if not within:
        print(f"over the limit of {LIMIT_GIB} GiB", file=sys.stderr)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
