"""The last days' sessions: train on sessions that are over, ask in the ones that come next.

A user of the sequences is one session here.

    time       start             validation_cut          test_cut             end
                 |   training          |   validation       |      test        |
                 [                     )[                   )[                 ]
    session 1      e1 e2 e3 e4                                                   train [e1, e4]
    session 2                    e1 e2     e3                                    validation targets e2, e3
    session 3                                  e1 e2                             validation target e2
    session 4                                         e1         e2 e3           test targets e2, e3
    session 5                                                        e1          no query: nothing before e1

    test_cut = end - test_days        validation_cut = test_cut - validation_days

A session belongs where its last event does, as a whole, so no training event is at or after the first cut.
Every event but the first of a held-out session is a target, with the events of the session before it as
history. ``split.retrain()`` trains on the validation sessions too. A target that was never seen in training
counts as a miss; the authors of GRU4Rec drop such events from the test sessions instead.

Source: Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016 (arXiv
1511.06939), section 4.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.splitting.arguments import splitter
from seqrec.splitting.global_temporal import times_in_order
from seqrec.splitting.split import Queries, Split

DAY = 86_400  # seconds
Days = Annotated[float, Field(gt=0)]


@splitter
def session_temporal(sequences: Sequences, validation_days: Days = 1.0, test_days: Days = 1.0) -> Split:
    """Sessions that end in the last ``test_days`` test, those of the ``validation_days`` before validate.

    All others train.

    Args:
        validation_days, test_days: 24 hours each, counted back from the last event of the log; may be
            fractions.

    Raises:
        DataError: the log has no times, a user has several sessions, or one of the three parts is empty.
    """
    times = times_in_order(sequences, "session_temporal")
    within = events_within(sequences, "session_temporal")
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    ends = np.full(sequences.users, -np.inf)
    ends[stops > starts] = times[stops[stops > starts] - 1]
    test_cut = ends.max(initial=-np.inf) - test_days * DAY
    tests = ends >= test_cut
    validates = (ends >= test_cut - validation_days * DAY) & ~tests
    event_user = np.repeat(np.arange(sequences.users), sequences.lengths)[within]
    split = Split(
        sequences,
        train_starts=starts,
        train_stops=np.where(tests | validates, starts, stops),
        validation=Queries.at(sequences, within[validates[event_user]]),
        test=Queries.at(sequences, within[tests[event_user]]),
        settings={"name": "session_temporal", "validation_days": validation_days, "test_days": test_days},
        retrain_stops=np.where(tests, starts, stops),
        cold_targets_miss=True,
    )
    return split.not_empty("Change validation_days and test_days; sessions of one event have no query.")


def events_within(sequences: Sequences, name: str) -> np.ndarray:
    """(n,) int64 the events that follow another one of their session, where every user is one session.

    Raises:
        DataError: a user has several sessions.
    """
    is_first = np.zeros(sequences.events + 1, dtype=bool)
    is_first[sequences.offsets] = True
    within = np.flatnonzero(~is_first[:-1])
    if (
        sequences.sessions is not None
        and (sequences.sessions[within] != sequences.sessions[within - 1]).any()
    ):
        raise DataError(
            f"split {name!r}: expected every user to be one session. Got several of one user; "
            "map the session column to user_id."
        )
    return within
