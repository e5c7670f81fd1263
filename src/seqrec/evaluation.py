"""Exact evaluation: every query ranks the whole catalogue, in chunks, and every metric comes from that one pass.

The rank of a target is the number of items whose score is at least as high, itself included: among equal scores it is the worst.
The seen filter takes the items of the full history out of the ranking; both ranks, with and without filter, come from the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from seqrec.catalogue import Catalogue
from seqrec.errors import DataError, TrainingError
from seqrec.sequences import Histories
from seqrec.splitting.split import Queries, Split

if TYPE_CHECKING:
    from seqrec.models.model import Model

CHUNK = 512  # queries scored at once: 512 x 3,416 scores are 7 MB
LONGEST_LIST = 20


@dataclass(frozen=True)
class Ranks:
    """What evaluation found, a row a query, in the order of the queries.

    Attributes:
        filtered, unfiltered: (queries,) int64 rank of the target, 1 is best.
        lists, lists_unfiltered: (queries, k) int32 item indices of the best k, -1 where fewer are left.
        ties, ties_unfiltered: (queries,) int64 how many other candidates have exactly the target's score.
        users: (queries,) int64 user of each query, for intervals over users.
    """

    filtered: np.ndarray
    unfiltered: np.ndarray
    lists: np.ndarray
    lists_unfiltered: np.ndarray
    ties: np.ndarray
    ties_unfiltered: np.ndarray
    users: np.ndarray

    def headline(self, filter_seen: bool) -> np.ndarray:
        return self.filtered if filter_seen else self.unfiltered


def distinct_seen(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Which items each history contains, once each: (pairs,) row and (pairs,) item."""
    lengths = histories.lengths
    row = np.repeat(np.arange(len(histories)), lengths)
    at = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(histories.starts, lengths)
    span = int(histories.items.max(initial=0)) + 1
    pairs = np.sort(row.astype(np.int64) * span + histories.items[at])  # np.unique takes many times as long
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return pairs // span, pairs % span


def top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """(rows, k) item indices of the highest scores, best first, equal scores by ascending index; -1 where the score is -inf."""
    k = min(k, scores.shape[1])
    values, best = torch.topk(scores, min(k + 16, scores.shape[1]))
    if (values[:, 1:] < values[:, :-1]).all():  # no equals, no question
        return torch.where(torch.isneginf(values[:, :k]), -1, best[:, :k])
    # topk orders equals arbitrarily: sort the candidates by (score down, index up).
    by_index = torch.argsort(best, dim=1)
    values, best = values.gather(1, by_index), best.gather(1, by_index)
    by_score = torch.argsort(values, dim=1, descending=True, stable=True)
    values, best = values.gather(1, by_score), best.gather(1, by_score)
    # Where the k-th score goes on to the last candidate, items of that score may be missing: such rows are sorted whole.
    cut = values[:, k - 1] == values[:, -1]
    if values.shape[1] < scores.shape[1] and cut.any():
        values, best = values[:, :k].contiguous(), best[:, :k].contiguous()
        ordered = torch.sort(scores[cut], dim=1, descending=True, stable=True)
        values[cut], best[cut] = ordered.values[:, :k], ordered.indices[:, :k]
    values, best = values[:, :k], best[:, :k]
    return torch.where(torch.isneginf(values), -1, best)


def check_ids(model: Model, split: Split) -> None:
    """That an index is the same id for a model and a split.

    Raises:
        DataError: it is not.
    """
    own = {"item": model.item_catalogue, "user": None if model.sequences is None else model.sequences.user_catalogue}
    theirs = {"item": split.sequences.item_catalogue, "user": split.sequences.user_catalogue}
    for kind, catalogue in own.items():
        other = theirs[kind]
        if catalogue is not None and catalogue is not other and catalogue.digest != other.digest:
            raise DataError(
                f"{kind} ids: expected those that {model.name} was trained on, in their order: {_some(catalogue)}. Got {_some(other)}. "
                "Read the log in the form that it had in training, or train again."
            )


def _some(catalogue: Catalogue) -> str:
    return f"{len(catalogue):,} of type {catalogue.ids.dtype}, {', '.join(repr(x) for x in catalogue.ids.head(3))} ..."


def rank(model: Model, split: Split, queries: Queries, lists: bool = True) -> Ranks:
    """Ranks the whole catalogue for each query.

    Args:
        lists: also keep the best 20 items of each; without them (for validation in training) only ranks are computed.

    Raises:
        DataError: the model numbers items or users otherwise than the split does: it was trained on other ids.
        TrainingError: the model gives a score that is not a number.
    """
    check_ids(model, split)
    histories, targets = split.histories(queries), split.targets(queries)
    filtered = np.empty(len(queries), dtype=np.int64)
    unfiltered, ties, ties_unfiltered = (np.empty_like(filtered) for _ in range(3))
    width = min(LONGEST_LIST, len(split.sequences.item_catalogue)) if lists else 0
    best = np.empty((2, len(queries), width), dtype=np.int32)
    # Histories of like length side by side: less padding in the encoder.
    for rows, scores in model.score_chunks(histories, CHUNK):
        target = torch.from_numpy(targets[rows].astype(np.int64)).to(scores.device)
        own = scores.gather(1, target[:, None])
        if not torch.isfinite(own).all() or torch.isnan(scores).any():
            raise TrainingError(f"{model.name}: scores are not finite. The model has diverged; train it with a lower learning rate.")
        at_least = (scores >= own).sum(1)
        equal = (scores == own).sum(1) - 1
        row, item = (torch.from_numpy(x).to(scores.device) for x in distinct_seen(histories.select(rows)))
        seen = scores[row, item]
        other = item != target[row]  # a target that is itself in the history is filtered below, as a miss
        ahead = torch.zeros_like(at_least).index_add_(0, row, ((seen >= own[row, 0]) & other).to(at_least.dtype))
        equal_seen = torch.zeros_like(at_least).index_add_(0, row, ((seen == own[row, 0]) & other).to(at_least.dtype))
        repeated = torch.zeros_like(at_least).index_add_(0, row, (~other).to(at_least.dtype))
        unfiltered[rows] = at_least.cpu()
        filtered[rows] = torch.where(repeated > 0, scores.shape[1] + 1, at_least - ahead).cpu()
        ties_unfiltered[rows] = equal.cpu()
        ties[rows] = (equal - equal_seen).cpu()
        if width:
            best[1, rows] = top_k(scores, width).cpu()
            scores[row, item] = -torch.inf
            best[0, rows] = top_k(scores, width).cpu()
    if split.cold_targets_miss:
        cold = split.item_counts[targets] == 0
        filtered[cold] = unfiltered[cold] = len(split.sequences.item_catalogue) + 1
    return Ranks(filtered, unfiltered, best[0], best[1], ties, ties_unfiltered, queries.users)
