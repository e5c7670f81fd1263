"""A transition prior: what usually comes after the last item, beside what a network makes of the history.

    score(j | history ending in i) = s(j | history) + weight log p(j | i)

s are the network's scores and p the smoothed transitions of ``seqrec.models.markov``. Up to what is equal for
all items this is the sum of two log-probabilities, the softmax of s and the chain: a product of experts
(Hinton, 2002, equation 1). A network has to spend its width on pairs that come together often, which a table
of counts simply knows; the fewer the data, the more it helps.

The network is trained without it. The weight is chosen on validation for the weights that were kept. Only
transitions that were seen are stored, and a query costs as many additions as its last item has successors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from seqrec.data.query import Query
from seqrec.models.markov import Markov
from seqrec.serving.transitions import Transitions
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions

WEIGHTS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 1.5, 2.0, 3.0)
"""Those that are tried on validation, in this order, until three in a row are no better than the best."""
UNVALIDATED = 0.1
"""The weight where nothing is said and nothing can be validated."""


class PriorSettings(Settings):
    """What is added to a network's scores."""

    name: Literal["markov"] = "markov"
    """Smoothed transitions from the last item; strength and window were chosen on validation of
    MovieLens-1M."""
    weight: float | None = Field(None, ge=0, le=100)
    """Of their log-probabilities. None chooses from 0 to 3 on validation (0.1 where there is none)."""
    strength: float = Field(20.0, gt=0)
    """How many observed transitions the popularity weighs as much as."""
    window: int = Field(3, ge=1, le=1000)
    """Events before an item that it counts as following, the d-th with weight 1 / d."""


class Prior:
    """Weighted log-probabilities of the next item after the last one.

    Args:
        chain: fitted.
        weight: of its log-probabilities.
    """

    def __init__(self, chain: Markov, weight: float):
        self.chain, self.weight = chain, weight
        popular = chain.popularity
        # log p(j|i) above strength p_j / (n_i + strength), of which log n_i + strength is equal for all j
        above = np.log1p(chain.counts / (chain.settings.strength * popular[chain.successors]))
        self.transitions = Transitions(
            (weight * np.log(popular)).astype(np.float32),
            chain.offsets,
            chain.successors,
            (weight * above).astype(np.float32),
        )

    @classmethod
    def fit(cls, settings: PriorSettings, split: Split) -> Self:
        """Counts the transitions of the training events."""
        chain = Markov(strength=settings.strength, window=settings.window)
        chain.fit_split(split, FitOptions())
        return cls(chain, UNVALIDATED if settings.weight is None else settings.weight)

    def weighing(self, weight: float) -> Prior:
        """The same with another weight."""
        return Prior(self.chain, weight)

    def add(self, scores: Tensor, query: Query, begin: int) -> None:
        """Adds it, in place and up to a constant a row, to (queries, columns) scores of the items from
        ``begin`` on."""
        if not self.weight:
            return
        if scores.device.type == "cpu":
            self.transitions.add(scores.numpy(), query, begin)
        else:
            added = np.zeros(tuple(scores.shape), dtype=np.float32)
            self.transitions.add(added, query, begin)
            scores.add_(torch.from_numpy(added).to(scores.device))


def choose(validated: Callable[[float], float]) -> dict[float, float]:
    """Tries weights on validation.

    Args:
        validated: what a weight reaches.

    Returns:
        weight -> value of those that were tried; the best is the first of the largest.
    """
    found: dict[float, float] = {}
    for weight in WEIGHTS:
        found[weight] = validated(weight)
        if max(found, key=found.__getitem__) not in list(found)[-3:]:
            break
    return found
