"""MovieLens-1M: 6,040 users, 3,706 rated films, 1,000,209 ratings (2000-2003), each with its second.

Published by GroupLens Research; Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS
5(4), 2015. Three forms are read:

- ``ratings.dat`` of the publisher's archive (``UserID::MovieID::Rating::Timestamp``), with ``movies.dat`` and
  ``users.dat`` (Latin-1);
- ``sequences.tsv.gz``: user_id, position, movie_id, rating, timestamp; items with at least 5 ratings, in
  order; ratings and times may be missing;
- ``ml-1m.txt`` as SASRec's authors made it: ``user item`` a line, items with at least 5 ratings, renumbered.

``benchmark_log`` makes the same events of all three. ``timed_log`` has those with a time, all of them: from
the publisher's file or ``times.tsv.gz`` (user_id, movie_id, timestamp).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from seqrec import storage
from seqrec.data import columns, files
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError
from seqrec.sources import sasrec_text
from seqrec.sources.fetch import find
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import log_frame

URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"
TERMS = (
    "MovieLens 1M, GroupLens Research: research use with acknowledgement; no redistribution, no "
    "commercial use without permission"
)

MIN_ITEM_COUNT = 5
USERS, ITEMS, EVENTS = 6_040, 3_416, 999_611
"""MovieLens-1M's items with at least 5 ratings: what every form has once it is filtered."""
SHORT_USER = 4_261
"""The user (counted from 1 in the order of the file) whose second-last event ``sequences.tsv.gz`` lacks."""


def load(
    name: str = "ml-1m", data_dir: str | Path | None = None, cache: str | Path | None = None
) -> Interactions:
    """As ``seqrec.sources.load``; any of the three forms is found."""
    found = find(name, ["ratings.dat", "sequences.tsv.gz", "ml-1m.txt"], data_dir, cache, url=URL, md5=MD5)
    return found.attach(read(found.folder), TERMS)


def read(path: str | Path) -> Interactions:
    """Reads one of the three files, or the folder with one of them (in the order above), with the attributes
    beside it.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    if storage.is_folder(path):
        names = storage.names(path)
        path = storage.join(
            path,
            next((n for n in ("ratings.dat", "sequences.tsv.gz", "ml-1m.txt") if n in names), "ratings.dat"),
        )
    name = str(path).lower().removesuffix(".gz")
    if name.endswith(".txt"):
        return sasrec_text.read(path)
    if name.endswith(".tsv"):
        mapping = {
            "user_id": "user_id",
            "item_id": "movie_id",
            "position": "position",
            "rating": "rating",
            "timestamp": "timestamp",
        }
        frame = log_frame([path], ReadOptions(format="tsv", columns=mapping), str(path))
    else:
        frame = _ratings(path)
    return _with_tables(frame, path)


def _with_tables(frame: pl.DataFrame, path: str | Path) -> Interactions:
    """The log with the attributes that lie beside its file."""
    movies, users = storage.sibling(path, "movies.dat"), storage.sibling(path, "users.dat")
    return Interactions(frame, source=str(path)).with_attributes(
        items=_table(movies, ["item_id", "title", "genres"]) if storage.exists(movies) else None,
        users=_table(users, ["user_id", "gender", "age", "occupation", "zip_code"])
        if storage.exists(users)
        else None,
    )


def benchmark_log(log: Interactions) -> Interactions:
    """The events of the protocols ``ml-1m-*-v1``: items with at least 5 ratings, and without the second-last
    event of user 4261.

    ``sequences.tsv.gz`` lacks that one event (its item is unknown there) and is already filtered; so the
    other two forms drop it, and all three give the same sequences and the same split hash.

    Args:
        log: MovieLens-1M, whole, in any of the three forms, as ``read`` or ``load`` gives it.
    Raises:
        DataError: it is not the whole of MovieLens-1M.
    """
    if _size(log.frame) == (USERS, ITEMS, EVENTS - 1):
        return log
    kept = log.filter(min_item_count=MIN_ITEM_COUNT).frame
    if _size(kept) != (USERS, ITEMS, EVENTS):
        raise _not_whole(log.source, kept)
    user = kept["user_id"].unique(maintain_order=True)[SHORT_USER - 1]
    events = kept.with_row_index("row").filter(pl.col("user_id") == user)
    order = next((name for name in ("position", "timestamp") if name in events.columns), "row")
    row = events.sort(order, maintain_order=True)["row"][-2]
    return replace(log, frame=pl.concat([kept[:row], kept[row + 1 :]]))


def timed_log(data_dir: str | Path | None = None, cache: str | Path | None = None) -> Interactions:
    """The 999,611 events of items with at least 5 ratings, each with its second.

    Raises:
        DataError: it is not the whole of MovieLens-1M.
        DownloadError: it could not be had.
    """
    found = find("ml-1m", ["ratings.dat", "times.tsv.gz"], data_dir, cache, url=URL, md5=MD5)
    if "ratings.dat" in storage.names(found.folder):
        log = read(storage.join(found.folder, "ratings.dat"))
    else:
        path = storage.join(found.folder, "times.tsv.gz")
        mapping = {"user_id": "user_id", "item_id": "movie_id", "timestamp": "timestamp"}
        log = _with_tables(log_frame([path], ReadOptions(format="tsv", columns=mapping), path), path)
    log = found.attach(log.filter(min_item_count=MIN_ITEM_COUNT), TERMS)
    if _size(log.frame) != (USERS, ITEMS, EVENTS):
        raise _not_whole(log.source, log.frame)
    return log


def _not_whole(source: str, kept: pl.DataFrame) -> DataError:
    expected = (
        f"{USERS:,} users, {ITEMS:,} items and {EVENTS:,} events with at least {MIN_ITEM_COUNT} an item"
    )
    return DataError(f"{source}: expected the whole of MovieLens-1M ({expected}). Got {_size(kept)}.")


def _size(frame: pl.DataFrame) -> tuple[int, int, int]:
    return frame["user_id"].n_unique(), frame["item_id"].n_unique(), len(frame)


def _ratings(path: str | Path) -> pl.DataFrame:
    names = ["user_id", "item_id", "rating", "timestamp"]
    raw = files.read(path, "csv", delimiter="::", names=names, quote=False)
    frame = columns.validated(
        raw, {name: name for name in (*names[:2], "timestamp", "rating")}, str(path), text=True
    )
    return frame.with_columns(columns.integers(frame[name]) for name in names[:2])


def _table(path: str, names: list[str]) -> pl.DataFrame:
    """``movies.dat`` or ``users.dat``; integers as such, but codes that start with 0 (zip codes) stay
    text."""
    raw = files.read(path, "csv", delimiter="::", encoding="latin-1", names=names, quote=False)
    return raw.select(columns.integers(raw[name]) for name in names)
