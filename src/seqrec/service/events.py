"""What users did since the models were trained, kept so that nothing acknowledged is lost.

    journal-00000007.jsonl      one event a line; synced to disk before a request is answered
    events-00000006.parquet     a closed journal, as ``seqrec train --data FOLDER`` reads it

Requests that arrive together share one write and one sync. A journal becomes a Parquet file when it is full
or some minutes old, and when the service stops; one that a killed service left does when the next one starts.
The Parquet file is written under another name, then renamed, then its journal is removed: where both are
found the Parquet file is whole, and the journal is removed.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from seqrec import storage
from seqrec.errors import SettingsError, StorageError
from seqrec.storage import lock

log = logging.getLogger("seqrec")

FULL = 1_000_000
"""Events of a journal that becomes a Parquet file."""
AGE = 300.0
"""Seconds after which a journal that has events becomes one, too."""
TOGETHER = 1_000
"""Requests that share a sync, at most."""
RECENT = 10_000
"""Events kept in memory of a user: the newest."""

Row = tuple[int | str, int | str, float]
"""user_id, item_id, seconds since 1970."""


@dataclass
class Live:
    """The events of each user in the order of their times, in memory.

    Attributes:
        of_user: user id -> the times (seconds since 1970) and item ids of the newest events.
    """

    of_user: dict[int | str, list[tuple[float, int | str]]] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Takes events in; of equal times the one that came first stays first."""
        for user, item, moment in rows:
            known = self.of_user.setdefault(user, [])
            if not known or known[-1][0] <= moment:
                known.append((moment, item))
            else:
                bisect.insort_right(known, (moment, item), key=lambda event: event[0])
            if len(known) > RECENT:
                del known[: len(known) - RECENT]

    def after(self, user: int | str, moment: float) -> list[int | str]:
        """The items that a user took after a moment (seconds since 1970), oldest first."""
        return [item for _, item in self.since(user, moment)]

    def since(self, user: int | str, moment: float) -> list[tuple[float, int | str]]:
        """The same with the times at which they were taken."""
        known = self.of_user.get(user)
        if known is None:
            return []
        if known[0][0] > moment:
            return list(known)
        return known[bisect.bisect_right(known, moment, key=lambda event: event[0]) :]


@dataclass(frozen=True)
class _Append:
    rows: list[Row]
    done: asyncio.Future[None]


