"""Logs as plain tables, CSV, TSV, Parquet and JSON Lines, and the tables of attributes beside them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data import conditions, files, times
from seqrec.data.frames import attributes, check_same_columns, finished, to_polars
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError
from seqrec.sources.options import ReadOptions

KINDS = ("csv", "tsv", "parquet", "jsonl")
TEXT = ("csv", "tsv")
SAMPLE = 1 << 20
"""Bytes of text looked at to tell which column is the time, where its name does not."""

logger = logging.getLogger(__name__)


def log_frame(paths: Sequence[str | Path], options: ReadOptions, source: str) -> pl.DataFrame:
    """A whole log, validated; arguments as ``log_batches``, and what to call it in messages."""
    return finished(list(log_batches(paths, options)), options.format in TEXT, source)


def log_batches(
    paths: Sequence[str | Path], options: ReadOptions, features: bool = True, part: Chosen | None = None
) -> Iterator[pl.DataFrame]:
    """A log's validated rows, some at a time. Ids from text are strings still, since only the whole log tells
    whether all are integers.

    Args:
        paths: the files, read in order.
        options: whose format is one of ``KINDS``.
        features: read the columns that are not the log's own, too.
        part: these files are a part of a log that others read, too: which rows are kept, of which nothing is
            reported here.

    Raises:
        DataError: as ``read_log``; or of a part, dates whose order only the whole log tells.
    """
    first: pl.DataFrame | None = None
    chosen = part or Chosen(options.where, options.missing_ids)
    time_format = options.time_format
    for number, path in enumerate(paths):
        table = _Table(path, options, features, say=number == 0)
        row = 0
        for batch in table.batches():
            source = table.mapping.get("timestamp")
            if time_format is None and source is not None and times.needs_order(table.moments(batch)):
                if part is not None:
                    raise DataError(
                        f"{path}, column {source!r}: expected to be told which of day and month comes "
                        "first, where "
                        "a log is read in parts: time_format='day_first' or 'month_first' (--time-format)."
                    )
                time_format = times.order_of_dates(_moments(paths, options), str(path), source)
            kept, rows = chosen.of(batch, table.mapping, str(path), row)
            valid = log_columns.validated(
                kept,
                table.mapping,
                str(path),
                table.text,
                first_row=row,
                features=features,
                time_format=time_format,
                rows=rows,
            )
            row += len(batch)
            first = valid.clear() if first is None else first
            check_same_columns([first, valid], [str(paths[0]), str(path)])
            if len(valid):
                yield valid
    if part is None:
        chosen.report(", ".join(map(str, paths)))


class Chosen:
    """Which rows of a log are kept, and how many were not."""

    def __init__(self, where: str | None, missing_ids: log_columns.MissingIds):
        self.where = where
        self.conditions = () if where is None else conditions.parse(where)
        self.drops = missing_ids == "drop"
        self.read = self.matched = self.complete = 0

    def of(
        self, batch: pl.DataFrame, mapping: dict[str, str], name: str, first_row: int = 0
    ) -> tuple[pl.DataFrame, pl.Series | None]:
        """The rows to keep, and their numbers in the file, None where all are kept.

        Raises:
            DataError: a condition speaks of a column that is not there, or compares text by size.
        """
        if not self.conditions and not self.drops:
            self.complete += len(batch)
            return batch, None
        mask = conditions.holds(self.conditions, batch, mapping, name)
        self.read += len(batch)
        self.matched += int(mask.sum())
        if self.drops:
            mask &= log_columns.has_ids(batch, mapping)
        self.complete += int(mask.sum())
        return batch.filter(mask), (mask.arg_true() + (first_row + 1)).cast(pl.Int64)

    def report(self, name: str) -> None:
        """Says how many rows were left out.

        Raises:
            DataError: all of them.
        """
        if self.conditions:
            logger.info(
                "%s: where %s: %s of %s rows kept.", name, self.where, f"{self.matched:,}", f"{self.read:,}"
            )
        if self.drops and self.matched > self.complete:
            logger.warning(
                "%s: %s of %s rows have no user or no item: dropped.",
                name,
                f"{self.matched - self.complete:,}",
                f"{self.matched:,}",
            )
        if not self.complete:
            what = f"where={self.where!r}" if self.conditions else "missing_ids='drop'"
            raise DataError(f"{name}: {what} leaves none of {self.read:,} rows. Correct it, or leave it out.")


class _Table:
    """A file of a log, and which of its columns is which."""

    def __init__(self, path: str | Path, options: ReadOptions, features: bool = True, say: bool = False):
        self.path, self.options, self.features = path, options, features
        self.text, self.encoding = options.format in TEXT, options.encoding or "utf-8"
        headless = self.text and any(isinstance(source, int) for source in options.columns.values())
        self.names: list[str] | None = [] if headless else None
        if headless:
            found = self._sample().columns
        else:
            found = files.header(path, options.format, options.delimiter, self.encoding)
        self.found = found
        self.mapping = log_columns.resolve(found, options.columns, str(path), sample=self._sample, say=say)

    def _read(self, **arguments: Any) -> Iterator[pl.DataFrame]:
        options = self.options
        return files.batches(
            self.path,
            options.format,
            delimiter=options.delimiter,
            encoding=self.encoding,
            names=self.names,
            **arguments,
        )

    def _sample(self) -> pl.DataFrame:
        return next(self._read(block=SAMPLE, rows=1000)).head(1000)

    def moments(self, batch: pl.DataFrame) -> pl.Series:
        """The times as they are written."""
        return times.together([batch[part] for part in self.time_columns()])

    def time_columns(self) -> list[str]:
        """The columns that make the time: one, or a date and a time of day."""
        return log_columns.sources(self.mapping["timestamp"], self.found)

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows, some at a time, with the columns that are needed.

        Raises:
            DataError: a column of the first rows is not in later ones.
        """
        used = [part for source in self.mapping.values() for part in log_columns.sources(source, self.found)]
        asked = conditions.columns_of(
            () if self.options.where is None else conditions.parse(self.options.where),
            self.found,
            self.mapping,
            str(self.path),
        )
        select = None if self.features else list(dict.fromkeys([*used, *asked]))
        row = 0
        for batch in self._read(select=select):
            for source in used:
                if source not in batch.columns:
                    raise DataError(
                        f"{self.path}, row {row + 1}: no {source!r} here or in later rows. Every event needs "
                        "the columns of the first."
                    )
            row += len(batch)
            yield batch


