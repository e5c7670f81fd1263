"""Files of one's own: one with the training events, one with the test events, and perhaps one for validation.

    train.csv, validation.csv and test.csv

                 train.csv     | validation.csv | test.csv
    user 1       e1   e2   e3  | e4             | e5   e6        train [e1, e3]   validation e4   test e5, e6
    user 2       e1   e2       |                | e3             train [e1, e2]   test e3
    user 3                     |                | e1   e2        trains nothing   test e2

    train.csv and test.csv alone: the last training event of users with at least 3 validates

                 train.csv     | test.csv
    user 1       e1   e2 | e3  | e4   e5        train [e1, e2]   validation e3   test e4, e5
    user 2       e1   e2       | e3             train [e1, e2]   no validation query   test e3

Every event of the test file is a target, with everything before it as history, but for a user's very first.
Within a file a user's events are in order of their times; a file's events follow those of the files before
it, whatever their times. Where that is against the times, or an event is in two files, it is reported: such a
split lets a model see what it shall foretell. In files of histories and the items that follow them, which
have positions and no times, an event that an earlier file has too is history. A target that was never seen in
training counts as a miss. ``split.retrain()`` trains on the validation events too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace

import numpy as np
import polars as pl

from seqrec.data.frames import whole_column
from seqrec.data.interactions import Interactions, joined
from seqrec.data.sequences import Sequences, TieOrder, order_of
from seqrec.errors import SettingsError
from seqrec.splitting.arguments import splitter
from seqrec.splitting.split import Queries, Split

PARTS = ("train", "validation", "test")
FEWEST = 3
"""Training events that a user must have to validate where no file does."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartedSequences(Sequences):
    """Sequences in which each user's training events come first, then those of validation, then of the test.

    Attributes:
        stops: (3, users) int64, where each user's events of each of the three end.
    """

    stops: np.ndarray = field(default_factory=lambda: np.empty((3, 0), dtype=np.int64))


@splitter
def files(
    sequences: Sequences,
    train: str | list[str],
    test: str | list[str],
    validation: str | list[str] | None = None,
) -> Split:
    """Training, validation and test as given by files.

    Args:
        sequences: of these files, as ``in_parts`` joins them.
        train, test: the files of each, in any format that ``seqrec.read_log`` reads.
        validation: the files of it; None: the last training event of users with at least 3 validates.

    Raises:
        SettingsError: the sequences are of one log, and not of such files.
        DataError: a part is empty.
    """
    if not isinstance(sequences, PartedSequences):
        raise SettingsError(
            "split 'files': expected no other log beside the split's files. Got one. In a run leave out "
            "data.path and data.name; in Python: from seqrec.splitting.files import from_logs."
        )
    plain = Sequences(**{one.name: getattr(sequences, one.name) for one in fields(Sequences)})
    starts = plain.offsets[:-1]
    train_stops, validation_stops, test_stops = sequences.stops
    retrain_stops = validation_stops
    if validation is None:
        able = train_stops - starts >= FEWEST
        validates = train_stops[able] - 1
        retrain_stops, train_stops = train_stops, train_stops - able
        logger.warning(
            "split 'files': no file validates, so the last training event of each user with at least %s "
            "does: %s of them.",
            FEWEST,
            f"{len(validates):,}",
        )
    else:
        validates = _targets(starts, train_stops, validation_stops)
    split = Split(
        plain,
        train_starts=starts,
        train_stops=train_stops,
        validation=Queries.at(plain, validates),
        test=Queries.at(plain, _targets(starts, validation_stops, test_stops)),
        settings={"name": "files", "train": train, "test": test, "validation": validation},
        retrain_stops=retrain_stops,
        cold_targets_miss=True,
    )
    return split.not_empty(
        "The first event of a user is no target; give files in which users have events before those of the "
        "test."
    )


def from_logs(train: Interactions, test: Interactions, validation: Interactions | None = None) -> Split:
    """The split of logs in memory: ``from_logs(read_log("train.csv"), read_log("test.csv"))``.

    Raises:
        DataError: a part is empty, or one lacks a column of the log that another has.
    """
    given = None if validation is None else validation.source
    return files(in_parts(train, test, validation), train.source, test.source, given)


