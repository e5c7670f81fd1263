"""Exact evaluation: every query ranks the whole catalogue, and every metric comes from that one pass.

The rank of a target is the number of items whose score is at least as high, itself included: among equal
scores it is the worst. The seen filter takes the items of the full history out of the ranking; both ranks,
with and without filter, come from the same scores.

A query may have several right answers, such as the items of a basket. Then each target has a rank; of several
targets with one score each has a rank of its own, after everything else with that score.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqrec import processes
from seqrec.data.catalogue import Catalogue
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation import metrics
from seqrec.scoring import ROWS, Best, Scorer, Scores, Seen, diverged, numbers
from seqrec.splitting.split import Queries, Split
from seqrec.topk import Filter

LONGEST_LIST = 20


@dataclass(frozen=True)
class Ranks:
    """What evaluation found, in the order of the queries and their targets.

    Attributes:
        filtered, unfiltered: (targets,) int64 rank of each target, 1 is best.
        lists, lists_unfiltered: (queries, k) int32 item indices of the best k, -1 where fewer are left.
        ties, ties_unfiltered: (targets,) int64 how many other candidates have exactly the target's score.
        users: (queries,) int64 user of each query, for intervals over users.
        offsets: (queries + 1,) int64 where the targets of each query begin; None: each has one.
        repeated: (targets,) bool, whether the history has the target already; None where that was not looked
            at.
        ranked, ranked_unfiltered: (queries,) int64 how many items are ranked for each query; None where that
            was not looked at.
    """

    filtered: np.ndarray
    unfiltered: np.ndarray
    lists: np.ndarray
    lists_unfiltered: np.ndarray
    ties: np.ndarray
    ties_unfiltered: np.ndarray
    users: np.ndarray
    offsets: np.ndarray | None = None
    repeated: np.ndarray | None = None
    ranked: np.ndarray | None = None
    ranked_unfiltered: np.ndarray | None = None

    def headline(self, filter_seen: bool) -> np.ndarray:
        """(targets,) the ranks with or without the seen filter."""
        return self.filtered if filter_seen else self.unfiltered

    def metrics(
        self, filter_seen: bool, cutoffs: tuple[int, ...] = metrics.CUTOFFS, more: Iterable[str] = ()
    ) -> dict[str, np.ndarray]:
        """Every metric at every cut-off, and more by name: (queries,) values each.

        Raises:
            SettingsError: ``auc`` of queries with several right answers.
        """
        names = set(more)
        found = metrics.from_ranks(
            self.headline(filter_seen), cutoffs, [name for name in names if name != metrics.AUC], self.offsets
        )
        return found | {metrics.AUC: self.auc(filter_seen)} if metrics.AUC in names else found

    def auc(self, filter_seen: bool) -> np.ndarray:
        """(queries,) the share of the other items that are below the right answer.

        Raises:
            SettingsError: queries have several right answers.
        """
        if self.offsets is not None:
            raise SettingsError(
                "metric auc: expected queries with one right answer. Got sets of them; take recall or ndcg."
            )
        ranked = self.ranked if filter_seen else self.ranked_unfiltered
        assert ranked is not None
        return metrics.auc(
            self.headline(filter_seen), self.ties if filter_seen else self.ties_unfiltered, ranked
        )

    def apart(self) -> dict[str, Ranks]:
        """The same lists, asked for a part of the right answers: those that the history has (``repeat``), and
        those that it does not have (``explore``). Queries without any such answer are left out.

        After "A Next Basket Recommendation Reality Check" (Li et al., TOIS 2023), section 4.3.
        """
        assert self.repeated is not None
        return {"repeat": self._of(self.repeated), "explore": self._of(~self.repeated)}

    def _of(self, chosen: np.ndarray) -> Ranks:
        """Of (targets,) bool, those that are chosen."""
        first = np.arange(len(self.users) + 1) if self.offsets is None else self.offsets
        running = np.concatenate([[0], np.cumsum(chosen)])
        counts = np.diff(running[first])
        asked = counts > 0
        return Ranks(
            self.filtered[chosen],
            self.unfiltered[chosen],
            self.lists[asked],
            self.lists_unfiltered[asked],
            self.ties[chosen],
            self.ties_unfiltered[chosen],
            self.users[asked],
            None if self.offsets is None else np.concatenate([[0], np.cumsum(counts[asked])]),
            None if self.repeated is None else self.repeated[chosen],
            None if self.ranked is None else self.ranked[asked],
            None if self.ranked_unfiltered is None else self.ranked_unfiltered[asked],
        )


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
                f"{kind} ids: expected those that {scorer.name} was trained on, in the same order: "
                f"{_some(catalogue)}. Got {_some(other)}. Read the log in the form that it had in training, "
                "or train again."
            )


def _some(catalogue: Catalogue) -> str:
    first = ", ".join(repr(x) for x in catalogue.ids.head(3))
    return f"{len(catalogue):,} of type {catalogue.ids.dtype}, {first} ..."


def rank(
    scorer: Scorer,
    split: Split,
    queries: Queries,
    lists: bool = True,
    candidates: Filter | None = None,
    rows: int = ROWS,
) -> Ranks:
    """Ranks the catalogue for each query.

    Args:
        lists: also keep the best 20 items of each; without them (for validation in training) only ranks are
            computed.
        candidates: its ``allow`` and ``deny`` say which items are ranked, by default all; a target that is
            none of them is a miss. Both ranks are computed whatever its ``seen``.
        rows: queries scored at once, at most.

    Several processes of one run rank a share of the queries each, in the pieces that one would score at once,
    so that all have the same ranks, bit for bit.

    Raises:
        DataError: the model numbers items or users otherwise than the split does: it was trained on other
            ids.
        TrainingError: the model gives a score that is not a number, or another process is lost.
    """
    check_ids(scorer, split)
    query, targets, offsets = split.query(queries), split.targets(queries), queries.first_targets
    items = len(split.sequences.item_catalogue)
    refused = None if candidates is None else candidates.refused(items)
    filtered, unfiltered, ties, ties_unfiltered = np.zeros((4, len(targets)), dtype=np.int64)
    top, top_unfiltered = np.zeros(
        (2, len(queries), min(LONGEST_LIST, items) if lists else 0), dtype=np.int32
    )
    repeated = np.zeros(len(targets), dtype=bool)
    left = items if refused is None else items - int(refused.sum())
    ranked, ranked_unfiltered = np.zeros(len(queries), dtype=np.int64), np.full(len(queries), left)
    ranks = Ranks(
        filtered,
        unfiltered,
        top,
        top_unfiltered,
        ties,
        ties_unfiltered,
        queries.users,
        queries.offsets,
        repeated,
        ranked,
        ranked_unfiltered,
    )
    for number, scores in enumerate(scorer.score_blocks(query, rows)):
        if number % processes.count() != processes.rank():  # another process computes and ranks these
            continue
        counts = np.diff(offsets)[scores.rows]
        of_row = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(of_row)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = offsets[scores.rows][of_row] + place
        found = _Some(scorer, scores, of_row, targets[at], place, refused, ranks.lists.shape[1])
        seen = Seen(scores.query, found.device)
        found.compare(seen)
        out, item = seen.row.cpu().numpy(), seen.item.cpu().numpy()
        out = out if refused is None else out[~refused[item]]
        ranked[scores.rows] = left - np.bincount(out, minlength=len(scores.rows))
        ranks.unfiltered[at], ranks.filtered[at] = found.ranks(False), found.ranks(True)
        repeated[at] = (found.repeated > 0).cpu()
        ranks.ties_unfiltered[at], ranks.ties[at] = found.equal.cpu(), (found.equal - found.equal_seen).cpu()
        if ranks.lists.shape[1]:
            ranks.lists_unfiltered[scores.rows] = found.unfiltered.found()[0]
            ranks.lists[scores.rows] = found.filtered.found()[0]
    processes.shared(filtered, unfiltered, ties, ties_unfiltered, top, top_unfiltered, repeated, ranked)
    if split.cold_targets_miss:
        cold = split.item_counts[targets] == 0
        ranks.filtered[cold] = ranks.unfiltered[cold] = metrics.rank_of_miss(items)
    return ranks


class _Some:
    """The ranks of the targets of a few queries, counted a block of items at a time.

    Attributes:
        row, item, place: (targets,) row and item of each target, and its number among those of the row.
        own: (targets,) its score.
        at_least, equal: (targets,) how many items have at least its score, and how many others just that.
        ahead, equal_seen: (targets,) the same of other items in the history. repeated: whether it is in there
            itself.
        not_ranked: (targets,) bool, True where it is refused itself.
    """

    def __init__(
        self,
        scorer: Scorer,
        scores: Scores,
        row: np.ndarray,
        item: np.ndarray,
        place: np.ndarray,
        refused: np.ndarray | None,
        width: int,
    ):
        self.name, self.scores, self.refused, self.width = scorer.name, scores, refused, width
        self.kept: Tensor | None = None
        self.own = self._own(row, item)
        self.device = self.own.device
        self.row, self.item = (torch.from_numpy(x.astype(np.int64)).to(self.device) for x in (row, item))
        # Targets with the same place are of different rows, and are compared at once.
        self.places = [torch.from_numpy(np.flatnonzero(place == p)).to(self.device) for p in np.unique(place)]
        self.at_least, self.equal, self.ahead, self.equal_seen, self.repeated = (
            torch.zeros(len(row), dtype=torch.int64, device=self.device) for _ in range(5)
        )
        self.not_ranked = torch.zeros_like(self.repeated, dtype=torch.bool)
        if refused is not None:
            self.not_ranked = torch.from_numpy(refused[item]).to(self.device)
        self.filtered, self.unfiltered = Best(width), Best(width)

    def _own(self, row: np.ndarray, item: np.ndarray) -> Tensor:
        """Looked up in the very blocks that it is compared with: a product computed by itself may differ in
        its last digit, and equal scores would be no ties."""
        own: Tensor | None = None
        for begin, end in self.scores.blocks:
            block = self.scores.block(begin, end)
            own = block.new_empty(len(row)) if own is None else own
            inside = np.flatnonzero((item >= begin) & (item < end))
            there = torch.from_numpy(row[inside]), torch.from_numpy(item[inside].astype(np.int64) - begin)
            own[torch.from_numpy(inside).to(block.device)] = block[tuple(x.to(block.device) for x in there)]
        assert own is not None
        if len(self.scores.blocks) == 1:
            self.kept = block
        if not torch.isfinite(own).all():
            raise diverged(self.name)
        return own

    def compare(self, seen: Seen) -> None:
        """Counts."""
        for begin, end in self.scores.blocks:
            block = self.kept if self.kept is not None else self.scores.block(begin, end)
            numbers(block, self.name)
            if self.refused is not None:
                block.masked_fill_(torch.from_numpy(self.refused[begin:end]).to(self.device), -torch.inf)
            row, column = seen.within(begin, end)
            there = block[row, column]
            for at in self.places:
                all_rows = len(at) == len(block)
                part = block if all_rows else block[self.row[at]]
                own, ones = self.own[at, None], torch.empty_like(part)
                # Counted as floats, exact up to 2^24: on a CPU sums of bool take fifteen times as long.
                self.at_least[at] += torch.ge(part, own, out=ones).sum(1).to(torch.int64)
                self.equal[at] += torch.eq(part, own, out=ones).sum(1).to(torch.int64)
                self._count_seen(at, row, column + begin, there, len(block))
            if self.width:
                self.unfiltered.add(block, begin)
                block[row, column] = -torch.inf
                self.filtered.add(block, begin)
        self.equal -= (~self.not_ranked).to(torch.int64)  # itself

    def _count_seen(self, at: Tensor, row: Tensor, item: Tensor, scores: Tensor, rows: int) -> None:
        """Counts the (pairs,) items of histories against one target a row."""
        target_of = at.new_full((rows,), -1)
        target_of[self.row[at]] = at
        target = target_of[row]
        with_target = target >= 0
        target, item, scores = target[with_target], item[with_target], scores[with_target]
        own, other = self.own[target], item != self.item[target]
        # a target that is itself in the history is filtered below, as a miss
        self.ahead.index_add_(0, target, ((scores >= own) & other).to(torch.int64))
        self.equal_seen.index_add_(0, target, ((scores == own) & other).to(torch.int64))
        self.repeated.index_add_(0, target, (~other).to(torch.int64))

    def ranks(self, filtered: bool) -> np.ndarray:
        """(targets,) the ranks."""
        ranks = self.at_least - self.ahead if filtered else self.at_least
        missed = self.not_ranked | (self.repeated > 0) if filtered else self.not_ranked
        if len(self.places) > 1:
            ranks = ranks - self._equals_behind(missed)
        return torch.where(missed, metrics.rank_of_miss(self.scores.items), ranks).cpu().numpy()

    def _equals_behind(self, missed: Tensor) -> Tensor:
        """(targets,) how many later targets of the same query have the same score: each has a rank of its
        own."""
        row, own, behind = (x.cpu().numpy() for x in (self.row, self.own, torch.zeros_like(self.at_least)))
        ranked = np.flatnonzero(~missed.cpu().numpy())
        order = ranked[np.lexsort((own[ranked], row[ranked]))]
        first = (np.diff(row[order], prepend=-1) != 0) | (np.diff(own[order], prepend=np.nan) != 0)
        ends = np.append(np.flatnonzero(first)[1:], len(order))
        behind[order] = ends[np.cumsum(first) - 1] - 1 - np.arange(len(order))
        return torch.from_numpy(behind).to(self.device)
