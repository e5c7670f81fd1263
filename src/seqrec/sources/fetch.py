"""Finds a data set's files: where the user says, in the cache, at its publisher, and last in whatever copy is
left.

What is fetched goes to the cache, checked and whole or not at all. A source out of reach is given up within
seconds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from seqrec import storage
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, DownloadError

CONNECT_SECONDS = 5
"""How long a publisher may take to answer, name look-up included."""
STALL_SECONDS = 10
"""How long a download may stand still."""
WANTED = re.compile(r"^(ratings|movies|users)\.\w+$|^u\.\w+$|^README")
"""The files of an archive that are kept."""

logger = logging.getLogger(__name__)


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when a disk, or a user's share of it, is full."""


@dataclass(frozen=True)
class Found:
    """A folder with a data set's files, and where they came from.

    Attributes:
        folder: the path of the folder.
        source: where they came from: an address, or the folder itself.
    """

    folder: str
    source: str

    def attach(self, log: Interactions, terms: str) -> Interactions:
        """The log with its source and terms."""
        return replace(log, source=self.source, terms=terms)


def cache_folder(cache: str | Path | None = None) -> Path:
    """``cache``, else ``SEQREC_CACHE``, else ``~/.cache/seqrec``.

    Raises:
        DataError: it is not on this machine.
    """
    folder = cache or os.environ.get("SEQREC_CACHE") or Path.home() / ".cache" / "seqrec"
    if storage.is_remote(folder):
        raise DataError(
            f"cache: expected a local folder. Got {str(folder)!r}; give data sets elsewhere with data_dir "
            "or SEQREC_DATA."
        )
    return Path(folder).expanduser()


def find(
    name: str,
    files: Sequence[str],
    data_dir: str | Path | None,
    cache: str | Path | None,
    url: str,
    md5: str | None,
    also: Sequence[str] = (),
    otherwise: Callable[[Path], str] | None = None,
    connect_seconds: float = CONNECT_SECONDS,
) -> Found:
    """A folder with one of ``files``.

    Args:
        name: of the data set, and of its folder and zip.
        files: any one of these makes a folder the data set's.
        data_dir: where the user says it is (else ``SEQREC_DATA``), local or remote: such a folder, one with
            such a folder in it, or one with ``NAME.zip``.
        url, md5: the publisher's archive (or file) and its checksum.
        also: other names of the data set's folder.
        otherwise: fills a folder from another copy and says which, or raises ``DownloadError``.
        connect_seconds: how long the publisher may take to answer, name look-up included.
    Raises:
        DataError: ``data_dir`` is no folder.
        DownloadError: none of the sources has it; says what was tried and what to do.
    """
    tried = []
    home = cache_folder(cache) / name
    said, what = (data_dir, "data_dir") if data_dir else (os.environ.get("SEQREC_DATA"), "SEQREC_DATA")
    if said:
        root = str(said) if storage.is_remote(said) else str(Path(said).expanduser())
        if not storage.is_folder(root):
            raise DataError(f"{what}: expected a folder. {str(said)!r} is none.")
        for folder in (root, *(storage.join(root, sub) for sub in (name, *also))):
            if storage.is_folder(folder) and not set(files).isdisjoint(storage.names(folder)):
                return Found(folder, folder)
        archive = storage.join(root, f"{name}.zip")
        if storage.exists(archive):
            _check(archive, md5, archive)
            with _filling(home, files) as target:
                _unzip(archive, target, archive)
            return Found(str(home), f"{archive}, unpacked in {home}")
        tried.append(f"{what} {said} (none of {', '.join(files)})")
    if any((home / file).is_file() for file in files):
        return Found(str(home), f"the cache {home}, from {_origin(home)}")
    tried.append(f"the cache {home}")
    for fetch in (lambda target: _from_publisher(target, url, md5, connect_seconds), otherwise):
        if fetch is None:
            continue
        try:
            with _filling(home, files) as target:
                source = fetch(target)
                (target / "source.json").write_text(json.dumps({"source": source}))
        except DownloadError as error:
            tried.append(str(error))
            continue
        return Found(str(home), source)
    raise DownloadError(
        f"{name}: not found. Tried {'; '.join(tried)}. Download {url} yourself and give its folder with "
        "data_dir (--data-dir) or SEQREC_DATA."
    )


def _origin(home: Path) -> str:
    try:
        return str(json.loads((home / "source.json").read_text())["source"])
    except (OSError, ValueError, KeyError):
        return "an unknown source"


@contextmanager
def _filling(home: Path, files: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that becomes ``home`` once it is whole."""
    temporary = storage.temporary(home)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        storage.remove_left_over(home.parent)
        temporary.mkdir()
    except OSError as error:
        raise _not_written(home, error) from error
    try:
        try:
            yield temporary
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise _not_written(home, error) from error
        if not any((temporary / file).is_file() for file in files):
            raise DownloadError(f"the download has none of {', '.join(files)}")
        if home.is_dir() and not any((home / file).is_file() for file in files):
            shutil.rmtree(home)
        if not home.exists():  # else another process was faster
            os.replace(temporary, home)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _not_written(home: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"the cache {home.parent} cannot be written ({error.strerror or error}); free some space on its "
        "disk, or name another with SEQREC_CACHE"
    )


def _from_publisher(target: Path, url: str, md5: str | None, connect_seconds: float) -> str:
    """Downloads the archive (or file) into the folder ``target``."""
    logger.info("fetching %s", url)
    download = target / "download"
    try:
        with _answer(url, connect_seconds) as response, open(download, "wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)
    except OSError as error:  # URLError, timeouts, refused connections
        if error.errno in FULL:
            raise
        raise DownloadError(f"{url} (unreachable: {getattr(error, 'reason', None) or error})") from error
    _check(download, md5, url)
    if url.endswith(".zip"):
        _unzip(download, target, url)
        download.unlink()
    else:
        download.rename(target / url.rsplit("/", 1)[-1])
    return f"the publisher's {url}"


def _answer(url: str, connect_seconds: float) -> Any:
    """The response, or ``TimeoutError`` after ``connect_seconds``: a timeout of the socket alone would not
    cover the name look-up."""
    result: list[Any] = []

    def connect() -> None:
        try:
            result.append(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(connect_seconds)
    if not result:
        raise TimeoutError(f"no answer within {connect_seconds} s")
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def checksum(path: str | Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with storage.open_read(path) as file:
        return hashlib.file_digest(cast(Any, file), "md5").hexdigest()


def _check(path: str | Path, md5: str | None, source: str) -> None:
    if md5 and (found := checksum(path)) != md5:
        raise DownloadError(f"{source} (MD5 {found}, expected {md5}: damaged, or a different revision)")


def _unzip(archive: str | Path, target: Path, source: str) -> None:
    """The wanted files of an archive, without its folders."""
    try:
        with storage.open_read(archive) as stream, zipfile.ZipFile(stream) as opened:
            for member in opened.namelist():
                name = member.rsplit("/", 1)[-1]
                if WANTED.match(name):
                    with opened.open(member) as content, open(target / name, "wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{source} (not a complete zip: {error})") from error
