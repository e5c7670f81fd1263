"""Exact evaluation: every query ranks the whole catalogue, in chunks, and every metric comes from that one
pass.

The rank of a target is the number of items whose score is at least as high, itself included: among equal
scores it is the worst. The seen filter takes the items of the full history out of the ranking; both ranks,
with and without filter, come from the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from seqrec.data.catalogue import Catalogue
from seqrec.errors import DataError, TrainingError
from seqrec.scoring import Scorer, distinct_seen, top_k
from seqrec.splitting.split import Queries, Split

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


def check_ids(scorer: Scorer, split: Split) -> None:
    """That an index is the same id for a scorer and a split.

    Raises:
        DataError: it is not.
    """
    theirs = {"item": split.sequences.item_catalogue, "user": split.sequences.user_catalogue}
    for kind, catalogue in scorer.numbering().items():
        other = theirs[kind]
        if catalogue is not None and catalogue is not other and catalogue.digest != other.digest:
            raise DataError(
                f"{kind} ids: expected those that {scorer.name} was trained on, in their order: "
                f"{_some(catalogue)}. Got {_some(other)}. "
                "Read the log in the form that it had in training, or train again."
            )


def _some(catalogue: Catalogue) -> str:
    return (
        f"{len(catalogue):,} of type {catalogue.ids.dtype}, "
        f"{', '.join(repr(x) for x in catalogue.ids.head(3))} ..."
    )


def rank(scorer: Scorer, split: Split, queries: Queries, lists: bool = True) -> Ranks:
    """Ranks the whole catalogue for each query.

    Args:
        lists: also keep the best 20 items of each; without them (for validation in training) only ranks are
            computed.

    Raises:
        DataError: the model numbers items or users otherwise than the split does: it was trained on other
            ids.
        TrainingError: the model gives a score that is not a number.
    """
    check_ids(scorer, split)
    histories, targets = split.histories(queries), split.targets(queries)
    filtered = np.empty(len(queries), dtype=np.int64)
    unfiltered, ties, ties_unfiltered = (np.empty_like(filtered) for _ in range(3))
    width = min(LONGEST_LIST, len(split.sequences.item_catalogue)) if lists else 0
    best = np.empty((2, len(queries), width), dtype=np.int32)
    # Histories of like length side by side: less padding in the encoder.
    for rows, scores in scorer.score_chunks(histories, CHUNK):
        target = torch.from_numpy(targets[rows].astype(np.int64)).to(scores.device)
        own = scores.gather(1, target[:, None])
        if not torch.isfinite(own).all() or torch.isnan(scores).any():
            raise TrainingError(
                f"{scorer.name}: scores are not finite. The model has diverged; train it with a lower "
                "learning rate."
            )
        at_least = (scores >= own).sum(1)
        equal = (scores == own).sum(1) - 1
        row, item = (torch.from_numpy(x).to(scores.device) for x in distinct_seen(histories.select(rows)))
        seen = scores[row, item]
        other = item != target[row]  # a target that is itself in the history is filtered below, as a miss
        ahead = torch.zeros_like(at_least).index_add_(
            0, row, ((seen >= own[row, 0]) & other).to(at_least.dtype)
        )
        equal_seen = torch.zeros_like(at_least).index_add_(
            0, row, ((seen == own[row, 0]) & other).to(at_least.dtype)
        )
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
