"""All users' sequences, stored once: flat arrays and offsets, never padded, never expanded.

    user          0              1        2
    items     [ a b c d e ]  [ f a ]  [ c c b ]
    offsets   0              5        7          10

The events of user u are ``items[offsets[u] : offsets[u + 1]]``, in the order they happened. An event costs 4
bytes for its item and 8 for its time, where times are known; the arrays can be memory-mapped from disk.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from pydantic import Field

from seqrec import storage
from seqrec.data.baskets import Derived, derived, gathered
from seqrec.data.catalogue import Catalogue
from seqrec.errors import DataError
from seqrec.storage import marker, snapshot, version

COLUMNS = ("times", "ratings", "baskets", "sessions")
PARTS = (
    *(f"{name}.npy" for name in ("items", "offsets", *COLUMNS)),
    "item_catalogue.parquet",
    "user_catalogue.parquet",
)
"""What a prepared folder may hold beside its sequences.json."""
TYPES = {
    "items": ("int32",),
    "offsets": ("int64",),
    "times": ("int64", "float64"),
    "ratings": ("float32",),
    "baskets": ("int64",),
    "sessions": ("int64",),
}
"""Types of the arrays in a prepared folder."""
SMALL = 1 << 24
"""Bytes up to which the content of a file is checked whenever it is opened."""
FORMAT = 2
"""Of a prepared folder. In format 1 the files had fixed names; it is still read."""

logger = logging.getLogger(__name__)

TieOrder = Literal["file", "random"]

BLOCK = 1 << 22
"""Events sorted at a time: a block's keys and order fit the processor's memory traffic, and the transient
memory stays small."""


@dataclass(frozen=True)
class Sequences:
    """Every user's events in order.

    Attributes:
        items: (events,) int32 item index.
        offsets: (users + 1,) int64, where each user's events begin and end.
        item_catalogue, user_catalogue: the raw ids behind the indices.
        times: (events,) seconds since 1970, int64 (float64 below the second), or None where the log has order
            only.
        ratings: (events,) float32 or None.
        baskets, sessions: (events,) int64 numbers of the basket or session within the log, or None.
    """

    items: np.ndarray
    offsets: np.ndarray
    item_catalogue: Catalogue
    user_catalogue: Catalogue
    times: np.ndarray | None = None
    ratings: np.ndarray | None = None
    baskets: np.ndarray | None = None
    sessions: np.ndarray | None = None

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.offsets) - 1

    @property
    def events(self) -> int:
        """How many events there are."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """(users,) events of each user."""
        return np.diff(self.offsets)

    @property
    def ids_digest(self) -> str:
        """The digests of both catalogues: for what the indices of items and users stand."""
        return self.item_catalogue.digest + self.user_catalogue.digest

    @property
    def bytes_per_event(self) -> float:
        """Memory of the arrays, in bytes an event."""
        arrays: list[np.ndarray] = [self.items, self.offsets]
        arrays += [a for c in COLUMNS if (a := getattr(self, c)) is not None]
        return sum(a.nbytes for a in arrays) / max(1, self.events)

    def of(self, user: int) -> np.ndarray:
        """(length,) item indices of one user."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @classmethod
    def from_events(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        user_catalogue: Catalogue,
        item_catalogue: Catalogue,
        times: np.ndarray | None = None,
        positions: np.ndarray | None = None,
        ratings: np.ndarray | None = None,
        baskets: np.ndarray | None = None,
        sessions: np.ndarray | None = None,
        tie_order: TieOrder = "file",
        seed: int = 0,
        basket: Derived | None = None,
    ) -> Sequences:
        """Sequences from the events of a log, given in file order. Events of one basket that others stand
        between are put together, where the first of them is, which is logged.

        Args:
            users, items: (events,) int32 indices.
            times, positions: (events,) what orders each user's events: the times, those of one time by
                position; positions without times; else the file. Positions that contradict the times order
                nothing, which is logged.
            tie_order, seed: as in ``order_of``.
            basket: what makes events a basket, instead of ``baskets``; None: these.

        Raises:
            DataError: ``basket`` of a log without times.
        """
        rows = order_of(users, times if positions is None else positions, tie_order, seed)
        offsets = np.zeros(len(user_catalogue) + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=len(user_catalogue)), out=offsets[1:])
        values = {"times": times, "ratings": ratings, "baskets": baskets, "sessions": sessions}
        columns = {name: value[rows] for name, value in values.items() if value is not None}
        if positions is not None and times is not None:
            back = np.diff(columns["times"]) < 0
            borders = offsets[(offsets > 0) & (offsets < len(rows))]
            back[borders - 1] = False
            if back.any():
                user = user_catalogue.ids[int(users[rows[np.argmax(back)]])]
                logger.warning(
                    "user %r: a later position has an earlier time. A position may be no more than a place "
                    "on a page: times order the events. To order them by position, leave time out: "
                    "columns={'timestamp': None} (--column timestamp=).",
                    user,
                )
                rows = order_of(users, times, tie_order, seed)
                columns = {name: value[rows] for name, value in values.items() if value is not None}
        if basket is not None:
            columns["baskets"] = derived(columns.get("times"), basket)
        elif baskets is not None and (order := gathered(offsets, columns["baskets"])) is not None:
            logger.warning(
                "basket: some baskets have events of others between theirs; the events of each are put "
                "together, where its first one is."
            )
            rows, columns = rows[order], {name: value[order] for name, value in columns.items()}
        return cls(items[rows], offsets, item_catalogue, user_catalogue, **columns)

    def last_times(self, stops: np.ndarray) -> np.ndarray | None:
        """When the last event before each stop was: (users,) seconds since 1970, -inf where the user has none
        before it; None where times are not known.

        Args:
            stops: (users,) an end within each user's events.
        """
        if self.times is None:
            return None
        some = stops > self.offsets[:-1]
        found = np.full(self.users, -np.inf)
        found[some] = self.times[stops[some] - 1]
        return found

    def save(self, folder: str | Path) -> None:
        """Writes the arrays (.npy), both catalogues (.parquet) and, last, ``sequences.json``, which names
        them and so makes the folder valid.

        Sequences that stood there before stay whole until the new ones are.
        """
        arrays = {name: getattr(self, name) for name in ("items", "offsets", *COLUMNS)}
        columns = {name: Column.of(array) for name, array in arrays.items() if array is not None}
        write_columns(folder, columns, self.item_catalogue, self.user_catalogue)

    @classmethod
    def load(cls, folder: str | Path, verify: bool = False) -> Sequences:
        """Opens a folder that ``save`` wrote; local arrays are memory-mapped.

        Sizes, types and lengths are always checked, and the content of files up to 16 MiB.

        Args:
            verify: check the content of all files, which reads them whole.

        Raises:
            DataError: the folder holds no sequences, or not the ones that its sequences.json names.
        """
        path, advice = storage.join(folder, "sequences.json"), "Prepare the log again"
        if not storage.exists(path):
            raise DataError(
                f"{folder}: expected a folder written by `seqrec prepare` (with a sequences.json). "
                "Prepare the log first."
            )
        content = marker.read(path, advice, (1, FORMAT))
        columns = content.get("columns")
        named = ("items", "offsets", *(columns if isinstance(columns, list) else ()))
        expected = [*(f"{name}.npy" for name in named), "item_catalogue.parquet", "user_catalogue.parquet"]
        if content["format"] == 1:
            content = {**content, "files": {part: part for part in expected}}
        about = marker.parse(content, _About, path, advice)
        if sorted(about.files) != sorted(expected):
            raise DataError(f"{path}: its files and its columns do not belong together. {advice}.")
        # a catalogue is read whole in any case
        for part in expected:
            small = math.inf if verify else SMALL
            snapshot.check(folder, part, about, advice, small)
        arrays = {
            name: storage.read_array(storage.join(folder, about.files[f"{name}.npy"])) for name in named
        }
        for name, array in arrays.items():
            length = about.users + 1 if name == "offsets" else about.events
            if array.shape != (length,) or array.dtype.name not in TYPES[name]:
                raise DataError(
                    f"{storage.join(folder, about.files[f'{name}.npy'])}: expected {length:,} values of type "
                    f"{' or '.join(TYPES[name])}. Got {array.shape} of {array.dtype}. {advice}."
                )
        items, users = (
            Catalogue.load(storage.join(folder, about.files[f"{name}_catalogue.parquet"]))
            for name in ("item", "user")
        )
        found = cls(item_catalogue=items, user_catalogue=users, **arrays)
        try:
            found.check(whole=verify or found.items.nbytes <= SMALL)
        except DataError as error:
            raise DataError(f"{folder}: {error} {advice}.") from error
        return found

    def check(self, whole: bool = True) -> None:
        """Checks that arrays and catalogues belong together.

        Args:
            whole: look at every event; else only at users and lengths.

        Raises:
            DataError: they do not.
        """
        o = self.offsets
        if len(o) != len(self.user_catalogue) + 1 or o[0] != 0 or o[-1] != len(self.items):
            raise DataError("the offsets are not those of its users and events.")
        if (np.diff(o) < 0).any():
            raise DataError("the offsets fall.")
        if whole and len(self.items):
            low, high = int(self.items.min()), int(self.items.max())
            if low < 0 or high >= len(self.item_catalogue):
                raise DataError(
                    f"an event has the item {low if low < 0 else high}, of {len(self.item_catalogue)}."
                )


