"""The log: who did what, when. Validated once, here at the door; everything after trusts it.

with Interactions.read("log.csv") or Interactions.from_frame(frame), then .filter(...), then .sequences()
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqrec import storage
from seqrec.data import columns as log_columns
from seqrec.data import files
from seqrec.data.catalogue import UNKNOWN, Catalogue, Numbering
from seqrec.data.frames import (
    KINDS,
    Columns,
    Duplicates,
    Paths,
    _same_columns,
    aligned,
    finished,
    log_batches,
    report_duplicates,
    to_polars,
    whole_column,
)
from seqrec.data.sequences import Sequences, TieOrder
from seqrec.errors import DataError, did_you_mean


@dataclass(frozen=True, eq=False)
class Interactions:
    """A validated log, and what is known about its items and users.

    Attributes:
        frame: one row an event, in file order. Columns ``user_id``, ``item_id`` (Int64 or String, never
            missing) and, where the log has them, ``timestamp`` (seconds since 1970 UTC, Int64, or Float64
            below the second), ``position`` (Int64: the event's place in its user's sequence), ``rating``,
            ``basket_id``, ``session_id``, and features under their own names.
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
        return (
            f"Interactions({len(self):,} events, {counts}, columns {', '.join(self.frame.columns)}, "
            f"from {self.source})"
        )

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

        Times are seconds since 1970 or ISO dates. Where all of them can only be milli-, micro- or
        nanoseconds, or dates such as 20200131, they are converted to seconds, with a warning.

        Args:
            path: a file, or several of one format that together are the log, read in order; a folder of parts
                (``part-*.parquet``) is a file.
            format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, a name of ``seqrec.sources.FORMATS`` (``ml-1m``,
                ``sasrec``, ``recbole`` ...), or ``auto``: told from the file's name, header and first lines.
            columns: which column is which, ``{"user_id": "client", "item_id": "sku", "timestamp": "when"}``.
                What is not said is found by the usual names. ``None`` leaves a column out; integers number
                the columns of a file without a header.
            duplicates: what to do with events of the same user, item and time (or position): ``keep`` them or
                ``drop`` all but the first; how many there were is logged.
            delimiter, encoding: of a text file, where they are not a comma, tab, ``;`` or ``|``, and UTF-8.
            items, users: attributes beside the log: a frame, or the path of a table, with a column for the
                id.
        Raises:
            DataError: the input is not what it should be; names the file, the row and the column.
        """
        from seqrec import sources

        paths, format, source = opened(path, format)
        if format in KINDS:
            parts = list(log_batches(paths, format, columns, delimiter, encoding))
            log = cls(finished(parts, format in ("csv", "tsv"), source), source=source)
        elif format in sources.FORMATS:
            if delimiter or encoding:
                raise DataError(
                    f"{source}: format {format!r} knows its own delimiter and encoding. Leave them out, "
                    "or say format='csv'."
                )
            if format == "samples":
                from seqrec.sources import samples

                log, items = samples.read(paths, columns, items), None
            else:
                log = joined([sources.read(one, format, columns) for one in paths], source)
        else:
            raise DataError(
                "format: expected auto or one of the known formats. Got "
                f"{format!r}.{did_you_mean(format, [*KINDS, *sources.FORMATS])}"
            )
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
            cls(
                finished(
                    [log_columns.validated(frame, mapping, source, text=False)], text=False, name=source
                ),
                source=source,
            )
            .without_duplicates(duplicates)
            .with_attributes(items, users, columns)
        )

    def with_attributes(
        self, items: Any = None, users: Any = None, columns: Columns | None = None
    ) -> Interactions:
        """The same log with attributes of its items and users: frames, or paths of files.

        Args:
            columns: the log's own names of its ids, which the tables may share.
        """
        tables = ((items, "item_id"), (users, "user_id"))
        added = [
            None
            if table is None
            else _attributes(table, key, self.frame[key].dtype, (columns or {}).get(key))
            for table, key in tables
        ]
        return replace(
            self,
            items=self.items if added[0] is None else added[0],
            users=self.users if added[1] is None else added[1],
        )

    def without_duplicates(self, policy: Duplicates = "drop") -> Interactions:
        """The log without events that repeat the user, item and time (or position) of an earlier row;
        ``keep`` only logs how many there are.

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

    def filter(
        self, min_item_count: int = 0, min_user_count: int = 0, until_stable: bool = False
    ) -> Interactions:
        """Drops rare items and short users.

        Items are counted first, over the whole log; users then over what is left. One pass, so that an item
        may again be rare afterwards; with ``until_stable`` passes are made until nothing changes (the
        k-core).

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
            raise DataError(
                f"min_item_count={min_item_count}, min_user_count={min_user_count}: no event of "
                f"{self.source} is left. Lower them."
            )
        return replace(self, frame=frame)

    def sequences(
        self, tie_order: TieOrder = "file", seed: int = 0, item_catalogue: Catalogue | None = None
    ) -> Sequences:
        """Every user's events in order: by position where given, else by time, else as in the file.

        Users are numbered by first appearance in the log, items in the order of their ids.

        Args:
            tie_order: events of a user at the same time stay in ``file`` order (a stable sort), or are put in
                a ``random`` order.
            seed: of the random order.
            item_catalogue: number the items as this catalogue does (say, of the whole log where this is a
                part of it).
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
            raise DataError(
                f"{self.source}: item {frame['item_id'][int(np.argmax(items == UNKNOWN))]!r} is not in "
                "item_catalogue."
            )
        values: dict[str, np.ndarray | None] = {
            "times": whole_column(frame, "timestamp"),
            "positions": whole_column(frame, "position"),
            "ratings": frame["rating"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
            if "rating" in frame.columns
            else None,
            "baskets": Numbering().encode(frame["basket_id"]).astype(np.int64)
            if "basket_id" in frame.columns
            else None,
            "sessions": Numbering().encode(frame["session_id"]).astype(np.int64)
            if "session_id" in frame.columns
            else None,
        }
        users = user_catalogue.encode(frame["user_id"])
        return Sequences.from_events(
            users, items, user_catalogue, item_catalogue, **values, tie_order=tie_order, seed=seed
        )


def opened(path: Paths, format: str) -> tuple[list[str], str, str]:
    """The files of a log, their format, and what they are called in messages.

    Raises:
        DataError: no file, or files of different formats.
    """
    from seqrec import sources

    given = [path] if isinstance(path, str | Path) else list(path)
    if not given:
        raise DataError("path: expected a file, or several. Got an empty list.")
    paths = [part for one in given for part in files.parts(one)]
    places = [storage.resolved(one) for one in paths]
    for one, place in zip(paths, places):
        if places.count(place) > 1:
            raise DataError(
                f"path: expected each file once. Got {one} twice, so that each of its events would count "
                "twice. Leave one out."
            )
    if format == "auto":
        found = [sources.detect(one) for one in paths]
        format = found[0]
        for one, other in zip(paths, found):
            if other != format:
                raise DataError(
                    f"path: expected files of one format. {paths[0]} is {format}, {one} is {other}. Say "
                    "the format, or convert one."
                )
    return paths, format, ", ".join(map(str, given))


def joined(logs: list[Interactions], source: str) -> Interactions:
    """Several logs as one, their events in that order; what is known of an item or a user in several of them
    is the first's."""
    if len(logs) == 1:
        return logs[0]
    frames = [log.frame for log in logs]
    for name in log_columns.IDS:  # ids that are all integers in one file and not in another are text
        if len({frame[name].dtype for frame in frames if name in frame.columns}) > 1:
            frames = [
                frame.with_columns(pl.col(name).cast(pl.String)) if name in frame.columns else frame
                for frame in frames
            ]
    _same_columns(frames, [log.source for log in logs])
    frame = pl.concat(frames, how="diagonal_relaxed", rechunk=True)
    about: dict[str, pl.DataFrame | None] = {}
    for kind, key in (("items", "item_id"), ("users", "user_id")):
        tables = [
            table.with_columns(pl.col(key).cast(frame[key].dtype))
            for log in logs
            if (table := getattr(log, kind)) is not None
        ]
        about[kind] = (
            pl.concat(tables, how="diagonal_relaxed").unique(key, keep="first", maintain_order=True)
            if tables
            else None
        )
    return Interactions(frame, **about, source=source, terms=logs[0].terms)


def _attributes(table: Any, key: str, dtype: pl.DataType, usual: str | int | None = None) -> pl.DataFrame:
    """A table of attributes with its key under the canonical name and of the log's id type; ``usual`` is what
    the log calls the key."""
    name = f"the table of {key}"
    if isinstance(table, str | Path):
        name, kind = str(table), files.kind_of(table) or "csv"
        raw = files.read(table, kind)
        frame = (
            raw
            if kind in ("parquet", "jsonl")
            else raw.select(log_columns.typed(raw[c]) for c in raw.columns)
        )
        text: pl.DataFrame | None = None if kind in ("parquet", "jsonl") else raw
    else:
        frame, text = to_polars(table, name), None
    source = (
        usual
        if isinstance(usual, str) and usual in frame.columns
        else log_columns.key_of(frame.columns, key, name)
    )
    ids = (frame if text is None else text)[source]
    if dtype.is_integer() and text is not None:
        ids = log_columns.integers(ids)
    ids = log_columns.validated(pl.DataFrame({key: ids}), {key: key}, name, text=False)[key]
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
        [ids, *(frame[c].alias("id_" if c == "id" else c) for c in frame.columns if c != source)]
    )
