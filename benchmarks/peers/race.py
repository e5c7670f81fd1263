"""The same SASRec here and in other libraries, in turn on the same cores: speed, memory, and what their lists
are worth after as many minutes of training.

    python benchmarks/peers/race.py install ENVIRONMENTS [--libraries rectools,replay,recbole]
    python benchmarks/peers/race.py run ENVIRONMENTS --minutes 5 [--data-dir DATA] [--threads 2] \\
        [--libraries ...] [--protocol ml-1m-leave-one-out-v1] [--rounds 1]
    python benchmarks/peers/race.py table     writes benchmarks/PEERS.md from the result files

Each library is installed from the package index into an environment of its own, in the folder ENVIRONMENTS;
torch is that of this environment's version. It gets the training events of the protocol, trains 2 blocks of
64, one head, length 200, full softmax, dropout .2, and lists the 20 best unseen items of each user, which
this project's judge compares with the validation targets. Nothing is tested. What a library's epoch is
differs: RecTools and RePlay train on the last 200 events of a user, RecBole has a row for each event with
those before it, and this library trains on every event once. So speed is positions (targets) a second, and
accuracy is compared after the same minutes.

A result is a file in ``benchmarks/peers/results``: a round of one library beside a round of this one that ran
just before it, with versions, hardware and settings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import exchange
import numpy as np
import torch

from seqrec import storage
from seqrec.benchmark import provenance
from seqrec.evaluation import comparison, lists
from seqrec.experiment.protocol import read_protocol, read_sequences
from seqrec.splitting.split import Split
from seqrec.tables import Table, fraction

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TABLE = HERE.parent / "PEERS.md"


@dataclass(frozen=True)
class Library:
    """A library of the race.

    Attributes:
        packages: what pip is asked for, beside torch.
        driver: the script that runs in its environment.
    """

    packages: tuple[str, ...]
    driver: str


LIBRARIES = {
    "rectools": Library(("rectools[torch]",), "with_rectools.py"),
    "replay": Library(("replay-rec[torch]",), "with_replay.py"),
    # RecBole asks for no versions, and does not run with numpy 2.
    "recbole": Library(("recbole", "numpy<2", "pandas<2.3", "setuptools<81"), "with_recbole.py"),
}


def install(environments: Path, names: list[str]) -> None:
    """An environment a library, unless it is there. torch comes first, and stays as it is."""
    version = torch.__version__.split("+")[0]
    for name in names:
        folder = environments / name
        if (folder / "installed").exists():
            continue
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet"]
        subprocess.run([*pip, f"torch=={version}"], check=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:
            pinned.write(f"torch=={version}\n")
            pinned.flush()
            subprocess.run([*pip, "--constraint", pinned.name, *LIBRARIES[name].packages], check=True)
        (folder / "installed").touch()
        print(f"{name}: installed", flush=True)


def trained(python: str, driver: str, request: exchange.Request, split: Split) -> dict[str, Any]:
    """What a driver answered, and what its lists are worth on the validation queries."""
    path = Path(request.folder) / "request.json"
    path.write_text(json.dumps(asdict(request)))
    threads = str(request.threads)
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
    done = subprocess.run(
        [python, str(HERE / driver), str(path)],
        env=os.environ | limits | {"CUDA_VISIBLE_DEVICES": ""},
        cwd=request.folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{driver} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads((Path(request.folder) / "answer.json").read_text())
    best = np.load(Path(request.folder) / "lists.npy")[split.validation.users]
    scored = lists.score(lists.frame(best, split, split.validation), split, True, split.validation)
    values = comparison.by_user(scored.metrics((10, 20)), scored.users)
    found["validation"] = {
        name: interval
        for name, interval in comparison.intervals(values).items()
        if name in ("ndcg@10", "recall@10", "ndcg@20", "recall@20")
    }
    found["positions_per_second"] = found["positions"] / found["train_seconds"]
    return found


def run(a: argparse.Namespace) -> None:
    """Each library beside this one, in turn."""
    protocol = read_protocol(a.protocol)
    sequences, _ = read_sequences(protocol.data, protocol.ties, a.data_dir)
    split = protocol.apply(sequences)
    at = np.flatnonzero(split.train_events)
    user = np.repeat(np.arange(sequences.users), sequences.lengths)
    for number in range(a.rounds):
        for name in a.libraries:
            result: dict[str, Any] = {
                "library": name,
                "round": number,
                "protocol": a.protocol,
                "split_hash": split.hash,
                "date": str(date.today()),
                "commit": provenance.commit(),
                "hardware": provenance.hardware(),
                "threads": a.threads,
                "note": a.note,
            }
            python = str(Path(a.environments).resolve() / name / "bin" / "python")
            turns = {"ours": (sys.executable, "with_seqrec.py"), "theirs": (python, LIBRARIES[name].driver)}
            for who, (interpreter, driver) in turns.items():
                with tempfile.TemporaryDirectory() as folder:
                    np.savez(Path(folder) / "events.npz", user=user[at], item=sequences.items[at])
                    request = exchange.Request(
                        folder,
                        sequences.users,
                        len(sequences.item_catalogue),
                        a.minutes,
                        a.threads,
                        number,
                        heads=a.heads,
                    )
                    result["settings"] = {k: v for k, v in asdict(request).items() if k != "folder"}
                    result[who] = found = trained(interpreter, driver, request, split)
                print(
                    f"{name}, {who}: {found['positions_per_second']:,.0f} positions/s, ndcg@10 "
                    f"{fraction(found['validation']['ndcg@10']['mean'])}, {found['peak_mib']:,.0f} MiB",
                    flush=True,
                )
            label = f"{a.protocol}-{name}-{a.minutes:g}min-{a.threads}threads-{number}.json"
            storage.write_text(json.dumps(result, indent=2) + "\n", RESULTS / label)
    write_table()


def table(results: list[dict[str, Any]]) -> Table:
    """A row a library and setting: ratios of the medians over rounds, all in the same turns."""
    rows = []
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        key = (result["protocol"], result["library"], result["settings"]["minutes"], result["threads"])
        groups.setdefault(key, []).append(result)
    for (protocol, library, minutes, threads), rounds in sorted(groups.items()):

        def of(who: str, *path: str, rounds: list[dict[str, Any]] = rounds) -> float:
            values = []
            for result in rounds:
                value = result[who]
                for part in path:
                    value = value[part]
                values.append(value)
            return float(np.median(values))

        rows.append(
            {
                "library": f"{library} {rounds[0]['theirs']['version']}",
                "protocol": protocol,
                "minutes": minutes,
                "threads": threads,
                "rounds": len(rounds),
                "positions/s, ours / theirs": of("ours", "positions_per_second")
                / of("theirs", "positions_per_second"),
                "ndcg@10 ours": fraction(of("ours", "validation", "ndcg@10", "mean")),
                "ndcg@10 theirs": fraction(of("theirs", "validation", "ndcg@10", "mean")),
                "peak memory, theirs / ours": of("theirs", "peak_mib") / of("ours", "peak_mib"),
                "lists of all users, theirs / ours": of("theirs", "recommend_seconds")
                / of("ours", "recommend_seconds"),
                "one history, theirs / ours": of("theirs", "one_history_ms") / of("ours", "one_history_ms"),
            }
        )
    ratios = [name for name in (rows[0] if rows else {}) if " / " in name]
    notes = ["Validation, after as many minutes of training; ratios above 1 are in favour of this library."]
    for result in results:
        said = f"{result['hardware']}, {result['date']}" + (f", {result['note']}" if result["note"] else "")
        if said not in notes:
            notes.append(said)
    return Table(
        "SASRec, 2 blocks of 64, length 200, full softmax, beside other libraries",
        list(rows[0]) if rows else [],
        rows,
        notes,
        dict.fromkeys(ratios, lambda value: f"{value:.2f}"),
    )


def write_table() -> None:
    """Writes ``benchmarks/PEERS.md`` from the result files."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    table(results).write(TABLE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["install", "run", "table"])
    parser.add_argument("environments", nargs="?", type=Path, help="folder of the libraries' environments")
    parser.add_argument("--libraries", type=lambda text: text.split(","), default=list(LIBRARIES))
    parser.add_argument("--protocol", default="ml-1m-leave-one-out-v1")
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--note", default="", help="of the machine, such as: others at work on it")
    a = parser.parse_args()
    if unknown := [name for name in a.libraries if name not in LIBRARIES]:
        parser.error(f"--libraries: expected some of {', '.join(LIBRARIES)}. Got {', '.join(unknown)}.")
    if a.command == "table":
        write_table()
    elif a.environments is None:
        parser.error(f"{a.command}: expected the folder of the libraries' environments. Got none.")
    elif a.command == "install":
        install(a.environments, a.libraries)
    else:
        run(a)


if __name__ == "__main__":
    main()
