"""Tables of samples turned back into a log: each user's events in order.

The tables are those of ``seqrec.samples.tables`` or of MetaSpore's sequential demo:

    label  user_id  movie_id  recent_movie_ids
    1      7        1196      260\\x01480\\x011210    the event after 260, 480, 1210
    0      7        2762      260\\x01480\\x011210    a negative: the history is that of the event it is for
    0      7        589       480\\x011210\\x011196   the event after that, rated low, if a later history ends
                                               with 589; else a negative

Tables of training and test are given together, in any order of rows. A user and a history make a place; the
event at that place is the item of its row with label 1, or else the item with which the next place's history
ends. Places are linked by their histories: after ``a b c`` and event d comes the place ``b c d``. Where rows
are missing (of a validation table that was not given, say) the later histories still tell the items, as long
as no item repeats; users with repeated items need all their rows. An order that more than one log could have
is refused.

``rating`` is 5 for label 1 and 1 for label 0, so that ``rating > 2`` gives the label back; missing where only
later histories tell of the event, unless no event of the log has label 0. ``position`` counts from 0. Users
are ordered by id. Attributes of users and items are the columns that are constant for each user, or for each
item, over the rows with label 1; the item table may be given beside them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data import files
from seqrec.data.catalogue import Numbering
from seqrec.data.frames import Columns, to_polars
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, did_you_mean, some_of
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import with_tables

SEPARATOR = "\x01"
LIKED, DISLIKED = 5.0, 1.0
NAMES = ("user_id", "item_id", "label", "recent")
EMPTY = ("0", "None", "")
"""Lists that say that nothing was before."""
NO_ATTRIBUTES = r"^(last_.*|recent_.*|sampling_prob|sample_weight)$"
PENDING = 3_000_000
"""Rows of places kept until those that are the same are merged."""
SLICE = 1 << 18
"""Histories taken apart at a time."""

logger = logging.getLogger(__name__)


def resolve(found: Sequence[str], columns: Columns | None, name: str) -> dict[str, str]:
    """Which column is which: ``user_id``, ``item_id``, ``label``, ``recent`` -> name in the file. What is not
    said is found by the origin's names.

    Raises:
        DataError: as ``seqrec.data.columns.resolve``.
    """
    said = {key: str(value) for key, value in (columns or {}).items()}
    for key, value in said.items():
        if key not in NAMES:
            raise DataError(
                f"columns: {key!r} is not a column of a table of samples.{did_you_mean(key, NAMES)}"
            )
        if value not in found:
            raise DataError(f"{name}: no column {value!r} for {key}. The file has: {some_of(found)}.")
    lists = [match for match in map(re.compile(r"recent_(.+)_ids").fullmatch, found) if match]
    pair = next((m for m in lists if f"{m[1]}_id" in found), None)
    usual = {"user_id": "user_id", "label": "label"} | (
        {"item_id": f"{pair[1]}_id", "recent": pair[0]} if pair else {}
    )
    chosen = {key: said.get(key, usual.get(key, "")) for key in NAMES}
    for key, value in chosen.items():
        if value not in found:
            example = "label, user_id, movie_id, recent_movie_ids"
            raise DataError(
                f"{name}: no column for {key}. The file has: {some_of(found)}. "
                f"Expected a table of samples, with {example} or names that you map, for example "
                f"columns={{{key!r}: {found[0]!r}}} (--column {key}={found[0]})."
            )
    return chosen


def read(paths: Sequence[str | Path], options: ReadOptions) -> Interactions:
    """Reads tables of samples as one log, with attributes of its items and users.

    Args:
        paths: tables (Parquet, CSV, TSV or JSON Lines): training, validation, test.
        options: ``columns`` are names other than the origin's, ``{"item_id": "sku", "recent": "recent_skus",
            "label": "clicked", "user_id": "client"}``. ``items`` is the item table: its columns are the
            items' attributes, but for those of the tables of samples. ``users`` comes instead of the
            attributes that the tables of samples tell.
    Raises:
        DataError: a column or value is missing; or a user's order cannot be told, and why.
    """
    source = ", ".join(map(str, paths))
    table = _Table(source)
    for path in paths:
        table.add(path, options.columns)
    if not table.rows:
        raise DataError(f"{source}: no rows. Expected at least one event.")
    frame = _Chains(table).events()
    users, own = table.attributes(frame)
    if options.items is not None:
        own = _item_table(options.items, table, frame["item_id"], users)
    log = Interactions(frame, source=source).with_attributes(items=own, users=users)
    return with_tables(log, options.model_copy(update={"items": None}))


class _Table:
    """The places of all users, from the rows of tables, some at a time: what is the same is kept once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.rows = 0
        self.users, self.items = Numbering(), Numbering()
        self.liked: list[pl.DataFrame] = []  # user, recent, item
        # user, recent; of label 0 the least and the greatest item, and whether one repeats the list's last
        self.others: list[pl.DataFrame] = []
        self.merged = 0
        # of each attribute least and greatest value a user, an item
        self.seen: dict[str, dict[str, list[pl.DataFrame]]] = {"user": {}, "item": {}}
        self.names: dict[str, str] = {}
        self.added: list[tuple[str | Path, dict[str, str]]] = []

    def add(self, path: str | Path, columns: Columns | None) -> None:
        header = files.header(path, files.kind_of(path) or "parquet")
        self.names = resolve(header, columns, str(path))
        self.added.append((path, self.names))
        attributes = [c for c in header if c not in self.names.values() and not re.match(NO_ATTRIBUTES, c)]
        for rows in self._batches(path, self.names, attributes):
            liked = rows.filter("label")
            self.liked.append(liked.select("user", "recent", "item"))
            self._add_others(rows.filter(~pl.col("label")))
            for name in attributes:
                for key, kept in self.seen.items():
                    kept.setdefault(name, []).append(
                        _range(liked.select(key, least=name, greatest=name), key)
                    )
            self.rows += len(rows)

    def _batches(
        self, path: str | Path, names: dict[str, str], attributes: Sequence[str] = ()
    ) -> Iterator[pl.DataFrame]:
        """The rows of a table, some at a time: user, item (numbers), id (of the item), recent, label and the
        attributes."""
        kind = files.kind_of(path) or "parquet"
        if kind == "parquet" and not files.rows_of_parquet(path):
            return  # a validation table without queries, say
        first = 0
        for batch in files.batches(path, kind, select=[*names.values(), *attributes]):
            ids = log_columns.validated(
                batch, {key: names[key] for key in NAMES[:2]}, str(path), False, first, features=False
            ).cast(pl.String)
            numbers = pl.DataFrame(
                {
                    "user": self.users.encode(ids["user_id"]),
                    "item": self.items.encode(ids["item_id"]),
                    "id": ids["item_id"],
                }
            )
            lists = batch[names["recent"]].cast(pl.String).fill_null("").alias("recent")
            label = _labels(batch[names["label"]], str(path), names["label"], first)
            yield numbers.hstack([lists, label, *(batch[name].cast(pl.String) for name in attributes)])
            first += len(batch)

    def disliked(self, rows: pl.DataFrame) -> pl.DataFrame:
        """How many rows with label 0 are these, (user, recent, item): each that occurs, and its count. The
        tables are read again."""
        users, found = rows["user"].unique(), []
        for path, names in self.added:
            for batch in self._batches(path, names):
                kept = batch.filter(~pl.col("label") & pl.col("user").is_in(users.implode()))
                found.append(
                    kept.select("user", "recent", "item").join(
                        rows, on=["user", "recent", "item"], how="semi"
                    )
                )
        return pl.concat(found).group_by("user", "recent", "item").agg(pl.len().cast(pl.Int64).alias("count"))

    def _add_others(self, rows: pl.DataFrame) -> None:
        again = (pl.col("recent") == pl.col("id")) | pl.col("recent").str.ends_with(
            pl.concat_str(pl.lit(SEPARATOR), "id")
        )
        self.others.append(_merged(rows.select("user", "recent", least="item", greatest="item", again=again)))
        if sum(map(len, self.others)) > max(PENDING, 2 * self.merged):
            self.others = [_merged(pl.concat(self.others))]
            self.merged = len(self.others[0])

    def places(self) -> pl.DataFrame:
        """A row for each user and history: user, recent, item (null without label 1), and least, greatest and
        again of label 0.

        Raises:
            DataError: a place has two events.
        """
        liked = (
            pl.concat(self.liked)
            .group_by("user", "recent")
            .agg(pl.col("item").first(), pl.len().alias("count"))
        )
        if (twice := liked.filter(pl.col("count") > 1)).height:
            shown = twice["recent"][0].replace(SEPARATOR, " ")
            raise DataError(
                f"{self.source}: user {self.user(twice['user'][0])!r} has several rows of label 1 after the "
                f"same items ({shown}). Items repeat, so the order is ambiguous; "
                "or rows occur twice, perhaps in two tables. Give each row once, or the log itself."
            )
        others = _merged(pl.concat(self.others))
        return liked.drop("count").join(others, on=["user", "recent"], how="full", coalesce=True)

    def user(self, number: int) -> str:
        return str(self.users.ids[number])

    def attributes(self, frame: pl.DataFrame) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        """The columns that are constant for each user, and of the others those that are constant for each
        item; the rest are neither's."""
        tables: dict[str, dict[str, pl.DataFrame]] = {"user": {}, "item": {}}
        for name in self.seen["user"]:
            for key in tables:
                values = _range(pl.concat(self.seen[key][name]), key)
                if (
                    len(values)
                    and values.select((pl.col("least") == pl.col("greatest")).fill_null(True).all()).item()
                ):
                    tables[key][name] = values.select(key, pl.col("least").alias(name))
                    break
            else:
                logger.info(
                    "%s: column %r is constant neither for a user nor for an item, and is left out.",
                    self.source,
                    name,
                )
        return self._joined(tables["user"], "user", frame), self._joined(tables["item"], "item", frame)

    def _joined(self, tables: dict[str, pl.DataFrame], key: str, frame: pl.DataFrame) -> pl.DataFrame | None:
        if not tables:
            return None
        ids = (self.users if key == "user" else self.items).ids
        joined = pl.DataFrame({key: np.arange(len(ids), dtype=np.int32)})
        for values in tables.values():
            joined = joined.join(values, on=key, how="left", maintain_order="left")
        column = f"{key}_id"
        typed = [log_columns.typed(joined[name]) for name in joined.columns[1:]]
        table = pl.DataFrame([ids.alias(column), *typed]).with_columns(
            pl.col(column).cast(frame[column].dtype, strict=False)
        )
        return table.join(frame.select(pl.col(column).unique()), on=column, how="semi")


