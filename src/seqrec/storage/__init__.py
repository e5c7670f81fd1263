"""Every path goes through here: local files, ``s3://bucket/key``, and any other URL that fsspec can open.

Writes are atomic: a local file is written under a temporary name and then renamed; an object on S3 appears
when its upload is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import fsspec
import numpy as np
import polars as pl

from seqrec.errors import DataError, SeqrecError, SettingsError, StorageError, did_you_mean, shown
from seqrec.storage import s3


def is_remote(path: str | Path) -> bool:
    """True for a URL such as ``s3://bucket/key``.

    Raises:
        DataError: a URL that went through ``pathlib`` and lost a slash.
    """
    text = str(path)
    if re.match(r"(s3a?|gs|gcs|abfs|https?|memory):/[^/]", text):
        raise DataError(
            f"{text}: pathlib has dropped a slash of this address. Pass it as text: "
            f"{text.replace(':/', '://', 1)!r}."
        )
    return "://" in text


def check_path(path: str, name: str) -> None:
    """Checks that a path is one: local, or of a storage that can be had here.

    Args:
        name: of the setting, for the message.

    Raises:
        SettingsError: it is empty, has a character that no path has, or names an unknown kind of storage.
    """
    if not path.strip() or "\0" in path:
        raise SettingsError(f"{name}: expected the path of a file or folder. Got {shown(path)}.")
    kind = path.split("://", 1)[0].split("::")[-1]
    if "://" in path and kind not in (known := fsspec.available_protocols()):
        near = did_you_mean(kind, known)
        raise SettingsError(
            f"{name}: expected a path, or the address of a storage. Got {shown(path)}, and there is "
            f"no storage {shown(kind)}.{near if near.startswith(' Did') else ''}"
        )


def join(path: str | Path, *parts: str) -> str:
    """A path below another, local or remote."""
    if is_remote(path):
        return "/".join([str(path).rstrip("/"), *parts])
    return str(Path(path).joinpath(*parts))


def parent(path: str | Path) -> str:
    """The folder that a file is in."""
    return str(path).rstrip("/").rsplit("/", 1)[0] if is_remote(path) else str(Path(path).parent)


def sibling(path: str | Path, name: str) -> str:
    """The path of another file in the same folder."""
    return join(parent(path), name)


@contextmanager
def _remote(path: str | Path) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the name in it; errors within the block name the path and what to do."""
    if s3.is_s3(path):
        with s3.named(str(path)):
            filesystem = s3.filesystem()
            yield filesystem, filesystem._strip_protocol(str(path))
        return
    try:
        filesystem, name = fsspec.core.url_to_fs(str(path))
    except (ImportError, ValueError) as error:
        raise StorageError(f"{path}: no such storage here ({error}).") from error
    try:
        yield filesystem, name
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise
    except Exception as error:
        # the libraries behind fsspec have errors of their own for a server that cannot be reached
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] == "aiohttp":
            what = " ".join(str(error).split()) or type(error).__name__
            raise StorageError(
                f"{path}: cannot be used ({what}). Check the address and the network."
            ) from error
        raise


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder.

    Raises:
        StorageError: the storage cannot be reached, or the bucket does not exist.
    """
    if not is_remote(path):
        return Path(path).exists()
    with _remote(path) as (filesystem, name):
        return _found(path, filesystem.exists, name)


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder.

    Raises:
        StorageError: the storage cannot be reached, or the bucket does not exist.
    """
    if not is_remote(path):
        return Path(path).is_dir()
    with _remote(path) as (filesystem, name):
        return _found(path, filesystem.isdir, name)


def _found(path: str | Path, look: Callable[[str], bool], name: str) -> bool:
    """What ``look`` finds; an error if it is the bucket that is missing."""
    if not s3.is_s3(path):
        return bool(look(name))
    found = "/" in name and bool(look(name))
    if not found:
        s3.check_bucket(str(path))
    return found or "/" not in name