def _moments(paths: Sequence[str | Path], options: ReadOptions) -> Iterator[pl.Series]:
    """The times of a log as they are written, some at a time, where that is text."""
    for path in paths:
        table = _Table(path, options)
        if "timestamp" in table.mapping:
            for batch in table._read(select=table.time_columns()):
                moments = table.moments(batch)
                if moments.dtype == pl.String:
                    yield moments


def with_tables(log: Interactions, options: ReadOptions) -> Interactions:
    """The log with the attributes of ``options.items`` and ``options.users``, frames or files.

    Raises:
        DataError: a table without ids, with ids of another type than the log's, or with an id twice.
    """
    about: dict[str, Any] = {}
    for kind, key in (("items", "item_id"), ("users", "user_id")):
        table = getattr(options, kind)
        if table is not None:
            dtype, usual = log.frame[key].dtype, options.columns.get(key)
            is_file = isinstance(table, str | Path)
            name = str(table) if is_file else f"the table of {key}"
            frame = _table(table, key, dtype, usual) if is_file else to_polars(table, name)
            about[kind] = attributes(frame, key, dtype, usual, name)
    return replace(log, **about)


def _table(path: str | Path, key: str, dtype: pl.DataType, usual: str | int | None) -> pl.DataFrame:
    """A table of attributes from a file. In text, ids are integers only where the log's are."""
    kind = files.kind_of(path) or ("jsonl" if files.start(path, size=1).startswith("{") else "csv")
    files.header(path, kind)
    frame = files.read(path, kind)
    if kind not in TEXT:
        return frame
    ids = log_columns.key_of(frame.columns, key, str(path), usual)
    columns = {c: log_columns.typed(frame[c]) for c in frame.columns}
    columns[ids] = log_columns.integers(frame[ids]) if dtype.is_integer() else frame[ids]
    return pl.DataFrame(list(columns.values()))
