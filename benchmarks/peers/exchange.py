"""What a library of the race is given and what it answers. Needs numpy alone, so that every environment reads
it.

    request.json    the fields of ``Request``
    events.npz      user, item: (events,) of the training events, users side by side, oldest first
    lists-N.npy     (users, k) items, best first, of each user after all of their training events, -1 where a
                    list is short: at check N, the last one after training
    answer.json     what ``Clock.answer`` was given: figures, checks, versions, the peak of the memory
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = [
    "seqrec",
    "rectools",
    "replay-rec",
    "recbole",
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "polars",
    "pyarrow",
    "lightning",
    "pytorch-lightning",
]
"""Packages whose versions an answer has, where they are installed."""


@dataclass(frozen=True)
class Request:
    """What to train, and for how long.

    Attributes:
        folder: of the events and of the answer.
        users, items: how many there are, numbered from 0.
        minutes, epochs: after how many training ends, checks not counted; None for no limit. What an epoch
            is differs between libraries.
        check_minutes: of training from one check to the next; None for a check at the end alone.
        threads, seed: as they are.
        model: ``sasrec`` or ``gru4rec``.
        width, blocks, heads, length, dropout, learning_rate: of the SASRec.
        batch: users an update; rows, where a library has one for each event.
        gru4rec: settings of GRU4Rec, as its authors name them.
        k: length of the lists.
    """

    folder: str
    users: int
    items: int
    minutes: float | None = None
    epochs: int | None = None
    check_minutes: float | None = None
    threads: int = 1
    seed: int = 0
    model: str = "sasrec"
    width: int = 64
    blocks: int = 2
    heads: int = 1
    length: int = 200
    dropout: float = 0.2
    learning_rate: float = 0.001
    batch: int = 128
    gru4rec: dict[str, Any] | None = None
    k: int = 20

    def write(self, user: np.ndarray, item: np.ndarray) -> Path:
        """Leaves the events and the request in its folder; the path of the latter."""
        path = Path(self.folder) / "request.json"
        np.savez(Path(self.folder) / "events.npz", user=user, item=item)
        path.write_text(json.dumps(asdict(self)))
        return path

    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """(events,) users and (events,) items."""
        with np.load(Path(self.folder) / "events.npz") as found:
            return found["user"].astype(np.int64), found["item"].astype(np.int64)

    def histories(self) -> list[np.ndarray]:
        """The items of each user, oldest first."""
        user, item = self.events()
        return np.split(item, np.cumsum(np.bincount(user, minlength=self.users))[:-1])


def read() -> Request:
    """The request that the command line names."""
    return Request(**json.loads(Path(sys.argv[1]).read_text()))


def peak_mib() -> float:
    """Most memory that this process has had, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def median_ms(call: Callable[[], Any], times: int = 20) -> float:
    """Milliseconds of a call: the median of some, after three that warm up."""
    for _ in range(3):
        call()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return float(np.median(found) * 1000)


class Clock:
    """Counts what is trained on and how long that takes, and has lists made now and then, on no one's time.

    Args:
        request: whose limits hold.
        lists: gives the (users, k) lists of the model as it is.
    """

    def __init__(self, request: Request, lists: Callable[[], np.ndarray]):
        self.request, self.lists = request, lists
        self.positions = self.updates = self.epochs = 0
        self.checks: list[dict[str, float]] = []
        self.list_seconds: list[float] = []

    def start(self) -> None:
        """Training begins."""
        self.begin, self.processor_begin = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        """Of training so far."""
        return time.perf_counter() - self.begin

    def update(self, positions: int) -> bool:
        """After an update of so many targets: whether training is to end."""
        self.positions += positions
        self.updates += 1
        if self.updates == 1:
            self.first = self.now()
        every = self.request.check_minutes
        if every is not None and self.seconds() >= 60 * every * (len(self.checks) + 1):
            self.check()
        return self.over()

    def over(self) -> bool:
        """Whether time is up."""
        return self.request.minutes is not None and self.seconds() >= 60 * self.request.minutes

    def now(self) -> dict[str, float]:
        """What has been trained, and how long that took."""
        return {
            "seconds": self.seconds(),
            "processor_seconds": time.process_time() - self.processor_begin,
            "positions": self.positions,
            "epochs": self.epochs,
        }

    def check(self) -> None:
        """Makes the lists, while time stands still."""
        wall, processor = time.perf_counter(), time.process_time()
        self.checks.append(self.now())
        np.save(Path(self.request.folder) / f"lists-{len(self.checks) - 1}.npy", self.lists())
        self.list_seconds.append(time.perf_counter() - wall)
        self.begin += time.perf_counter() - wall
        self.processor_begin += time.process_time() - processor

    def answer(self, version: str, one_history_ms: float) -> None:
        """Writes the figures. The last check is to be that after training."""
        last = self.checks[-1]
        # The first update comes after all that is prepared once, and so tells nothing of the speed.
        first = self.first if self.updates > 1 else {"seconds": 0, "processor_seconds": 0, "positions": 0}
        positions = self.positions - first["positions"]
        processor_seconds = last["processor_seconds"] - first["processor_seconds"]
        figures = {
            "version": version,
            "versions": {name: found for name in RECORDED if (found := _version(name))},
            "python": sys.version.split()[0],
            "train_seconds": last["seconds"],
            "train_processor_seconds": last["processor_seconds"],
            "positions": self.positions,
            "positions_per_second": positions / (last["seconds"] - first["seconds"]),
            "positions_per_processor_second": positions / processor_seconds,
            "updates": self.updates,
            "epochs": self.epochs,
            "recommend_seconds": self.list_seconds[-1],
            "one_history_ms": one_history_ms,
            "peak_mib": peak_mib(),
            "checks": self.checks,
        }
        (Path(self.request.folder) / "answer.json").write_text(json.dumps(figures, indent=2))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
