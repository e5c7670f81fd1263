"""Top-k files: a model's recommended lists for others to judge, and other libraries' lists to be judged here.

A file is CSV or Parquet (by its ending) with a row a recommended item:

    user_id, item_id, rank               raw ids as in the log; rank from 1
    user_id, position, item_id, rank     where a user has several targets: position is the (first) target's
                                         place in the user's sequence, from 0
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from seqrec import storage
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation import metrics
from seqrec.evaluation.ranking import LONGEST_LIST, Ranks
from seqrec.splitting.split import Queries, Split
from seqrec.topk import distinct_seen

COLUMNS = ("user_id", "item_id", "rank")
SUFFIXES = (".csv", ".parquet")


def suffix_of(path: str | Path) -> str:
    """The ending of a top-k file: ``.csv`` or ``.parquet``.

    Raises:
        SettingsError: another ending.
    """
    suffix = Path(str(path)).suffix.lower()
    if suffix not in SUFFIXES:
        raise SettingsError(
            f"{path}: expected a top-k file that ends in .csv or .parquet. Got {suffix or 'no ending'!r}."
        )
    return suffix


def positions(sequences: Sequences, queries: Queries) -> np.ndarray:
    """(queries,) place of each (first) target in its user's sequence, from 0."""
    places: np.ndarray = queries.targets[queries.first_targets[:-1]] - sequences.offsets[queries.users]
    return places


def frame(lists: np.ndarray, split: Split, queries: Queries | None = None) -> pl.DataFrame:
    """Lists as a long frame.

    Args:
        lists: (queries, k) int32 item indices, -1 where a list is short, as ``evaluation.rank`` gives them.
        queries: those of the lists; the test queries unless said.
    """
    queries = split.test if queries is None else queries
    row, place = np.nonzero(lists >= 0)
    columns = {
        "user_id": split.sequences.user_catalogue.decode(queries.users[row]).rename("user_id"),
        "item_id": split.sequences.item_catalogue.decode(lists[row, place]).rename("item_id"),
        "rank": pl.Series("rank", place + 1, dtype=pl.Int64),
    }
    if len(np.unique(queries.users)) < len(queries):
        columns["position"] = pl.Series("position", positions(split.sequences, queries)[row], dtype=pl.Int64)
    return pl.DataFrame(columns)


def write(
    ranks: Ranks, split: Split, path: str | Path, filter_seen: bool = True, queries: Queries | None = None
) -> None:
    """Writes the lists of an evaluation (filtered or not) as a top-k file.

    Args:
        queries: those that were ranked; the test queries unless said.
    """
    suffix = suffix_of(path)
    table = frame(ranks.lists if filter_seen else ranks.lists_unfiltered, split, queries)
    if suffix == ".parquet":
        storage.write_parquet(table, path)
    else:
        storage.write_text(table.write_csv(), path)


def read(path: str | Path) -> pl.DataFrame:
    """Columns ``user_id, item_id, rank`` and, if it is there, ``position``; others are left out. The ids of a
    CSV are text, as they are written.

    Raises:
        DataError: no such file, a missing column, a missing value, a rank or position that is not a whole
            number.
    """
    suffix = suffix_of(path)
    with storage.open_read(path) as stream:
        try:
            table = (
                pl.read_parquet(stream) if suffix == ".parquet" else pl.read_csv(stream, infer_schema=False)
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{path}: not readable as {suffix[1:]} ({str(error).splitlines()[0]})."
            ) from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise DataError(
            f"{path}: expected the columns {', '.join(COLUMNS)} (and position where a user has several "
            f"targets). Missing: {', '.join(missing)}."
        )
    columns = [*COLUMNS, *(["position"] if "position" in table.columns else [])]
    for column in columns:
        empty = table[column].is_null().arg_true()
        if len(empty):
            raise DataError(f"{path}: row {int(empty[0]) + 2}, column {column}: expected a value. Got none.")
    for column in columns[2:]:
        if table[column].dtype == pl.String:
            numbers = table[column].cast(pl.Int64, strict=False)
            if numbers.null_count():
                row = int(numbers.is_null().arg_true()[0])
                raise DataError(
                    f"{path}: row {row + 2}, column {column}: expected a whole number. Got "
                    f"{table[column][row]}."
                )
            table = table.with_columns(numbers)
        if not table[column].dtype.is_integer():
            raise DataError(f"{path}: column {column}: expected whole numbers. Got {table[column].dtype}.")
    return table.select(columns)


