"""Tables of samples: one row an event, for trainers that want features in columns.

Their form is that of MetaSpore's sequential demo; the second row is a negative:

    label user_id gender age zip movie_id recent_movie_ids     genre              last_movie last_genre
    1     7       M      25  123 1196     260\\x01480\\x011210   Action\\x01Sci-Fi  1210       Action\\x01War
    0     7       M      25  123 2762     260\\x01480\\x011210   Thriller           1210       Action\\x01War

    train.parquet        the training events, each of label 1 with some negatives; or (``kind: prob``)
                         with none, but with how likely each item is drawn
    validation.parquet   the validation queries: all that is known before each
    test.parquet         the test queries; with label 0, held-out events rated too low to be asked
    item.parquet         the catalogue, one row an item
    samples.json         settings, counts and the split's hash, written last

All columns are text, ``sampling_prob`` and ``sample_weight`` apart; lists are joined with ``\\x01``.
``seqrec.sources.samples`` reads them back.

Differences from the origin: a negative has the genre of its own film (there: of the film whose history it
shares); there are exactly n negatives a positive, unless ``repeats`` is False (there: what remains of n draws
an event without repeats and the user's own items); everything is seeded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from seqrec import storage
from seqrec.data.catalogue import Catalogue
from seqrec.errors import DataError, SettingsError, did_you_mean
from seqrec.samples import unseen
from seqrec.settings.base import Settings
from seqrec.splitting.split import Queries, Split
from seqrec.storage import lock

SEPARATOR = "\x01"
NOTHING = "None"
"""Value of the last item's attributes where there is no last item."""
ROWS = 1 << 20
"""Rows of a row group, at most."""
RECENT_ITEMS = 1 << 24
"""Items in the recent lists of a row group, at most."""
DICTIONARY_BYTES = 256 << 20
"""Lists of recent items are written once a row group, however many rows share them."""

logger = logging.getLogger(__name__)