class EventLog:
    """A local folder of events, held by this process while it is open.

    Args:
        folder: made if it is not there.
        full, age: how many events, or seconds, a journal has that becomes a Parquet file.

    Raises:
        StorageError: another process holds it.
        SettingsError: it is not on this machine.
    """

    def __init__(self, folder: str | Path, full: int = FULL, age: float = AGE):
        if storage.is_remote(folder):
            raise SettingsError(
                f"events: expected a folder of this machine, whose disk can be synced. Got {str(folder)!r}. "
                "Copy its Parquet files to where you train."
            )
        self.folder, self.full, self.age, self.live = Path(folder), full, age, Live()
        self._held = ExitStack()
        self._held.enter_context(lock.held(folder))
        try:
            self._recover()
            for path in sorted(self.folder.glob("events-*.parquet")):
                self.live.add(pl.read_parquet(path).select("user_id", "item_id", "timestamp").iter_rows())
            self._open(1 + max((_number(path) for path in self.folder.iterdir()), default=0))
        except BaseException:
            self._held.close()
            raise
        self._waiting: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    async def append(self, rows: list[Row]) -> None:
        """Writes events; when it returns they are on disk, and ``live`` has them.

        Raises:
            StorageError: they are not: the disk is full, say. Nothing of them is kept.
        """
        append = _Append(rows, asyncio.get_running_loop().create_future())
        self._waiting.put(append)
        await append.done

    def close(self) -> None:
        """Writes what waits, makes a Parquet file of the journal, and lets go of the folder."""
        self._waiting.put(None)
        self._thread.join()
        try:
            os.close(self._file)
            self._recover()
        except OSError as error:
            log.warning("events: the journal stays as it is until the next start (%s).", error)
        finally:
            self._held.close()

    def _open(self, number: int) -> None:
        self.path = self.folder / f"journal-{number:08}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._size, self._events, self._opened = 0, 0, time.monotonic()
        _sync_folder(self.folder)

    def _work(self) -> None:
        ends = False
        while not ends:
            try:
                first = self._waiting.get(timeout=self._left() if self._events else None)
            except queue.Empty:
                self._close_journal()
                continue
            if first is None:
                return
            taken = [first]
            while len(taken) < TOGETHER:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ends = True
                    break
                taken.append(more)
            try:
                self._write([row for append in taken for row in append.rows])
                error = None
            except OSError as failure:
                error = StorageError(
                    f"events: they could not be written ({failure.strerror or failure}). Check the disk of "
                    f"{self.folder}, and send them again."
                )
            taken[0].done.get_loop().call_soon_threadsafe(self._resolve, taken, error)

    def _write(self, rows: list[Row]) -> None:
        content = b"".join(
            json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in rows
        )
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError:
            # After a failed sync the system may have dropped what it held: nobody may build on this file.
            self._abandon()
            raise
        self._size += len(content)
        self._events += len(rows)
        if self._events >= self.full or not self._left():
            self._close_journal()

    def _left(self) -> float:
        """Seconds until the journal is old enough."""
        return max(0.0, self._opened + self.age - time.monotonic())

    def _close_journal(self) -> None:
        """Goes on in another journal, and makes a Parquet file of this one; if it cannot, the next start
        does."""
        closed = self.path
        file, self._file = self._file, -1
        try:
            os.close(file)
            self._open(_number(closed) + 1)
            _to_parquet(closed)
        except OSError as error:
            log.warning("events: %s is not a Parquet file yet (%s).", closed, error)

    def _abandon(self) -> None:
        """Cuts off what was not acknowledged, and goes on in another file."""
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError as error:
            log.warning("events: %s keeps events that were refused (%s).", self.path, error)
        file, self._file = self._file, -1  # a number that the system may give to another file
        try:
            os.close(file)
        finally:
            self._open(_number(self.path) + 1)

    def _resolve(self, appends: list[_Append], error: StorageError | None) -> None:
        for append in appends:
            if error is None:
                self.live.add(append.rows)
            if append.done.done():  # whoever sent them is gone
                continue
            if error is None:
                append.done.set_result(None)
            else:
                append.done.set_exception(error)

    def _recover(self) -> None:
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            _to_parquet(path)


def _number(path: Path) -> int:
    found = re.fullmatch(r"(?:journal|events)-([0-9]{8,})\.(?:jsonl|parquet)", path.name)
    return int(found[1]) if found else 0


def _rows(path: Path) -> Iterator[Row]:
    """The events of a journal. The last line of a killed writer may be half a line: it was never
    acknowledged."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("half a line")
                user, item, moment = json.loads(line)
                yield user, item, float(moment)
            except (ValueError, TypeError) as error:
                log.warning("events: %s, line %d is left out (%s).", path, number, error)


def _to_parquet(journal: Path) -> None:
    final = journal.with_name(f"events-{_number(journal):08}.parquet")
    if not final.exists():
        rows = list(_rows(journal))
        if rows:
            storage.write_parquet(frame_of(rows), final)
            _sync(final)
            _sync_folder(journal.parent)
    journal.unlink()


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Events as a log: ``user_id``, ``item_id`` and ``timestamp``; ids are texts unless all are whole
    numbers."""
    users, items, moments = zip(*rows, strict=True)
    return pl.DataFrame(
        {"user_id": _ids(users), "item_id": _ids(items), "timestamp": pl.Series(moments, dtype=pl.Float64)}
    )


def _ids(values: tuple[Any, ...]) -> pl.Series:
    if all(isinstance(value, int) for value in values):
        return pl.Series(values, dtype=pl.Int64)
    return pl.Series([str(value) for value in values], dtype=pl.String)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    _sync(folder)  # so that a new name is on disk, too
