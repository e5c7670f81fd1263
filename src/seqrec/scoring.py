"""Scores of items for histories, and the best of them: what evaluation and recommending share.

Whatever scores histories is a ``Scorer``: a trained model, or an encoder in the middle of its training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Histories, Sequences


class Scorer(Protocol):
    """Gives a score to every item as the next one."""

    @property
    def name(self) -> str: ...

    def score_chunks(self, histories: Histories, chunk: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Scores of a few histories at a time: (rows,) which, (rows, items) float32 that belong to the
        caller."""
        ...

    def numbering(self) -> dict[str, Catalogue | None]:
        """What its indices of items and users stand for; None: those of whoever asks."""
        ...


class Known(Scorer, Protocol):
    """A scorer that knows raw ids, and perhaps its users' histories."""

    item_catalogue: Catalogue | None
    sequences: Sequences | None
    known_stops: np.ndarray | None


def distinct_seen(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Which items each history contains, once each: (pairs,) row and (pairs,) item."""
    lengths = histories.lengths
    row = np.repeat(np.arange(len(histories)), lengths)
    at = (
        np.arange(len(row))
        - np.repeat(np.cumsum(lengths) - lengths, lengths)
        + np.repeat(histories.starts, lengths)
    )
    span = int(histories.items.max(initial=0)) + 1
    pairs = np.sort(row.astype(np.int64) * span + histories.items[at])  # np.unique takes many times as long
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return pairs // span, pairs % span


def top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """(rows, k) item indices of the highest scores, best first, equal scores by ascending index; -1 where the
    score is -inf."""
    k = min(k, scores.shape[1])
    values, best = torch.topk(scores, min(k + 16, scores.shape[1]))
    if (values[:, 1:] < values[:, :-1]).all():  # no equals, no question
        return torch.where(torch.isneginf(values[:, :k]), -1, best[:, :k])
    # topk orders equals arbitrarily: sort the candidates by (score down, index up).
    by_index = torch.argsort(best, dim=1)
    values, best = values.gather(1, by_index), best.gather(1, by_index)
    by_score = torch.argsort(values, dim=1, descending=True, stable=True)
    values, best = values.gather(1, by_score), best.gather(1, by_score)
    # Where the k-th score goes on to the last candidate, items of that score may be missing: such rows are
    # sorted whole.
    cut = values[:, k - 1] == values[:, -1]
    if values.shape[1] < scores.shape[1] and cut.any():
        values, best = values[:, :k].contiguous(), best[:, :k].contiguous()
        ordered = torch.sort(scores[cut], dim=1, descending=True, stable=True)
        values[cut], best[cut] = ordered.values[:, :k], ordered.indices[:, :k]
    values, best = values[:, :k], best[:, :k]
    return torch.where(torch.isneginf(values), -1, best)
