"""Training beside other work: what share of its quiet speed is left while other processes keep cores busy.

    python benchmarks/busy.py --data-dir DATA [--busy 0 1 2] [--rounds 3] [--seconds 20] [--write busy.md]

GRU4Rec and SASRec of ``speed.py``, each trained in a process of its own for some seconds, from the start, so
that the number of threads is chosen anew; beside it so many Python processes that only spin. Quiet and busy
trainings take turns. Speeds are positions a second after the first updates, without validation; what is
printed are medians, and shares of the median of the quiet ones.
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

MODELS = ("gru4rec", "sasrec")
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:  # ends with this program, however it ends
    for _ in range(1_000_000):
        pass
"""


def train(name: str, seconds: float, data_dir: str | None, threads: int | None) -> None:
    """Trains that long, and prints the speed and the number of threads."""
    import speed

    from seqrec.models.gru4rec import GRU4Rec
    from seqrec.models.sasrec import SASRec

    split = speed.split_of(data_dir)
    changes = {"train": speed.SASREC["train"] | {"epochs": 1000, "minutes": seconds / 60}}
    model: Any = SASRec(**speed.SASREC | changes) if name == "sasrec" else GRU4Rec(**speed.GRU4REC | changes)
    print("ready", flush=True)
    sys.stdin.readline()
    model.fit(split, progress=False, baselines=False, threads=threads)
    report = model.fit_report
    print(json.dumps({"speed": report.positions_per_second, "threads": report.threads}))


def measured(name: str, busy: int, a: argparse.Namespace) -> dict[str, float]:
    """One training beside so many busy processes."""
    command = [sys.executable, __file__, "--train", name, "--seconds", str(a.seconds)]
    command += ["--data-dir", a.data_dir] if a.data_dir else []
    command += ["--threads", str(a.threads)] if a.threads else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()  # data is read before the others begin
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        time.sleep(1)
        found: dict[str, float] = json.loads(process.communicate("\n")[0])
    finally:
        for other in others:
            other.kill()
            other.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="spinning processes")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training")
    parser.add_argument("--threads", type=int, help="of torch; without it they are chosen, as by default")
    parser.add_argument("--write", help="also write the table (.md, .csv or .json)")
    parser.add_argument("--train", choices=MODELS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if a.train:
        train(a.train, a.seconds, a.data_dir, a.threads)
        return

    from seqrec.benchmark import provenance
    from seqrec.tables import Table

    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for number in range(a.rounds):
        for name in a.models:
            for busy in dict.fromkeys([0, *a.busy]):
                found = measured(name, busy, a)
                runs.setdefault((name, busy), []).append(found)
                print(f"round {number + 1}, {name} beside {busy}: {found}", file=sys.stderr, flush=True)
    rows = []
    for (name, busy), of_row in runs.items():
        speeds = [run["speed"] for run in of_row]
        quiet = float(np.median([run["speed"] for run in runs[name, 0]]))
        rows.append(
            {
                "model": name,
                "busy processes": busy,
                "positions/s": float(np.median(speeds)),
                "share of quiet": float(np.median(speeds)) / quiet,
                "lowest": min(speeds) / quiet,
                "highest": max(speeds) / quiet,
                "threads": " ".join(str(int(run["threads"])) for run in of_row),
            }
        )
    shares = dict.fromkeys(("share of quiet", "lowest", "highest"), "{:.2f}".format)
    notes = [f"{provenance.hardware()}, {a.seconds:g} s each, commit {provenance.commit()}."]
    formats: dict[str, Any] = {"positions/s": "{:,.0f}".format, **shares}
    table = Table("Training beside busy processes", list(rows[0]), rows, notes, formats)
    table.print()
    if a.write:
        table.write(a.write)


if __name__ == "__main__":
    main()