class SampleSettings(Settings):
    """The section ``samples`` of a run: which tables are written, and how."""

    folder: str | None = None
    """Where the tables go: a folder, or s3://bucket/folder."""
    kind: Literal["negatives", "prob"] = "negatives"
    """``negatives``: rows with label 0 are drawn. ``prob``: none are; each row has the probability of drawing
    its item (for negatives from the batch)."""
    negatives: int = Field(10, ge=0, le=1_000_000)
    """Negatives for each training event of label 1; ``kind: prob`` has none."""
    repeats: bool = True
    """Each training event of label 1 has exactly that many, and a user may have an item several times. False,
    as MetaSpore has it: that many are drawn for each training event of a user, from all items; each item
    counts once, and the user's own do not, so that fewer are left (4.7 of 10 on MovieLens-1M)."""
    alpha: float | None = Field(None, ge=0)
    """Items are drawn with probability proportional to their training count to this power; None: 0.75, and 1
    for ``prob``."""
    recent: int = Field(10, ge=1, le=1000)
    """Items in the list of recent ones, at most."""
    seed: int = Field(0, ge=0, lt=2**42)
    """Of the negatives, and of the order of rows."""
    shuffle: bool = True
    """Training rows in random order; else user by user, in the order of events, each followed by its
    negatives (a far smaller file)."""
    item: str = "movie"
    """What an item is called: columns ``movie_id``, ``recent_movie_ids``, ``last_movie``."""
    users: dict[str, str] = Field(
        default_factory=lambda: {
            "gender": "gender",
            "age": "age",
            "occupation": "occupation",
            "zip_code": "zip",
        }
    )
    """Attributes of users, and their columns. The default, MovieLens' attributes, are left out where the log
    has none; attributes that you name must exist."""
    items: dict[str, str] = Field(default_factory=lambda: {"genres": "genre"})
    """Attributes of items, and their columns; each is also written for the last item. Values in one text, as
    ``Action|War``, get the tables' separator."""
    missing: Literal["0", "None"] = "0"
    """Value of the recent items and the last item where there are none."""
    compression: Literal["snappy", "zstd"] = "snappy"
    """Of the files. Spark reads zstd from version 3.2 on."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [
            *column_names(self, list(self.users.values()), list(self.items.values())),
            "sampling_prob",
            "sample_weight",
        ]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"columns of different names ({twice[0]!r} occurs twice)")
        return self

    @property
    def power(self) -> float:
        """alpha, or its default."""
        return self.alpha if self.alpha is not None else 1.0 if self.kind == "prob" else 0.75


def column_names(settings: SampleSettings, users: list[str], items: list[str]) -> list[str]:
    """The text columns of a table with these attributes, in order."""
    item = settings.item
    return [
        "label",
        "user_id",
        *users,
        f"{item}_id",
        f"recent_{item}_ids",
        *items,
        f"last_{item}",
        *(f"last_{name}" for name in items),
    ]


@dataclass(frozen=True)
class Samples:
    """Rows of a table as numbers.

    Attributes:
        stops: (rows,) int32 or int64: the row's history ends before this event, which is of the row's user.
        items: (rows,) int32 the row's item.
        labels: (rows,) int8.
    """

    stops: np.ndarray
    items: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.stops)

    def select(self, rows: np.ndarray | slice) -> Samples:
        """Some of the rows: (n,) indices, or a slice."""
        return Samples(self.stops[rows], self.items[rows], self.labels[rows])


def training_samples(split: Split, settings: SampleSettings) -> tuple[Samples, int]:
    """The rows of the training table, in order, and the number of users without negatives.

    Users who have taken every item get no negatives. Held-out events change neither counts nor draws.
    """
    s = split.sequences
    events = np.flatnonzero(split.train_events)
    liked = (
        np.ones(len(events), dtype=np.int8)
        if split.positive is None
        else split.positive[events].astype(np.int8)
    )
    owners = np.searchsorted(s.offsets, events, side="right") - 1
    wanted = np.bincount(owners[liked == 1] if settings.repeats else owners, minlength=s.users) * (
        settings.negatives if settings.kind == "negatives" else 0
    )
    size = len(events) + int(wanted.sum())
    number = np.int32 if max(s.events, size) < 2**31 else np.int64
    stops, items, labels = np.empty(size, number), np.empty(size, np.int32), np.zeros(size, np.int8)
    stops[: len(events)], items[: len(events)], labels[: len(events)] = events, s.items[events], liked
    del owners, liked
    end, served = len(events), np.zeros(s.users, dtype=bool)
    if wanted.any():
        weights = unseen.weights_of(split.item_counts, settings.power)
        for users, drawn, event in unseen.draw(
            s.items, split.train_starts, split.train_stops, weights, wanted, settings.seed, settings.repeats
        ):
            stops[end : end + len(drawn)], items[end : end + len(drawn)] = event, drawn
            served[users] = True
            end += len(drawn)
    full = int(((wanted > 0) & ~served).sum())
    if full:
        every = "every item" if settings.repeats else "every item that was drawn for them"
        logger.warning("samples: %s users have taken %s and get no negatives.", f"{full:,}", every)
    rows = Samples(stops[:end], items[:end], labels[:end])
    if settings.shuffle:
        order = np.random.default_rng([settings.seed, 1]).permutation(np.arange(end, dtype=number))
    elif end == len(events):
        return rows, full
    else:
        order = np.argsort(rows.stops, kind="stable")
    return Samples(rows.stops[order], rows.items[order], rows.labels[order]), full


def held_out_samples(split: Split, queries: Queries, disliked: bool = False) -> Samples:
    """The rows of queries, with label 1, in the order of events.

    ``disliked`` adds, with label 0, the events that neither train nor are targets.
    """
    s = split.sequences
    targets, stops = queries.targets, queries.history_stops
    labels = np.ones(len(targets), dtype=np.int8)
    if disliked and split.positive is not None:
        more = np.flatnonzero(~split.train_events & ~split.positive)
        targets, stops, labels = (
            np.append(targets, more),
            np.append(stops, more),
            np.append(labels, np.zeros(len(more), dtype=np.int8)),
        )
    order = np.argsort(targets, kind="stable")
    return Samples(stops[order], np.asarray(s.items[targets[order]]), labels[order])


class Wording:
    """Turns rows into columns of text: ids, attributes and lists.

    Raises:
        SettingsError: an attribute that the log does not have.
        DataError: an item whose id contains the separator, or is the value for no item.
    """

    def __init__(self, split: Split, settings: SampleSettings):
        s = split.sequences
        self.split, self.settings = split, settings
        self.owners = np.repeat(np.arange(s.users, dtype=np.int32), s.lengths)
        item_ids = s.item_catalogue.ids.cast(pl.String)
        for text, what, other in (
            (settings.missing, "stands for no item", ", or change samples.missing"),
            (SEPARATOR, "separates items", ""),
        ):
            bad = item_ids == text if text == settings.missing else item_ids.str.contains(text, literal=True)
            if bad.any():
                raise DataError(f"item {item_ids.filter(bad)[0]!r}: {text!r} {what}. Rename the item{other}.")
        self.item_ids = pa.concat_arrays([_text(item_ids), pa.array([settings.missing], pa.string())])
        self.user_ids = _text(s.user_catalogue.ids.cast(pl.String))
        self.users = _attributes(s.user_catalogue, settings, "users")
        self.items = _attributes(s.item_catalogue, settings, "items")

    @property
    def names(self) -> list[str]:
        """The text columns, in order."""
        return column_names(self.settings, list(self.users), list(self.items))

    def schema(self, probabilities: bool = False, more: Iterable[str] = ()) -> pa.Schema:
        """Names and types of the columns: texts, probability and weight if asked, and ``more`` texts."""
        text = pa.dictionary(pa.int32(), pa.string())
        numbers = [("sampling_prob", pa.float64()), ("sample_weight", pa.float64())] if probabilities else []
        return pa.schema([(name, text) for name in self.names] + numbers + [(name, text) for name in more])

    def columns(self, rows: Samples) -> list[pa.Array]:
        """The text columns of some rows."""
        s = self.split.sequences
        none = len(s.item_catalogue)
        users = self.owners[rows.stops]
        known = rows.stops > s.offsets[users]
        last = np.where(known, s.items[np.where(known, rows.stops - 1, 0)], none)
        return [
            _coded(rows.labels, pa.array(["0", "1"])),
            _coded(users, self.user_ids),
            *(_coded(codes[users], values) for codes, values in self.users.values()),
            _coded(rows.items, self.item_ids),
            self.recent(rows.stops, users),
            *(_coded(codes[rows.items], values) for codes, values in self.items.values()),
            _coded(last, self.item_ids),
            *(_coded(codes[last], values) for codes, values in self.items.values()),
        ]

    def recent(self, stops: np.ndarray, users: np.ndarray) -> pa.DictionaryArray:
        """The items before each stop, oldest first, joined; a list that many rows share is joined once.

        Args:
            stops, users: (rows,) where each row's history ends, and whose it is.
        """
        s = self.split.sequences
        distinct, first, at = np.unique(stops, return_index=True, return_inverse=True)
        lengths = np.minimum(distinct - s.offsets[users[first]], self.settings.recent)
        sizes = np.maximum(lengths, 1)  # a list without items holds what stands for none
        ends = np.cumsum(sizes)
        items = np.asarray(
            s.items[np.arange(ends[-1]) + np.repeat(distinct - lengths - (ends - sizes), sizes)]
        )
        items[(ends - sizes)[lengths == 0]] = len(s.item_catalogue)
        lists = pa.ListArray.from_arrays(
            pa.array(np.append(0, ends).astype(np.int32)), self.item_ids.take(pa.array(items))
        )
        # Parquet's writer drops dictionaries in which a text occurs twice, as short lists do.
        encoded = pc.binary_join(lists, SEPARATOR).dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(at)), encoded.dictionary)

    def tables(self, rows: Samples, probabilities: np.ndarray | None = None) -> Iterator[pa.Table]:
        """The rows as tables, a row group each, with (items,) ``probabilities`` if they are given."""
        schema = self.schema(probabilities is not None)
        size = max(1, min(ROWS, RECENT_ITEMS // self.settings.recent))
        for first in range(0, len(rows), size):
            part = rows.select(slice(first, first + size))
            columns = self.columns(part)
            if probabilities is not None:
                columns += [pa.array(probabilities[part.items]), pa.array(np.ones(len(part)))]
            yield pa.Table.from_arrays(columns, schema=schema)

    def item_table(self) -> pa.Table:
        """One row an item: the columns of the other tables, then the attributes that these do not have.

        Columns that an item lacks are filled as for a first event: label and user 0, nothing recent.
        """
        catalogue = self.split.sequences.item_catalogue
        n = len(catalogue)
        item, none = self.settings.item, pa.array([NOTHING])
        filled = {"label": pa.array(["0"]), "user_id": pa.array(["0"])} | dict.fromkeys(
            (f"recent_{item}_ids", f"last_{item}"), pa.array([self.settings.missing])
        )
        own = {f"{item}_id": (np.arange(n), self.item_ids)} | {
            name: (codes[:n], values) for name, (codes, values) in self.items.items()
        }
        attributes = pl.DataFrame() if catalogue.attributes is None else catalogue.attributes
        for name in attributes.columns:
            if name not in self.settings.items and name not in self.names:
                own[name] = _codes(_words(attributes[name]))
        columns = [
            _coded(*own.get(name, (np.zeros(n, np.int32), filled.get(name, none))))
            for name in dict.fromkeys([*self.names, *own])
        ]
        return pa.Table.from_arrays(columns, schema=self.schema(more=list(own)[1 + len(self.items) :]))


def write(split: Split, folder: str | Path, settings: SampleSettings | None = None) -> dict[str, Any]:
    """Writes the tables of a split into a folder, local or remote.

    One row group at a time is turned into text and written. Memory holds the other rows as numbers: 9 bytes
    each, 22 while they are sorted.

    Returns:
        the content of samples.json: settings, rows of each table, the split and its hash.

    Raises:
        SettingsError, DataError: as ``Wording``.
        StorageError: another process writes there, or nothing can be written.
    """
    settings = settings or SampleSettings()
    wording = Wording(split, settings)
    train, full = training_samples(split, settings)
    probabilities = None
    if settings.kind == "prob":
        weights = unseen.weights_of(split.item_counts, settings.power)
        probabilities = weights / weights.sum()
    others = {
        "validation": held_out_samples(split, split.validation),
        "test": held_out_samples(split, split.test, disliked=True),
    }
    counts = {
        "train": len(train),
        **{name: len(rows) for name, rows in others.items()},
        "item": len(split.sequences.item_catalogue),
    }
    events = int(split.train_events.sum())
    with lock.held(folder):
        # removed first and written last: where it exists, the tables belong to it
        described = storage.join(folder, "samples.json")
        storage.remove(described)
        _write(
            storage.join(folder, "train.parquet"),
            wording.schema(probabilities is not None),
            wording.tables(train, probabilities),
            settings,
        )
        del train
        for name, rows in others.items():
            _write(storage.join(folder, f"{name}.parquet"), wording.schema(), wording.tables(rows), settings)
        table = wording.item_table()
        _write(storage.join(folder, "item.parquet"), table.schema, [table], settings)
        about = {
            "format": 1,
            "settings": settings.model_dump(mode="json", exclude={"folder"}) | {"alpha": settings.power},
            "columns": wording.names,
            "rows": counts,
            "training_events": events,
            "negatives": counts["train"] - events,
            "users_without_negatives": full,
            "split": split.settings,
            "split_hash": split.hash,
        }
        storage.write_json(about, described)
    logger.info(
        "%s: %s training rows (%s negatives), %s to test",
        folder,
        f"{counts['train']:,}",
        f"{about['negatives']:,}",
        f"{counts['test']:,}",
    )
    return about


def _write(path: str, schema: pa.Schema, tables: Iterable[pa.Table], settings: SampleSettings) -> None:
    # Without Arrow's own schema in the file every reader sees plain text, whose dictionaries are Parquet's
    # affair.
    options: dict[str, Any] = {
        "compression": settings.compression,
        "dictionary_pagesize_limit": DICTIONARY_BYTES,
        "store_schema": False,
    }
    with storage.open_write(path) as stream, pq.ParquetWriter(stream, schema, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, len(table)))


def _attributes(
    catalogue: Catalogue, settings: SampleSettings, kind: Literal["users", "items"]
) -> dict[str, tuple[np.ndarray, pa.Array]]:
    """Column -> (ids,) int32 codes, -1 where nothing is known, and the (values,) texts of the codes.

    Items get one more code, for no item.
    """
    attributes = pl.DataFrame() if catalogue.attributes is None else catalogue.attributes
    given: dict[str, str] = getattr(settings, kind)
    columns = {}
    for attribute, name in given.items():
        if attribute not in attributes.columns:
            if kind in settings.model_fields_set:
                raise SettingsError(
                    f"samples.{kind}: the log's {kind} have no attribute "
                    f"{attribute!r}.{did_you_mean(attribute, attributes.columns)}"
                )
            continue
        series = _words(attributes[attribute])
        if kind == "items":
            series = series.str.replace_all("|", SEPARATOR, literal=True)
        codes, values = _codes(series)
        if kind == "items":
            codes, values = (
                np.append(codes, np.int32(len(values))),
                pa.concat_arrays([values, pa.array([NOTHING], pa.string())]),
            )
        columns[name] = codes, values
    return columns


def _codes(series: pl.Series) -> tuple[np.ndarray, pa.Array]:
    """(n,) int32 code of each value, -1 where there is none, and the distinct values."""
    encoded = _text(series).dictionary_encode()
    return pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), encoded.dictionary


def _words(series: pl.Series) -> pl.Series:
    """An attribute as text; the values of a list are joined."""
    return (
        series.cast(pl.List(pl.String)).list.join(SEPARATOR)
        if isinstance(series.dtype, pl.List)
        else series.cast(pl.String)
    )


def _text(series: pl.Series) -> pa.Array:
    return series.to_arrow().cast(pa.string())


def _coded(indices: np.ndarray, values: pa.Array) -> pa.DictionaryArray:
    """``values`` at these (rows,) indices, null at -1; its dictionary has only what occurs."""
    used = np.zeros(len(values) + 1, dtype=bool)
    used[indices] = True  # -1 marks the last, for no value
    numbers = np.cumsum(used, dtype=np.int32) - 1
    missing = indices < 0 if used[-1] else None
    return pa.DictionaryArray.from_arrays(
        pa.array(numbers[indices], pa.int32(), mask=missing), values.take(pa.array(np.flatnonzero(used[:-1])))
    )
