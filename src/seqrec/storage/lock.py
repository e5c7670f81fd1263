"""One writer at a time in a folder.

A local folder is held by a lock of the operating system on a file in it, ``.lock``, which names its owner.
The system itself lets go of it when its process ends, however it ends, so that a lock is never stale: what a
killed writer leaves is an unlocked file, which the next one takes and removes.

Objects on S3 and the like have no such locks. There the last writer of a marker wins, whole: see that only
one writes into a folder.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from seqrec import storage
from seqrec.errors import StorageError

try:
    import fcntl
except ImportError:  # not a POSIX system: no locks there
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def held(folder: str | Path, name: str = NAME) -> Iterator[None]:
    """Holds a folder within the block, which is made if it is not there. A remote folder is not held.

    Args:
        name: of the file, where a folder has several things that are written one by one.

    Raises:
        StorageError: another process, or another thread, holds it; says which. Or it cannot be written.
    """
    if storage.is_remote(folder) or fcntl is None:
        yield
        return
    path = Path(folder) / name
    file = _taken(path, folder)
    try:
        if file is not None:
            owner = {"host": socket.gethostname(), "pid": os.getpid()}
            owner["since"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            try:
                os.truncate(file, 0)
                os.write(file, json.dumps(owner).encode())
            except OSError as error:
                raise StorageError(
                    f"{folder}: cannot be written ({error.strerror}). Free some space on its disk, or name "
                    "another place."
                ) from error
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)  # before it is let go, or it might be the next one's
            os.close(file)


def _taken(path: Path, folder: str | Path) -> int | None:
    """The locked file; None where the file system has no locks."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StorageError(
                f"{folder}: cannot be written ({error.strerror}). Name another place, or see to its "
                "permissions."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(file, 1000)
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise StorageError(
                f"{folder}: is being written by {_named(owner)}. Wait until it is done or stop it, or name "
                "another folder."
            ) from error
        try:
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # its last owner has just removed it
        os.close(file)


def _named(owner: bytes) -> str:
    try:
        o = json.loads(owner)
        return f"process {o['pid']} on {o['host']}, since {o['since']}"
    except (ValueError, TypeError, KeyError):  # which it is just writing
        return "another process"
