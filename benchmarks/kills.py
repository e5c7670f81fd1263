"""Kills what writes, at seeded moments, and checks that what is there is whole and that going on is the same.

    python benchmarks/kills.py --count 10 --seed 0

Each of a training, a save, a prepare and a benchmark is started ``--count`` times and killed (SIGKILL). Then:
what was there before is there, or what was to come, and opens; the same command again ends with the same
digits as one that was never killed; and nothing is left behind: no temporary file, no lock, no other part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import seqrec
from seqrec.data.sequences import Sequences
from seqrec.errors import SeqrecError
from seqrec.testing import small_log

KINDS = ("train", "save", "prepare", "benchmark")
TRAIN = [
    "train",
    "--model",
    "gru4rec",
    "model.width=8",
    "model.hidden=16",
    "fit.device=cpu",
    "train.epochs=12",
]
SAVE = """
import sys, seqrec
model = seqrec.load(sys.argv[1], "cpu")
for _ in range(20):
    model.save(sys.argv[2])
"""
SEQREC = [sys.executable, "-m", "seqrec"]


def written(folder: Path) -> None:
    """A log, a protocol on it, and a saved model."""
    log = small_log()
    users = np.repeat(log.user_catalogue.ids.to_numpy(), log.lengths)
    rows = enumerate(zip(users, log.item_catalogue.decode(log.items), strict=True))
    text = "".join(f"{user},{item},{when}\n" for when, (user, item) in rows)
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n" + text)
    (folder / "own-v1.yaml").write_text(
        "name: own-v1\ntitle: Own\ndata: {name: log.csv, revision: mine}\nsplit: {name: leave_one_out}\n"
    )
    (folder / "configs" / "own-v1").mkdir(parents=True)
    (folder / "configs" / "own-v1" / "gru4rec.yaml").write_text(
        "model: {width: 8, hidden: 16}\ntrain: {epochs: 12}\nfit: {device: cpu}\n"
    )
    model = seqrec.models.get("gru4rec")(width=8, hidden=64, train={"epochs": 1})
    model.fit(log, progress=False, device="cpu").save(folder / "model")


def command(kind: str, here: Path, out: Path) -> list[str]:
    log = str(here / "log.csv")
    if kind == "train":
        return [*SEQREC, *TRAIN, "--data", log, "-o", str(out)]
    if kind == "save":
        return [sys.executable, "-c", SAVE, str(here / "model"), str(out)]
    if kind == "prepare":
        return [*SEQREC, "prepare", log, str(out)]
    program = (
        "from seqrec import benchmark; "
        f"benchmark.run({str(here / 'own-v1.yaml')!r}, ['gru4rec'], 1, {str(out)!r}, "
        f"configs={str(here / 'configs')!r})"
    )
    return [sys.executable, "-c", program]


def files(folder: Path) -> list[str]:
    """Names of all files, without what each state draws for itself."""
    names = (path.name for path in folder.rglob("*") if path.is_file())
    return sorted(
        f"{stem[:-9]}.{suffix}" if len(stem := name.rpartition(".")[0]) > 9 and stem[-9] == "-" else name
        for name in names
        for suffix in [name.rpartition(".")[2]]
    )


def digits(kind: str, out: Path) -> str:
    """Of all that was computed."""
    found: Any
    if kind in ("train", "save"):
        folder = out / "model" if kind == "train" else out
        state = seqrec.load(folder, "cpu").state()
        found = [(name, state[name].tobytes()) for name in sorted(state)]
        if kind == "train":
            found.append(("metrics", (out / "metrics.json").read_bytes()))
    elif kind == "prepare":
        s = Sequences.load(out, verify=True)
        found = [s.items.tobytes(), s.offsets.tobytes(), s.ids_digest]
    else:
        content = json.loads(next(out.rglob("seed-0.json")).read_text())
        found = [content["ranks"], content["metrics"], [p["loss"] for p in content["curve"]]]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def whole(kind: str, out: Path) -> str | None:
    """What is wrong with what is there; None where there is nothing yet, or all of it opens."""
    markers = {
        "train": "run.json",
        "save": "model.json",
        "prepare": "sequences.json",
        "benchmark": "seed-0.json",
    }
    if not list(out.rglob(markers[kind])):
        return None
    try:
        digits(kind, out)
    except (SeqrecError, OSError, StopIteration) as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        written(here)
        for kind in options.kinds.split(","):
            out, draw = here / "out", random.Random(f"{options.seed} {kind}")
            begin = time.perf_counter()
            subprocess.run(command(kind, here, out), check=True, env=environment, **quiet)
            seconds, expected, names = time.perf_counter() - begin, digits(kind, out), files(out)
            shutil.rmtree(out)
            killed = 0
            for number in range(options.count):
                process = subprocess.Popen(command(kind, here, out), env=environment, **quiet)
                try:
                    # most of the time goes to imports, in which nothing is written
                    process.wait(seconds * draw.uniform(0.4, 1.0))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    killed += 1
                process.wait()
                time.sleep(0.2)  # the benchmark's worker ends with it
                wrong = [w] if (w := whole(kind, out)) else []
                again = subprocess.run(
                    command(kind, here, out), env=environment, capture_output=True, text=True
                )
                if again.returncode:
                    wrong.append(f"going on failed: {again.stderr.strip()[-300:]}")
                else:
                    if digits(kind, out) != expected:
                        wrong.append("other digits")
                    if files(out) != names:
                        wrong.append(f"left behind: {sorted(set(files(out)) ^ set(names))} {files(out)}")
                print(f"{kind} {number}: {'whole' if not wrong else 'broken'}", flush=True)
                for text in wrong:
                    print(f"{kind} {number}: {text}", flush=True)
                faults += bool(wrong)
                if draw.random() < 0.5 or wrong:
                    shutil.rmtree(out, ignore_errors=True)  # else the next one is killed over a whole one
                elif kind == "benchmark":
                    next(out.rglob("seed-0.json")).unlink()
            print(f"{kind}: {killed} killed of {options.count}", flush=True)
    print(f"{faults} broken, seed {options.seed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
