"""From a log on disk to sequences on disk, for logs larger than memory would hold as a frame.

The log is read once, in batches; only 4 bytes a user, 4 an item and 8 a time stay of each event. The result
is the one that ``read_log(...).filter(...).sequences(...)`` gives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqrec.data import columns as log_columns
from seqrec.data import times
from seqrec.data.baskets import Derived
from seqrec.data.catalogue import UNKNOWN, Catalogue, Numbering
from seqrec.data.frames import Duplicates, aligned, groups, report_duplicates, report_empty, with_cold
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import Sequences, TieOrder, order_of
from seqrec.errors import DataError
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import KINDS, TEXT, log_batches, with_tables
from seqrec.sources.reading import Paths, opened, read_log

logger = logging.getLogger(__name__)


def prepare(
    path: Paths,
    out: str | Path,
    options: ReadOptions | None = None,
    *,
    min_item_count: int = 0,
    min_user_count: int = 0,
    until_stable: bool = False,
    tie_order: TieOrder = "file",
    seed: int = 0,
    basket: Derived | None = None,
    cold_items: bool = False,
    **changes: Any,
) -> Sequences:
    """Turns a log into a folder of sequences and catalogues, which ``Sequences.load`` opens memory-mapped.

    CSV, TSV, Parquet and JSON Lines are streamed; the formats of known data sets are read whole.

    Args:
        path, options, changes: as in ``read_log``.
        out: the folder to write.
        min_item_count, min_user_count, until_stable: as in ``Interactions.filter``.
        tie_order, seed, basket, cold_items: as in ``Interactions.sequences``.
    Returns:
        the sequences that were written.
    Raises:
        DataError, SettingsError: as ``read_log``.
    """
    options = ReadOptions.changed(options, changes)
    paths, known, source = opened(path, options)
    if known.format not in KINDS:
        log = read_log(path, options)
        sequences = log.filter(min_item_count, min_user_count, until_stable).sequences(
            tie_order, seed, basket=basket, cold_items=cold_items
        )
    else:
        events = _Events.read(paths, known, source)
        events.drop_duplicates(options.duplicates, source)
        events.filter(min_item_count, min_user_count, source, until_stable)
        sequences = events.sequences(options, tie_order, seed, source, basket, cold_items)
    sequences.save(out)
    logger.info(
        "%s: %s events, %.1f bytes each, from %s",
        out,
        f"{sequences.events:,}",
        sequences.bytes_per_event,
        source,
    )
    return sequences


@dataclass
class _Events:
    """The events of a log as arrays in file order, ids as numbers by first appearance."""

    user_ids: pl.Series
    item_ids: pl.Series
    users: np.ndarray
    items: np.ndarray
    optional: dict[str, np.ndarray] = field(default_factory=dict)
    """``timestamp``, ``position``, ``rating``, ``basket_id``, ``session_id``, where the log has them."""

    @classmethod
    def read(cls, paths: Sequence[str], options: ReadOptions, source: str) -> _Events:
        numberings = {name: Numbering() for name in log_columns.IDS}
        parts: dict[str, list[np.ndarray]] = {}
        moments: list[pl.Series] = []
        for batch in log_batches(paths, options, features=False):
            for name in batch.columns:
                if name == "timestamp":
                    moments.append(batch[name])
                    continue
                if name in numberings:
                    numberings[name].add(batch[name])
                    continue
                if name == "rating":
                    part = batch[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()
                else:
                    part = _with_gaps(batch[name])
                parts.setdefault(name, []).append(part)
        for name, numbering in numberings.items():
            if numbers := numbering.numbers():
                parts[name] = numbers
        whole = {name: _joined(parts.pop(name)) for name in list(parts)}
        if moments:
            whole["timestamp"] = _with_gaps(times.joined(moments, source))
        ids = {name: numbering.ids for name, numbering in numberings.items()}
        if options.format in TEXT:
            for name in [name for name in ids if name in whole]:
                ids[name], whole[name] = _as_integers(ids[name], whole[name])
        for name, what in (("basket_id", "basket"), ("session_id", "session")):
            if name in whole and (empty := int((whole[name] == UNKNOWN).sum())):
                report_empty(empty, len(whole[name]), what, source)
                if empty == len(whole[name]):
                    del whole[name]
        return cls(ids["user_id"], ids["item_id"], whole.pop("user_id"), whole.pop("item_id"), whole)

    def keep(self, mask: np.ndarray) -> None:
        """Keeps the events where ``mask`` is True; numbers stay as they are."""
        self.users, self.items = self.users[mask], self.items[mask]
        self.optional = {name: values[mask] for name, values in self.optional.items()}

    def drop_duplicates(self, policy: Duplicates, source: str) -> None:
        """As ``Interactions.without_duplicates``, found by sorting instead of hashing every event."""
        keys = [self.optional[name] for name in ("position", "timestamp") if name in self.optional]
        if not keys:
            return
        rows = order_of(self.users, keys[0])
        tied = np.ones(len(rows), dtype=bool)  # with the row before it: same user, same key
        tied[:1] = False
        for values in (self.users, keys[0]):
            values = values[rows]
            tied[1:] &= values[1:] == values[:-1]
        members = tied.copy()
        members[:-1] |= tied[1:]
        # events that share user and key with another; the others cannot be duplicates
        candidates = rows[members]
        groups = np.cumsum(~tied[members])
        frame = pl.DataFrame(
            {
                "group": groups,
                "item": self.items[candidates],
                **{str(i): k[candidates] for i, k in enumerate(keys[1:])},
            }
        )
        repeats = candidates[~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()]
        report_duplicates(len(repeats), policy, source)
        if len(repeats) and policy == "drop":
            mask = np.ones(len(rows), dtype=bool)
            mask[repeats] = False
            self.keep(mask)

    def filter(
        self, min_item_count: int, min_user_count: int, source: str, until_stable: bool = False
    ) -> None:
        """As ``Interactions.filter``: items first, then users, one pass, or passes until nothing changes."""
        while True:
            before = len(self.users)
            for name, least in (("items", min_item_count), ("users", min_user_count)):
                numbers = getattr(self, name)
                if least > 1 and len(numbers):
                    self.keep((np.bincount(numbers) >= least)[numbers])
            if not until_stable or len(self.users) == before:
                break
        if not len(self.users):
            raise DataError(
                f"min_item_count={min_item_count}, min_user_count={min_user_count}: no event of {source} "
                "is left. Lower them."
            )

    def sequences(
        self,
        options: ReadOptions,
        tie_order: TieOrder,
        seed: int,
        source: str,
        basket: Derived | None,
        cold_items: bool,
    ) -> Sequences:
        """As ``Interactions.sequences``."""
        if (moments := self.optional.get("timestamp")) is not None:
            if np.isnan(moments).any():
                del self.optional["timestamp"]  # positions order the events, and there is no time to split by
            else:
                self.optional["timestamp"] = times.whole(pl.Series(moments)).to_numpy()
        shown = pl.Series(self.users).unique(maintain_order=True).to_numpy()
        self.users, user_ids = _renumbered(self.users, shown, self.user_ids)
        used = np.flatnonzero(np.bincount(self.items, minlength=len(self.item_ids)))
        by_id = used[self.item_ids.gather(used).arg_sort().to_numpy()]
        self.items, item_ids = _renumbered(self.items, by_id, self.item_ids)
        nothing = pl.DataFrame({"user_id": user_ids.clear(), "item_id": item_ids.clear()})
        about = with_tables(Interactions(nothing, source=source), options)
        if cold_items:
            item_ids, of_events = with_cold(item_ids, about.items, source), item_ids
            self.items = Catalogue(item_ids).encode(of_events)[self.items]
        given = {name: self.optional.get(name) for name in ("timestamp", "position", "rating")}
        numbers = {
            name: _by_appearance(self.optional[name]) if name in self.optional else None
            for name in ("basket_id", "session_id")
        }
        return Sequences.from_events(
            self.users,
            self.items,
            Catalogue(user_ids, aligned(about.users, "user_id", user_ids)),
            Catalogue(item_ids, aligned(about.items, "item_id", item_ids)),
            times=given["timestamp"],
            positions=given["position"],
            ratings=given["rating"],
            baskets=numbers["basket_id"],
            sessions=numbers["session_id"],
            tie_order=tie_order,
            seed=seed,
            basket=basket,
        )


def _by_appearance(numbers: np.ndarray) -> np.ndarray:
    """(events,) int64: the numbers of baskets or sessions that are left, counted anew in the order in which
    they appear."""
    return groups(pl.Series(numbers).replace(UNKNOWN, None))


def _as_integers(ids: pl.Series, numbers: np.ndarray) -> tuple[pl.Series, np.ndarray]:
    """Ids from text that are all integers as such, and the events' numbers: ``7`` and ``7.0`` are one."""
    ids = log_columns.integers(ids)
    if ids.is_unique().all():
        return ids, numbers
    numbering = Numbering()
    new = np.append(numbering.encode(ids), np.int32(UNKNOWN))  # no id stays none
    return numbering.ids, new[numbers]


def _with_gaps(values: pl.Series) -> np.ndarray:
    """Times as an array, float64 with NaN where some are missing."""
    return (
        values.to_numpy()
        if not values.null_count()
        else values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of the parts' common type; the parts are freed as they are copied, so that both are never
    whole in memory."""
    joined = np.empty(sum(len(part) for part in parts), dtype=np.result_type(*{part.dtype for part in parts}))
    at = len(joined)
    while parts:
        part = parts.pop()
        joined[at - len(part) : at] = part
        at -= len(part)
    return joined


def _renumbered(numbers: np.ndarray, kept: np.ndarray, ids: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Numbers 0, 1, 2 ... for the numbers in ``kept``, in that order, and their ids."""
    if len(kept) == len(ids) and (kept == np.arange(len(ids))).all():
        return numbers, ids
    new = np.full(len(ids), -1, dtype=np.int32)
    new[kept] = np.arange(len(kept), dtype=np.int32)
    return new[numbers], ids.gather(kept)