def in_parts(
    train: Interactions,
    test: Interactions,
    validation: Interactions | None = None,
    tie_order: TieOrder = "file",
    seed: int = 0,
    cold_items: bool = False,
) -> PartedSequences:
    """Sequences of several logs, each user's events of one after those of the other; reports events in two of
    them, and events that are later than those of a log after it.

    Args:
        tie_order, seed: of events of a user at one time in one log, as in ``Interactions.sequences``.
        cold_items: as there.
    Raises:
        DataError: one log lacks a column of the log that another has.
    """
    logs = {"train": train, "validation": validation, "test": test}
    given = [(number, log) for number, log in enumerate(logs.values()) if log is not None]
    whole = joined([log for _, log in given], ", ".join(log.source for _, log in given))
    part = np.repeat([number for number, _ in given], [len(log) for _, log in given])
    frame = whole.frame.with_columns(pl.Series(_PART, part))
    keys = [name for name in ("timestamp", "position") if whole_column(frame, name) is not None]
    if keys == ["position"]:
        frame = _without_histories(frame)
    _report_repeats(frame, keys)
    if tie_order == "random" and keys:
        frame = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    frame = frame.sort([_PART, *keys], maintain_order=True)
    ordered = replace(whole, frame=frame.drop([_PART, "timestamp", "position"], strict=False))
    s = ordered.sequences(cold_items=cold_items)
    users = s.user_catalogue.encode(frame["user_id"])
    rows = order_of(users, None)
    times = whole_column(frame, "timestamp")
    part = frame[_PART].to_numpy()
    counts = np.stack([np.bincount(users[part == number], minlength=s.users) for number in range(3)])
    stops = s.offsets[:-1] + np.cumsum(counts, axis=0)
    s = replace(s, times=None if times is None else times[rows])
    parted = PartedSequences(
        **{one.name: getattr(s, one.name) for one in fields(Sequences)}, stops=stops.astype(np.int64)
    )
    _report_order(parted, part[rows])
    return parted


_PART = "\x1fpart"
"""A column that no log has."""


def _targets(starts: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The events ``[begins[u], ends[u])`` of all users but the first of their sequences."""
    begins = np.maximum(begins, np.minimum(starts + 1, ends))
    lengths = ends - begins
    return np.repeat(begins - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def _without_histories(frame: pl.DataFrame) -> pl.DataFrame:
    """The events without those that an earlier file has at the same place of the same user's sequence: a
    file of histories and the items that follow (``item_id_list``) tells the past again."""
    first = pl.col(_PART) == pl.col(_PART).min().over(["user_id", "item_id", "position"])
    kept = frame.filter(first)
    if count := len(frame) - len(kept):
        logger.info(
            "split 'files': %s events are in an earlier file too, at the same position: they are history, "
            "and no targets.",
            f"{count:,}",
        )
    return kept


def _report_repeats(frame: pl.DataFrame, keys: list[str]) -> None:
    """Warns of events that are in two files; without times nothing can be told to be one event."""
    if not keys:
        return
    parts = pl.col(_PART).n_unique().over(["user_id", "item_id", *keys])
    shared = frame.select((parts > 1) & (pl.col(_PART) > 0)).to_series()
    if count := int(shared.sum()):
        first = frame.row(shared.arg_max() or 0, named=True)
        logger.warning(
            "split 'files': a leak: %s events of the validation or test file are in another file too, such "
            "as user %r and item %r. A model has seen its answers; leave them out of one.",
            f"{count:,}",
            first["user_id"],
            first["item_id"],
        )


def _report_order(s: PartedSequences, part: np.ndarray) -> None:
    """Warns of events that are earlier than an event of the same user in a file before theirs."""
    if s.times is None:
        return
    back = np.flatnonzero((np.diff(s.times) < 0) & (np.diff(part) > 0)) + 1
    back = np.setdiff1d(back, s.offsets)
    if len(back):
        users = np.searchsorted(s.offsets, back, side="right") - 1
        logger.warning(
            "split 'files': a leak: %s users have events in the %s file that are earlier than their last "
            "event of the file before, such as user %r. A model learns from what came after its answers.",
            f"{len(np.unique(users)):,}",
            " or ".join(PARTS[number] for number in np.unique(part[back])),
            s.user_catalogue.ids[int(users[0])],
        )
