"""The log: who did what, when. Validated once, here at the door; everything after trusts it.

log = Interactions.from_frame(frame)            # a file: seqrec.read_log("log.csv")
sequences = log.filter(min_item_count=5).sequences()
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data.baskets import Derived
from seqrec.data.catalogue import UNKNOWN, Catalogue
from seqrec.data.frames import (
    Columns,
    Duplicates,
    aligned,
    attributes,
    check_same_columns,
    date_order,
    finished,
    groups,
    report_duplicates,
    to_polars,
    whole_column,
    with_cold,
)
from seqrec.data.sequences import Sequences, TieOrder
from seqrec.errors import DataError


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
    def from_frame(
        cls,
        frame: Any,
        columns: Columns | None = None,
        duplicates: Duplicates = "keep",
        items: Any = None,
        users: Any = None,
        source: str = "a frame",
        time_format: str | None = None,
    ) -> Interactions:
        """A log from a pandas or polars frame (or a pyarrow table).

        Args:
            columns: which column is which, ``{"user_id": "client", "item_id": "sku", "timestamp": "when"}``.
                What is not said is found by the usual names. ``None`` leaves a column out.
            duplicates: what to do with events of the same user, item and time (or position): ``keep`` them or
                ``drop`` all but the first; how many there were is logged.
            items, users: attributes beside the log, frames with a column for the id.
            source: what to call it in messages.
            time_format: how times in text are written: ``%d/%m/%Y %H:%M``, say, or ``day_first``, or
                ``month_first``; by default told from the whole column.
        Raises:
            DataError: the frame is not what it should be; names the row and the column.
        """
        frame = to_polars(frame, source)
        if not len(frame):
            raise DataError(f"{source}: no rows. Expected at least one event.")
        mapping = log_columns.resolve(frame.columns, columns, source, sample=lambda: frame.head(1000))
        whole = log_columns.validated(
            frame, mapping, source, text=False, time_format=time_format or date_order(frame, mapping, source)
        )
        return (
            cls(finished([whole], text=False, name=source), source=source)
            .without_duplicates(duplicates)
            .with_attributes(items, users, columns)
        )

    def with_attributes(
        self, items: Any = None, users: Any = None, columns: Columns | None = None
    ) -> Interactions:
        """The same log with attributes of its items and users.

        Args:
            items, users: frames with a column for the id, or None to leave what there is.
            columns: the log's own names of its ids, which the tables may share.
        Raises:
            DataError: a table without ids, with ids of another type than the log's, or with an id twice.
        """
        about: dict[str, Any] = {}
        for kind, table, key in (("items", items, "item_id"), ("users", users, "user_id")):
            if table is not None:
                name, usual = f"the table of {key}", (columns or {}).get(key)
                about[kind] = attributes(to_polars(table, name), key, self.frame[key].dtype, usual, name)
        return replace(self, **about)

    def without_duplicates(self, policy: Duplicates = "drop") -> Interactions:
        """The log without events that repeat the user, item and time (or position) of an earlier row;
        ``keep`` only logs how many there are.

        In a log with neither times nor positions nothing can be told to be a duplicate.

        Raises:
            DataError: another policy than these two.
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
        self,
        tie_order: TieOrder = "file",
        seed: int = 0,
        item_catalogue: Catalogue | None = None,
        basket: Derived | None = None,
        cold_items: bool = False,
    ) -> Sequences:
        """Every user's events in order: by time, else by position, else as in the file.

        Users are numbered by first appearance in the log, items in the order of their ids.

        Args:
            tie_order: events of a user at the same time stay in ``file`` order (a stable sort), or are put in
                a ``random`` order.
            seed: of the random order.
            item_catalogue: number the items as this catalogue does (say, of the whole log where this is a
                part of it).
            basket: what makes a user's events a basket: ``same_time``, or ``same_day`` (UTC); None: the log's
                own column ``basket_id``, if it has one.
            cold_items: number the items of the attribute table that have no event, too.
        Raises:
            DataError: an item is not in ``item_catalogue``; ``basket`` of a log without times; ``cold_items``
                of a log without a table of items.
        """
        frame = self.frame
        user_catalogue = Catalogue(frame["user_id"].unique(maintain_order=True))
        user_catalogue = Catalogue(user_catalogue.ids, aligned(self.users, "user_id", user_catalogue.ids))
        if item_catalogue is None:
            ids = frame["item_id"].unique().sort()
            if cold_items:
                ids = with_cold(ids, self.items, self.source)
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
            "baskets": groups(frame["basket_id"]) if "basket_id" in frame.columns else None,
            "sessions": groups(frame["session_id"]) if "session_id" in frame.columns else None,
        }
        users = user_catalogue.encode(frame["user_id"])
        return Sequences.from_events(
            users,
            items,
            user_catalogue,
            item_catalogue,
            **values,
            tie_order=tie_order,
            seed=seed,
            basket=basket,
        )


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
    check_same_columns(frames, [log.source for log in logs])
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