class _Chains:
    """The places of each user as a chain.

    Attributes:
        lists: (places, width) int32 items of each history, the latest last, -1 where there is none.
        users, item: (places,) the user, and the item of label 1, -1 where no row has it.
        before: (places,) the place before, -1 for the first; distance: how many events lie between, and one.
    """

    def __init__(self, table: _Table):
        places = table.places()
        self.table, self.recent = table, places["recent"]
        self.users = places["user"].to_numpy()
        self.item = places["item"].fill_null(-1).to_numpy()
        single = pl.when(pl.col("least") == pl.col("greatest")).then("least").fill_null(-1)
        self.only = places.select(single).to_series().to_numpy()
        self.lists = self._lists(places["recent"])
        self._refuse_standing_still(places["again"].fill_null(False).to_numpy())
        self.before = np.full(len(places), -1, dtype=np.int64)
        self.after = np.full(len(places), -1, dtype=np.int64)
        self.distance = np.zeros(len(places), dtype=np.int64)
        width = self.lists.shape[1]
        for distance in range(1, width + 1):
            for known in (True, False):
                if known or distance < width or width == 1:
                    self._link(distance, known)
            if not ((self.before < 0) & (self.lists[:, -1] >= 0)).any():
                break

    def _lists(self, recent: pl.Series) -> np.ndarray:
        """The histories as numbers of items. Text that says that there is none (``0``) is an item all the
        same where rows of label 1 have it."""
        real = self.table.items.ids.gather(np.unique(self.item[self.item >= 0])).to_list()
        nothing = [text for text in EMPTY if text not in set(real)]
        parts = []
        for first in range(0, len(recent), SLICE):
            part = recent[first : first + SLICE]
            split = part.set(part.is_in(nothing), None).str.split(SEPARATOR)
            parts.append(
                (
                    self.table.items.encode(split.explode().drop_nulls()),
                    split.list.len().fill_null(0).to_numpy().astype(np.int64),
                )
            )
        width = max(1, *(int(lengths.max()) for _, lengths in parts))
        lists = np.full((len(recent), width), -1, dtype=np.int32)
        for first, (items, lengths) in zip(range(0, len(recent), SLICE), parts):
            stops = np.repeat(np.cumsum(lengths), lengths)
            lists[first + np.repeat(np.arange(len(lengths)), lengths), np.arange(len(items)) - stops] = items
        return lists

    def _refuse_standing_still(self, again: np.ndarray) -> None:
        """After a full history of one item alone, and that item again, comes the same history: nothing tells
        how often."""
        latest = self.lists[:, -1]
        still = (self.lists == latest[:, None]).all(axis=1) & (latest >= 0) & (again | (self.item == latest))
        if still.any():
            self._refuse(int(self.users[np.argmax(still)]), "items repeat")

    def _link(self, distance: int, known: bool) -> None:
        """Links the places not yet linked whose histories are so many events apart: before it ``a b c`` (and
        event d), after it ``b c d``.

        Places whose event has label 1 are linked by it and what the histories share; the others, once those
        are, by what the histories share.
        """
        shared = self.lists.shape[1] - distance
        earlier = np.flatnonzero((self.after < 0) & ((self.item >= 0) == known))
        later = np.flatnonzero((self.before < 0) & (self.lists[:, shared] >= 0))
        if not len(earlier) or not len(later):
            return
        ends = [self.lists[earlier, distance + i] for i in range(shared)] + [self.item[earlier]] * known
        begins = [self.lists[later, i] for i in range(shared + known)]
        keys = ["user", *map(str, range(shared + known))]
        left = pl.DataFrame([self.users[earlier], *ends], schema=keys).with_columns(earlier=earlier)
        right = pl.DataFrame([self.users[later], *begins], schema=keys).with_columns(later=later)
        pairs = left.join(right, on=keys).filter(pl.col("earlier") != pl.col("later"))
        twice = pairs.filter(pl.col("earlier").is_duplicated() | pl.col("later").is_duplicated())
        if len(twice):
            self._refuse(twice["user"][0], "several events fit after the same items: the items repeat")
        a, b = pairs["earlier"].to_numpy(), pairs["later"].to_numpy()
        self.after[a], self.before[b], self.distance[b] = b, a, distance

    def _refuse(self, user: int, why: str) -> None:
        raise DataError(
            f"{self.table.source}: the order of user {self.table.user(user)!r} is ambiguous: {why}. "
            "Give all tables (training, validation and test) in path, each once; "
            "or the log that they come from."
        )

    def _positions(self) -> np.ndarray:
        """(places,) int64 position of each place's event in its user's sequence."""
        first = self.before < 0
        heads = np.bincount(self.users[first], minlength=len(self.table.users))
        present = np.bincount(self.users, minlength=len(heads)) > 0
        if (wrong := present & (heads != 1)).any():
            self._refuse(int(np.argmax(wrong)), "there are events missing, or items repeat")
        root = len(first)
        position = np.append(np.where(first, self._known, self.distance), 0)
        before = np.append(np.where(first, root, self.before), root)
        for _ in range(root.bit_length() + 1):  # with each step a place has counted twice as far back
            position, before = position + position[before], before[before]
        wrong = (before[:-1] != root) | ((self._known < self.lists.shape[1]) & (position[:-1] != self._known))
        if wrong.any():
            self._refuse(int(self.users[np.argmax(wrong)]), "items repeat")
        return position[:-1]

    @property
    def _known(self) -> np.ndarray:
        """(places,) items of each history."""
        known: np.ndarray = (self.lists >= 0).sum(axis=1)
        return known

    def events(self) -> pl.DataFrame:
        """The log: user_id, item_id, position, rating, ordered by user and position.

        Raises:
            DataError: a user's order cannot be told, or the item of the last event.
        """
        position, width = self._positions(), self.lists.shape[1]
        follower = np.maximum(self.after, 0)
        told = np.where(
            self.after >= 0, self.lists[follower, width - np.maximum(self.distance[follower], 1)], self.only
        )
        item = np.where(self.item >= 0, self.item, told)
        if (item < 0).any():
            what = (
                "the last event has label 0, as its negatives have, so the real item cannot be told from them"
            )
            self._refuse(int(self.users[np.argmax(item < 0)]), what)
        self._refuse_repeated(item)
        # Events that have no row of their own: before the first place, and between two that are further
        # apart.
        gaps = np.where(self.before < 0, self._known, self.distance - 1)
        at = np.repeat(np.arange(len(gaps)), gaps)
        back = np.repeat(np.cumsum(gaps), gaps) - np.arange(len(at))  # 1 for the event just before the place
        disliked = bool((self.item < 0).any())
        self._report(int(gaps.sum()), int(((self.before < 0) & (self._known == width)).sum()), disliked)
        own = pl.DataFrame(
            {
                "user": self.users,
                "item": item,
                "position": position,
                "rating": np.where(self.item >= 0, LIKED, DISLIKED),
            }
        )
        more = pl.DataFrame(
            {"user": self.users[at], "item": self.lists[at, width - back], "position": position[at] - back}
        )
        more = more.with_columns(rating=pl.lit(None if disliked else LIKED, dtype=pl.Float64))
        frame = pl.concat([own, more])
        self._refuse_other_orders(item, frame)
        users, items = (
            log_columns.integers(n.ids.gather(frame[key]))
            for key, n in (("user", self.table.users), ("item", self.table.items))
        )
        return pl.DataFrame(
            [users.alias("user_id"), items.alias("item_id"), frame["position"], frame["rating"]]
        ).sort("user_id", "position")

    def _refuse_repeated(self, item: np.ndarray) -> None:
        """Refuses what only looks like the end: after the last event a history would come that is a place
        already, so that rows may have been lost in it; and events without a row among items that repeat."""
        tails = np.flatnonzero(self.after < 0)
        after = np.column_stack([self.users[tails], self.lists[tails, 1:], item[tails]])
        names = [str(i) for i in range(after.shape[1])]
        here = pl.DataFrame([self.users, *self.lists.T], schema=names)
        back = pl.DataFrame(after.astype(np.int32), schema=names).join(here, on=names, how="semi")
        if len(back):
            self._refuse(back["0"][0], "items repeat")
        far = np.unique(self.users[self.distance > 1])
        events = pl.DataFrame({"user": self.users, "item": item}).filter(pl.col("user").is_in(far))
        if (twice := events.filter(events.is_duplicated())).height:
            self._refuse(twice["user"][0], "there are events missing, and items repeat")

    def _refuse_other_orders(self, item: np.ndarray, frame: pl.DataFrame) -> None:
        """Refuses users with repeated items whose rows of label 0 tell of a way from place to place that the
        chain does not take, or takes once where there are more. What other users take once cannot be a way
        back."""
        repeated = frame.filter(pl.struct("user", "item").is_duplicated())["user"].unique().to_numpy()
        unsure = np.intersect1d(repeated, self.users[self.item < 0])
        if not len(unsure):
            return
        places = np.flatnonzero(np.isin(self.users, unsure))
        users, lists, width = self.users[places], self.lists[places], self.lists.shape[1]
        names = ["user", *map(str, range(width - 1))]
        here = pl.DataFrame([users, *lists[:, 1:].T], schema=names).with_columns(place=places)
        there = (
            pl.DataFrame([users, *lists[:, :-1].T], schema=names)
            .with_columns(item=lists[:, -1])
            .filter(pl.col("item") >= 0)
        )
        ways = here.join(there, on=names).select("user", "place", "item")
        at = ways["place"].to_numpy()
        taken = (
            (self.item[at] < 0)
            & (self.after[at] >= 0)
            & (self.distance[self.after[at]] == 1)
            & (item[at] == ways["item"].to_numpy())
        )
        ways = ways.with_columns(self.recent.gather(at).alias("recent"), taken=taken.astype(np.int64))
        counted = ways.join(self.table.disliked(ways), on=["user", "recent", "item"], how="left")
        wrong = counted.filter(pl.col("count").fill_null(0) != pl.col("taken"))
        if len(wrong):
            self._refuse(wrong["user"][0], "items repeat")

    def _report(self, without_row: int, cut: int, disliked: bool) -> None:
        if without_row:
            rating = (
                "their rating is missing" if disliked else "as no event has label 0, they count as label 1"
            )
            logger.warning(
                "%s: %s events have no row and are known from later histories; %s.",
                self.table.source,
                f"{without_row:,}",
                rating,
            )
        if cut:
            logger.warning(
                "%s: %s users have events before those in the tables; their sequences begin later.",
                self.table.source,
                f"{cut:,}",
            )


