"""RecBole's atomic files: tab-separated, each column with its type in the header (``user_id:token``,
``timestamp:float``).

``NAME.inter`` is the log. Where it has the items before each event as a list (``item_id_list:token_seq``),
a row is a history and its next item; a user's rows are put together to one sequence.

    user_id  item_id  item_id_list          user  items
    1        5        2 3 4                 1     2 3 4 5 6
    1        6        2 3 4 5

``NAME.item`` and ``NAME.user`` beside it are attributes. Zhao et al., RecBole,
CIKM 2021; the format is described in RecBole's documentation, "Atomic Files".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from seqrec import storage
from seqrec.data import columns as log_columns
from seqrec.data import files, times
from seqrec.data.frames import finished
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import Chosen

HISTORY = "\x1fhistory"
"""The column of histories while a file is read; no column of a log has this name."""

logger = logging.getLogger(__name__)


def read(path: str | Path, options: ReadOptions | None = None) -> Interactions:
    """Reads an ``.inter`` file, or the folder with the only one, with the attributes beside it.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    if storage.is_folder(path):
        path = storage.join(path, next(name for name in storage.names(path) if name.endswith(".inter")))
    options = options or ReadOptions()
    lists = [name for name, type in _types(path).items() if type == "token_seq"]
    found = list(_types(path))
    history = next(
        (
            name
            for name in lists
            if "item_id" in log_columns.resolve([name.removesuffix("_list")], None, "", required=[])
        ),
        None,
    )
    raw = list(_batches(path))
    mapping = log_columns.resolve(
        [name for name in found if name != history],
        options.columns,
        str(path),
        required=["user_id"] if history else log_columns.NEEDED,
        sample=lambda: raw[0].head(1000),
    )
    chosen, time_format = Chosen(options.where, options.missing_ids), options.time_format
    if (source := mapping.get("timestamp")) and time_format is None:
        moments = [times.together([b[p] for p in log_columns.sources(source, found)]) for b in raw]
        if times.needs_order(moments[0]):
            time_format = times.order_of_dates(moments, str(path), source)
    parts, row = [], 0
    for batch in raw:
        kept, rows = chosen.of(batch, mapping, str(path), row)
        valid = log_columns.validated(
            kept,
            mapping,
            str(path),
            text=True,
            first_row=row,
            features=history is None,
            time_format=time_format,
            rows=rows,
        )
        parts.append(valid if history is None else valid.with_columns(kept[history].alias(HISTORY)))
        row += len(batch)
    chosen.report(str(path))
    stem = str(path).removesuffix(".gz").removesuffix(".inter")
    beside = {
        kind: table(f"{stem}.{ending}")
        for kind, ending in (("items", "item"), ("users", "user"))
        if storage.exists(f"{stem}.{ending}")
    }
    frame = finished(parts if history is None else [_sequences(parts, str(path))], True, str(path))
    return Interactions(frame, source=str(path)).with_attributes(beside.get("items"), beside.get("users"))


def table(path: str | Path) -> pl.DataFrame:
    """A ``.item`` or ``.user`` file: numbers as such, everything else as text; the first column is the key,
    with ids as in the log."""
    frame = pl.concat(list(_batches(path)), rechunk=True)
    key = frame.columns[0]
    return frame.select(
        log_columns.integers(frame[c]) if c == key else log_columns.typed(frame[c]) for c in frame.columns
    )


def _sequences(parts: list[pl.DataFrame], name: str) -> pl.DataFrame:
    """A row an event from rows of a history and the item after it: ``user_id``, ``item_id``, ``position``
    and, where the events after the histories have times, ``timestamp`` (null for those known from a history
    only)."""
    frame = pl.concat(parts, how="diagonal_relaxed", rechunk=True)
    if "timestamp" in frame.columns:
        frame = frame.with_columns(times.joined([p["timestamp"] for p in parts], name).alias("timestamp"))
    histories = [(text or "").split() for text in frame[HISTORY].to_list()]
    targets = frame["item_id"].to_list() if "item_id" in frame.columns else [None] * len(frame)
    when = frame["timestamp"].to_list() if "timestamp" in frame.columns else [None] * len(frame)
    rows_of: dict[str, list[int]] = {}
    for row, user in enumerate(frame["user_id"].to_list()):
        rows_of.setdefault(user, []).append(row)
    users: list[str] = []
    items: list[str] = []
    positions: list[int] = []
    moments: list[float | None] = []
    apart = 0
    for user, rows in rows_of.items():
        whole: list[str] = []
        known: list[float | None] = []
        rows.sort(key=lambda row: (when[row] is None, when[row] or 0, len(histories[row])))
        for row in rows:
            target: list[str] = [] if targets[row] is None else [str(targets[row])]
            more, fits = _more(whole, histories[row] + target)
            apart += not fits
            whole += more
            known += [None] * len(more)
            if target and more:
                known[-1] = when[row]
        users += [user] * len(whole)
        items += whole
        positions += range(len(whole))
        moments += known
    logger.warning(
        "%s: %s rows are read as histories, each with the item that follows: %s events of %s users.%s",
        name,
        f"{len(frame):,}",
        f"{len(users):,}",
        f"{len(rows_of):,}",
        f" {apart:,} histories share nothing with those before them of the same user, and come after them."
        if apart
        else "",
    )
    events = pl.DataFrame({"user_id": users, "item_id": items, "position": positions})
    if any(moment is not None for moment in moments):
        events = events.with_columns(pl.Series("timestamp", moments, dtype=frame["timestamp"].dtype))
    return events


def _more(known: list[str], row: list[str]) -> tuple[list[str], bool]:
    """What a history and its item add to a sequence that is known so far, and whether the two overlap.

    A history may be the whole past, or no more than its end.
    """
    if not known or known[: len(row)] == row:
        return (row if not known else []), True
    for length in range(min(len(known), len(row)), 0, -1):
        if known[-length:] == row[:length]:
            return row[length:], True
    return row, False


def _types(path: str | Path) -> dict[str, str]:
    """Column -> its type, as the header has them."""
    header = files.header(path, "tsv", quote=False)
    return {name.rsplit(":", 1)[0]: name.rsplit(":", 1)[-1] for name in header}


def _batches(path: str | Path) -> Iterator[pl.DataFrame]:
    header = files.header(path, "tsv", quote=False)
    for name in header:
        if ":" not in name:
            raise DataError(
                f"{path}: expected a type with each column, as in 'user_id:token'. Got {name!r}. "
                "For plain columns use format='tsv'."
            )
    names = {name: name.rsplit(":", 1)[0] for name in header}
    for batch in files.batches(path, "tsv", quote=False):
        yield batch.rename(names)
