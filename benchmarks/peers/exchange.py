"""What a library of the race is given and what it answers. Needs numpy alone, so that every environment reads
it.

    request.json    the fields of ``Request``
    events.npz      user, item: (events,) of the training events, users side by side, oldest first
    answer.json     what ``answer`` was given, and the peak of the process's memory
    lists.npy       (users, k) items, best first, of each user after all of their training events
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Request:
    """What to train, and for how long.

    Attributes:
        folder: of the events and of the answer.
        users, items: how many there are, numbered from 0.
        minutes: of training.
        threads, seed: as they are.
        width, blocks, heads, length, dropout, learning_rate: of the SASRec.
        batch: sequences an update, where a library counts these.
        k: length of the lists.
    """

    folder: str
    users: int
    items: int
    minutes: float
    threads: int = 1
    seed: int = 0
    width: int = 64
    blocks: int = 2
    heads: int = 1
    length: int = 200
    dropout: float = 0.2
    learning_rate: float = 0.001
    batch: int = 128
    k: int = 20

    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """(events,) users and (events,) items."""
        with np.load(Path(self.folder) / "events.npz") as found:
            return found["user"].astype(np.int64), found["item"].astype(np.int64)


def read() -> Request:
    """The request that the command line names."""
    return Request(**json.loads(Path(sys.argv[1]).read_text()))


def peak_mib() -> float:
    """Most memory that this process has had, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def median_ms(call: Any, times: int = 20) -> float:
    """Milliseconds of a call: the median of some, after three that warm up."""
    for _ in range(3):
        call()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return float(np.median(found) * 1000)


def answer(request: Request, lists: np.ndarray, **figures: Any) -> None:
    """Writes the lists, and last the figures."""
    folder = Path(request.folder)
    np.save(folder / "lists.npy", lists.astype(np.int64))
    figures["peak_mib"] = peak_mib()
    (folder / "answer.json").write_text(json.dumps(figures, indent=2))
