"""What every split is: training events of each user, and queries whose history ends before their target."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from seqrec.data.baskets import starts_of
from seqrec.data.query import Events, Query
from seqrec.data.sequences import COLUMNS, Sequences
from seqrec.errors import DataError

ROLES = {"train": 0, "validation": 1, "test": 2, "unused": 3, "disliked": 4}


@dataclass(frozen=True)
class Queries:
    """Questions with their answers: which items come next?

    Query i asks for the items of its held-out events, given the same user's events before
    ``history_stops[i]``.

    Attributes:
        targets: (targets,) int64, each an index into the events of the sequences, in ascending order.
        users: (queries,) int64, the user of each.
        history_stops: (queries,) int64, where each history ends: the (first) target itself where the whole
            past is known, earlier where it is not.
        offsets: (queries + 1,) int64 where the targets of each query begin, for queries with several right
            answers, such as a basket; None: each has one.

    Raises:
        DataError: the offsets leave a query without a target, or are not of these queries and targets.
    """

    targets: np.ndarray
    users: np.ndarray
    history_stops: np.ndarray
    offsets: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.offsets is None:
            return
        if (
            len(self.offsets) != len(self.users) + 1
            or (self.offsets[0], self.offsets[-1]) != (0, len(self.targets))
            or (np.diff(self.offsets) < 1).any()
        ):
            raise DataError(
                f"offsets: expected {len(self.users) + 1} numbers that rise from 0 to {len(self.targets)}, "
                f"so that each query has a target. Got {self.offsets[:20].tolist()}."
            )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def first_targets(self) -> np.ndarray:
        """(queries + 1,) int64 where the targets of each query begin."""
        return np.arange(len(self) + 1) if self.offsets is None else self.offsets

    @property
    def of_targets(self) -> np.ndarray:
        """(targets,) int64 the user of each target."""
        return self.users if self.offsets is None else np.repeat(self.users, np.diff(self.offsets))

    @classmethod
    def at(cls, sequences: Sequences, targets: np.ndarray) -> Queries:
        """Queries for (queries,) event indices, with everything before each as its history."""
        targets = np.sort(np.asarray(targets, dtype=np.int64))
        return cls(targets, np.searchsorted(sequences.offsets, targets, side="right") - 1, targets)

    @classmethod
    def until(cls, sequences: Sequences, targets: np.ndarray, stops: np.ndarray) -> Queries:
        """Queries whose histories end at ``stops[u]``, (users,) event indices, or before at the target."""
        full = cls.at(sequences, targets)
        return replace(full, history_stops=np.minimum(full.targets, stops[full.users]))

    @classmethod
    def sets(cls, sequences: Sequences, starts: np.ndarray, stops: np.ndarray) -> Queries:
        """A query for each run of events ``[starts[i], stops[i])`` of one user, such as a basket: all its
        items are right answers, each once, with everything before as the history.

        Raises:
            DataError: a run is empty, overlaps the one before, or is of two users.
        """
        starts, stops = np.asarray(starts, dtype=np.int64), np.asarray(stops, dtype=np.int64)
        users = np.searchsorted(sequences.offsets, starts, side="right") - 1
        wrong = (stops <= starts) | (stops > sequences.offsets[np.minimum(users, sequences.users - 1) + 1])
        wrong[1:] |= starts[1:] < stops[:-1]
        if wrong.any():
            i = int(wrong.argmax())
            raise DataError(
                "starts, stops: expected runs of events, in order, each of one user. "
                f"Got [{starts[i]}, {stops[i]})."
            )
        offsets = np.concatenate([[0], np.cumsum(stops - starts)])
        targets = np.repeat(starts - offsets[:-1], stops - starts) + np.arange(offsets[-1])
        number = np.repeat(np.arange(len(starts)), stops - starts)
        pairs = np.stack([number, sequences.items[targets]])
        once = np.sort(np.unique(pairs, axis=1, return_index=True)[1])
        offsets = np.searchsorted(number[once], np.arange(len(starts) + 1))
        return cls(targets[once], users, starts, offsets)

    def select(self, rows: np.ndarray) -> Queries:
        """Some of the queries: (n,) indices in ascending order, or (queries,) bool."""
        if self.offsets is None:
            return Queries(self.targets[rows], self.users[rows], self.history_stops[rows])
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows] = True
        counts = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(counts[chosen])])
        kept = self.targets[np.repeat(chosen, counts)]
        return Queries(kept, self.users[chosen], self.history_stops[chosen], offsets)

    def last(self) -> Queries:
        """The last query of each user: of ``successive`` targets those that ``last`` would ask."""
        return self.select(np.append(self.users[1:] != self.users[:-1], True)[: len(self)])


@dataclass(frozen=True)
class Split:
    """Which events train, which are asked on validation, which on test.

    Attributes:
        sequences: all events; the split only points into them.
        train_starts, train_stops: (users,) int64: user u trains on events ``[train_starts[u],
            train_stops[u])``.
        validation, test: the queries.
        settings: how it was made (name and arguments), for the record.
        positive: (events,) bool, False where an event is not a training target (a bad rating, say) but stays
            in histories; None if all are targets.
        retrain_stops: (users,) int64 for protocols that train again on training and validation events once
            settings are chosen; else None.
        cold_targets_miss: True if a target that was never seen in training counts as a miss, whatever its
            score.
    """

    sequences: Sequences
    train_starts: np.ndarray
    train_stops: np.ndarray
    validation: Queries
    test: Queries
    settings: dict[str, Any]
    positive: np.ndarray | None = None
    retrain_stops: np.ndarray | None = None
    cold_targets_miss: bool = False

    def query(self, queries: Queries) -> Query:
        """What is asked: after events ``[offsets[u], history_stops[i])``, for that user, at the time of the
        (first) target, what comes next? The answers are not in it."""
        s = self.sequences
        first = queries.targets[queries.first_targets[:-1]]
        return Query(
            Events(s.items, s.times, s.baskets),
            s.offsets[queries.users],
            queries.history_stops,
            queries.users.astype(np.int32),
            None if s.times is None else s.times[first],
        )

    def targets(self, queries: Queries) -> np.ndarray:
        """(targets,) item index of each right answer.

        Raises:
            DataError: a query has an item twice among its targets.
        """
        items = np.asarray(self.sequences.items[queries.targets])
        if queries.offsets is not None:
            query = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
            order = np.lexsort((items, query))
            twice = (np.diff(query[order]) == 0) & (np.diff(items[order]) == 0)
            if twice.any():
                at = order[int(twice.argmax())]
                item = self.sequences.item_catalogue.ids[int(items[at])]
                raise DataError(
                    f"targets: expected each item once in a query. Got item {item!r} twice in query "
                    f"{query[at]}. Queries.sets leaves repeats out."
                )
        return items

    @cached_property
    def train_events(self) -> np.ndarray:
        """(events,) bool, True for training events: models may look at the data only through this mask."""
        return _inside(self.train_starts, self.train_stops, self.sequences.events)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """(items,) int64 training events of each item."""
        return np.bincount(
            self.sequences.items[self.train_events], minlength=len(self.sequences.item_catalogue)
        )

    def trained_users(self, disliked: bool = False, of_baskets: bool = False) -> np.ndarray:
        """(users,) bool, True for users with a target in training; the vectors of others stay untrained.

        Args:
            disliked: whether a disliked target trains as well (``Loss.uses_disliked``), or only a liked one.
            of_baskets: whether a target has a whole basket before it, and not only an event.
        """
        first = np.minimum(self.train_starts + 1, self.train_stops)
        if of_baskets:
            s = self.sequences
            begins = np.append(starts_of(s.offsets, s.baskets), s.events)
            second = begins[np.searchsorted(begins[:-1], self.train_starts, side="right")]
            first = np.minimum(second, self.train_stops)
        if self.positive is None or disliked:
            trained: np.ndarray = self.train_stops > first
            return trained
        liked = np.concatenate([[0], np.cumsum(self.positive)])
        trained = liked[self.train_stops] > liked[first]
        return trained

    @property
    def train_positions(self) -> int:
        """Next-item targets in training: every training event but the first of each user."""
        lengths = self.train_stops - self.train_starts
        return int(np.maximum(lengths - 1, 0).sum())

    @property
    def known_stops(self) -> np.ndarray:
        """(users,) int64 where each user's first test target is, or their sequence ends: what is known of
        them before the test is before it."""
        stops = self.sequences.offsets[1:].copy()
        np.minimum.at(stops, self.test.of_targets, self.test.targets)
        return stops

    def without_test(self) -> Split:
        """What may be seen before the test: no query of it, and of each user no event from their first test
        target on. So nothing that is given this split can look at the test, by mistake or otherwise.

        The events are copied, unless there is no test query. The hash is that of the whole split, which it
        trains and validates for; what is made from the part (``retrain``) has one of its own.

        Raises:
            DataError: a user's training or validation events are not all before their first test target.
        """
        if not len(self.test):
            return self
        s, stops = self.sequences, self.known_stops
        last = np.maximum(
            self.train_stops, self.train_stops if self.retrain_stops is None else self.retrain_stops
        )
        np.maximum.at(last, self.validation.of_targets, self.validation.targets + 1)
        if (last > stops).any():
            raise DataError(
                f"split {self.settings.get('name')!r}: expected each user's test targets after their "
                f"training and validation events. Got {int((last > stops).sum())} user(s) with others."
            )
        known = _inside(s.offsets[:-1], stops, s.events)
        offsets = np.concatenate([[0], np.cumsum(stops - s.offsets[:-1])])
        moved = s.offsets[:-1] - offsets[:-1]
        columns = {name: array[known] for name in COLUMNS if (array := getattr(s, name)) is not None}
        v = self.validation
        part = replace(
            self,
            sequences=replace(s, items=s.items[known], offsets=offsets, **columns),
            train_starts=self.train_starts - moved,
            train_stops=self.train_stops - moved,
            validation=replace(
                v, targets=v.targets - moved[v.of_targets], history_stops=v.history_stops - moved[v.users]
            ),
            test=self.test.select(np.arange(0)),
            positive=None if self.positive is None else self.positive[known],
            retrain_stops=None if self.retrain_stops is None else self.retrain_stops - moved,
        )
        part.__dict__["hash"] = self.hash
        return part

    def retrain(self) -> Split:
        """The same split with training extended over the validation events.

        Raises:
            DataError: the split has no such training.
        """
        if self.retrain_stops is None:
            raise DataError(
                f"split {self.settings.get('name')!r} has no retraining on validation events: its validation "
                "targets are no events that training could go on with. Leave retrain out."
            )
        return replace(self, train_stops=self.retrain_stops)

    def refit(self) -> Split:
        """The same sequences with all events in training, to fit the model that serves after this test."""
        s = self.sequences
        none = Queries.at(s, np.empty(0, dtype=np.int64))
        return Split(
            s,
            s.offsets[:-1],
            s.offsets[1:],
            validation=none,
            test=none,
            settings={"name": "refit"},
            positive=self.positive,
        )

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits over (user, position, item, role) of every event.

        Items are numbered by first appearance and users by their place, so that renaming ids, or reading the
        same data in another format, leaves the hash as it is; any other order, item or role changes it, and
        so do histories that end before their targets.
        """
        s = self.sequences
        first = np.full(len(s.item_catalogue), s.events, dtype=np.int64)
        # of several events of an item the earliest is assigned last, and stays
        first[s.items[::-1]] = np.arange(s.events)[::-1]
        number = np.empty(len(first), dtype="<i4")
        number[np.argsort(first, kind="stable")] = np.arange(len(first))
        role = np.full(s.events, ROLES["unused"], dtype=np.int8)
        role[self.train_events] = ROLES["train"]
        if self.positive is not None:
            role[self.train_events & ~self.positive] = ROLES["disliked"]
        role[self.validation.targets] = ROLES["validation"]
        role[self.test.targets] = ROLES["test"]
        digest = hashlib.sha256()
        for array in (np.diff(s.offsets).astype("<i8"), number[s.items], role):
            digest.update(np.ascontiguousarray(array).tobytes())
        for queries in (self.validation, self.test):
            first = queries.targets[queries.first_targets[:-1]]
            if not np.array_equal(queries.history_stops, first):
                digest.update((first - queries.history_stops).astype("<i8").tobytes())
            if queries.offsets is not None:
                digest.update(np.diff(queries.offsets).astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def of_users(self, first: int, stop: int) -> Split:
        """The same with training on the users ``[first, stop)`` alone, as one of several streams does."""
        stops = self.train_starts.copy()
        stops[first:stop] = self.train_stops[first:stop]
        return replace(self, train_stops=stops)

    def not_empty(self, advice: str) -> Split:
        """Itself, if there is something to train on and something to ask.

        Raises:
            DataError: there is not; ``advice`` says what to do.
        """
        for what, count in (
            ("training target", self.train_positions),
            ("validation query", len(self.validation)),
            ("test query", len(self.test)),
        ):
            if not count:
                raise DataError(
                    f"split {self.settings['name']!r}: expected at least one {what}. Got none. {advice}"
                )
        return self


def _inside(starts: np.ndarray, stops: np.ndarray, events: int) -> np.ndarray:
    """(events,) bool, True for events in one of the ranges ``[starts[u], stops[u])``; none overlap."""
    mask = np.zeros(events + 1, dtype=np.int8)
    some = starts < stops  # so that no two begin, or end, at the same event
    mask[starts[some]] += 1
    mask[stops[some]] -= 1
    return np.cumsum(mask[:-1], dtype=np.int8).astype(bool)
