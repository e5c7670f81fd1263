"""Tampers with what seqrec writes and reads, and opens it through the public call, in a process with limits.

    python benchmarks/tamper.py --count 1000 --seed 0

Settings files, saved models, prepared folders, result files, run folders and checkpoints are made small, and
then damaged by seed: bytes flipped, files cut, keys dropped or of other types, files swapped, files replaced.
``--resealed`` also writes the checksums and digests anew, as one who means harm would. What becomes of each:

    refused                 one plain line (a SeqrecError)
    accepted-and-equal      it gives what it gave before
    accepted-but-different  it gives something else, in silence
    traceback               an error of another library, or more memory than the process may have
    hang                    more than 10 seconds of work

Settings files and ``run.json`` have no checksum, so another value in one is another setting: there
"different" is no fault. Nor is it with ``--resealed``, where the checksums are right. The most memory
that one took is printed; more than ``MOST_MB`` is a fault.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy
from mutate_logs import answer, memory

import seqrec
from seqrec import storage
from seqrec.benchmark import leaderboard, results
from seqrec.data.sequences import Sequences
from seqrec.errors import SeqrecError
from seqrec.experiment import judge
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.train import train
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.item_knn import ItemKNN
from seqrec.models.markov import Markov
from seqrec.models.model import Model
from seqrec.models.popularity import Popularity
from seqrec.models.vsknn import VSKNN
from seqrec.storage import marker
from seqrec.testing import small_log

SECONDS, MEMORY = 10, 4 << 30
MOST_MB = 256
"""Memory that opening one may take beyond what the process has already (Linux)."""
YAML = [
    "&a",
    "*a",
    "&a [*a]",
    "!!python/object:os.system x",
    "!!binary x",
    "!!timestamp 9",
    ".inf",
    ".nan",
    "-.inf",
]
YAML += [
    "1e999",
    "9" * 400,
    "-1",
    "0",
    "0x10",
    "1:30",
    "2020-99-99",
    "null",
    "~",
    "yes",
    "[",
    "[" * 3000,
    "{",
    "{}",
]
YAML += [
    "[]",
    "? x",
    "- x",
    "|",
    ">",
    "\t",
    "%YAML 9.9",
    "---",
    "...",
    "<<: 1",
    "${NOWHERE}",
    "${",
    "@",
    "`",
    "'",
    '"',
]
YAML += [
    "\ud7ff",
    "\u2028",
    "#",
    "x: y: z",
    "../../x",
    "/dev/zero",
    "x" * 100_000,
    "../x.yaml",
    "train.epochs",
    "{a: {a: ",
]
KINDS = ("settings", "model", "prepared", "result", "run", "checkpoint")
SMALL = {"width": 8, "hidden": 8, "train": {"epochs": 1}}


def digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def timed_log() -> Sequences:
    log = small_log()
    return replace(log, times=np.arange(log.events))


def made(folder: Path) -> None:
    """Everything that is tampered with, as seqrec writes it."""
    log = timed_log()
    users = np.repeat(log.user_catalogue.ids.to_numpy(), log.lengths)
    rows = zip(users, log.item_catalogue.decode(log.items), log.times, strict=True)
    text = "".join(f"{user},{item},{int(when)}\n" for user, item, when in rows)
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n" + text)
    (folder / "settings").mkdir()
    (folder / "settings" / "run.yaml").write_text(
        f"data: {{path: {folder / 'log.csv'}, min_item_count: 1}}\nsplit:\n  name: leave_one_out\n"
        "model: {name: gru4rec, width: 8, hidden: 16}\nloss: {name: bpr_max, elu: 0.5}\n"
        "negatives: {count: 32, alpha: 0.5}\ntrain:\n  epochs: 2\n  learning_rate: 0.01\n  minutes: 1.5\n"
        "fit: {seed: 3, device: cpu}\nevaluate: {metrics: [ndcg@10, recall@20], filter_seen: false}\n"
    )
    log.save(folder / "prepared")
    models: list[Model] = [Popularity(), Markov(), ItemKNN(), VSKNN(), GRU4Rec(**SMALL)]
    for model in models:
        model.fit(log, progress=False, device="cpu").save(folder / "model" / model.name)
    run = {"data": {"path": str(folder / "log.csv")}, "model": {"name": "markov"}}
    train(RunSettings.of({**run, "output": {"folder": str(folder / "run")}}, ""), progress=False)
    GRU4Rec(**SMALL).fit(
        log, progress=False, device="cpu", checkpoint=folder / "checkpoint" / "c.safetensors"
    )
    one_result(folder / "result" / "seed-0.json")


def one_result(path: Path) -> None:
    ranks = np.random.default_rng(0).integers(1, 40, 50)
    values = {"mean": 0.5, "low": 0.4, "high": 0.6}
    packed = {name: results.pack(array) for name, array in (("filtered", ranks), ("unfiltered", ranks))}
    packed["users"] = results.pack(np.diff(np.arange(50), prepend=0))
    content = {
        "protocol": "own-v1", "title": "Own", "model": "markov", "seed": 0, "settings": {"model": "markov"},
        "filter_seen": True, "headline": ["ndcg@10"], "items": 40, "users": 50, "split_hash": "ab",
        "metrics": {"ndcg@10": values}, "validation_metrics": {"ndcg@10": values}, "ranks": packed,
        "train_seconds": 1.0, "peak_memory_mb": 100.0, "positions_per_second": None, "commit": "c",
        "hardware": "h", "date": "2026-01-01T00:00:00Z", "queries": 50, "ties": 0, "ties_unfiltered": 0,
        "cold_targets": 0.0, "curve": [], "variants": [], "retrained": False,
        "data": {"name": "own.csv", "revision": "1", "source": "own.csv"},
    }  # fmt: skip
    storage.write_json(marker.sealed(content), path)


def rounded(frame: pl.DataFrame) -> list[Any]:
    """Its rows, without last digits, which depend on where arrays are in memory."""
    return frame.with_columns(pl.col("score").round(3)).rows()


def opened(kind: str, folder: Path) -> str:
    """What the public call gives, as a digest."""
    if kind == "settings":
        run = RunSettings.read(folder / "run.yaml")
        run.check()
        return digest(run.model_dump())
    if kind == "model":
        model = seqrec.load(folder, "cpu")
        assert model.item_catalogue is not None
        items = model.item_catalogue.ids.to_list()
        some = model.recommend([items[:3], items[5:6], []], k=5)
        known = model.recommend(users=[0, 1], k=5, on_unknown="ignore")
        return digest((rounded(some), rounded(known), model.configuration()))
    if kind == "prepared":
        s = Sequences.load(folder)
        arrays = [None if a is None else a.tolist() for a in (s.items, s.offsets, s.times, s.ratings)]
        return digest((arrays, s.ids_digest))
    if kind == "result":
        return digest(leaderboard.render([folder / "seed-0.json"]))
    if kind == "run":
        return digest(judge.evaluate(str(folder)).rows)
    log, path = timed_log(), folder / "c.safetensors"
    model = GRU4Rec(**SMALL).fit(log, progress=False, device="cpu", checkpoint=path)
    return digest(rounded(model.recommend(users=[0, 1], k=5, on_unknown="ignore")))


def tamper(folder: Path, draw: random.Random, resealed: bool) -> str:
    """Changes one thing. Returns what."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = draw.choice(files)
    if path.suffix == ".json" and draw.random() < 0.7:
        content = json.loads(path.read_text())
        said = change(content, draw)
        if resealed and marker.SEAL in content:
            content = marker.sealed(content)
        path.write_text(json.dumps(content))
        return f"{path.name}: {said}"
    data = bytearray(path.read_bytes())
    if path.suffix == ".yaml" and draw.random() < 0.6:
        lines = data.decode().split("\n")
        at = draw.randrange(len(lines))
        place = draw.choice([m.end() for m in re.finditer(r"[:{,] ?|$", lines[at])])
        said = draw.choice(YAML)
        lines[at] = lines[at][:place] + said + lines[at][place if draw.random() < 0.5 else len(lines[at]) :]
        path.write_text("\n".join(lines))
        return f"{path.name}: {said[:20]!r} in line {at + 1}"
    how = draw.choice(["flip", "flip", "flip", "cut", "empty", "longer", "swap", "remove", "zero", "weights"])
    if how == "weights" and path.suffix == ".safetensors":
        try:
            arrays = dict(safetensors.numpy.load(bytes(data)))
        except safetensors.SafetensorError:
            arrays = {}
        if arrays and "run" not in str(data[:2000]):
            name = draw.choice(sorted(arrays))
            value = arrays[name].copy()
            change_array(arrays, name, value, draw)
            data = bytearray(safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    elif how == "cut":
        del data[draw.randrange(max(1, len(data))) :]
    elif how == "empty":
        data.clear()
    elif how == "longer":
        data += draw.randbytes(draw.randint(1, 100))
    elif how == "zero" and data:
        at = draw.randrange(len(data))
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif how == "swap":
        data = bytearray(draw.choice(files).read_bytes())
    elif how == "remove":
        path.unlink()
        return f"{path.name}: removed"
    else:
        for _ in range(draw.choice([1, 1, 4, 16])):
            if data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    if resealed:
        reseal(path)
    return f"{path.name}: {how}"


def change_array(arrays: dict[str, Any], name: str, value: np.ndarray, draw: random.Random) -> None:
    how = draw.choice(["nan", "shape", "type", "drop", "huge", "negative"])
    if how == "drop":
        del arrays[name]
    elif how == "shape":
        arrays[name] = value[:-1] if value.ndim else value.reshape(1)
    elif how == "type":
        arrays[name] = value.astype(draw.choice(["float64", "int64", "int8", "bool"]))
    elif value.size:
        bad = {"nan": np.nan, "huge": 2**30, "negative": -7}[how]
        if value.dtype.kind == "f" or how != "nan":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value.reshape(-1)[draw.randrange(value.size)] = np.array(bad).astype(value.dtype)
        arrays[name] = value


def change(content: Any, draw: random.Random) -> str:
    """Drops a key of a JSON object, or gives it another value."""
    place, path = content, []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return "nothing"
        key = draw.choice(keys)
        path.append(str(key))
        if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.6:
            place = place[key]
            continue
        if draw.random() < 0.3:
            del place[key]
            return f"without {'.'.join(path)}"
        values: list[Any] = [None, -1, 0, 10**30, 1e308, "", "x", "../../x", "/dev/zero", [], {}, True, [[1]]]
        place[key] = draw.choice(values)
        return f"{'.'.join(path)} = {place[key]!r}"


def reseal(path: Path) -> None:
    """Writes the checksum of a file anew where it is named."""
    for one in path.parent.glob("*.json"):
        try:
            content = json.loads(one.read_text())
        except ValueError:
            continue
        if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
            continue
        part = next((part for part, name in content["files"].items() if name == path.name), None)
        if part is not None and path.exists():
            content["sha256"][part] = hashlib.sha256(path.read_bytes()).hexdigest()
            content["bytes"][part] = path.stat().st_size
            one.write_text(json.dumps(marker.sealed(content)))


def work() -> None:
    """The child: opens what it is told, a line each, and says what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        kind, folder, expected = line.rstrip("\n").split("\t")
        before = memory(fresh=True)["VmRSS"]
        try:
            found = opened(kind, Path(folder))
            said = "accepted-and-equal" if found == expected else "accepted-but-different"
            said = said if expected else found
        except SeqrecError as error:
            plain = "\n" not in str(error) and len(str(error)) < 2000
            said = "refused" if plain else f"traceback {error}"
        except BaseException as error:  # a panic in Rust, too
            said = f"traceback {type(error).__name__}: {str(error)[:200]}"
        took = (memory()["VmHWM"] - before) // 1024
        if took > MOST_MB:
            said = f"traceback {took} MiB, {said}"
        print(took, " ".join(said.split()), file=answers, flush=True)


class Child:
    """A process that opens what it is told, and is started again where it hangs or dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.most = 0  # MiB that one took

    def asked(self, kind: str, folder: Path, expected: str) -> str:
        """What comes of opening a folder."""
        fresh = self.process is None
        if self.process is None:
            command = [sys.executable, __file__, "--worker"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind}\t{folder}\t{expected}\n")
        self.process.stdin.flush()
        said = answer(self.process, SECONDS + 50 * fresh)  # imports take long
        if not said:
            self.process.kill()
            status, self.process = self.process.wait(), None
            return "hang" if said is None else f"traceback ended with {status}"
        took, found = said.strip().split(" ", 1)
        if not fresh:  # else it is the libraries that are imported
            self.most = max(self.most, int(took))
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--resealed", action="store_true", help="write checksums and digests anew")
    parser.add_argument("--show", action="store_true", help="show what is different, resealed, too")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return 0
    kinds = options.kinds.split(",")
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in kinds}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "whole").mkdir()
        made(here / "whole")
        child = Child()
        places = {kind: [here / "whole" / kind] for kind in kinds}
        if "model" in places:
            places["model"] = sorted((here / "whole" / "model").iterdir())
        expected: dict[Path, str] = {}
        for kind, folders in places.items():
            for folder in folders:
                copy = here / "copy"
                shutil.copytree(folder, copy)
                expected[folder] = child.asked(kind, copy, "")
                shutil.rmtree(copy)
        faults = 0
        for number in range(options.count):
            draw = random.Random(f"{options.seed} {number}")
            kind = kinds[number % len(kinds)]
            folder = draw.choice(places[kind])
            copy = here / "copy"
            shutil.copytree(folder, copy)
            said = tamper(copy, draw, options.resealed)
            found = child.asked(kind, copy, expected[folder])
            shutil.rmtree(copy)
            counts[kind][found.split()[0]] += 1
            silent = found == "accepted-but-different" and kind != "settings" and "run.json" not in said
            fault = found.startswith(("traceback", "hang")) or (silent and not options.resealed)
            faults += fault
            if fault or (options.show and silent):
                print(f"{number} {kind} {folder.name} {said} -> {found}", flush=True)
    columns: Callable[..., str] = "{:<12}{:>9}{:>20}{:>24}{:>11}{:>6}".format
    names = ("refused", "accepted-and-equal", "accepted-but-different", "traceback", "hang")
    print(columns("", *names))
    for kind, counted in counts.items():
        print(columns(kind, *(counted[name] for name in names)))
    print(
        f"{options.count} in {time.perf_counter() - begin:.0f} s, seed {options.seed}; {faults} at fault; "
        f"at most {child.most} MiB each"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
