"""Raw ids <-> indices: the only place where the ids of a log turn into integers.

A catalogue of n ids numbers them 0 .. n-1. There is no padding index: batches carry masks instead.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqrec import storage
from seqrec.errors import DataError, shown

UNKNOWN = -1
WAITING = 1 << 20
"""Ids that may wait for their numbers while a log is read; more, where more are known."""


class Catalogue:
    """The distinct ids of one kind (items or users), in a fixed order, with their attributes.

    Args:
        ids: (n,) distinct ids, integers or strings.
        attributes: n rows beside the ids (titles, genres, ages ...), or None.

    Raises:
        DataError: an id is missing or occurs twice, or the attributes do not fit the ids.
    """

    def __init__(self, ids: pl.Series | Sequence[Any] | np.ndarray, attributes: pl.DataFrame | None = None):
        self.ids = (ids if isinstance(ids, pl.Series) else pl.Series("id", ids)).alias("id").rechunk()
        if self.ids.null_count() or self.ids.n_unique() != len(self.ids):
            raise DataError(
                "ids: a catalogue needs distinct ids without missing values. Drop duplicates and nulls first."
            )
        if attributes is not None and len(attributes) != len(self.ids):
            raise DataError(f"attributes: expected {len(self.ids)} rows, one an id. Got {len(attributes)}.")
        if attributes is not None and "id" in attributes.columns:
            raise DataError("attributes: a column named 'id' would hide the catalogue's ids. Rename it.")
        self.attributes = attributes

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} ids, {self.ids.dtype})"

    @cached_property
    def index(self) -> dict[Any, int]:
        """raw id -> index, as a dictionary: a look-up of one history costs microseconds."""
        return {raw: i for i, raw in enumerate(self.ids.to_list())}

    @cached_property
    def _known(self) -> pl.DataFrame:
        return _numbered(self.ids)

    def encode(self, ids: pl.Series | Iterable[Any]) -> np.ndarray:
        """Indices of raw ids.

        Args:
            ids: (m,) raw ids.
        Returns:
            (m,) int32, ``UNKNOWN`` (-1) where an id is not in the catalogue; a string never stands for a
                number, nor a number for a string.
        """
        if isinstance(ids, pl.Series) and _alike(ids.dtype, self.ids.dtype):
            return _look_up(ids.cast(self.ids.dtype, strict=False), self._known)
        get = self.index.get
        # numpy's own scalars would not be found
        values = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        return np.fromiter((get(raw, UNKNOWN) for raw in values), dtype=np.int32, count=len(values))

    def decode(self, indices: np.ndarray) -> pl.Series:
        """Raw ids of indices, (m,) -> (m,) of the ids' own type."""
        return self.ids[np.asarray(indices, dtype=np.int64)]

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of the ids in their order: what an index stands for."""
        text = self.ids.cast(pl.String)
        digest = hashlib.sha256(text.str.len_bytes().to_numpy().tobytes())
        digest.update("".join(text.to_list()).encode())
        return digest.hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """The ids and attributes as the content of one Parquet file."""
        frame = pl.DataFrame({"id": self.ids})
        if self.attributes is not None:
            frame = frame.hstack(self.attributes)
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Catalogue:
        """The catalogue of what ``to_bytes`` gave.

        Raises:
            DataError: it is not one.
        """
        try:
            frame = pl.read_parquet(io.BytesIO(content))
        except BaseException as error:  # a panic in Rust, too, which is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise DataError(
                f"catalogue: not a Parquet file that can be read ({shown(error, str)})."
            ) from error
        if "id" not in frame.columns or not (
            frame["id"].dtype.is_integer() or frame["id"].dtype == pl.String
        ):
            raise DataError("catalogue: expected a column id of texts or whole numbers.")
        attributes = frame.drop("id")
        return cls(frame["id"], attributes if attributes.width else None)

    def save(self, path: str | Path) -> None:
        """Writes the ids and attributes as one Parquet file."""
        with storage.open_write(path) as stream:
            stream.write(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Reads a file that ``save`` wrote."""
        with storage.open_read(path) as stream:
            return cls.from_bytes(stream.read())


