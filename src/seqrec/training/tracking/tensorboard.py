"""TensorBoard: event files in the folder ``tensorboard`` beside the checkpoint, or in ``runs/tensorboard``.

tensorboard --logdir FOLDER shows them, also while the training runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from seqrec.training.tracking import Tracker, Tracking

log = logging.getLogger("seqrec")


class _Events:
    def __init__(self, writer: SummaryWriter):
        self.writer = writer

    def values(self, step: int, found: Mapping[str, float]) -> None:
        for name, value in found.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def folder(tracking: Tracking) -> Path:
    """Where the event files go: a folder a training."""
    if tracking.checkpoint is None:
        return Path("runs", "tensorboard", f"{tracking.name}-{tracking.fingerprint[:8]}")
    path = Path(tracking.checkpoint)
    return path.parent / "tensorboard" / path.stem.lstrip(".")


@contextmanager
def begin(tracking: Tracking, step: int) -> Iterator[Tracker]:
    """Event files of a training. Values after ``step``, of a training that was stopped and goes on before
    them, are no longer shown."""
    place = folder(tracking)
    log.info("%s: tensorboard --logdir %s shows this training.", tracking.name, place.parent)
    writer = SummaryWriter(str(place), purge_step=step + 1 if step else 0)
    try:
        if not step:
            settings = json.dumps(tracking.settings, indent=2, default=str)
            writer.add_text("settings", f"```json\n{settings}\n```", step)
        yield _Events(writer)
    finally:
        writer.close()
