"""Tables of samples of MovieLens-1M, and back to a log: seconds, rows, peak memory and bytes.

    python benchmarks/samples.py --data-dir ../shared/data/ml-1m --folder /tmp/samples

All 6,040 users under ``ml-1m-origin-v1``, 10 negatives a positive, shuffled; each stage in a process of its
own, whose seconds and peak count from its start: imports and reading the log are in them. The log that is
read back must give the split that was written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from large_log import on_disk, peak_gib

PROTOCOL = "ml-1m-origin-v1"
LIMIT_SECONDS, LIMIT_GIB = 30, 1.5


def write(args: argparse.Namespace) -> dict[str, float | str]:
    """``seqrec prepare --conf --samples`` as a call."""
    from seqrec.experiment import prepare, settings

    samples = {"negatives": args.negatives, "shuffle": not args.in_order}
    settings = settings.RunSettings.of(
        {"protocol": PROTOCOL, "data": {"folder": args.data_dir}, "samples": samples}, ""
    )
    prepare.prepare_run(settings, samples_folder=str(args.folder))
    about = json.loads((args.folder / "samples.json").read_text())
    return {"rows": about["rows"]["train"], "split": about["split_hash"], "bytes": on_disk(args.folder)}


def read(args: argparse.Namespace) -> dict[str, float | str]:
    from seqrec import read_log
    from seqrec.splitting import SplitSettings

    log = read_log(
        [args.folder / f"{name}.parquet" for name in ("train", "validation", "test")],
        items=args.folder / "item.parquet",
    )
    about = json.loads((args.folder / "samples.json").read_text())
    split = SplitSettings(**about["split"]).apply(log.sequences())
    return {
        "rows": sum(about["rows"].values()) - about["rows"]["item"],
        "split": split.hash,
        "bytes": on_disk(args.folder),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="where MovieLens-1M is")
    parser.add_argument("--folder", type=Path, default=Path("samples"), help="where the tables go")
    parser.add_argument("--negatives", type=int, default=10)
    parser.add_argument("--in-order", action="store_true", help="rows user by user instead of shuffled")
    parser.add_argument(
        "--stage", choices=("write", "read"), help="only this stage, in this process, its figures as JSON"
    )
    args = parser.parse_args()
    if args.stage:
        done = {"write": write, "read": read}[args.stage](args)
        print(json.dumps({**done, "peak_gib": peak_gib()}))
        return 0
    splits, within = [], True
    for name in ("write", "read"):
        started = time.perf_counter()
        run = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--stage", name], stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - started
        if run.returncode:
            return run.returncode
        got = json.loads(run.stdout.splitlines()[-1])
        splits.append(got["split"])
        print(
            f"{name:>5}  {seconds:6.1f} s  {got['rows']:,} rows  peak {got['peak_gib']:.2f} GiB  "
            f"{got['bytes'] / 1e6:,.0f} MB of tables"
        )
        within = within and (name == "read" or (seconds <= LIMIT_SECONDS and got["peak_gib"] <= LIMIT_GIB))
    if splits[0] != splits[1]:
        print(f"the split that was written is {splits[0]}, the one read back {splits[1]}", file=sys.stderr)
        return 1
    if not within:
        print(f"writing went over {LIMIT_SECONDS} s or {LIMIT_GIB} GiB", file=sys.stderr)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
