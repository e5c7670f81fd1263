"""Recommending at large: a file of histories in, a file of recommendations out, in bounded memory.

    histories   see ``seqrec.serving.histories``
    answers     a row a history   user_id (or query: 0, 1, ...), item_id and score (lists, best first), source
                a row an item     user_id (or query), item_id, score, rank, source

Parquet, JSON Lines (``-``: standard output) and, with a row an item, CSV; local or remote. A piece of the
file is read while the one before is scored and the one before that is written.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from seqrec import storage
from seqrec.data import files
from seqrec.data.catalogue import UNKNOWN, Catalogue
from seqrec.data.query import Events, Query
from seqrec.errors import DataError, SettingsError, UnknownIdError, some_of
from seqrec.serving import asking, histories, moments, recommender
from seqrec.serving.histories import STANDARD, Histories, Reading
from seqrec.topk import Known, TopK
from seqrec.training.memory import keep_freed_memory

log = logging.getLogger("seqrec")

ENDINGS = (".parquet", ".jsonl", ".csv")
"""Of files of recommendations."""
ROWS = ("lists", "items")


@dataclass
class Counts:
    """What a file held.

    Attributes:
        histories, events: how many there were.
        unknown_items, unknown_users: events about items that the model does not know, and users whom it does
            not.
        popular: histories of which nothing was known, which got the most popular items.
        seconds: from the first row read to the last one written.
        examples: some of the unknown ids.
    """

    histories: int = 0
    events: int = 0
    unknown_items: int = 0
    unknown_users: int = 0
    popular: int = 0
    seconds: float = 0.0
    examples: list[Any] = field(default_factory=list)


def recommend(
    model: Known,
    source: str,
    target: str,
    *,
    k: int = 10,
    filter_seen: bool = True,
    allow: Any = None,
    deny: Any = None,
    on_unknown: str = "warn",
    since: bool = False,
    rows: str | None = None,
    reading: Reading | None = None,
    progress: bool = True,
    at: Any = None,
) -> Counts:
    """Writes the k best next items after each history of a file. The target appears when it is whole.

    Args:
        source, target: paths or addresses, or ``-``.
        k, filter_seen, allow, deny: as of ``recommender.recommend``.
        on_unknown: what to do with items and users that the model never saw: "raise" an error with the row,
            or leave them out and count them, with a warning at the end ("warn") or without ("ignore").
        since: the file's users are those of the training data, and its histories what they did since.
        rows: "lists" or "items", what a row of the target is about; by default lists, but items in CSV.
        reading: how the source is read, if not by the usual names of columns.
        progress: show a bar, on a terminal.
        at: of a model that reads times the moment that is asked about, as of ``recommender.recommend``. Its
            file has users alone.

    Raises:
        DataError: a row that is none, or no item of the file is known; nothing is written then, save to
            standard output.
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: a setting out of range, a file of a kind that cannot be had, baskets for a model that
            reads none, or items alone for one that was trained on baskets.
        SeqrecError: the model is not trained, or asked for users whose histories it has not kept.
    """
    catalogue = recommender.checked(model, k, on_unknown)
    rows = check(target, rows)
    filter = recommender.filter_of(catalogue, filter_seen, allow, deny, on_unknown)
    keep_freed_memory()
    name, begin, counts = histories.name_of(source), time.perf_counter(), Counts()
    with ExitStack() as stack:
        show = stack.enter_context(_progress(source, progress))
        writer = stack.enter_context(_Writer.to(target, rows, catalogue))
        reader = histories.read(source, reading or Reading(), model.reads_baskets)
        for found, query in _ahead(_encoded(model, reader, since, on_unknown, counts, name, at)):
            top, known = model.best(query, int(k), filter), model.knows(query)
            writer.write(found.users, counts.histories, top, known)
            counts.histories += len(query)
            counts.popular += int((~known).sum())
            show(found.read, counts)
        if counts.events and counts.events == counts.unknown_items:
            raise DataError(
                f"{name}: the model knows none of its {counts.events:,} items, such as "
                f"{_some(counts.examples)}. Ids of the model are such as {catalogue.ids[0]!r}."
            )
    counts.seconds = time.perf_counter() - begin
    _report(counts, name, target, on_unknown)
    return counts


def check(target: str, rows: str | None) -> str:
    """What a row of the target is about, "lists" or "items", checked before any work is done.

    Raises:
        SettingsError: nothing of the kind can be written there.
    """
    if rows not in (None, *ROWS):
        raise SettingsError(f"rows: expected {' or '.join(map(repr, ROWS))}. Got {rows!r}.")
    if target != STANDARD:
        storage.check_file(target, ENDINGS)
    if histories.kind_of(target) == "csv":
        if rows == "lists":
            raise SettingsError(
                f"{target}: expected rows='items', as CSV has no lists. Got 'lists'. Name a Parquet file."
            )
        return "items"
    return rows or "lists"


def _encoded(
    model: Known,
    found: Iterator[Histories],
    since: bool,
    on_unknown: str,
    counts: Counts,
    name: str,
    at: Any = None,
) -> Iterator[tuple[Histories, Query]]:
    """The histories as queries, unknown ids counted."""
    assert model.item_catalogue is not None
    for some in found:
        items, stops, people = np.zeros(1, dtype=np.int32), some.stops, None
        baskets: np.ndarray | None = np.zeros(1, dtype=np.int64) if model.needs_baskets else None
        if some.items is not None:
            index = model.item_catalogue.encode(asking.column(some.items, model.item_catalogue))
            counts.events += len(index)
            known = _known(some.items, index, some.row_of, "item", on_unknown, name, counts)
            if len(model.unlearned):  # they are as good as unknown
                known = known & ~np.isin(index, model.unlearned)
            counts.unknown_items += len(index) - int(known.sum())
            stops = np.concatenate([[0], np.cumsum(known)])[stops]
            items = np.append(index[known], np.int32(0))  # what padding points at
            baskets = _baskets_of(model, some, known, name)
        starts = np.concatenate([[0], stops[:-1]]) if len(stops) else stops
        if some.items is not None and model.reads_times:
            raise SettingsError(
                f"{name}: expected a file of users alone, since {model.name} reads when items were taken, "
                "which a file of histories does not tell. Give users, or ask with sequences and times in "
                "Python or over HTTP."
            )
        query = Query(Events(items, baskets=baskets), starts, stops)
        if since or some.items is None:
            users = recommender.known_users(model)
            if some.users is None:
                raise DataError(f"{name}: expected a column user_id, with the users of the training data.")
            people = users.encode(asking.column(some.users, users))
            known = _known(some.users, people, some.rows.item, "user", on_unknown, name, counts)
            counts.unknown_users += len(people) - int(known.sum())
            query = recommender.continued(recommender.kept_histories(model, people), query)
        yield some, moments.at_moment(model, query, at)


def _baskets_of(model: Known, some: Histories, known: np.ndarray, name: str) -> np.ndarray | None:
    """(known events + 1,) the numbers of their baskets, as far as the model reads any.

    Raises:
        SettingsError: histories are not as deep as the model reads them.
    """
    if some.event_rows is None:
        recommender.refuse_depth(model, 0 if some.baskets is None else len(known), len(known), name)
    elif model.needs_baskets and some.baskets is None:
        raise SettingsError(
            f"{name}: expected a column basket_id, since {model.name} was trained on baskets. Got none. Say "
            "which column tells them: columns={'basket_id': ...} (--column basket_id=COLUMN), or give lists "
            "of lists."
        )
    if some.baskets is not None:
        return np.append(some.baskets[known], 0)
    return np.zeros(len(known) + 1, dtype=np.int64) if model.needs_baskets else None


def _known(
    ids: pl.Series,
    index: np.ndarray,
    row_of: Callable[[int], int],
    what: str,
    on_unknown: str,
    name: str,
    counts: Counts,
) -> np.ndarray:
    """(n,) bool, which ids have an index."""
    known: np.ndarray = index != UNKNOWN
    if not known.all():
        first = int(np.argmin(known))
        if on_unknown == "raise":
            raise UnknownIdError(
                f"{name}, row {row_of(first)}: the model does not know the {what} {ids[first]!r}. Correct "
                "it, or have unknown ids left out and counted, on_unknown='warn' or 'ignore'."
            )
        if len(counts.examples) < 3:
            several = [*counts.examples, *ids.filter(~known).unique(maintain_order=True).head(3)]
            counts.examples = list(dict.fromkeys(several))[:3]
    return known


def _ahead(chunks: Iterator[Any]) -> Iterator[Any]:
    """The same, each made while the one before is worked on."""
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, chunks, None)
        while (chunk := waiting.result()) is not None:
            waiting = reader.submit(next, chunks, None)
            yield chunk


class _Writer:
    """Writes recommendations of some queries after another, in a thread of its own."""

    def __init__(self, stream: IO[bytes], kind: str, rows: str, catalogue: Catalogue):
        self.stream, self.kind, self.rows = stream, kind, rows
        self.ids = _ids(catalogue)
        self.parquet: pa.parquet.ParquetWriter | None = None
        self.thread = ThreadPoolExecutor(1)
        self.waiting: Future[None] | None = None
        self.written = 0

    @classmethod
    @contextmanager
    def to(cls, target: str, rows: str, catalogue: Catalogue) -> Iterator[_Writer]:
        """A writer whose file is there at the end of the block, if there is no error."""
        with ExitStack() as stack:
            stream = (
                sys.stdout.buffer if target == STANDARD else stack.enter_context(storage.open_write(target))
            )
            writer = cls(stream, histories.kind_of(target), rows, catalogue)
            try:
                yield writer
                writer.close()
            finally:
                writer.thread.shutdown()
                with suppress(OSError):  # after an error, lest it tries again when its stream is closed
                    writer.complete()

    def write(self, users: pl.Series | None, first: int, top: TopK, known: np.ndarray) -> None:
        """Adds the answers of (n,) queries, of which the first has that number."""
        self._wait()
        self.waiting = self.thread.submit(self._write, users, first, top, known)

    def _wait(self) -> None:
        if self.waiting is not None:
            self.waiting.result()

    def close(self) -> None:
        """Waits until all is written, and completes the file."""
        self._wait()
        self.complete()
        self.stream.flush()

    def complete(self) -> None:
        """Writes what stands at the end of a Parquet file, once."""
        parquet, self.parquet = self.parquet, None
        if parquet is not None:
            parquet.close()

    def _write(self, users: pl.Series | None, first: int, top: TopK, known: np.ndarray) -> None:
        table = _table(self.ids, self.rows, users, first, top, known)
        if self.kind == "parquet":
            if self.parquet is None:
                text = ["user_id", "item_id", "item_id.list.element", "source"]
                self.parquet = pa.parquet.ParquetWriter(self.stream, table.schema, use_dictionary=text)
            self.parquet.write_table(table.cast(self.parquet.schema))
        else:
            frame = pl.DataFrame(pl.from_arrow(table))
            if self.kind == "csv":
                frame.write_csv(self.stream, include_header=not self.written)
            else:
                frame.write_ndjson(self.stream)
            self.stream.flush()
        self.written += len(table)


def _ids(catalogue: Catalogue) -> pa.Array:
    ids = catalogue.ids.to_arrow()
    return ids.cast(pa.large_string()) if catalogue.ids.dtype == pl.String else ids


def _table(
    ids: pa.Array, rows: str, users: pl.Series | None, first: int, top: TopK, known: np.ndarray
) -> pa.Table:
    """The answers of (n,) queries, of which the first has that number.

    Args:
        ids: of all items.  rows: "lists" or "items".
    """
    there = top.items >= 0
    lengths = there.sum(1)
    items, scores = ids.take(pa.array(top.items[there])), pa.array(top.scores[there])
    source = np.where(known, 0, 1).astype(np.int8)
    if users is None:
        name, asked = "query", pa.array(np.arange(first, first + len(lengths)))
    else:
        name, asked = "user_id", users.to_arrow()
        asked = asked.cast(pa.large_string()) if users.dtype == pl.String else asked
    if rows == "lists":
        offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
        lists = {
            "item_id": pa.ListArray.from_arrays(offsets, items),
            "score": pa.ListArray.from_arrays(offsets, scores),
        }
        return pa.table({name: asked, **lists, "source": _sources(source)})
    row = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    return pa.table(
        {
            name: asked.take(pa.array(row)),
            "item_id": items,
            "score": scores,
            "rank": rank,
            "source": _sources(source[row]),
        }
    )


def answers(
    model: Known,
    found: Iterable[Histories],
    *,
    k: int = 10,
    filter_seen: bool = True,
    allow: Any = None,
    deny: Any = None,
    on_unknown: str = "warn",
    since: bool = False,
    rows: str = "lists",
    name: str = "histories",
) -> Iterator[pa.Table]:
    """The answers to some histories after another, as ``recommend`` writes them: what an engine asks a worker
    for.

    Args:
        found: the histories.
        rows: "lists" or "items".
        name: what they are called in messages.

    Raises:
        DataError, UnknownIdError, SettingsError, SeqrecError: as ``recommend``.
    """
    catalogue = recommender.checked(model, k, on_unknown)
    filter = recommender.filter_of(catalogue, filter_seen, allow, deny, on_unknown)
    keep_freed_memory()
    ids, counts = _ids(catalogue), Counts()
    for some, query in _encoded(model, iter(found), since, on_unknown, counts, name):
        top, known = model.best(query, int(k), filter), model.knows(query)
        yield _table(ids, rows, some.users, counts.histories, top, known)
        counts.histories += len(query)


def _sources(source: np.ndarray) -> pa.Array:
    return pa.array(["model", "popularity"], pa.large_string()).take(pa.array(source))


@contextmanager
def _progress(source: str, shown: bool) -> Iterator[Callable[[int, Counts], None]]:
    """Shows on a terminal how many rows are read, and how many histories a second are answered."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda read, counts: None
        return
    total = files.rows_of_parquet(source) if histories.kind_of(source) == "parquet" else None
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        refresh_per_second=4,
    )
    begin = time.perf_counter()
    with bar:
        task = bar.add_task("recommend", total=total, status="")

        def show(read: int, counts: Counts) -> None:
            speed = counts.histories / max(1e-9, time.perf_counter() - begin)
            status = f"{counts.histories:,} histories, {speed:,.0f}/s"
            bar.update(task, completed=read, status=status)

        yield show


def _some(examples: list[Any]) -> str:
    return some_of(map(repr, examples), 3)


def _report(counts: Counts, name: str, target: str, on_unknown: str) -> None:
    log.info(
        "%s: %s histories in %.1f s (%s a second) -> %s",
        name,
        f"{counts.histories:,}",
        counts.seconds,
        f"{counts.histories / max(1e-9, counts.seconds):,.0f}",
        target,
    )
    unknown = []
    if counts.unknown_items:
        unknown.append(f"{counts.unknown_items:,} of {counts.events:,} events are about items")
    if counts.unknown_users:
        unknown.append(f"{counts.unknown_users:,} of {counts.histories:,} rows are of users")
    if unknown:
        tell = log.warning if on_unknown == "warn" else log.info
        tell(
            "%s: %s that the model does not know, such as %s%s.",
            name,
            " and ".join(unknown),
            _some(counts.examples),
            "; such events were left out" if counts.unknown_items else "",
        )
    if counts.popular:
        log.info(
            "%s: nothing is known of %s histories, which got the most popular items (source: popularity).",
            name,
            f"{counts.popular:,}",
        )
