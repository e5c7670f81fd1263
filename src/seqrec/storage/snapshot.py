"""A folder of files that belong together, replaced atomically on any storage.

    model.json                       the marker: names the files of the current state
    weights-5f0c2a9e.safetensors     a file of this state

A writer adds files under new names, then replaces the marker, then removes what the marker does not name.
Each step replaces one file, which is all that S3 can do atomically. Wherever the writer is stopped, a reader
finds the old state or the new one, never a mixture.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqrec import storage
from seqrec.errors import SeqrecError

logger = logging.getLogger(__name__)


class Snapshot:
    """A state that is being written.

    Attributes:
        files: name of a part -> name of its file in the folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = str(folder)
        self.files: dict[str, str] = {}
        self.token = uuid.uuid4().hex[:8]

    def path(self, part: str) -> str:
        """Where to write a part such as ``weights.safetensors``."""
        stem, suffix = part.rsplit(".", 1)
        self.files[part] = f"{stem}-{self.token}.{suffix}"
        return storage.join(self.folder, self.files[part])


@contextmanager
def write(folder: str | Path, marker: str, parts: Iterable[str], about: dict[str, Any]) -> Iterator[Snapshot]:
    """Writes the parts within the block and the marker at its end; after an error all is as before.

    Args:
        parts: all names that a part of such a folder may have, by which files of earlier states are found.
        about: content of the marker, which may be completed within the block; ``files`` is added.
    """
    snapshot = Snapshot(folder)
    try:
        yield snapshot
    except BaseException:
        _remove(folder, snapshot.files.values())
        raise
    # If this fails, nothing may be removed: the server may have taken the marker and then lost the
    # connection.
    storage.write_json(about | {"files": snapshot.files}, storage.join(folder, marker))
    earlier = re.compile(
        "|".join(
            rf"{re.escape(p.rsplit('.', 1)[0])}(-[0-9a-f]{{8}})?\.{re.escape(p.rsplit('.', 1)[1])}"
            for p in parts
        )
    )
    _remove(
        folder,
        (
            name
            for name in storage.names(folder)
            if earlier.fullmatch(name) and name not in snapshot.files.values()
        ),
    )


def _remove(folder: str | Path, names: Iterable[str]) -> None:
    try:
        for name in names:
            storage.remove(storage.join(folder, name))
    except (SeqrecError, OSError) as error:
        logger.warning("%s: files of another state are left over (%s); nothing reads them", folder, error)