@dataclass(frozen=True)
class Scored:
    """What an imported list is worth on a split.

    Attributes:
        ranks: (targets,) int64 rank of each target in its list; ``metrics.rank_of_miss`` for a miss.
        users: (queries,) int64 user of each query.
        offsets: (queries + 1,) int64 where the targets of each query begin; None: each has one.
        longest: the largest rank in the file: metrics beyond it would be understated and are not given.
        without_list: queries for which the file has no list, counted as misses.
        unknown_users: rows whose user (and position) is no query of this split; left out.
        unknown_items: rows whose item is not in the catalogue; they keep their rank and can never be a hit.
    """

    ranks: np.ndarray
    users: np.ndarray
    longest: int
    without_list: int
    unknown_users: int
    unknown_items: int
    offsets: np.ndarray | None = None

    def metrics(self, cutoffs: tuple[int, ...] = metrics.CUTOFFS) -> dict[str, np.ndarray]:
        """A value a query for every metric at the cut-offs up to the longest list."""
        return metrics.from_ranks(
            self.ranks, tuple(k for k in cutoffs if k <= self.longest), offsets=self.offsets
        )


def score(
    table: pl.DataFrame | str | Path, split: Split, filter_seen: bool = True, queries: Queries | None = None
) -> Scored:
    """Finds each query's target in its list.

    Args:
        table: a top-k file, or a frame with its columns.
        filter_seen: the protocol filters the whole history, so a list that holds an item of it is refused.
        queries: ``split.test`` unless said.

    Raises:
        DataError: a rank below 1, given twice or beyond the length of its list, an item twice in one list, a
            seen item under the filter, several targets a user and no ``position``, or rows of which none is
            known. The message names the user.
    """
    queries = split.test if queries is None else queries
    source = "the frame" if isinstance(table, pl.DataFrame) else str(table)
    if not isinstance(table, pl.DataFrame):
        table = read(table)
    s = split.sequences
    several = len(np.unique(queries.users)) < len(queries)
    if several and "position" not in table.columns:
        raise DataError(
            f"{source}: a user has several targets in this split: expected a column position (the "
            "target's place in the sequence, from 0)."
        )
    user, item = (
        s.user_catalogue.encode(same_type(table["user_id"], s.user_catalogue.ids)),
        s.item_catalogue.encode(same_type(table["item_id"], s.item_catalogue.ids)),
    )
    for numbers, column, catalogue in (
        (user, "user_id", s.user_catalogue),
        (item, "item_id", s.item_catalogue),
    ):
        if len(numbers) and (numbers < 0).all():
            known_ids, given = (
                ", ".join(map(str, ids.head(3).to_list())) for ids in (catalogue.ids, table[column])
            )
            raise DataError(
                f"{source}: no known {column}. Expected ids as in the log, such as {known_ids}. Got {given}."
            )
    place = table["rank"].to_numpy()
    if len(place) and place.min() < 1:
        raise DataError(
            f"{source}: user {table['user_id'][int(place.argmin())]}: rank {place.min()}, expected ranks "
            "from 1."
        )

    # Row -> query: targets are events in ascending order, so the target's event number finds the query.
    first, offset = queries.targets[queries.first_targets[:-1]], s.offsets[np.maximum(user, 0)]
    if "position" in table.columns:
        event = offset + table["position"].to_numpy()
        event = np.where((event >= offset) & (event < s.offsets[np.maximum(user, 0) + 1]), event, -1)
    else:
        target_of = np.full(s.users, -1, dtype=np.int64)
        target_of[queries.users] = first
        event = target_of[np.maximum(user, 0)]
    query = np.minimum(np.searchsorted(first, event), max(0, len(queries) - 1))
    known = (
        (user >= 0) & (event >= 0) & (first[query] == event)
        if len(queries)
        else np.zeros(len(user), dtype=bool)
    )

    if len(known) and not known.any():
        raise DataError(
            f"{source}: no row belongs to a query of this split. Expected its users and, in a column "
            "position, the target's place, from 0."
        )
    rows = np.flatnonzero(known)
    query, item, place = query[rows], item[rows], place[rows]
    raw_item = table["item_id"].gather(rows)

    def name(row: int) -> str:
        return f"user {table['user_id'][int(rows[row])]}"

    if (row := first_repeat(query, place)) is not None:
        raise DataError(
            f"{source}: {name(row)}: rank {place[row]} is given twice. Number each list from 1 without "
            "gaps or repeats."
        )
    beyond = place > np.bincount(query, minlength=len(queries))[query]
    if beyond.any():
        row = int(beyond.argmax())
        raise DataError(
            f"{source}: {name(row)}: rank {place[row]} in a list of {(query == query[row]).sum()}. Number "
            "each list from 1 without gaps or repeats."
        )
    distinct = (
        np.where(item >= 0, item, -1 - raw_item.rank("dense").to_numpy().astype(np.int64))
        if len(rows)
        else item
    )
    if (row := first_repeat(query, distinct)) is not None:
        raise DataError(f"{source}: {name(row)}: item {raw_item[int(row)]} is recommended twice.")
    if filter_seen and len(rows):
        seen_query, seen_item = distinct_seen(split.query(queries))
        span = len(s.item_catalogue)
        seen = (item >= 0) & np.isin(query.astype(np.int64) * span + item, seen_query * span + seen_item)
        if seen.any():
            row = int(seen.argmax())
            raise DataError(
                f"{source}: {name(row)}: recommends item {raw_item[row]}, already in the history "
                f"({seen.sum()} such rows). "
                "This protocol filters the whole history: filter it, or score without the filter."
            )
    targets, span = split.targets(queries), len(s.item_catalogue)
    ranks = np.full(len(targets), metrics.rank_of_miss(span), dtype=np.int64)
    # Each target's place is where its query's list has its item.
    number = np.repeat(np.arange(len(queries)), np.diff(queries.first_targets))
    wanted = number * span + targets
    listed = np.where(item >= 0, query.astype(np.int64) * span + item, -1)
    order = np.argsort(listed, kind="stable")
    if len(order):
        at = order[np.minimum(np.searchsorted(listed[order], wanted), len(order) - 1)]
        hit = listed[at] == wanted
        ranks[hit] = place[at[hit]]
    if split.cold_targets_miss:
        ranks[split.item_counts[targets] == 0] = metrics.rank_of_miss(span)
    return Scored(
        ranks,
        queries.users,
        longest=int(place.max(initial=0)),
        without_list=len(queries) - len(np.unique(query)),
        unknown_users=len(user) - len(rows),
        unknown_items=int((item < 0).sum()),
        offsets=queries.offsets,
    )


