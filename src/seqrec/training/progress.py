"""Progress of long work: a bar with speed, loss and time left on a terminal; log lines elsewhere.

From Python without a terminal nothing is printed unless logging is switched on
(``logging.basicConfig(level="INFO")``).
"""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("seqrec")
SECONDS_BETWEEN_LINES = 30.0


class TrainingProgress:
    """Shows how a training gets on.

    Args:
        label: what is trained.
        total: positions of the whole training, at most.
        shown: False shows nothing at all.
    """

    def __init__(self, label: str, total: int, shown: bool = True):
        self.label, self.total, self.shown = label, total, shown
        console = Console(stderr=True)
        self.bar: Progress | None = None
        if shown and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
            )
            self.bar = Progress(*columns, console=console, refresh_per_second=4)
            self.task = self.bar.add_task(label, total=total, speed="", status="")
        self.begin = self.last = time.perf_counter()
        self.first = 0

    def __enter__(self) -> TrainingProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def resume(self, done: int) -> None:
        """Positions that an earlier run had done already."""
        self.first = done

    def update(self, done: int, epoch: int, loss: float) -> None:
        """After some updates: positions done so far, the epoch, the mean loss of the epoch so far."""
        now = time.perf_counter()
        speed = (done - self.first) / max(1e-9, now - self.begin)
        if self.bar:
            self.bar.update(
                self.task,
                completed=done,
                speed=f"{speed:,.0f} positions/s",
                status=f"epoch {epoch} loss {loss:.4f}",
            )
        elif self.shown and now - self.last > SECONDS_BETWEEN_LINES:
            left = (self.total - done) / max(1.0, speed)
            share = 100 * done / self.total
            log.info(
                "%s epoch %d: %.0f%%, loss %.4f, %.0f positions/s, at most %.0f s left",
                self.label,
                epoch,
                share,
                loss,
                speed,
                left,
            )
            self.last = now

    def line(self, text: str) -> None:
        """A line that stays (the result of an epoch)."""
        if self.bar:
            self.bar.console.print(text, highlight=False)
        elif self.shown:
            log.info(text)
        self.last = time.perf_counter()
