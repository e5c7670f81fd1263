"""The last sessions to begin: a share of them tests, the share before validates.

A user of the sequences is one session here.

    time        start                                         end
                  |     training     |  validation  |   test   |
    session 1     e1 e2 e3                                       train [e1, e3]
    session 2            e1          e2        e3                train [e1, e3], though others began meanwhile
    session 3                           e1 e2                    validation target e2
    session 4                                         e1 e2 e3   test targets e2, e3

A session belongs where its first event does, as a whole. Every event but the first of a held-out session is a
target, with the events of the session before it as history. ``split.retrain()`` trains on the validation
sessions too. A target that was never seen in training counts as a miss.

A training session may go on while later ones begin; ``session_temporal``, which cuts by where sessions end,
has no such overlap, but holds out days and not a share.
"""

from __future__ import annotations

import numpy as np

from seqrec.data.sequences import Sequences
from seqrec.splitting.arguments import Share, how_many, splitter
from seqrec.splitting.global_temporal import times_in_order
from seqrec.splitting.session_temporal import events_within
from seqrec.splitting.split import Queries, Split


@splitter
def last_sessions(
    sequences: Sequences, validation_sessions: Share = 0.1, test_sessions: Share = 0.1
) -> Split:
    """The last sessions by their first event test, those before them validate; all others train.

    Sessions that begin in the same second are in the order of the log.

    Args:
        validation_sessions, test_sessions: how many of each, a share below 1 or a number.

    Raises:
        DataError: the log has no times, a user has several sessions, or one of the three parts is empty.
        SettingsError: more sessions are to be held out than there are.
    """
    times = times_in_order(sequences, "last_sessions")
    within = events_within(sequences, "last_sessions")
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    some = np.flatnonzero(stops > starts)
    order = some[np.argsort(times[starts[some]], kind="stable")]
    tested = how_many(test_sessions, len(order), "test_sessions")
    held_out = tested + how_many(validation_sessions, len(order) - tested, "validation_sessions")
    role = np.zeros(sequences.users, dtype=np.int8)
    role[order[len(order) - held_out :]] = 1
    role[order[len(order) - tested :]] = 2
    event_role = np.repeat(role, sequences.lengths)[within]
    split = Split(
        sequences,
        train_starts=starts,
        train_stops=np.where(role > 0, starts, stops),
        validation=Queries.at(sequences, within[event_role == 1]),
        test=Queries.at(sequences, within[event_role == 2]),
        settings={
            "name": "last_sessions",
            "validation_sessions": validation_sessions,
            "test_sessions": test_sessions,
        },
        retrain_stops=np.where(role == 2, starts, stops),
        cold_targets_miss=True,
    )
    return split.not_empty("Hold out fewer sessions; those of one event have no query.")
