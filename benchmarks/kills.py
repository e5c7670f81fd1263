"""Kills what writes, at seeded moments, and checks that what is there is whole and that going on is the same.

    python benchmarks/kills.py --count 50 --seed 0

Each of a training, a save, a prepare and a benchmark is started ``--count`` times and killed (SIGKILL; of the
benchmark the parent, and its worker must end with it). Then: what was there before is there, or what was to
come, and opens; the same command again ends with the same digits as one that was never killed; and nothing is
left behind: no temporary file, no lock, no other part. The processes are forked from one that has imported
what they need, so that the time in which they are killed is one of work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import seqrec
import seqrec.benchmark
from seqrec import cli
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


def work(kind: str, here: Path, out: Path) -> None:
    """What is killed, in a process of its own. Its messages go into a file."""
    messages = os.open(here / "messages", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(messages, 1)
    os.dup2(messages, 2)
    log = str(here / "log.csv")
    if kind == "save":
        model = seqrec.load(here / "model", "cpu")
        for _ in range(20):
            model.save(out)
    elif kind == "benchmark":
        seqrec.benchmark.run(here / "own-v1.yaml", ["gru4rec"], 1, out, configs=here / "configs")
    else:
        sys.argv[1:] = [*TRAIN, "--data", log, "-o", str(out)] if kind == "train" else [kind, log, str(out)]
        cli.main()


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
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["OMP_NUM_THREADS"] = "1"
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["__main__", "seqrec.experiment.train", "seqrec.sources.preparing"])
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        written(here)

        def run(kind: str, out: Path, killed_after: float | None = None) -> tuple[int | None, float]:
            """The exit status (None: killed) and the seconds."""
            begin = time.perf_counter()
            process = forked.Process(target=work, args=(kind, here, out))
            process.start()
            process.join(killed_after)
            killed = process.is_alive()
            process.kill()
            process.join()
            if killed:
                time.sleep(0.2)  # the benchmark's worker ends with it
            return None if killed else process.exitcode, time.perf_counter() - begin

        for kind in options.kinds.split(","):
            out, draw = here / "out", random.Random(f"{options.seed} {kind}")
            run(kind, out)  # the first also starts the process that the others are forked from
            shutil.rmtree(out)
            status, seconds = run(kind, out)
            assert status == 0, (here / "messages").read_text()
            expected, names = digits(kind, out), files(out)
            shutil.rmtree(out)
            killed = over = 0
            for number in range(options.count):
                # most of a worker's time goes to imports, in which nothing is written
                moment = seconds * draw.uniform(0.4 if kind == "benchmark" else 0.02, 1.0)
                there = out.exists()
                stopped = run(kind, out, moment)[0] is None
                killed, over = killed + stopped, over + (stopped and there)
                wrong = [w] if (w := whole(kind, out)) else []
                status, took = run(kind, out)
                if status:
                    wrong.append(f"going on failed: {(here / 'messages').read_text().strip()[-300:]}")
                else:
                    if not out.exists() or digits(kind, out) != expected:
                        wrong.append("other digits")
                    if files(out) != names:
                        wrong.append(f"left behind: {sorted(set(files(out)) ^ set(names))} {files(out)}")
                for text in wrong:
                    print(f"{kind} {number}: {text}", flush=True)
                faults += bool(wrong)
                if draw.random() < 0.5 or wrong:
                    shutil.rmtree(out, ignore_errors=True)  # else the next one is killed over a whole one
                    seconds = (seconds + took) / 2  # the machine may be busy
                elif kind == "benchmark":
                    next(out.rglob("seed-0.json")).unlink()
            print(f"{kind}: {killed} killed of {options.count}, {over} of them over a whole one", flush=True)
    print(f"{faults} broken, seed {options.seed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
