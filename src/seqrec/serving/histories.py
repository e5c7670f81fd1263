"""Histories in a file, read some at a time:

    a column of lists   user_id (or nothing), and the items, oldest first; or lists of them, the baskets
    a row an event      user_id, item_id, timestamp (or nothing): in order of time, or of the file. The rows
                        of a user stand together. With basket_id where baskets are read
    users alone         user_id

Parquet and JSON Lines, and with a row an event or a user CSV and TSV.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from seqrec.data import columns as log_columns
from seqrec.data import files
from seqrec.data.baskets import gathered
from seqrec.data.frames import groups
from seqrec.errors import DataError, SettingsError, some_of

log = logging.getLogger("seqrec")

HISTORIES = 8_192
"""Histories read at a time."""
EVENTS = 1 << 18
"""Rows of a log read at a time."""
BLOCK = 4 << 20
"""Bytes of text read at a time."""
TEXT = ("csv", "tsv")
STANDARD = "-"
"""Stands for standard input or output."""


@dataclass(frozen=True)
class Reading:
    """How a file of histories is read, as ``ReadOptions`` says it of a log.

    Attributes:
        columns: which column is which, ``{"user_id": "client"}``; ``item_id`` may be a column of lists.
        delimiter, encoding: of a text file.
        time_format: how times in text are written.
    """

    columns: Mapping[str, str | int | None] = field(default_factory=dict)
    delimiter: str | None = None
    encoding: str | None = None
    time_format: str | None = None


@dataclass(frozen=True)
class Histories:
    """Some histories of a file.

    Attributes:
        users: (n,) raw ids; None where the file has none.
        items: (events,) raw ids, one history after another, oldest first; None in a file of users alone.
        stops: (n,) int64, where each history ends within them.
        rows: (n,) int64, the row of the file where each begins.
        read: rows of the file read so far.
        event_rows: (events,) int64, the row of each item; None where a history is a row.
        baskets: (events,) int64, the number of each item's basket, which neighbours in one share; None where
            none are told.
    """

    users: pl.Series | None
    items: pl.Series | None
    stops: np.ndarray
    rows: np.ndarray
    read: int
    event_rows: np.ndarray | None = None
    baskets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stops)

    def row_of(self, event: int) -> int:
        """The row of the file in which an item stands."""
        if self.event_rows is not None:
            return int(self.event_rows[event])
        return int(self.rows[np.searchsorted(self.stops, event, side="right")])


def kind_of(path: str) -> str:
    """The kind of a file: what its name says; JSON Lines of standard input and output.

    Raises:
        SettingsError: its name says none.
    """
    kind = "jsonl" if path == STANDARD else files.kind_of(path)
    if kind is None:
        raise SettingsError(
            f"{path}: expected a file whose name ends in .parquet, .jsonl, .csv or .tsv, or - for JSON Lines "
            "on standard input and output."
        )
    return kind


def read(path: str, reading: Reading, baskets: bool = False) -> Iterator[Histories]:
    """The histories of a file, in its order.

    Args:
        baskets: whether a column of baskets is read, where a row is an event.

    Raises:
        DataError: a row without an id, or of another form; a user whose rows do not stand together; a file
            that is none of these.
    """
    frames = _frames(path, reading)
    yield from of_frames(frames, reading, name_of(path), kind_of(path) in TEXT, baskets)


def of_frames(
    frames: Iterator[pl.DataFrame], reading: Reading, name: str, text: bool = False, baskets: bool = False
) -> Iterator[Histories]:
    """The histories of a table that comes some rows at a time; none of an empty one.

    Args:
        name: what it is called in messages.
        text: whether its values are text that may stand for numbers.
        baskets: as in ``read``.

    Raises:
        DataError: as ``read``.
    """
    first = next(frames, None)
    if first is None:
        return
    users, items = columns_of(first, reading.columns, name)
    frames = itertools.chain([first], frames)
    if items is not None and isinstance(first[items].dtype, pl.List | pl.Array):
        yield from _of_lists(frames, users, items, name)
    elif items is not None:
        mapping = log_columns.resolve(first.columns, reading.columns, name, sample=lambda: first, say=False)
        keys = ("user_id", "item_id", "timestamp", *(["basket_id"] if baskets else []))
        mapping = {key: mapping[key] for key in keys if key in mapping}
        yield from _of_events(frames, mapping, text, reading.time_format, name)
    else:
        if others := [column for column in first.columns if column != users]:
            log.warning(
                "%s: users alone are read, each with the history that the model has kept; %s %s not read. If "
                "one holds the items, name it: columns={'item_id': ...} (--column item_id=COLUMN).",
                name,
                some_of(others),
                "is" if len(others) == 1 else "are",
            )
        yield from _of_users(frames, users or "", name)


def name_of(path: str) -> str:
    """What a file is called in messages."""
    return "standard input" if path == STANDARD else path


def _frames(path: str, reading: Reading) -> Iterator[pl.DataFrame]:
    if path == STANDARD:
        return files.json_lines(sys.stdin.buffer, name_of(path), BLOCK)
    kind = kind_of(path)
    lists = kind == "parquet" and any(pa.types.is_nested(field.type) for field in files.schema_of(path))
    rows, encoding = HISTORIES if lists else EVENTS, reading.encoding or "utf-8"
    return files.batches(path, kind, reading.delimiter, encoding, block=BLOCK, rows=rows)


def columns_of(
    frame: pl.DataFrame, columns: Mapping[str, str | int | None], name: str
) -> tuple[str | None, str | None]:
    """The columns of the users and of the items, None where there is none.

    Args:
        frame: some rows of a table; of one without any its columns and their types.
        columns: which is which, as of ``Reading``.
        name: what it is called in messages.

    Raises:
        DataError: there are neither users nor items, or several columns may be the items.
    """
    said = dict(columns)
    lists = [c for c, dtype in frame.schema.items() if isinstance(dtype, pl.List | pl.Array)]
    if "item_id" not in said and len(lists) == 1:
        said["item_id"] = lists[0]
    found = log_columns.resolve(frame.columns, said, name, required=[], say=False)
    if "item_id" not in found and len(lists) > 1:
        raise DataError(
            f"{name}: expected one column of lists, the histories. Got {some_of(lists)}. Say which: "
            f"columns={{'item_id': {lists[0]!r}}} (--column item_id={lists[0]})."
        )
    users, items = found.get("user_id") or found.get("session_id"), found.get("item_id")
    if (items is None and users is None) or (items is not None and items not in lists and users is None):
        what = "a column of the users" if items is not None else "histories"
        raise DataError(
            f"{name}: expected {what}. Got the columns {some_of(frame.columns)}. A file of histories has a "
            "column of lists of items (Parquet, JSON Lines), or the columns user_id and item_id with a row "
            "an event, or user_id alone. Say which is which: --column item_id=COLUMN."
        )
    return users, items


def _of_lists(
    frames: Iterator[pl.DataFrame], users: str | None, items: str, name: str
) -> Iterator[Histories]:
    read = 0
    for frame in frames:
        for column in [items, *([users] if users else [])]:
            if column not in frame.columns:
                raise DataError(f"{name}, row {read + 1}: no column {column!r}, which earlier rows have.")
        if not isinstance(frame[items].dtype, pl.List | pl.Array):
            raise DataError(f"{name}, row {read + 1}, column {items!r}: expected lists, as in earlier rows.")
        lists = frame[items].cast(pl.List(frame[items].dtype.inner))  # type: ignore[attr-defined]
        _refuse_missing(lists, name, items, read, "a list (an empty one where there is no history)")
        lengths = lists.list.len().to_numpy().astype(np.int64)
        ids, baskets = _flat(lists), None
        if isinstance(ids.dtype, pl.List | pl.Array):
            ids = ids.cast(pl.List(ids.dtype.inner))
            if ids.null_count():
                row = read + 1 + np.searchsorted(np.cumsum(lengths), ids.is_null().arg_max() or 0, "right")
                raise DataError(f"{name}, row {row}, column {items!r}: expected baskets, lists. Got none.")
            sizes = ids.list.len().to_numpy().astype(np.int64)
            baskets = np.repeat(np.arange(len(sizes)), sizes)
            held = np.concatenate([[0], np.cumsum(sizes)])
            stops = np.cumsum(lengths)
            lengths, ids = np.diff(held[stops], prepend=0), _flat(ids)
        ids = _ids(ids, name, items)
        people = None if users is None else _ids(frame[users], name, users)
        if people is not None:
            _refuse_missing(people, name, users or "", read, "a user's id")
        rows = np.arange(read + 1, read + 1 + len(frame))
        read += len(frame)
        found = Histories(people, ids, np.cumsum(lengths), rows, read, None, baskets)
        if ids.null_count():
            raise DataError(
                f"{name}, row {found.row_of(ids.is_null().arg_max() or 0)}, column {items!r}: expected item "
                "ids. Got one that is missing."
            )
        yield found


def _flat(lists: pl.Series) -> pl.Series:
    """What lists hold, one after another."""
    array = lists.to_arrow()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return pl.Series(pl.from_arrow(array.flatten()))


def _of_users(frames: Iterator[pl.DataFrame], users: str, name: str) -> Iterator[Histories]:
    read = 0
    for frame in frames:
        ids = _ids(frame[users], name, users)
        _refuse_missing(ids, name, users, read, "a user's id")
        rows = np.arange(read + 1, read + 1 + len(ids))
        read += len(ids)
        yield Histories(ids, None, np.zeros(len(ids), dtype=np.int64), rows, read)


def _of_events(
    frames: Iterator[pl.DataFrame], mapping: dict[str, str], text: bool, time_format: str | None, name: str
) -> Iterator[Histories]:
    """The last user of a piece may go on in the next one, and waits for it."""
    kept: pl.DataFrame | None = None
    read, earlier = 0, _Earlier(name)
    for frame in frames:
        part = log_columns.validated(
            frame, mapping, name, text, first_row=read, features=False, time_format=time_format
        ).with_columns(row=np.arange(read + 1, read + 1 + len(frame)))
        read += len(frame)
        try:
            part = part if kept is None else pl.concat([kept, part], rechunk=True)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{name}, row {read - len(frame) + 1}: a column changes its type within the file ({error}). "
                "Convert it."
            ) from error
        users = part["user_id"]
        starts = (users != users.shift()).fill_null(True).arg_true().to_numpy()
        kept = part[int(starts[-1]) :]
        if len(starts) > 1:
            yield _grouped(part[: int(starts[-1])], starts[:-1], earlier, read)
    if kept is not None:
        yield _grouped(kept, np.zeros(1, dtype=np.int64), earlier, read)


def _grouped(part: pl.DataFrame, starts: np.ndarray, earlier: _Earlier, read: int) -> Histories:
    """The histories of users who are whole, each in order of time."""
    users, rows = part["user_id"][starts], part["row"].to_numpy()
    begins = rows[starts]
    earlier.add(users, begins)
    stops = np.append(starts[1:], len(part)).astype(np.int64)
    if "timestamp" in part.columns:
        moments = part["timestamp"].to_physical().to_numpy()
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(part)))
        if ((np.diff(moments) < 0) & (np.diff(group) == 0)).any():
            order = np.lexsort((moments, group))
            part, rows = part[order], rows[order]
    baskets = groups(part["basket_id"]) if "basket_id" in part.columns else None
    if baskets is not None and (together := gathered(np.append(0, stops), baskets)) is not None:
        part, rows, baskets = part[together], rows[together], baskets[together]
    return Histories(users, part["item_id"], stops, begins, read, rows, baskets)


class _Earlier:
    """The users that a file has had, 8 bytes each: one who comes back would get two answers, each from a part
    of the history."""

    def __init__(self, name: str):
        self.name = name
        self.runs: list[np.ndarray] = []  # sorted hashes, each run at least twice as long as the one after

    def add(self, users: pl.Series, rows: np.ndarray) -> None:
        """Adds (n,) users whose first rows these are.

        Raises:
            DataError: one has come before.
        """
        hashes = users.hash(0).to_numpy()
        again = np.ones(len(hashes), dtype=bool)
        again[np.unique(hashes, return_index=True)[1]] = False
        for run in self.runs:
            at = np.searchsorted(run, hashes)
            again |= run[np.minimum(at, len(run) - 1)] == hashes
        if again.any():
            first = int(np.argmax(again))
            raise DataError(
                f"{self.name}, row {rows[first]}: user {users[first]!r} comes back after rows of others. The "
                "rows of a user must stand together: sort the file by user (and time), or give lists."
            )
        self.runs.append(np.sort(hashes))
        while len(self.runs) > 1 and len(self.runs[-2]) < 2 * len(self.runs[-1]):
            self.runs[-2:] = [np.sort(np.concatenate(self.runs[-2:]))]


def _ids(series: pl.Series, name: str, column: str) -> pl.Series:
    """Ids as texts or numbers."""
    if series.dtype in (pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    if series.dtype == pl.String or series.dtype.is_integer() or series.dtype.is_float():
        return series
    raise DataError(f"{name}, column {column!r}: expected ids, texts or whole numbers. Got {series.dtype}.")


def _refuse_missing(series: pl.Series, name: str, column: str, read: int, expected: str) -> None:
    if series.null_count():
        row = read + 1 + (series.is_null().arg_max() or 0)
        raise DataError(f"{name}, row {row}, column {column!r}: expected {expected}. Got none.")
