"""Held-out users: does a model help people it has never seen?

    user 1              e1 e2 e3 e4 e5 |         train [e1, e5]
    user 2 (validates)  e1 e2 e3 | e4 |          trains nothing, validation target e4 with history [e1, e3]
    user 3 (tests)      e1 e2 e3 e4 | e5 |       trains nothing, test target e5 with history [e1, e4]
    user 4              e1 |                     train [e1]      (too short to be drawn)

Position in the sequence, not time. With ``last=2`` the two last events of each held-out user are targets,
each with everything before it as history. No user both validates and tests. ``split.retrain()`` trains on the
validation users too.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError
from seqrec.splitting.arguments import Share, how_many, splitter
from seqrec.splitting.split import Queries, Split


@splitter
def user_holdout(
    sequences: Sequences,
    validation_users: Share = 0.1,
    test_users: Share = 0.1,
    last: Annotated[int, Field(ge=1)] = 1,
    seed: Annotated[int, Field(ge=0, lt=2**42)] = 0,
) -> Split:
    """Users drawn at random never train; their last events are targets.

    Users with ``last`` events or fewer are not drawn.

    Args:
        validation_users, test_users: how many of each, a share below 1 or a number.
        last: how many events at the end of each held-out user's sequence are targets.
        seed: of the draw.

    Raises:
        SettingsError: more users are to be held out than there are.
    """
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    able = np.flatnonzero(stops - starts > last)
    validation_count, test_count = (
        how_many(validation_users, len(able), "validation_users"),
        how_many(test_users, len(able), "test_users"),
    )
    held_out = validation_count + test_count
    if held_out > len(able):
        raise SettingsError(
            f"validation_users, test_users: expected at most {len(able)} in all, who have more than "
            f"{last} events. Got {held_out}."
        )
    drawn = np.random.default_rng(seed).permutation(able)
    test, validation = drawn[:test_count], drawn[test_count:held_out]
    train_stops, retrain_stops = stops.copy(), stops.copy()
    train_stops[drawn[:held_out]] = starts[drawn[:held_out]]
    retrain_stops[test] = starts[test]
    ends = np.arange(1, last + 1)
    split = Split(
        sequences,
        train_starts=starts,
        train_stops=train_stops,
        validation=Queries.at(sequences, (stops[validation][:, None] - ends).ravel()),
        test=Queries.at(sequences, (stops[test][:, None] - ends).ravel()),
        settings={
            "name": "user_holdout",
            "validation_users": validation_users,
            "test_users": test_users,
            "last": last,
            "seed": seed,
        },
        retrain_stops=retrain_stops,
    )
    return split.not_empty("Hold out fewer users, or take a log with longer sequences.")