@dataclass(frozen=True)
class Column:
    """An array that is written, in parts if need be.

    Attributes:
        dtype, length: of the whole, (length,).
        parts: gives it, one part after another.
    """

    dtype: np.dtype
    length: int
    parts: Callable[[], Iterable[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray) -> Column:
        """One that is whole, (length,)."""
        return cls(array.dtype, len(array), lambda: [array])

    def write(self, stream: IO[bytes]) -> None:
        """Writes it as ``np.save`` writes the whole.

        Raises:
            DataError: the parts are not it.
        """
        header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        npy.write_array_header_1_0(stream, header)
        written = 0
        for part in self.parts():
            if part.dtype != self.dtype:
                raise DataError(f"expected {self.dtype}. Got a part of {part.dtype}.")
            for begin in range(0, len(part), BLOCK):
                stream.write(np.ascontiguousarray(part[begin : begin + BLOCK]).data)
            written += len(part)
        if written != self.length:
            raise DataError(f"expected {self.length:,} values. Got {written:,}.")


def write_columns(
    folder: str | Path, columns: Mapping[str, Column], item_catalogue: Catalogue, user_catalogue: Catalogue
) -> None:
    """As ``Sequences.save``.

    Args:
        columns: ``items``, ``offsets``, and what else there is of ``COLUMNS``.
    """
    present = [c for c in COLUMNS if c in columns]
    about = {
        **version.stamp(FORMAT),
        "users": len(user_catalogue),
        "items": len(item_catalogue),
        "events": columns["items"].length,
        "columns": present,
    }
    with snapshot.write(folder, "sequences.json", PARTS, about) as files:
        for name in ("items", "offsets", *present):
            with files.open(f"{name}.npy") as stream:
                columns[name].write(stream)
        for name, catalogue in (("item_catalogue", item_catalogue), ("user_catalogue", user_catalogue)):
            with files.open(f"{name}.parquet") as stream:
                stream.write(catalogue.to_bytes())


class _About(snapshot.Parts):
    """What a sequences.json says."""

    users: int = Field(ge=0)
    items: int = Field(ge=0)
    events: int = Field(ge=0)
    columns: list[Literal["times", "ratings", "baskets", "sessions"]]


def order_of(
    users: np.ndarray,
    key: np.ndarray | None,
    tie_order: TieOrder = "file",
    seed: int = 0,
    block_events: int = BLOCK,
) -> np.ndarray:
    """The rows of a log, user by user, each user's by rising key.

    Users ``[1, 0, 1, 0]`` with key ``[5, 7, 5, 2]`` give rows ``[3, 1, 0, 2]``.

    Args:
        users: (events,) int32, in file order.
        key: (events,) times or positions; None keeps each user's rows in file order (nothing is tied where
            the file is the order).
        tie_order: rows with the same key stay in ``file`` order, or are put in a ``random`` order drawn with
            ``seed``.
        block_events: about so many are sorted at a time, users whole; random orders depend on it.
    Returns:
        (events,) int32 (int64 from 2^31 events on).
    Raises:
        DataError: another order of ties than these two.
    """
    if tie_order not in ("file", "random"):
        raise DataError(f"tie_order: expected 'file' or 'random'. Got {tie_order!r}.")
    ends = np.cumsum(np.bincount(users))
    order = np.empty(len(users), dtype=np.int32 if len(users) < 2**31 else np.int64)
    first, done, block = 0, 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, done + block_events, side="right")))
        whole = first == 0 and last == len(ends)
        rows = np.arange(len(users)) if whole else np.flatnonzero((users >= first) & (users < last))
        # shuffled first, and then sorted stably: rows with equal keys stay shuffled
        if tie_order == "random" and key is not None:
            rows = np.random.default_rng([seed, block]).permutation(rows)
        if len(rows):
            order[done : done + len(rows)] = rows[
                _stable_order(users[rows] - first, None if key is None else key[rows])
            ]
        first, done, block = last, done + len(rows), block + 1
    return order


def _stable_order(users: np.ndarray, key: np.ndarray | None) -> np.ndarray:
    """Stable order by (user, key). Where both fit one 64-bit number, sorting that is three times as fast as
    sorting twice."""
    if key is None:
        return np.argsort(users, kind="stable")
    if key.dtype.kind == "i":
        low = int(key.min())
        span = int(key.max()) - low + 1
        if span * (int(users.max()) + 1) < 2**62:
            return np.argsort(users * np.int64(span) + (key - low), kind="stable")
    return np.lexsort((key, users))
