"""Small trained models, and `seqrec serve` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from conftest import cycle_log

from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov


@dataclass
class Running:
    """A service that answers.

    Attributes:
        process, address: of it.
        lines: what it has logged since it started.
    """

    process: subprocess.Popen[str]
    address: str
    lines: list[dict]

    def post(self, path: str, body: object, status: int = 200, **headers: str) -> dict:
        """The answer, which must have this status."""
        found = httpx.post(self.address + path, json=body, headers=headers, timeout=30)
        assert found.status_code == status, found.text
        return found.json()

    def get(self, path: str, status: int = 200, **headers: str) -> dict:
        """The answer, which must have this status."""
        found = httpx.get(self.address + path, headers=headers, timeout=30)
        assert found.status_code == status, found.text
        return found.json()


@contextlib.contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[Running]:
    """`seqrec serve` with these arguments, on a free port, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "seqrec", "serve", "--port", "0", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    lines: list[dict] = []
    addresses: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"message": line})
            if found := re.search(r"Serving .* at (http://\S+)\.$", lines[-1]["message"]):
                addresses.put(found[1])
        addresses.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        address = addresses.get(timeout=120)
        assert address is not None, lines
        yield Running(process, address, lines)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join(10)


def save_models(root: Path) -> dict[str, Path]:
    """Saves two models of a ring of twelve items, and says where."""
    log = cycle_log()
    HRM(width=8, train={"epochs": 8}).fit(log, progress=False, seed=1).save(root / "hrm")
    Markov().fit(log, progress=False).save(root / "markov")
    return {"hrm": root / "hrm", "markov": root / "markov"}
