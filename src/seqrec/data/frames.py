"""Frames on their way to a log: checked, put together, and the tables of attributes beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data import times
from seqrec.data.catalogue import UNKNOWN, Numbering
from seqrec.errors import DataError

Columns = Mapping[str, str | int | None]


Duplicates = Literal["keep", "drop"]


logger = logging.getLogger(__name__)


def check_same_columns(frames: list[pl.DataFrame], sources: list[str]) -> None:
    """Refuses files of which one lacks a column of the log that another has.

    Raises:
        DataError: these are such files; names the column.
    """
    for frame, source in zip(frames, sources):
        for name in log_columns.ALIASES:
            if (name in frame.columns) != (name in frames[0].columns):
                has, lacks = (source, sources[0]) if name in frame.columns else (sources[0], source)
                raise DataError(
                    f"{lacks}: no column for {name}, which {has} has. Give it in both, or leave it out: "
                    f"columns={{{name!r}: None}} "
                    f"(--column {name}=)."
                )


def finished(parts: list[pl.DataFrame], text: bool, name: str) -> pl.DataFrame:
    """The whole log from its validated parts: ids and features from text that are all numbers as such, times
    in seconds.

    Raises:
        DataError: times in several units, a column whose types have nothing in common.
    """
    moments = [part["timestamp"] for part in parts if "timestamp" in part.columns]
    if moments:  # dates in one part and numbers in another have no common type yet
        parts = [part.with_columns(pl.lit(0).alias("timestamp")) for part in parts]
    try:
        frame = pl.concat(parts, how="diagonal_relaxed", rechunk=True)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name}: a column changes its type within the log ({error}). Convert it.") from error
    if text:
        frame = frame.with_columns(
            log_columns.integers(frame[c]) if c in log_columns.IDS else log_columns.typed(frame[c])
            for c in frame.columns
        )
    if moments:
        frame = frame.with_columns(times.joined(moments, name).alias("timestamp").rechunk())
    for column, what in (("basket_id", "basket"), ("session_id", "session")):
        if column in frame.columns and (empty := frame[column].null_count()):
            frame = frame if empty < len(frame) else frame.drop(column)
            report_empty(empty, len(frame), what, name)
    return frame


def report_empty(empty: int, events: int, what: str, name: str) -> None:
    """Says how many events have no basket (or session), and what that means."""
    meaning = "the column is left out" if empty == events else f"each of them stands for itself, in no {what}"
    logger.warning("%s: %s of %s events have no %s: %s.", name, f"{empty:,}", f"{events:,}", what, meaning)


def groups(ids: pl.Series) -> np.ndarray:
    """(events,) int64 numbers of baskets or sessions by first appearance; an event without one has a number
    of its own."""
    numbers = Numbering().encode(ids).astype(np.int64)
    none = numbers == UNKNOWN
    if none.any():
        numbers[none] = numbers.max() + 1 + np.arange(none.sum())
    return numbers


def report_duplicates(count: int, policy: Duplicates, source: str) -> None:
    """Says how many duplicate events were met and what became of them."""
    if count:
        what = (
            "dropped all but the first of each" if policy == "drop" else "kept (duplicates='drop' drops them)"
        )
        logger.warning(
            "%s: %s events repeat the user, item and time of another: %s.", source, f"{count:,}", what
        )


def date_order(frame: pl.DataFrame, mapping: Mapping[str, str], name: str) -> str | None:
    """Which of day and month comes first in a frame's dates; None where they are not written so.

    Raises:
        DataError: it cannot be told.
    """
    source = mapping.get("timestamp")
    if source is None:
        return None
    series = times.together([frame[part] for part in log_columns.sources(source, frame.columns)])
    return times.order_of_dates([series], name, source) if times.needs_order(series) else None


def whole_column(frame: pl.DataFrame, name: str) -> np.ndarray | None:
    """A column as an array, (rows,); None where it is absent or partly empty (then positions order the
    events, and there is no time to split by)."""
    if name not in frame.columns or frame[name].null_count():
        return None
    return times.whole(frame[name]).to_numpy()


def aligned(table: pl.DataFrame | None, key: str, ids: pl.Series) -> pl.DataFrame | None:
    """The attributes of some ids, a row each in their order, null where nothing is known; None without a
    table."""
    if table is None or table.width < 2:
        return None
    return pl.DataFrame({key: ids}).join(table, on=key, how="left", maintain_order="left").drop(key)


def with_cold(ids: pl.Series, table: pl.DataFrame | None, source: str) -> pl.Series:
    """(n,) ids of items in ascending order, those of the attribute table that have no event among them.

    Args:
        ids: of the items that have one, ascending.
        source: what to call the log in messages.

    Raises:
        DataError: there is no table.
    """
    if table is None:
        raise DataError(
            f"{source}: cold_items: expected a table of items (data.items), which tells of items without an "
            "event. Got none. Give it, or leave cold_items out."
        )
    found = pl.concat([ids, table["item_id"].alias(ids.name)]).unique().sort()
    logger.info("%s: %s items without an event.", source, f"{len(found) - len(ids):,}")
    return found


def attributes(
    table: pl.DataFrame, key: str, dtype: pl.DataType, usual: str | int | None, name: str
) -> pl.DataFrame:
    """A table of attributes with its key under the canonical name.

    Args:
        key: ``item_id`` or ``user_id``.
        dtype: the log's type of these ids.
        usual: what the log calls the key, which the table may share.
        name: what to call the table in messages.
    Raises:
        DataError: no column for the key, an id missing or twice, or ids of another type than the log's.
    """
    source = log_columns.key_of(table.columns, key, name, usual)
    ids = log_columns.validated(pl.DataFrame({key: table[source]}), {key: key}, name, text=False)[key]
    if ids.dtype != dtype:
        raise DataError(
            f"{name}, column {source!r}: the log's {key} is {dtype}, here it is {ids.dtype}. Convert one "
            "of them."
        )
    if not ids.is_unique().all():
        raise DataError(
            f"{name}, column {source!r}: {key} {ids.filter(ids.is_duplicated())[0]!r} has more than one "
            "row. Keep one."
        )
    return pl.DataFrame(
        [ids, *(table[c].alias("id_" if c == "id" else c) for c in table.columns if c != source)]
    )


def to_polars(frame: Any, name: str) -> pl.DataFrame:
    """A pandas or polars frame, or a pyarrow table, as a polars frame.

    Raises:
        DataError: something else, a column that occurs twice, or one of mixed types.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    module = type(frame).__module__.split(".")[0]
    if module not in ("pandas", "pyarrow"):
        hint = " A file is read by seqrec.read_log." if isinstance(frame, str | Path) else ""
        raise DataError(
            f"{name}: expected a pandas or polars frame, or a pyarrow table. Got "
            f"{type(frame).__name__}.{hint}"
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
