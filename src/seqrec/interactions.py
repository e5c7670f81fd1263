"""The log: who did what, when. Validated once, here at the door; everything after trusts it.

with Interactions.read("log.csv") or Interactions.from_frame(frame), then .filter(...), then .sequences()
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from seqrec import columns as log_columns
from seqrec import files, storage
from seqrec.catalogue import UNKNOWN, Catalogue, Numbering
from seqrec.errors import DataError, did_you_mean
from seqrec.sequences import Sequences, TieOrder

Columns = Mapping[str, str | int | None]
Paths = str | Path | Sequence[str | Path]
Duplicates = Literal["keep", "drop"]

KINDS = ("csv", "tsv", "parquet", "jsonl")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Interactions:
    """A validated log, and what is known about its items and users.

    Attributes:
        frame: one row an event, in file order. Columns ``user_id``, ``item_id`` (Int64 or String, never missing) and, where the log has
            them, ``timestamp`` (seconds since 1970 UTC, Int64, or Float64 below the second), ``position`` (Int64: the event's place in
            its user's sequence), ``rating``, ``basket_id``, ``session_id``, and features under their own names.
        items: attributes of items, key ``item_id``, or None.
        users: attributes of users, key ``user_id``, or None.
        source: where the log came from.
        terms: the terms under which its publisher lets it be used; empty where unknown.
    """

    frame: pl.DataFrame
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    source: str = "a frame"
    terms: str = ""

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        counts = f"{self.frame['user_id'].n_unique():,} users, {self.frame['item_id'].n_unique():,} items"
        return f"Interactions({len(self):,} events, {counts}, columns {', '.join(self.frame.columns)}, from {self.source})"

    @classmethod
    def read(
        cls,
        path: Paths,
        format: str = "auto",
        columns: Columns | None = None,
        duplicates: Duplicates = "keep",
        delimiter: str | None = None,
        encoding: str | None = None,
        items: Any = None,
        users: Any = None,
    ) -> Interactions:
        """Reads a log: CSV, TSV, Parquet or JSON Lines (also gzipped), or the files of a known data set.

        Times are seconds since 1970 or ISO dates. Where all of them can only be milli-, micro- or nanoseconds, or dates such as 20200131, they are
        converted to seconds, with a warning.

        Args:
            path: a file, or several of one format that together are the log, read in order; a folder of parts (``part-*.parquet``) is a file.
            format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, a name of ``seqrec.datasets.FORMATS`` (``ml-1m``, ``sasrec``, ``recbole`` ...),
                or ``auto``: told from the file's name, header and first lines.
            columns: which column is which, ``{"user_id": "client", "item_id": "sku", "timestamp": "when"}``. What is not said is found by
                the usual names. ``None`` leaves a column out; integers number the columns of a file without a header.
            duplicates: what to do with events of the same user, item and time (or position): ``keep`` them or ``drop`` all but the first;
                how many there were is logged.
            delimiter, encoding: of a text file, where they are not a comma, tab, ``;`` or ``|``, and UTF-8.
            items, users: attributes beside the log: a frame, or the path of a table, with a column for the id.
        Raises:
            DataError: the input is not what it should be; names the file, the row and the column.
        """
        from seqrec import datasets

        paths, format, source = opened(path, format)
        if format in KINDS:
            parts = list(log_batches(paths, format, columns, delimiter, encoding))
            log = cls(finished(parts, format in ("csv", "tsv"), source), source=source)
        elif format in datasets.FORMATS:
            if delimiter or encoding:
                raise DataError(f"{source}: format {format!r} knows its own delimiter and encoding. Leave them out, or say format='csv'.")
            if format == "samples":
                from seqrec.datasets import samples

                log, items = samples.read(paths, columns, items), None
            else:
                log = joined([datasets.read(one, format, columns) for one in paths], source)
        else:
            raise DataError(f"format: expected auto or one of the known formats. Got {format!r}.{did_you_mean(format, [*KINDS, *datasets.FORMATS])}")
        return log.without_duplicates(duplicates).with_attributes(items, users, columns)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Columns | None = None,
        duplicates: Duplicates = "keep",
        items: Any = None,
        users: Any = None,
        source: str = "a frame",
    ) -> Interactions:
        """A log from a pandas or polars frame (or a pyarrow table); arguments as ``read``.

        Raises:
            DataError: as ``read``.
        """
        frame = to_polars(frame, source)
        if not len(frame):
            raise DataError(f"{source}: it has no rows. Expected at least one event.")
        mapping = log_columns.resolve(frame.columns, columns, source)
        return (
            cls(finished([log_columns.validated(frame, mapping, source, text=False)], text=False, name=source), source=source)
            .without_duplicates(duplicates)
            .with_attributes(items, users, columns)
        )

    def with_attributes(self, items: Any = None, users: Any = None, columns: Columns | None = None) -> Interactions:
        """The same log with attributes of its items and users: frames, or paths of files.

        Args:
            columns: the log's own names of its ids, which the tables may share.
        """
        tables = ((items, "item_id"), (users, "user_id"))
        added = [None if table is None else _attributes(table, key, self.frame[key].dtype, (columns or {}).get(key)) for table, key in tables]
        return replace(self, items=self.items if added[0] is None else added[0], users=self.users if added[1] is None else added[1])

    def without_duplicates(self, policy: Duplicates = "drop") -> Interactions:
        """The log without events that repeat the user, item and time (or position) of an earlier row; ``keep`` only logs how many there are.

        In a log with neither times nor positions nothing can be told to be a duplicate.
        """
        if policy not in ("keep", "drop"):
            raise DataError(f"duplicates: expected 'keep' or 'drop'. Got {policy!r}.")
        key = [c for c in ("user_id", "item_id", "timestamp", "position") if c in self.frame.columns]
        if len(key) < 3:
            return self
        first = self.frame.select(pl.struct(key).is_first_distinct()).to_series()
        count = len(first) - int(first.sum())
        report_duplicates(count, policy, self.source)
        return replace(self, frame=self.frame.filter(first)) if count and policy == "drop" else self

    def where(self, predicate: pl.Expr) -> Interactions:
        """The events for which a polars expression holds, e.g. ``log.where(pl.col("rating") >= 3)``."""
        return replace(self, frame=self.frame.filter(predicate))

    def filter(self, min_item_count: int = 0, min_user_count: int = 0, until_stable: bool = False) -> Interactions:
        """Drops rare items and short users.

        Items are counted first, over the whole log; users then over what is left. One pass, so that an item may again be rare afterwards;
        with ``until_stable`` passes are made until nothing changes (the k-core).

        Args:
            min_item_count: events that an item must have to stay.
            min_user_count: events that a user must have to stay.
        Raises:
            DataError: nothing is left.
        """
        frame = self.frame
        while True:
            before = len(frame)
            for key, least in (("item_id", min_item_count), ("user_id", min_user_count)):
                if least > 1:
                    frame = frame.filter(pl.len().over(key) >= least)
            if not until_stable or len(frame) == before:
                break
        if not len(frame):
            raise DataError(f"min_item_count={min_item_count}, min_user_count={min_user_count}: no event of {self.source} is left. Lower them.")
        return replace(self, frame=frame)

    def sequences(self, tie_order: TieOrder = "file", seed: int = 0, item_catalogue: Catalogue | None = None) -> Sequences:
        """Every user's events in order: by position where given, else by time, else as in the file.

        Users are numbered by first appearance in the log, items in the order of their ids.

        Args:
            tie_order: events of a user at the same time stay in ``file`` order (a stable sort), or are put in a ``random`` order.
            seed: of the random order.
            item_catalogue: number the items as this catalogue does (say, of the whole log where this is a part of it).
        Raises:
            DataError: positions and times contradict each other; an item is not in ``item_catalogue``.
        """
        frame = self.frame
        user_catalogue = Catalogue(frame["user_id"].unique(maintain_order=True))
        user_catalogue = Catalogue(user_catalogue.ids, aligned(self.users, "user_id", user_catalogue.ids))
        if item_catalogue is None:
            ids = frame["item_id"].unique().sort()
            item_catalogue = Catalogue(ids, aligned(self.items, "item_id", ids))
        items = item_catalogue.encode(frame["item_id"])
        if (items == UNKNOWN).any():
            raise DataError(f"{self.source}: item {frame['item_id'][int(np.argmax(items == UNKNOWN))]!r} is not in item_catalogue.")
        values: dict[str, np.ndarray | None] = {
            "times": whole_column(frame, "timestamp"),
            "positions": whole_column(frame, "position"),
            "ratings": frame["rating"].cast(pl.Float32).fill_null(float("nan")).to_numpy() if "rating" in frame.columns else None,
            "baskets": Numbering().encode(frame["basket_id"]).astype(np.int64) if "basket_id" in frame.columns else None,
            "sessions": Numbering().encode(frame["session_id"]).astype(np.int64) if "session_id" in frame.columns else None,
        }
        users = user_catalogue.encode(frame["user_id"])
        return Sequences.from_events(users, items, user_catalogue, item_catalogue, **values, tie_order=tie_order, seed=seed)


def opened(path: Paths, format: str) -> tuple[list[str], str, str]:
    """The files of a log, their format, and what they are called in messages.

    Raises:
        DataError: no file, or files of different formats.
    """
    from seqrec import datasets

    given = [path] if isinstance(path, str | Path) else list(path)
    if not given:
        raise DataError("path: expected a file, or several. Got an empty list.")
    paths = [part for one in given for part in files.parts(one)]
    places = [storage.resolved(one) for one in paths]
    for one, place in zip(paths, places):
        if places.count(place) > 1:
            raise DataError(f"path: expected each file once. Got {one} twice, so that each of its events would count twice. Leave one out.")
    if format == "auto":
        found = [datasets.detect(one) for one in paths]
        format = found[0]
        for one, other in zip(paths, found):
            if other != format:
                raise DataError(f"path: expected files of one format. {paths[0]} is {format}, {one} is {other}. Say the format, or convert one.")
    return paths, format, ", ".join(map(str, given))


def joined(logs: list[Interactions], source: str) -> Interactions:
    """Several logs as one, their events in that order; what is known of an item or a user in several of them is the first's."""
    if len(logs) == 1:
        return logs[0]
    frames = [log.frame for log in logs]
    for name in log_columns.IDS:  # ids that are all integers in one file and not in another are text
        if len({frame[name].dtype for frame in frames if name in frame.columns}) > 1:
            frames = [frame.with_columns(pl.col(name).cast(pl.String)) if name in frame.columns else frame for frame in frames]
    _same_columns(frames, [log.source for log in logs])
    frame = pl.concat(frames, how="diagonal_relaxed", rechunk=True)
    about: dict[str, pl.DataFrame | None] = {}
    for kind, key in (("items", "item_id"), ("users", "user_id")):
        tables = [table.with_columns(pl.col(key).cast(frame[key].dtype)) for log in logs if (table := getattr(log, kind)) is not None]
        about[kind] = pl.concat(tables, how="diagonal_relaxed").unique(key, keep="first", maintain_order=True) if tables else None
    return Interactions(frame, **about, source=source, terms=logs[0].terms)


def _same_columns(frames: list[pl.DataFrame], sources: list[str]) -> None:
    """Refuses files of which one lacks a column of the log that another has."""
    for frame, source in zip(frames, sources):
        for name in log_columns.ALIASES:
            if (name in frame.columns) != (name in frames[0].columns):
                has, lacks = (source, sources[0]) if name in frame.columns else (sources[0], source)
                raise DataError(
                    f"{lacks}: no column for {name}, which {has} has. Give it in both, or leave it out: columns={{{name!r}: None}} "
                    f"(--column {name}=)."
                )


def log_batches(
    path: Paths, kind: str, columns: Columns | None = None, delimiter: str | None = None, encoding: str | None = None, features: bool = True
) -> Iterator[pl.DataFrame]:
    """A log's validated rows, some at a time. Ids from text are strings still, since only the whole log tells whether all are integers.

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
    path: str | Path, kind: str, columns: Columns | None, delimiter: str | None, encoding: str | None, features: bool
) -> Iterator[pl.DataFrame]:
    encoding = encoding or "utf-8"
    headless = any(isinstance(source, int) for source in (columns or {}).values())
    names: list[str] | None = [] if headless and kind in ("csv", "tsv") else None
    mapping: dict[str, str] | None = None
    if names is None:
        mapping = log_columns.resolve(files.header(path, kind, delimiter, encoding), columns, str(path))
    select = None if features or mapping is None else list(dict.fromkeys(mapping.values()))
    row = 0
    for batch in files.batches(path, kind, delimiter=delimiter, encoding=encoding, names=names, select=select):
        if mapping is None:
            mapping = log_columns.resolve(batch.columns, columns, str(path))
        for source in mapping.values():
            if source not in batch.columns:
                raise DataError(f"{path}, row {row + 1}: no {source!r} here or in the rows after it. Every event needs the columns of the first.")
        yield log_columns.validated(batch, mapping, str(path), kind in ("csv", "tsv"), first_row=row, features=features)
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
        what = "dropped all but the first of each" if policy == "drop" else "kept (duplicates='drop' drops them)"
        logger.warning("%s: %s events repeat the user, item and time of another: %s.", source, f"{count:,}", what)


def whole_column(frame: pl.DataFrame, name: str) -> np.ndarray | None:
    """A column as an array; None where it is absent or partly empty (then positions order the events, and there is no time to split by)."""
    if name not in frame.columns or frame[name].null_count():
        return None
    return frame[name].to_numpy()


def aligned(table: pl.DataFrame | None, key: str, ids: pl.Series) -> pl.DataFrame | None:
    """The attributes of some ids, a row each in their order, null where nothing is known; None without a table."""
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
        raise DataError(f"{name}: expected a pandas or polars frame, or a pyarrow table. Got {type(frame).__name__}.")
    if module == "pandas" and not frame.columns.is_unique:
        raise DataError(f"{name}: column {frame.columns[frame.columns.duplicated()][0]!r} occurs twice. Rename one of them.")
    try:
        return pl.DataFrame(pl.from_pandas(frame) if module == "pandas" else pl.from_arrow(frame))
    except Exception as error:  # pyarrow's own errors, TypeError, ValueError: whatever a column of mixed objects makes of it
        raise DataError(f"{name}: a column mixes types, integers and strings say ({error}). Convert it to one type first.") from error


def _attributes(table: Any, key: str, dtype: pl.DataType, usual: str | int | None = None) -> pl.DataFrame:
    """A table of attributes with its key under the canonical name and of the log's id type; ``usual`` is what the log calls the key."""
    name = f"the table of {key}"
    if isinstance(table, str | Path):
        name, kind = str(table), files.kind_of(table) or "csv"
        raw = files.read(table, kind)
        frame = raw if kind in ("parquet", "jsonl") else raw.select(log_columns.typed(raw[c]) for c in raw.columns)
        text: pl.DataFrame | None = None if kind in ("parquet", "jsonl") else raw
    else:
        frame, text = to_polars(table, name), None
    source = usual if isinstance(usual, str) and usual in frame.columns else log_columns.key_of(frame.columns, key, name)
    ids = (frame if text is None else text)[source]
    if dtype.is_integer() and text is not None:
        ids = log_columns.integers(ids)
    ids = log_columns.validated(pl.DataFrame({key: ids}), {key: key}, name, text=False)[key]
    if ids.dtype != dtype:
        raise DataError(f"{name}, column {source!r}: the log's {key} is {dtype}, here it is {ids.dtype}. Convert one of them.")
    if not ids.is_unique().all():
        raise DataError(f"{name}, column {source!r}: {key} {ids.filter(ids.is_duplicated())[0]!r} has more than one row. Keep one.")
    return pl.DataFrame([ids, *(frame[c].alias("id_" if c == "id" else c) for c in frame.columns if c != source)])
