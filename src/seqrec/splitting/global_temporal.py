"""Cut in time: train on what happened before a moment, ask what happened after it.

As in use, nothing of the future is known.

    time      start         validation_cut     test_cut          end
                |   training      |   validation   |     test     |
                [                 )[               )[             ]
    user 1        e1   e2   e3        e4   e5         e6   e7        train [e1, e3]
    user 2             e1                             e2             train [e1]       no validation query
    user 3                            e1   e2         e3             trains nothing   no validation query
    user 4        e1        e2                                       train [e1, e2]   no query

User 2 has no event in the validation window; user 3 has no history before it, but has one for the test.

An event at the very moment of a cut is after it. Queries are asked about users with an event on both sides of
the cut; their targets:

                                                             user 1, test
    last         the last event of the window, knowing       [e1, e6] -> e7
                 all before it
    successive   each event of the window, knowing           [e1, e5] -> e6    [e1, e6] -> e7
                 all before it
    all          each event of the window, knowing only      [e1, e5] -> e6    [e1, e5] -> e7
                 what was before the window

    next_basket  the first basket that begins in the window, knowing all before it: one query, which asks
                 for a set
    baskets      each basket that begins in the window, knowing all before it

With ``all`` each event is still a query of its own, with one right answer, though the user's queries all know
the same.

With ``validation_users`` there is one cut. Some users, drawn at random, do not train; their last events
before the cut are validation targets:

    time      start                      test_cut       end
                |   training (validation)    |    test   |
                [                            )[          ]
    user 1        e1   e2   e3   e4   e5        e6   e7     train [e1, e5]                  test e6, e7
    user 2 (drawn)     e1   e2   e3             e4          trains nothing, validation e3   test e4

Once settings are chosen, ``split.retrain()`` trains on everything before ``test_cut``. A target that was
never seen in training counts as a miss, whatever its score.

Sources: Time to Split (Gusak et al., RecSys 2025, arXiv 2507.16289) for the choices of targets and
validation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from seqrec.data.baskets import starts_of
from seqrec.data.sequences import Sequences
from seqrec.data.times import utc
from seqrec.errors import DataError, SettingsError
from seqrec.splitting.arguments import Cut, Share, how_many, readable, splitter
from seqrec.splitting.split import Queries, Split

Targets = Literal["last", "successive", "all", "next_basket", "baskets"]


@splitter
def global_temporal(
    sequences: Sequences,
    validation_cut: Cut | None = 0.8,
    test_cut: Cut = 0.9,
    targets: Targets = "last",
    validation_users: Share | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**42)] = 0,
) -> Split:
    """Training before ``validation_cut``, validation from there up to ``test_cut``, test from there on.

    Args:
        validation_cut, test_cut: below 1 a quantile of the times of all events, else seconds since 1970, or a
            date.
        targets: which events of a window are asked about, see above.
        validation_users: instead of ``validation_cut`` (which is then None): how many users validate, a share
            below 1 or a number.
        seed: of the draw of validation users.

    Raises:
        DataError: the log has no times, or no baskets where these are asked for; or nothing falls on one
            side of a cut.
        SettingsError: the cuts are not in order, or both or neither of validation_cut and validation_users
            are given.
    """
    if (validation_cut is None) == (validation_users is None):
        raise SettingsError(
            "validation_cut, validation_users: expected one of the two, and null (None) for the other. "
            f"Got validation_cut={validation_cut} and validation_users={validation_users}."
        )
    times = times_in_order(sequences, "global_temporal")
    test_moment = moment(times, test_cut)
    before_test = first_at_or_after(sequences, times, test_moment)
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    if validation_cut is not None:
        validation_moment = moment(times, validation_cut)
        if validation_moment >= test_moment:
            raise SettingsError(
                f"validation_cut: expected a moment before test_cut ({test_cut}). Got {validation_cut}, "
                "not earlier in this log."
            )
        train_stops = first_at_or_after(sequences, times, validation_moment)
        validation = window(sequences, train_stops, before_test, targets)
    else:
        assert validation_users is not None
        able = np.flatnonzero(before_test - starts >= 2)
        drawn = np.random.default_rng(seed).permutation(able)[
            : how_many(validation_users, len(able), "validation_users")
        ]
        train_stops = before_test.copy()
        train_stops[drawn] = starts[drawn]
        validation = Queries.at(sequences, before_test[drawn] - 1)
    split = Split(
        sequences,
        train_starts=starts,
        train_stops=train_stops,
        validation=validation,
        test=window(sequences, before_test, stops, targets),
        settings={
            "name": "global_temporal",
            "validation_cut": readable(validation_cut),
            "test_cut": readable(test_cut),
            "targets": targets,
            "validation_users": validation_users,
            "seed": seed,
        },
        retrain_stops=before_test,
        cold_targets_miss=True,
    )
    return split.not_empty(
        f"Move the cuts; the log's times go from {utc(times.min())} to {utc(times.max())}."
    )


def window(sequences: Sequences, begins: np.ndarray, ends: np.ndarray, targets: Targets) -> Queries:
    """Queries about events ``[begins[u], ends[u])`` of the users who have events there and before.

    Args:
        begins, ends: (users,) event indices.

    Raises:
        DataError: baskets are asked for, and the log has none.
    """
    if targets in ("next_basket", "baskets"):
        return _of_baskets(sequences, begins, ends, targets == "next_basket")
    asked = np.flatnonzero((begins > sequences.offsets[:-1]) & (ends > begins))
    if targets == "last":
        return Queries.at(sequences, ends[asked] - 1)
    lengths = (ends - begins)[asked]
    events = (
        np.repeat(begins[asked], lengths)
        + np.arange(lengths.sum())
        - np.repeat(np.cumsum(lengths) - lengths, lengths)
    )
    return Queries.until(sequences, events, begins) if targets == "all" else Queries.at(sequences, events)


def _of_baskets(sequences: Sequences, begins: np.ndarray, ends: np.ndarray, only_first: bool) -> Queries:
    """The baskets that begin in a window, each cut where that ends; or the first of each user."""
    if sequences.baskets is None:
        raise DataError(
            "split 'global_temporal': expected a log with baskets, since its targets are. Got none. Name the "
            "column that has them (columns={'basket_id': ...}), make some (data.basket=same_time or "
            "same_day), or take other targets."
        )
    start = starts_of(sequences.offsets, sequences.baskets)
    user = np.searchsorted(sequences.offsets, start, side="right") - 1
    stop = np.minimum(np.append(start[1:], sequences.events), ends[user])
    inside = (start >= begins[user]) & (start < stop) & (begins > sequences.offsets[:-1])[user]
    start, stop, user = start[inside], stop[inside], user[inside]
    if only_first:
        first = np.append(True, user[1:] != user[:-1])[: len(user)]
        start, stop = start[first], stop[first]
    return Queries.sets(sequences, start, stop)


def times_in_order(sequences: Sequences, name: str) -> np.ndarray:
    """(events,) times, ascending within each user.

    Raises:
        DataError: the log is empty, has no times, or its order is not that of its times.
    """
    if sequences.times is None:
        raise DataError(
            f"split {name!r}: expected a log with times. Got order only. Map a timestamp column, or split "
            "by position (leave_one_out, last_n)."
        )
    if not sequences.events:
        raise DataError(f"split {name!r}: expected at least one event. Got none.")
    back = np.flatnonzero(np.diff(sequences.times) < 0) + 1
    if len(wrong := np.setdiff1d(back, sequences.offsets)):
        user = sequences.user_catalogue.ids[
            int(np.searchsorted(sequences.offsets, wrong[0], side="right")) - 1
        ]
        raise DataError(
            f"split {name!r}: expected each user's events in order of time. User {user!r}'s are not; sort "
            "the log by time."
        )
    return sequences.times


def moment(times: np.ndarray, cut: float | datetime) -> float:
    """A cut as seconds since 1970; quantiles of the (events,) times are interpolated linearly."""
    if isinstance(cut, datetime):
        return cut.timestamp()
    return float(np.quantile(times, cut)) if cut < 1 else cut


def first_at_or_after(sequences: Sequences, times: np.ndarray, cut: float) -> np.ndarray:
    """(users,) index of each user's first event at or after a moment; the end of their events if none is."""
    before = np.concatenate([[0], np.cumsum(times < cut)])
    stops: np.ndarray = (
        sequences.offsets[:-1] + before[sequences.offsets[1:]] - before[sequences.offsets[:-1]]
    )
    return stops
