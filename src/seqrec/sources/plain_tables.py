"""Logs as plain tables, CSV, TSV, Parquet and JSON Lines, and the tables of attributes beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data import files
from seqrec.data.frames import attributes, check_same_columns, finished, to_polars
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError
from seqrec.sources.options import ReadOptions

KINDS = ("csv", "tsv", "parquet", "jsonl")
TEXT = ("csv", "tsv")


def log_frame(paths: Sequence[str | Path], options: ReadOptions, source: str) -> pl.DataFrame:
    """A whole log, validated; arguments as ``log_batches``, and what to call it in messages."""
    return finished(list(log_batches(paths, options)), options.format in TEXT, source)


def log_batches(
    paths: Sequence[str | Path], options: ReadOptions, features: bool = True
) -> Iterator[pl.DataFrame]:
    """A log's validated rows, some at a time. Ids from text are strings still, since only the whole log tells
    whether all are integers.

    Args:
        paths: the files, read in order.
        options: whose format is one of ``KINDS``.
        features: read the columns that are not the log's own, too.
    """
    first: pl.DataFrame | None = None
    notation = log_columns.Notation()
    for path in paths:
        for batch in _batches_of_file(path, options, features, notation):
            first = batch.clear() if first is None else first
            check_same_columns([first, batch], [str(paths[0]), str(path)])
            yield batch


def _batches_of_file(
    path: str | Path, options: ReadOptions, features: bool, notation: log_columns.Notation
) -> Iterator[pl.DataFrame]:
    kind, text, encoding = options.format, options.format in TEXT, options.encoding or "utf-8"
    headless = text and any(isinstance(source, int) for source in options.columns.values())
    names: list[str] | None = [] if headless else None
    mapping: dict[str, str] | None = None
    if names is None:
        header = files.header(path, kind, options.delimiter, encoding)
        mapping = log_columns.resolve(header, options.columns, str(path))
    select = None if features or mapping is None else list(dict.fromkeys(mapping.values()))
    row = 0
    for batch in files.batches(
        path, kind, delimiter=options.delimiter, encoding=encoding, names=names, select=select
    ):
        if mapping is None:
            mapping = log_columns.resolve(batch.columns, options.columns, str(path))
        for source in mapping.values():
            if source not in batch.columns:
                raise DataError(
                    f"{path}, row {row + 1}: no {source!r} here or in later rows. Every event needs the "
                    "columns of the first."
                )
        if "timestamp" in mapping:
            notation.check(batch[mapping["timestamp"]], str(path), row)
        yield log_columns.validated(batch, mapping, str(path), text, first_row=row, features=features)
        row += len(batch)


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
