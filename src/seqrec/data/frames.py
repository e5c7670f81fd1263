"""Rows of a log as validated frames: some at a time from files, or whole from a frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data import files
from seqrec.errors import DataError

Columns = Mapping[str, str | int | None]


Paths = str | Path | Sequence[str | Path]


Duplicates = Literal["keep", "drop"]


KINDS = ("csv", "tsv", "parquet", "jsonl")


logger = logging.getLogger(__name__)


def _same_columns(frames: list[pl.DataFrame], sources: list[str]) -> None:
    """Refuses files of which one lacks a column of the log that another has."""
    for frame, source in zip(frames, sources):
        for name in log_columns.ALIASES:
            if (name in frame.columns) != (name in frames[0].columns):
                has, lacks = (source, sources[0]) if name in frame.columns else (sources[0], source)
                raise DataError(
                    f"{lacks}: no column for {name}, which {has} has. Give it in both, or leave it out: "
                    f"columns={{{name!r}: None}} "
                    f"(--column {name}=)."
                )


def log_batches(
    path: Paths,
    kind: str,
    columns: Columns | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    features: bool = True,
) -> Iterator[pl.DataFrame]:
    """A log's validated rows, some at a time. Ids from text are strings still, since only the whole log tells
    whether all are integers.

    Args:
        path: a file, or several, read in order.
        features: read the columns that are not the log's own, too.
    """
    first: pl.DataFrame | None = None
    paths = [path] if isinstance(path, str | Path) else list(path)
    for one in paths:
        for batch in _batches_of_file(one, kind, columns, delimiter, encoding, features):
            first = batch.clear() if first is None else first
            _same_columns([first, batch], [str(paths[0]), str(one)])
            yield batch


def _batches_of_file(
    path: str | Path,
    kind: str,
    columns: Columns | None,
    delimiter: str | None,
    encoding: str | None,
    features: bool,
) -> Iterator[pl.DataFrame]:
    encoding = encoding or "utf-8"
    headless = any(isinstance(source, int) for source in (columns or {}).values())
    names: list[str] | None = [] if headless and kind in ("csv", "tsv") else None
    mapping: dict[str, str] | None = None
    if names is None:
        mapping = log_columns.resolve(files.header(path, kind, delimiter, encoding), columns, str(path))
    select = None if features or mapping is None else list(dict.fromkeys(mapping.values()))
    row = 0
    for batch in files.batches(
        path, kind, delimiter=delimiter, encoding=encoding, names=names, select=select
    ):
        if mapping is None:
            mapping = log_columns.resolve(batch.columns, columns, str(path))
        for source in mapping.values():
            if source not in batch.columns:
                raise DataError(
                    f"{path}, row {row + 1}: no {source!r} here or in the rows after it. Every event "
                    "needs the columns of the first."
                )
        yield log_columns.validated(
            batch, mapping, str(path), kind in ("csv", "tsv"), first_row=row, features=features
        )
        row += len(batch)


def finished(parts: list[pl.DataFrame], text: bool, name: str) -> pl.DataFrame:
    """The whole log from its validated parts: ids from text that are all integers as such, times in seconds.

    Raises:
        DataError: times in several units.
    """
    frame = pl.concat(parts, how="diagonal_relaxed", rechunk=True)
    final = [log_columns.integers(frame[c]) for c in log_columns.IDS if text and c in frame.columns]
    if "timestamp" in frame.columns:
        final.append(log_columns.in_seconds(frame["timestamp"], name))
    return frame.with_columns(final)


def report_duplicates(count: int, policy: Duplicates, source: str) -> None:
    """Says how many duplicate events were met and what became of them."""
    if count:
        what = (
            "dropped all but the first of each" if policy == "drop" else "kept (duplicates='drop' drops them)"
        )
        logger.warning(
            "%s: %s events repeat the user, item and time of another: %s.", source, f"{count:,}", what
        )


def whole_column(frame: pl.DataFrame, name: str) -> np.ndarray | None:
    """A column as an array; None where it is absent or partly empty (then positions order the events, and
    there is no time to split by)."""
    if name not in frame.columns or frame[name].null_count():
        return None
    return frame[name].to_numpy()


def aligned(table: pl.DataFrame | None, key: str, ids: pl.Series) -> pl.DataFrame | None:
    """The attributes of some ids, a row each in their order, null where nothing is known; None without a
    table."""
    if table is None or table.width < 2:
        return None
    return pl.DataFrame({key: ids}).join(table, on=key, how="left", maintain_order="left").drop(key)


def to_polars(frame: Any, name: str) -> pl.DataFrame:
    """A pandas or polars frame, or a pyarrow table, as a polars frame."""
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    module = type(frame).__module__.split(".")[0]
    if module not in ("pandas", "pyarrow"):
        raise DataError(
            f"{name}: expected a pandas or polars frame, or a pyarrow table. Got {type(frame).__name__}."
        )
    if module == "pandas" and not frame.columns.is_unique:
        raise DataError(
            f"{name}: column {frame.columns[frame.columns.duplicated()][0]!r} occurs twice. Rename one of "
            "them."
        )
    try:
        return pl.DataFrame(pl.from_pandas(frame) if module == "pandas" else pl.from_arrow(frame))
    # pyarrow's own errors, TypeError, ValueError: whatever a column of mixed objects makes of it
    except Exception as error:
        raise DataError(
            f"{name}: a column mixes types, integers and strings say ({error}). Convert it to one type first."
        ) from error
