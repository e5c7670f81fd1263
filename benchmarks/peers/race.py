"""The same network here and in other libraries, in turn on the same cores: speed, memory, and what their
lists are worth after as many minutes of training.

    python benchmarks/peers/race.py install ENVIRONMENTS [--libraries rectools,replay,recbole]
    python benchmarks/peers/race.py run ENVIRONMENTS --minutes 5 [--check-minutes .5] [--data-dir DATA] \\
        [--cores 0,1] [--libraries ...] [--protocol ml-1m-leave-one-out-v1] [--rounds 1] \\
        [--authors CHECKOUT PYTHON]
    python benchmarks/peers/race.py table     writes benchmarks/PEERS.md from the result files

Each library is installed from the package index into an environment of its own, in the folder ENVIRONMENTS;
torch is that of this environment's version. It gets the training events of the protocol, trains 2 blocks of
64, one head, length 200, full softmax, dropout .2, and lists the 20 best unseen items of each user, which
this project's judge compares with the validation targets. Nothing is tested. With ``--authors`` GRU4Rec runs
beside its authors' code, with the settings of ``fidelity_gru4rec.py`` (128 units, 2,048 samples, 128 lanes).

What a library's epoch is differs: RecTools and RePlay train on the last 200 events of a user, RecBole has a
row for each event with those before it, and this library trains on every event once. So speed is targets
(positions) a second, from the first update on, and accuracy is compared after the same minutes. An update has
``--batch`` users; here as many targets as those of so many users; in RecBole so many rows, of one target
each. Lists are also made after each ``--check-minutes`` of training, while the clock stands still; only this
library's schedule of rates counts them in its minutes.

A result is a file in ``benchmarks/peers/results``: one library, with a turn of this one before and after it
on the same cores, with versions, hardware and settings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
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
from seqrec.experiment.protocol import of_users, read_protocol, read_sequences
from seqrec.splitting.split import Split
from seqrec.tables import Table, fraction

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import fidelity_gru4rec  # noqa: E402

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
AUTHORS = "gru4rec-authors"
INSTALL_SECONDS = 900


def install(environments: Path, names: list[str]) -> list[str]:
    """An environment a library, unless it is there. torch comes first, and stays as it is.

    Returns:
        the libraries that could not be installed, with what pip said in the file ``failed`` of each.
    """
    version = torch.__version__.split("+")[0]
    failed = []
    for name in names:
        folder = environments / name
        if (folder / "installed").exists():
            continue
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--timeout", "60"]
        pinned = folder / "pinned.txt"
        pinned.write_text(f"torch=={version}\n")
        try:
            for what in (["-r", str(pinned)], ["--constraint", str(pinned), *LIBRARIES[name].packages]):
                subprocess.run(
                    [*pip, *what], check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS
                )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = f"{error}\n{error.stderr or ''}"
            (folder / "failed").write_text(said)
            failed.append(name)
            print(f"{name}: not installed: {said}", flush=True)
            continue
        (folder / "installed").touch()
        print(f"{name}: installed", flush=True)
    return failed


def trained(python: str, driver: str, request: exchange.Request, split: Split) -> dict[str, Any]:
    """What a driver answered, and what its lists are worth on the validation queries at each check."""
    path = Path(request.folder) / "request.json"
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
        raise RuntimeError(f"{driver} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads((Path(request.folder) / "answer.json").read_text())
    for number, check in enumerate(found["checks"]):
        best = np.load(Path(request.folder) / f"lists-{number}.npy")[split.validation.users]
        scored = lists.score(lists.frame(best, split, split.validation), split, True, split.validation)
        values = comparison.by_user(scored.metrics((10, 20)), scored.users)
        measured = comparison.intervals(values)
        check["ndcg@10"] = measured["ndcg@10"]["mean"]
        found["validation"] = {
            name: measured[name] for name in ("ndcg@10", "recall@10", "ndcg@20", "recall@20")
        }
        found["without_list"] = scored.without_list
    return found


def run(a: argparse.Namespace) -> None:
    """Each library between two turns of this one, of which neighbours share one."""
    os.sched_setaffinity(0, a.cores)
    protocol = read_protocol(a.protocol)
    sequences, _ = read_sequences(protocol.data, protocol.ties, a.data_dir)
    if a.users is not None:
        sequences = of_users(sequences, np.arange(min(a.users, sequences.users)))
    split = protocol.split.apply(sequences) if a.users else protocol.apply(sequences)
    at = np.flatnonzero(split.train_events)
    user = np.repeat(np.arange(sequences.users), sequences.lengths)

    def turn(python: str, driver: str, model: str, seed: int, checkout: str | None = None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            request = exchange.Request(
                folder,
                sequences.users,
                len(sequences.item_catalogue),
                a.minutes,
                a.epochs,
                a.check_minutes,
                a.threads,
                seed,
                model,
                heads=a.heads,
                batch=a.batch,
                gru4rec=None
                if model == "sasrec"
                else {
                    **fidelity_gru4rec.COMMON,
                    **fidelity_gru4rec.LOSSES["cross-entropy"],
                    "loss": "cross-entropy",
                    **({"checkout": checkout} if checkout else {}),
                },
            )
            request.write(user[at], sequences.items[at])
            found = trained(python, driver, request, split)
            found["settings"] = {k: v for k, v in asdict(request).items() if k != "folder"}
            if found["settings"]["gru4rec"]:
                found["settings"]["gru4rec"].pop("checkout", None)  # a path of this machine
        print(
            f"{driver}, {model}: {found['positions_per_second']:,.0f} positions/s, ndcg@10 "
            f"{fraction(found['validation']['ndcg@10']['mean'])}, {found['peak_mib']:,.0f} MiB",
            flush=True,
        )
        return found

    for number in range(a.rounds):
        before: dict[str, dict[str, Any]] = {}
        for name in [*a.libraries, *([AUTHORS] if a.authors else [])]:
            if name == AUTHORS:
                model, checkout = "gru4rec", str(Path(a.authors[0]).resolve())
                python, driver = os.path.abspath(a.authors[1]), "with_gru4rec_authors.py"
            else:
                model, checkout = "sasrec", None
                python = str(Path(a.environments).resolve() / name / "bin" / "python")
                driver = LIBRARIES[name].driver
            if model not in before:
                before[model] = turn(sys.executable, "with_seqrec.py", model, number)
            try:
                theirs = turn(python, driver, model, number, checkout)
            except RuntimeError as error:
                print(f"{name}: {error}", flush=True)
                continue
            after = turn(sys.executable, "with_seqrec.py", model, number)
            settings = after.pop("settings")
            result: dict[str, Any] = {
                "library": name,
                "round": number,
                "protocol": a.protocol,
                "users": a.users,
                "split_hash": split.hash,
                "date": str(date.today()),
                "commit": provenance.commit(),
                "hardware": provenance.hardware(),
                "threads": a.threads,
                "cores": sorted(a.cores),
                "note": a.note,
                "settings": settings,
                "ours": [{k: v for k, v in one.items() if k != "settings"} for one in (before[model], after)],
                "theirs": {k: v for k, v in theirs.items() if k != "settings"},
            }
            before[model] = after | {"settings": settings}
            limit = f"{a.minutes:g}min" if a.minutes else f"{a.epochs}epochs"
            of = f"-{a.users}users" if a.users else ""
            label = f"{a.protocol}{of}-{name}-{limit}-batch{a.batch}-{a.threads}threads-{number}.json"
            storage.write_text(json.dumps(result, indent=2) + "\n", a.results / label)
    write_table(a.results, a.table, a.target)


def seconds_to(turn: dict[str, Any], value: float) -> float | None:
    """Of training until a check found that NDCG@10; None where none did."""
    return next((check["seconds"] for check in turn["checks"] if check["ndcg@10"] >= value), None)


def time_ratio(result: dict[str, Any], value: float | None) -> str | None:
    """Their seconds over ours until that NDCG@10 (None: the one that theirs had at its end)."""
    value = result["theirs"]["checks"][-1]["ndcg@10"] if value is None else value
    ours = [seconds_to(turn, value) for turn in result["ours"]]
    theirs = seconds_to(result["theirs"], value)
    reached = [seconds for seconds in ours if seconds is not None]
    if len(reached) < len(ours):
        return None if theirs is None else "not in each turn here"
    mean = float(np.mean(reached))
    if theirs is None:
        return f"> {result['theirs']['train_seconds'] / mean:.2f}"
    return f"{theirs / mean:.2f}"


def table(results: list[dict[str, Any]], target: float | None = None) -> Table:
    """A row a library and setting: medians over rounds, the two turns of ours in a round taken together.

    Args:
        target: the NDCG@10 until which time is compared; None: what theirs had at its end.
    """
    rows = []
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        s = result["settings"]
        limit = f"{s['minutes']:g} minutes" if s["minutes"] else f"{s['epochs']} epochs"
        key = (
            result["protocol"],
            result["users"] or 0,
            result["library"],
            limit,
            s["batch"],
            result["threads"],
        )
        groups.setdefault(key, []).append(result)
    for (protocol, users, library, limit, batch, threads), rounds in sorted(groups.items()):

        def ratio(of: Callable[[dict[str, Any]], float], rounds: list[dict[str, Any]] = rounds) -> float:
            """Ours over theirs."""
            return float(np.median([np.mean([of(x) for x in r["ours"]]) / of(r["theirs"]) for r in rounds]))

        def theirs_longer(name: str, ratio: Any = ratio) -> float:
            return 1 / float(ratio(lambda turn: turn[name]))

        theirs = rounds[0]["theirs"]
        rows.append(
            {
                "library": library if library == AUTHORS else f"{library} {theirs['version']}",
                "model": rounds[0]["settings"]["model"],
                "protocol": protocol + (f", {users} users" if users else ""),
                "trained": limit,
                "batch": batch,
                "threads": threads,
                "rounds": len(rounds),
                "positions/s, ours / theirs": ratio(lambda turn: turn["positions_per_second"]),
                "positions a processor second, ours / theirs": ratio(
                    lambda turn: turn["positions_per_processor_second"]
                ),
                "positions/s, ours after / before": float(
                    np.median(
                        [np.divide(*(x["positions_per_second"] for x in r["ours"][::-1])) for r in rounds]
                    )
                ),
                "ndcg@10 ours": fraction(
                    float(
                        np.median(
                            [x["validation"]["ndcg@10"]["mean"] for result in rounds for x in result["ours"]]
                        )
                    )
                ),
                "ndcg@10 theirs": fraction(
                    float(np.median([result["theirs"]["validation"]["ndcg@10"]["mean"] for result in rounds]))
                ),
                "time to ndcg@10, theirs / ours": ", ".join(
                    filter(None, (time_ratio(result, target) for result in rounds))
                )
                or None,
                "peak memory, theirs / ours": theirs_longer("peak_mib"),
                "lists of all users, theirs / ours": theirs_longer("recommend_seconds"),
                "one history, theirs / ours": theirs_longer("one_history_ms"),
            }
        )
    ratios = [name for name in (rows[0] if rows else {}) if " / " in name and "time to" not in name]
    until = "that theirs had at its end" if target is None else f"of {target:g}"
    notes = [
        "Each library between two turns of this one, on the same cores. Validation. Ratios above 1 are in "
        "favour of this library. The further ours after / before is from 1, the more the machine was "
        "disturbed, and the less wall clocks tell.",
        "batch: users an update (here as many targets as they have; in RecBole rows of one target; GRU4Rec "
        "has 128 lanes).",
        f"time to ndcg@10: seconds of training until a check found the value {until}; >: theirs never did. "
        "Peak memory: of the process that trains and makes the lists.",
    ]
    for result in results:
        said = (
            f"{result['hardware']}, cores {', '.join(map(str, result['cores']))}, {result['date']}, commit "
            f"{result['commit'][:10]}" + (f", {result['note']}" if result["note"] else "")
        )
        if said not in notes:
            notes.append(said)
        versions = ", ".join(f"{k} {v}" for k, v in result["theirs"]["versions"].items())
        if (said := f"{result['library']}: Python {result['theirs']['python']}, {versions}") not in notes:
            notes.append(said)
    return Table(
        "The same networks in other libraries",
        list(rows[0]) if rows else [],
        rows,
        notes,
        dict.fromkeys(ratios, lambda value: f"{value:.2f}"),
    )


def write_table(results: Path, path: Path, target: float | None = None) -> None:
    """Writes the table of the result files of a folder."""
    found = [json.loads(file.read_text()) for file in sorted(results.glob("*.json"))]
    table(found, target).write(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["install", "run", "table"])
    parser.add_argument("environments", nargs="?", type=Path, help="folder of the libraries' environments")
    parser.add_argument("--libraries", type=names_of, default=list(LIBRARIES), help="an empty one for none")
    parser.add_argument("--authors", nargs=2, metavar=("CHECKOUT", "PYTHON"), help="GRU4Rec's, to run beside")
    parser.add_argument("--protocol", default="ml-1m-leave-one-out-v1")
    parser.add_argument("--users", type=int, help="only the first so many users, for a quick look")
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument("--minutes", type=float, help="of training (5, unless --epochs are given)")
    parser.add_argument("--epochs", type=int, help="of training, whatever an epoch is in each library")
    parser.add_argument("--check-minutes", type=float, help="of training between lists")
    parser.add_argument("--batch", type=int, default=128, help="users an update")
    parser.add_argument(
        "--cores",
        type=lambda text: {int(core) for core in text.split(",")},
        default=os.sched_getaffinity(0),
        help="on which all run, such as 0,1",
    )
    parser.add_argument("--threads", type=int, help="as many as cores, unless said")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--note", default="", help="of the machine, such as: others at work on it")
    parser.add_argument("--target", type=float, help="NDCG@10 until which the table compares times")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--table", type=Path, default=TABLE, help="where the table is written")
    a = parser.parse_args()
    if unknown := [name for name in a.libraries if name not in LIBRARIES]:
        parser.error(f"--libraries: expected some of {', '.join(LIBRARIES)}. Got {', '.join(unknown)}.")
    a.minutes = 5.0 if a.minutes is None and a.epochs is None else a.minutes
    a.threads = a.threads or len(a.cores)
    if a.command == "table":
        write_table(a.results, a.table, a.target)
    elif a.environments is None:
        parser.error(f"{a.command}: expected the folder of the libraries' environments. Got none.")
    elif a.command == "install":
        if failed := install(a.environments, a.libraries):
            sys.exit(f"not installed: {', '.join(failed)}")
    else:
        if not a.cores <= os.sched_getaffinity(0):
            parser.error(
                f"--cores: expected some of {sorted(os.sched_getaffinity(0))}. Got {sorted(a.cores)}."
            )
        run(a)


def names_of(text: str) -> list[str]:
    """Names between commas."""
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    main()
