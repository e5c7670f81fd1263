"""Leave one out: the last event of each user is the test target, the one before it the validation target.

    user 1   e1 e2 e3 e4 e5 | e6 | e7 |        train [e1, e5]   validation target e6   test target e7
    user 2   e1 e2 | e3 | e4 |                 train [e1, e2]   validation target e3   test target e4
    user 3   e1 e2 |                           train [e1, e2]   (too short for a query)

Position in the sequence, not time: the training events of one user may be later than the test event of
another, which makes results look better than they would be in use. ``global_temporal`` has no such leak.
"""

from __future__ import annotations

import numpy as np

from seqrec.data.sequences import Sequences
from seqrec.splitting.arguments import splitter
from seqrec.splitting.split import Queries, Split


@splitter
def leave_one_out(sequences: Sequences) -> Split:
    """The last event of each user tests, the second-last validates.

    Users with fewer than 3 events only train. Test histories end before the test target, so they include the
    validation event; nothing is trained on it, unless a model is trained again (``split.retrain()``).
    """
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    asked = np.flatnonzero(stops - starts >= 3)
    train_stops = stops.copy()
    train_stops[asked] -= 2
    retrain_stops = stops.copy()
    retrain_stops[asked] -= 1
    return Split(
        sequences,
        train_starts=starts,
        train_stops=train_stops,
        validation=Queries.at(sequences, stops[asked] - 2),
        test=Queries.at(sequences, stops[asked] - 1),
        settings={"name": "leave_one_out"},
        retrain_stops=retrain_stops,
    )