class Numbering:
    """Ids numbered 0, 1, 2 ... as they first appear, some at a time: a catalogue that grows while a log is
    read.

    Whoever can wait for the numbers takes ``add`` and ``numbers``: ids are then looked up when there are as
    many as are known already, so that the work grows with the log, and not with the log times its ids.
    """

    def __init__(self) -> None:
        self._known: pl.DataFrame | None = None
        # of each batch its distinct ids, and (m,) which of them comes where
        self._waiting: list[tuple[pl.Series, np.ndarray]] = []
        self._numbers: list[np.ndarray] = []

    def __len__(self) -> int:
        return 0 if self._known is None else len(self._known)

    def encode(self, ids: pl.Series) -> np.ndarray:
        """(m,) int32 numbers of (m,) ids; ids that are new get the next numbers, ``UNKNOWN`` (-1) where there
        is none (null).

        Where integers come first and strings later, or the other way round, all are strings.
        """
        if self._known is None or not len(self._known):  # of ids that are all missing, no type is known
            self._known = pl.DataFrame({"id": ids.clear(), "index": pl.Series([], dtype=pl.Int32)})
        if ids.dtype != self._known["id"].dtype:
            ids = ids.cast(pl.String)
            self._known = self._known.with_columns(pl.col("id").cast(pl.String))
        numbers = _look_up(ids, self._known)
        if (missing := numbers == UNKNOWN).any():
            others = ids.filter(missing)
            added = _numbered(others.drop_nulls().unique(maintain_order=True), len(self))
            self._known = pl.concat([self._known, added], rechunk=True)
            numbers = numbers.copy()
            numbers[missing] = _look_up(others, added)
        return numbers

    def add(self, ids: pl.Series) -> None:
        """(m,) ids, whose numbers ``numbers`` gives later."""
        distinct = ids.drop_nulls().unique(maintain_order=True)
        self._waiting.append((distinct, _look_up(ids, _numbered(distinct))))
        if sum(len(distinct) for distinct, _ in self._waiting) > max(WAITING, len(self)):
            self._look_up_waiting()

    def numbers(self) -> list[np.ndarray]:
        """(m,) int32 numbers of each batch that was added, as ``encode`` would have given them, which are
        then the caller's."""
        self._look_up_waiting()
        numbers, self._numbers = self._numbers, []
        return numbers

    def _look_up_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        asked = [distinct for distinct, _ in waiting]
        if not len(self):  # of ids that are all missing, no type is known
            asked = list(itertools.dropwhile(lambda ids: not len(ids), asked))
        if len({ids.dtype for ids in asked}) > 1:
            asked = [ids.cast(pl.String) for ids in asked]
        numbers = self.encode(pl.concat(asked)) if asked else np.empty(0, dtype=np.int32)
        begin = 0
        for distinct, at in waiting:
            of_batch = np.append(numbers[begin : begin + len(distinct)], np.int32(UNKNOWN))
            self._numbers.append(of_batch[at])  # the last where there is none: UNKNOWN is -1
            begin += len(distinct)

    @property
    def ids(self) -> pl.Series:
        """All ids so far, in the order of their numbers; without those that wait."""
        return pl.Series("id", [], dtype=pl.Int64) if self._known is None else self._known["id"]


def _numbered(ids: pl.Series, first: int = 0) -> pl.DataFrame:
    """(n,) distinct ids with the numbers from ``first`` on, as ``_look_up`` takes them."""
    return pl.DataFrame({"id": ids, "index": np.arange(first, first + len(ids), dtype=np.int32)})


def _look_up(ids: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """(m,) int32 index of each id in ``known`` (columns ``id``, ``index``), ``UNKNOWN`` where it is not."""
    joined = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")
    return joined["index"].fill_null(UNKNOWN).to_numpy()


def _alike(a: pl.DataType, b: pl.DataType) -> bool:
    return (a.is_integer() and b.is_integer()) or (a == pl.String and b == pl.String)
