"""No test: everything trains, but for the last event of a few users, on which models may choose their epochs.

    user 1   e1 e2 e3 e4 e5 |        train [e1, e5]
    user 2   e1 e2 e3 | e4 |         train [e1, e3]   validation target e4   (one user in ten: 100 to 1,000)

What ``model.fit(log)`` uses: to serve, a model should know all there is.
"""

from __future__ import annotations

import numpy as np

from seqrec.data.sequences import Sequences
from seqrec.splitting.split import Queries, Split

FEWEST, MOST = 100, 1000
"""Validation queries: fewer choose epochs by chance, more cost time."""


def everything(sequences: Sequences, seed: int = 0) -> Split:
    """All events train, except the last one of some users, which validates.

    These users are a tenth, but 100 to 1,000, of those with at least 3 events. Where that would be more than
    half of them, nobody validates: then models train all their epochs.
    """
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    able = np.flatnonzero(stops - starts >= 3)
    count = min(MOST, max(FEWEST, -(-len(able) // 10)))
    few = np.sort(
        np.random.default_rng(seed).choice(able, count if 2 * count <= len(able) else 0, replace=False)
    )
    train_stops = stops.copy()
    train_stops[few] -= 1
    none = Queries.at(sequences, np.empty(0, dtype=np.int64))
    return Split(
        sequences,
        starts,
        train_stops,
        validation=Queries.at(sequences, stops[few] - 1),
        test=none,
        settings={"name": "everything", "seed": seed},
    )