def names(folder: str | Path) -> list[str]:
    """The names of what a folder holds, sorted.

    Raises:
        DataError: there is no such folder.
    """
    try:
        if not is_remote(folder):
            return sorted(entry.name for entry in Path(folder).iterdir())
        with _remote(folder) as (filesystem, name):
            found = (str(entry).rstrip("/") for entry in filesystem.ls(name, detail=False))
            return sorted(entry.rsplit("/", 1)[-1] for entry in found if entry != name.rstrip("/"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{folder}: no such folder.") from error


def files_below(folder: str | Path) -> list[str]:
    """The paths of all files in a folder and the folders in it, sorted."""
    if not is_remote(folder):
        return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
    with _remote(folder) as (filesystem, name):
        below = len(name.rstrip("/")) + 1
        return sorted(
            join(folder, str(entry)[below:])
            for entry in filesystem.find(name)
            if not str(entry).endswith("/")
        )


def remove(path: str | Path) -> None:
    """Removes a file, if it is there."""
    try:
        if not is_remote(path):
            return Path(path).unlink()
        with _remote(path) as (filesystem, name):
            if s3.is_s3(path):
                s3.check_key(str(path))
            filesystem.rm_file(name)
    except FileNotFoundError:
        return None


@contextmanager
def open_read(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary stream of the file's content.

    Raises:
        DataError: there is no such file.
        StorageError: a remote file cannot be read: no such bucket, no credentials, or the server still fails
            after all retries.
    """
    if not is_remote(path):
        try:
            stream: IO[bytes] = open(path, "rb")  # noqa: SIM115
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise DataError(f"{path}: no such file.") from error
        with stream:
            yield stream
        return
    with _remote(path) as (filesystem, name):
        try:
            stream = s3.open_read(str(path)) if s3.is_s3(path) else filesystem.open(name, "rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            if s3.is_s3(path):
                s3.check_bucket(str(path))
            raise DataError(f"{path}: no such file.") from error
        with stream:
            yield stream


@contextmanager
def open_write(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary stream whose content appears under ``path`` only when complete, never after an error.

    Raises:
        StorageError: the file cannot be created: no permission, or a file where its folder should be; for a
            remote file: no such bucket, no credentials, or the server still fails after all retries.
    """
    if s3.is_s3(path):
        with _remote(path), s3.upload(str(path)) as stream:
            yield stream
        return
    if is_remote(path):
        with _remote(path) as (filesystem, name):
            hidden = f"{name}.{uuid.uuid4().hex[:8]}"
            try:
                with filesystem.open(hidden, "wb") as stream:
                    yield stream
            except BaseException:
                filesystem.rm_file(hidden)
                raise
            filesystem.mv(hidden, name)
        return
    target = Path(path)
    beside = temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(target.parent)
        opened = open(beside, "wb")  # noqa: SIM115  (closed below: errors of the block are not errors of opening)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}). Name another place, or see to its permissions."
        ) from error
    try:
        with opened as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, target)
    except OSError as error:
        if error.filename is not None:
            raise  # of another file
        what = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(
            f"{path}: cannot be written ({what}). Free some space on its disk, or name another place."
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _host() -> str:
    """This machine, as the names of temporary files have it."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def temporary(path: Path) -> Path:
    """Another name beside a file or folder of this machine, under which it is until it is whole."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def remove_left_over(folder: Path) -> None:
    """Removes the temporary files and folders of writers on this machine that were killed."""
    ours = re.compile(rf"\..+\.{_host()}-(\d+)-[0-9a-f]{{8}}")
    for entry in os.scandir(folder):
        if (found := ours.fullmatch(entry.name)) and not _runs(int(found[1])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def check_file(path: str | Path, endings: Sequence[str] = ()) -> None:
    """Checks, before any work is done, that a file can be written to a path.

    Args:
        endings: the endings that the file may have, such as ``.json``; empty allows any.

    Raises:
        SettingsError: another ending, a folder of that name, or no folder in which the file could be created.
    """
    suffix = Path(str(path)).suffix.lower()
    if endings and suffix not in endings:
        raise SettingsError(
            f"{path}: expected a file that ends in {', '.join(endings)}. Got {suffix or 'no ending'!r}."
        )
    if not is_remote(path):
        if Path(path).is_dir():
            raise SettingsError(f"{path}: expected a file to write. Got a folder; name a file in it.")
        check_folder(Path(path).parent)


def check_folder(path: str | Path) -> None:
    """Checks, before any work is done, that files can be written into a folder, which need not exist yet.

    Raises:
        SettingsError: there is a file where the folder should be, or no permission to write.
    """
    if is_remote(path):
        return
    there = Path(path)
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise SettingsError(f"{path}: expected a folder to write into. {there} is a file; name another.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(
            f"{path}: expected a folder to write into. You have no permission to write to {there}; "
            "name another."
        )


def absolute(path: str) -> str:
    """The same path, independent of the working directory."""
    return path if is_remote(path) else str(Path(path).absolute())


def resolved(path: str) -> str:
    """The canonical path of a file: links, ``.`` and ``..`` resolved."""
    return path if is_remote(path) else str(Path(path).resolve())


def write_json(value: Any, path: str | Path) -> None:
    """Writes a value as indented JSON."""
    with open_write(path) as stream:
        stream.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: str | Path, most: int | None = None) -> Any:
    """The value in a JSON file.

    Args:
        most: bytes that the file may have; None for any number.

    Raises:
        DataError: there is no such file, it is larger, or it is not valid JSON.
    """
    with open_read(path) as stream:
        content = stream.read() if most is None else stream.read(most + 1)
    if most is not None and len(content) > most:
        raise DataError(f"{path}: expected at most {most:,} bytes. Got more.")
    try:
        return json.loads(content)
    # no JSON, no UTF-8, a number of thousands of digits, or nested a thousand deep
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({shown(error, str)}).") from error


def size(path: str | Path) -> int:
    """The bytes of a file.

    Raises:
        DataError: there is no such file, or it is a folder, a pipe or a device, which may have no end.
    """
    try:
        if not is_remote(path):
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{path}: expected a file. Got a folder, a pipe or a device.")
            return found.st_size
        with _remote(path) as (filesystem, name):
            return int(filesystem.size(name))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file.") from error


def write_text(text: str, path: str | Path) -> None:
    """Writes text as UTF-8."""
    with open_write(path) as stream:
        stream.write(text.encode())


def write_parquet(frame: pl.DataFrame, path: str | Path) -> None:
    """Writes a frame as Parquet."""
    with open_write(path) as stream:
        try:
            frame.write_parquet(stream)
        except pl.exceptions.PolarsError as error:
            if of_system := re.search(r"\(os error (\d+)\)", str(error)):  # such as a full disk
                raise OSError(int(of_system[1]), os.strerror(int(of_system[1]))) from error
            raise


def read_parquet(path: str | Path) -> pl.DataFrame:
    """The frame in a Parquet file."""
    with open_read(path) as stream:
        return pl.read_parquet(stream)


def write_array(array: np.ndarray, path: str | Path) -> None:
    """Writes an array of any shape, (...), in NumPy's format."""
    with open_write(path) as stream:
        np.save(stream, array, allow_pickle=False)


def read_array(path: str | Path) -> np.ndarray:
    """The array of any shape, (...), in a file; memory-mapped where the file is local.

    Raises:
        DataError: there is no such file, or it is no array.
    """
    try:
        if is_remote(path):
            with open_read(path) as stream:
                array = np.load(stream, allow_pickle=False)
        else:
            size(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    # no array, one of objects, one cut short, a header that is none
    except (ValueError, TypeError, OverflowError, SyntaxError, EOFError, BadZipFile, MemoryError) as error:
        if isinstance(error, SeqrecError):
            raise
        raise DataError(f"{path}: not an array of NumPy ({shown(error, str)}).") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected an array of NumPy. Got several.")
    return array
