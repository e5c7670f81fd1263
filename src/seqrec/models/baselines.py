"""How a model did on the validation queries, beside what costs nothing: popularity and the Markov chain.

A network that is below them was trained too little, or has nothing to add on this log; its own curve does not
tell.
"""

from __future__ import annotations

import logging
from typing import Any

from seqrec.evaluation import metrics, ranking
from seqrec.models.markov import Markov
from seqrec.models.popularity import Popularity
from seqrec.splitting.split import Split

log = logging.getLogger("seqrec")


def compare(name: str, value: float, split: Split, metric: str, filter_seen: bool) -> dict[str, Any]:
    """Asks the baselines what the model was asked, and says in a line how it stands.

    Args:
        name, value: of the model, and what it reached.
        metric: such as ``ndcg@10``.
        filter_seen: as the model was validated.

    Returns:
        ``{"metric": .., "filter_seen": .., "model": .., "popularity": .., "markov": ..}``.
    """
    measure, k = metrics.parse(metric)
    found = {}
    for baseline in (Popularity(), Markov()):
        # stop_after: the model's own fit has warned of the log already
        ranks = ranking.rank(baseline.fit(split, stop_after=1), split, split.validation, lists=False)
        reached = metrics.values(measure, ranks.headline(filter_seen), k, ranks.offsets)
        found[baseline.name] = float(reached.mean())
    values = ", ".join(f"{other} {reached:.4f}" for other, reached in found.items())
    above = [other for other, reached in found.items() if reached > value]
    line = f"{name}: validation {metric} {value:.4f}; {values}"
    if above:
        best = max(above, key=lambda other: found[other])
        log.warning("%s: still below %s. Train longer, or take %s.", line, " and ".join(above), best)
    else:
        log.info("%s.", line)
    return {"metric": metric, "filter_seen": filter_seen, "model": value, **found}