def _labels(series: pl.Series, name: str, column: str, first_row: int) -> pl.Series:
    """(rows,) bool "label"."""
    numbers = series.cast(pl.Float64, strict=False)
    if (bad := ~numbers.is_in([0.0, 1.0]).fill_null(False)).any():
        at = int(bad.arg_max() or 0)
        raise DataError(
            f"{name}, row {first_row + at + 1}, column {column!r}: expected 0 or 1. Got {series[at]!r}."
        )
    return (numbers == 1.0).alias("label")


def _merged(places: pl.DataFrame) -> pl.DataFrame:
    return places.group_by("user", "recent").agg(
        pl.col("least").min(), pl.col("greatest").max(), pl.col("again").max()
    )


def _range(values: pl.DataFrame, key: str) -> pl.DataFrame:
    return values.group_by(key).agg(pl.col("least").min(), pl.col("greatest").max())


def _item_table(given: Any, table: _Table, ids: pl.Series, users: pl.DataFrame | None) -> pl.DataFrame:
    """The item table as attributes: without the columns that say something of events or users.

    Raises:
        DataError: no column for the item, or ids of another kind than the log's.
    """
    if isinstance(given, str | Path):
        name = str(given)
        frame = pl.concat(
            [files.read(part, files.kind_of(part) or "parquet") for part in files.parts(given)],
            how="diagonal_relaxed",
        )
    else:
        name, frame = "items", to_polars(given, "items")
    key = table.names["item_id"]
    if key not in frame.columns:
        key = log_columns.key_of(frame.columns, "item_id", name)
    others = [table.names["user_id"], table.names["label"], *([] if users is None else users.columns)]
    kept = [c for c in frame.columns if c != key and c not in others and not re.match(NO_ATTRIBUTES, c)]
    own = frame[key].cast(pl.String).cast(ids.dtype, strict=False).alias("item_id")
    if own.null_count():
        raise DataError(
            f"{name}, column {key!r}: the log's items are {ids.dtype}. Got "
            f"{frame[key].filter(own.is_null())[0]!r}."
        )
    return pl.DataFrame([own, *(log_columns.typed(frame[c]) for c in kept)])
