"""The origin's split: each of a user's last n events is a test target, with everything before it as history.

    n = 3    e1 e2 e3 e4 | e5 | e6 e7 e8 |     train [e1, e4]   validation target e5   test targets e6, e7, e8

    history of e7:  [e1, e6]

With ``min_rating`` only events with a rating above it are targets (asked, or trained on); the others stay in
the histories:

    rating   5  5  1  4    4    2  5  4        training targets e2, e4   test targets e7, e8

(e1 has no history; e3 and e6 are rated too low.)
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.splitting.arguments import splitter
from seqrec.splitting.split import Queries, Split


@splitter
def last_n(
    sequences: Sequences, n: Annotated[int, Field(ge=1)] = 3, min_rating: float | None = None
) -> Split:
    """The last n events of each user test, the one before them validates.

    Users with fewer than n + 2 events only train.

    Args:
        n: test events a user, at least 1.
        min_rating: events rated at or below it are not targets of any kind; None takes every event.

    Raises:
        DataError: ``min_rating`` is given, and not every event has a rating.
    """
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    asked = stops - starts >= n + 2
    train_stops = np.where(asked, stops - n - 1, stops)
    test = (stops[asked][:, None] - n + np.arange(n)).ravel()
    validation = stops[asked] - n - 1
    positive = None
    if min_rating is not None:
        if sequences.ratings is None:
            raise DataError(
                f"min_rating={min_rating}: the log has no ratings. Map a rating column, or leave "
                "min_rating out."
            )
        missing = int(np.isnan(sequences.ratings).sum())
        if missing:
            raise DataError(
                f"min_rating={min_rating}: expected a rating for every event. "
                f"Got {missing:,} of {sequences.events:,} without one, which are neither liked nor "
                "disliked. Give them a rating, or leave out these events or min_rating; "
                "of tables of samples give all, validation too."
            )
        positive = np.asarray(sequences.ratings > min_rating)
        test, validation = test[positive[test]], validation[positive[validation]]
    return Split(
        sequences,
        train_starts=starts,
        train_stops=train_stops,
        validation=Queries.at(sequences, validation),
        test=Queries.at(sequences, test),
        settings={"name": "last_n", "n": n, "min_rating": min_rating},
        positive=positive,
    )
