"""Fills the disk at many places of what writes, and checks that each says so and that going on is the same.

    sudo python benchmarks/full_disk.py --count 20 --seed 0

Trainings, saves, prepared logs and samples, benchmarks, top-k lists, reports and tables are written to a
small disk in memory (a tmpfs, which only root may mount; Linux), ``--count`` times each, with room for a
drawn share of what they take: of its bytes, or now and then of its files. Where the room is not enough,
the command must end with a status other than 0 and one plain line that names a path on the disk; what was
there before must be there and open; nothing half written may be left; and with room enough the same
command must end with the same digits as one that always had it. For half of those that replace something,
another one is there.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kills

import seqrec
import seqrec.benchmark
from seqrec import cli
from seqrec.errors import SeqrecError
from seqrec.testing import small_log

ENOUGH = 256 << 20
PAGE = 4096


def commands(here: Path, disk: Path) -> dict[str, list[str]]:
    """Kind -> arguments of the command line; those that write one file write ``disk/out.*``."""
    rows = [str(here / "results" / "own-v1" / model / "seed-0.json") for model in ("markov", "popularity")]
    log, out, model, results = (
        str(p) for p in (here / "log.csv", disk / "out", here / "model", here / "results")
    )
    of_log = ["--data", log, "-o", out]
    return {
        "train": [*kills.TRAIN, *of_log],
        "refit": ["train", "--model", "markov", "--refit", *of_log],
        "lists": ["train", "--model", "markov", "--data", log, f"evaluate.topk={disk / 'out.parquet'}"],
        "prepare": ["prepare", log, out],
        "samples": ["prepare", log, str(here / "sequences"), "--samples", out],
        "check": ["data", "check", log, "--write", str(disk / "out.json")],
        "recommend": ["recommend", model, "-k", "3", *users(), "--write", str(disk / "out.csv")],
        "parquet": ["recommend", model, *users(), "--write", str(disk / "out.parquet")],
        "kept": ["recommend", log, "--model", "markov", "--save", out],
        "compare": ["compare", *rows, "--write", str(disk / "out.md")],
        "report": ["report", results, "-o", str(disk / "out.html")],
    }  # fmt: skip


def users() -> list[str]:
    ids = small_log().user_catalogue.ids.to_list()
    return [argument for user in ids for argument in ("-u", str(user))]


def work(kind: str, here: Path, disk: Path, earlier: bool) -> None:
    """Writes, in a process of its own. Its messages go into a file."""
    messages = os.open(here / "messages", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(messages, 1)
    os.dup2(messages, 2)
    os.chdir(here)
    if kind == "save":
        sys.argv[1:] = [
            "recommend",
            str(here / "log.csv"),
            "--model",
            "item_knn",
            "--save",
            str(disk / "out"),
        ]
        if not earlier:
            try:
                seqrec.load(here / "model", "cpu").save(disk / "out")
            except SeqrecError as error:
                sys.exit(f"error: {error}")
            return
    elif kind == "benchmark":
        sys.argv[1:] = ["benchmark", str(here / "own-v1.yaml"), "--models", "gru4rec", "--seeds", "1"]
        sys.argv[1:] += ["--set", "gru4rec.train.epochs=3", "--set", "gru4rec.fit.device=cpu"]
        sys.argv[1:] += ["--results", str(disk / "out"), "--topk-dir", str(disk / "out" / "lists")]
        sys.argv[1:] += [
            "--leaderboard",
            str(disk / "out" / "board.md"),
            "--report",
            str(disk / "out" / "r.html"),
        ]
    else:
        sys.argv[1:] = commands(here, disk)[kind]
    if earlier and kind == "prepare":
        sys.argv[1:] += ["--min-item-count", "4"]
    cli.main()


def digits(kind: str, disk: Path) -> str:
    """Of what was written."""
    of = {"save": "save", "kept": "save", "train": "train", "refit": "train", "benchmark": "benchmark"}
    if kind == "prepare" or kind in of:
        return kills.digits(of.get(kind, kind), disk / "out")
    paths = sorted(path for path in disk.rglob("*") if path.is_file())
    return hashlib.sha256(repr([path.read_bytes() for path in paths]).encode()).hexdigest()[:16]


def wrong_of(status: int | None, said: str, disk: Path) -> list[str]:
    """What is wrong with how a command ended that had too little room."""
    wrong = []
    if status == 0:
        wrong.append("ended with 0, without room for all")
    if "Traceback" in said or "traceback" in said:
        wrong.append(f"traceback: {said[-400:]}")
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if not any(str(disk) in line for line in lines) or len(lines) > 2:  # a benchmark and its worker
        wrong.append(f"no line that names the path: {said[-400:]!r}")
    return wrong


def left(kind: str, disk: Path, again: bool) -> list[str]:
    """Files that are neither the disk's to keep nor hidden checkpoints of a benchmark to go on from."""
    found = [path for path in disk.rglob("*") if path.is_file()]
    hidden = [path.name for path in found if path.name.startswith(".")]
    return [name for name in hidden if again or not name.startswith(".seed-0-")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="places of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", help="by default all")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["OMP_NUM_THREADS"] = "1"
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["__main__", "seqrec.experiment.train", "seqrec.sources.preparing"])
    faults = places = 0
    with tempfile.TemporaryDirectory() as name:
        here, disk = Path(name) / "here", Path(name) / "disk"
        here.mkdir()
        disk.mkdir()
        kills.written(here)
        seqrec.benchmark.run(
            here / "own-v1.yaml", ["markov", "popularity"], 1, here / "results", progress=False
        )
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ENOUGH}", "tmpfs", disk], check=True)

        def room(size: int, files: int) -> None:
            options = f"remount,size={max(PAGE, size)},nr_inodes={files}"
            subprocess.run(["mount", "-o", options, disk], check=True)

        def run(kind: str, earlier: bool = False) -> tuple[int | None, str]:
            process = forked.Process(target=work, args=(kind, here, disk, earlier))
            process.start()
            process.join()
            return process.exitcode, (here / "messages").read_text()

        def emptied() -> None:
            for path in disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        def taken() -> tuple[int, int]:
            stat = os.statvfs(disk)
            return (stat.f_blocks - stat.f_bfree) * stat.f_bsize, stat.f_files - stat.f_ffree

        try:
            for kind in (
                options.kinds.split(",") if options.kinds else [*commands(here, disk), "save", "benchmark"]
            ):
                draw = random.Random(f"{options.seed} {kind}")
                room(ENOUGH, 10_000)
                status, said = run(kind)
                assert status == 0, said
                expected, names, most = digits(kind, disk), kills.files(disk), taken()
                full = 0
                for number in range(options.count):
                    room(ENOUGH, 10_000)
                    emptied()
                    earlier = None
                    if kind in ("save", "prepare") and draw.random() < 0.5:
                        run(kind, earlier=True)
                        earlier = digits(kind, disk)
                    by_files = draw.random() < 0.2 or most[0] <= PAGE  # a disk has a page at least
                    share, had = (number + draw.random()) / options.count, taken()
                    size = ENOUGH if by_files else had[0] + int(share * most[0])
                    room(size, had[1] + int(share * most[1]) if by_files else 10_000)
                    status, said = run(kind)
                    wrong: list[str] = []
                    if status != 0 or "error:" in said:
                        full += 1
                        wrong += wrong_of(status, said, disk)
                        if hidden := left(kind, disk, again=False):
                            wrong.append(f"left behind: {hidden}")
                        if earlier is not None and digits(kind, disk) != earlier:
                            wrong.append("what was there before is gone")
                    room(ENOUGH, 10_000)
                    status, said = run(kind)
                    if status != 0:
                        wrong.append(f"with room again: {said[-300:]}")
                    elif digits(kind, disk) != expected:
                        wrong.append("other digits")
                    elif kills.files(disk) != names:
                        wrong.append(f"left behind: {sorted(set(kills.files(disk)) ^ set(names))}")
                    for text in wrong:
                        print(
                            f"{kind} {number} ({'files' if by_files else 'bytes'}, {share:.0%}): {text}",
                            flush=True,
                        )
                    faults += bool(wrong)
                print(
                    f"{kind}: full at {full} of {options.count} places, {most[0]:,} bytes at the end",
                    flush=True,
                )
                places += full
                room(ENOUGH, 10_000)
                emptied()
        finally:
            subprocess.run(["umount", disk], check=True)
    print(f"full at {places} places, {faults} at fault, seed {options.seed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
