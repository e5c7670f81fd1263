"""A folder of files that belong together, replaced atomically on any storage.

    model.json                       the marker: names the files of the current state
    weights-5f0c2a9e.safetensors     a file of this state

A writer adds files under new names, then replaces the marker, then removes what the marker does not name.
Each step replaces one file, which is all that S3 can do atomically. Wherever the writer is stopped, a reader
finds the old state or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pydantic import Field

from seqrec import storage
from seqrec.errors import DataError, SeqrecError
from seqrec.storage import lock, marker

logger = logging.getLogger(__name__)


class Snapshot:
    """A state that is being written.

    Attributes:
        files: name of a part -> name of its file in the folder.
        bytes, sha256: size and checksum of each part.
    """

    def __init__(self, folder: str | Path):
        self.folder = str(folder)
        self.files: dict[str, str] = {}
        self.bytes: dict[str, int] = {}
        self.sha256: dict[str, str] = {}
        self.token = uuid.uuid4().hex[:8]

    @contextmanager
    def open(self, part: str) -> Iterator[IO[bytes]]:
        """A binary stream for the content of a part such as ``weights.safetensors``."""
        with storage.open_write(self.path(part)) as stream:
            counted = _Counted(stream)
            yield cast(IO[bytes], counted)
        self.bytes[part], self.sha256[part] = counted.written, counted.hash.hexdigest()

    def path(self, part: str) -> str:
        """Where to write a part, for a writer of its own; it has no checksum then."""
        stem, suffix = part.rsplit(".", 1)
        self.files[part] = f"{stem}-{self.token}.{suffix}"
        return storage.join(self.folder, self.files[part])


class _Counted(io.RawIOBase):
    """Passes content on, and counts and hashes it."""

    def __init__(self, stream: IO[bytes]):
        self.stream, self.written, self.hash = stream, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.written

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        self.stream.write(content)
        self.hash.update(content)
        self.written += len(content)
        return len(content)


class Parts(marker.Schema):
    """What a marker says of its files.

    ``bytes`` is missing in what older versions wrote, as may be ``sha256``.
    """

    files: dict[str, marker.FileName]
    bytes: dict[str, int] = Field(default_factory=dict)
    sha256: dict[str, str] = Field(default_factory=dict)


def read(folder: str | Path, part: str, parts: Parts, advice: str) -> bytes:
    """The content of a part, checked.

    Raises:
        DataError: it is missing, or not the one that the marker names.
    """
    check(folder, part, parts, advice, hashed=0)
    with storage.open_read(storage.join(folder, parts.files[part])) as stream:
        content = stream.read()
    if part in parts.sha256 and hashlib.sha256(content).hexdigest() != parts.sha256[part]:
        raise _changed(folder, part, parts, "checksum", advice)
    return content


def check(folder: str | Path, part: str, parts: Parts, advice: str, hashed: float) -> None:
    """Checks that a part is the one that the marker names: its size always, its content if it is small.

    Args:
        hashed: the most bytes that a part may have for its content to be read and checked.

    Raises:
        DataError: it is missing, or another.
    """
    path = storage.join(folder, parts.files[part])
    size = storage.size(path)
    if part in parts.bytes and size != parts.bytes[part]:
        raise _changed(folder, part, parts, "size", advice)
    if size <= hashed and part in parts.sha256:
        found = hashlib.sha256()
        with storage.open_read(path) as stream:
            while block := stream.read(1 << 20):
                found.update(block)
        if found.hexdigest() != parts.sha256[part]:
            raise _changed(folder, part, parts, "checksum", advice)


def _changed(folder: str | Path, part: str, parts: Parts, what: str, advice: str) -> DataError:
    path = storage.join(folder, parts.files[part])
    return DataError(f"{path}: not the file that was written with the others (its {what} differs). {advice}.")


@contextmanager
def write(folder: str | Path, name: str, parts: Iterable[str], about: dict[str, Any]) -> Iterator[Snapshot]:
    """Writes the parts within the block and the marker at its end; after an error all is as before.

    Args:
        name: of the marker.
        parts: all names that a part of such a folder may have, by which files of earlier states are found.
        about: content of the marker, which may be completed within the block; ``files`` is added,
            with their sizes and checksums. It is sealed (``seqrec.storage.marker``).
    """
    with lock.held(folder):
        snapshot = Snapshot(folder)
        try:
            yield snapshot
        except BaseException:
            _remove(folder, snapshot.files.values())
            raise
        whole = about | {"files": snapshot.files, "bytes": snapshot.bytes, "sha256": snapshot.sha256}
        # If this fails, nothing may be removed: the server may have taken the marker and then lost the
        # connection.
        storage.write_json(marker.sealed(whole), storage.join(folder, name))
        earlier = re.compile(
            "|".join(
                rf"{re.escape(p.rsplit('.', 1)[0])}(-[0-9a-f]{{8}})?\.{re.escape(p.rsplit('.', 1)[1])}"
                for p in parts
            )
        )
        _remove(
            folder,
            (
                found
                for found in storage.names(folder)
                if earlier.fullmatch(found) and found not in snapshot.files.values()
            ),
        )


def _remove(folder: str | Path, names: Iterable[str]) -> None:
    try:
        for name in names:
            storage.remove(storage.join(folder, name))
    except (SeqrecError, OSError) as error:
        logger.warning("%s: files of another state are left over (%s); nothing reads them", folder, error)
