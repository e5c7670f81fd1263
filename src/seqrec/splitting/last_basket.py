"""Next basket: the last basket of each user is the test query, the one before it the validation query.

    user 1   {e1 e2} {e3} {e4 e5} | {e6 e7} | {e8} |   train [e1, e5]   validation {e6, e7}   test {e8}
    user 2   {e1} | {e2} | {e3 e4} |                   train [e1, e1]   validation {e2}       test {e3, e4}
    user 3   {e1 e2 e3} {e4} |                         train [e1, e4]   (too few baskets for a query)

    history of {e6, e7}:  [e1, e5]          history of {e8}:  [e1, e7]

A query asks for a set: all items of the basket are right answers, each once, in no order. Items that the user
has bought before are right answers too, so this is usually asked without the seen filter. ``split.retrain()``
trains on the validation baskets as well.

Position in the sequence, not time: the training events of one user may be later than the test basket of
another.
"""

from __future__ import annotations

import numpy as np

from seqrec.data.baskets import starts_of
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.splitting.arguments import splitter
from seqrec.splitting.split import Queries, Split


@splitter
def last_basket(sequences: Sequences) -> Split:
    """The last basket of each user tests, the one before it validates.

    Users with fewer than 3 baskets only train. Test histories include the validation basket.

    Raises:
        DataError: the log has no baskets.
    """
    if sequences.baskets is None:
        raise DataError(
            "split 'last_basket': expected a log with baskets. Got none. Name the column that has them "
            "(columns={'basket_id': ...}, --column basket_id=...), or make baskets of events of one time or "
            "day (data.basket=same_time or same_day)."
        )
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    begins = np.append(starts_of(sequences.offsets, sequences.baskets), sequences.events)
    first = np.searchsorted(begins, starts)  # of each user's baskets
    counts = np.diff(np.append(first, len(begins) - 1))
    asked = np.flatnonzero(counts >= 3)
    last = first[asked] + counts[asked] - 1
    train_stops, retrain_stops = stops.copy(), stops.copy()
    train_stops[asked], retrain_stops[asked] = begins[last - 1], begins[last]
    return Split(
        sequences,
        train_starts=starts,
        train_stops=train_stops,
        validation=Queries.sets(sequences, begins[last - 1], begins[last]),
        test=Queries.sets(sequences, begins[last], stops[asked]),
        settings={"name": "last_basket"},
        retrain_stops=retrain_stops,
    )
