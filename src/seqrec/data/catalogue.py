"""Raw ids <-> indices: the only place where the ids of a log turn into integers.

A catalogue of n ids numbers them 0 .. n-1. There is no padding index: batches carry masks instead.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqrec import storage
from seqrec.errors import DataError, shown

UNKNOWN = -1


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
        return pl.DataFrame({"id": self.ids, "index": np.arange(len(self), dtype=np.int32)})

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
    read."""

    def __init__(self) -> None:
        self._known: pl.DataFrame | None = None

    def __len__(self) -> int:
        return 0 if self._known is None else len(self._known)

    def encode(self, ids: pl.Series) -> np.ndarray:
        """(m,) int32 numbers of (m,) ids; ids that are new get the next numbers.

        Where integers come first and strings later, or the other way round, all are strings.
        """
        if self._known is None:
            self._known = pl.DataFrame({"id": ids.clear(), "index": pl.Series([], dtype=pl.Int32)})
        if ids.dtype != self._known["id"].dtype:
            ids = ids.cast(pl.String)
            self._known = self._known.with_columns(pl.col("id").cast(pl.String))
        numbers = _look_up(ids, self._known)
        if (numbers == UNKNOWN).any():
            new = ids.filter(numbers == UNKNOWN).unique(maintain_order=True)
            added = pl.DataFrame(
                {"id": new, "index": np.arange(len(self), len(self) + len(new), dtype=np.int32)}
            )
            self._known = pl.concat([self._known, added], rechunk=True)
            numbers = _look_up(ids, self._known)
        return numbers

    @property
    def ids(self) -> pl.Series:
        """All ids so far, in the order of their numbers."""
        return pl.Series("id", [], dtype=pl.Int64) if self._known is None else self._known["id"]


def _look_up(ids: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """(m,) int32 index of each id in ``known`` (columns ``id``, ``index``), ``UNKNOWN`` where it is not."""
    joined = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")
    return joined["index"].fill_null(UNKNOWN).to_numpy()


def _alike(a: pl.DataType, b: pl.DataType) -> bool:
    return (a.is_integer() and b.is_integer()) or (a == pl.String and b == pl.String)