def same_type(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Ids as the catalogue has them: numbers as text, or text as numbers (``7.0`` is 7; what is no whole
    number is null, and so unknown)."""
    if ids.dtype.is_float() and known.dtype.is_integer():
        return pl.select(pl.when(ids == ids.round()).then(ids)).to_series().cast(known.dtype, strict=False)
    if ids.dtype == pl.String and known.dtype.is_integer():
        return ids.cast(known.dtype, strict=False).fill_null(
            same_type(ids.cast(pl.Float64, strict=False), known)
        )
    return ids.cast(known.dtype, strict=False) if ids.dtype != known.dtype else ids


def first_repeat(group: np.ndarray, value: np.ndarray) -> int | None:
    """A row whose (group, value) an earlier row has too, or None."""
    order = np.lexsort((np.arange(len(group)), value, group))
    repeat = (np.diff(group[order]) == 0) & (np.diff(value[order]) == 0)
    return int(order[1:][repeat].min()) if repeat.any() else None


def ties_within(ranks: Ranks, filter_seen: bool = True, k: int = LONGEST_LIST) -> int:
    """Targets for which an item with exactly the target's score decides whether, or where, they are in
    the top k.

    The protocol's rank is the worst among equals; a list puts equals in some order. Where this is 0, the two
    agree.
    """
    ties = ranks.ties if filter_seen else ranks.ties_unfiltered
    return int(((ties > 0) & (ranks.headline(filter_seen) - ties <= k)).sum())
