"""Rerank: a retriever ranks all items, and a scorer that looks at history and candidate together reorders the
first of them.

    retriever      a > b > c > d | e > f > g > ...         the first `candidates` items
    scorer         c > a > d > b |                         are reordered,
    rerank         c > a > d > b | e > f > g > ...         the others stay below them, as they are

The two stages are those of Covington, Adams, Sargin: Deep Neural Networks for YouTube Recommendations, RecSys
2016, section 2. The order of the candidates is

    (1 - weight) z(retriever's score) + weight z(scorer's score)

with z the distance from the candidates' mean in their standard deviations, since what the scores of two
models mean differs. The weight is the best on validation of 0, .1, ... 1: with 0 nothing is reordered, so
that a scorer which does not help does not harm, and that is said.

Candidates are the retriever's best until so many of them are not in the history; those of the history that
come before the last of them are reordered, too. So with the seen filter and without it an item has one score,
and ranks of the whole catalogue stay exact. Items that may not be recommended, or of which nothing was
learned, take nobody's place.

The retriever is trained first, as it is by itself, and then the scorer, whose epochs are chosen by how well
it reorders what the retriever finds, at the weight that is given or else at .5.

Raises:
    SettingsError: the scorer is no model of pairs (din, bst), or its prior is set, which the retriever has;
        or it is to be exported, or to begin with an earlier one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from seqrec import models, storage
from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.errors import DataError, SettingsError, shown
from seqrec.evaluation import metrics, ranking
from seqrec.models.model import Model
from seqrec.models.pairs import PairModel, PairScorer
from seqrec.scoring import CELLS, ROWS, Scores, Seen, diverged, largest
from seqrec.settings.base import Settings
from seqrec.splitting.split import Queries, Split
from seqrec.topk import Filter, TopK
from seqrec.training.options import FitOptions, FitReport

log = logging.getLogger("seqrec")

MOST_QUERIES = 10_000
"""Validation queries, drawn at random, on which the weight is chosen."""
EVEN = 0.5
"""The weight while the scorer is trained, where none is given."""


class RerankSettings(Settings):
    """Hyperparameters of ``rerank``."""

    retriever: dict[str, Any] = Field(default_factory=lambda: {"name": "sasrec"})
    """Which model ranks all items: a dictionary with ``name``, its own settings, and the sections ``loss``,
    ``negatives``, ``train``, ``features`` and ``prior`` where they are said."""
    scorer: dict[str, Any] = Field(default_factory=lambda: {"name": "din"})
    """Which model of pairs (``din``, ``bst``) reorders the first of them: a dictionary as that of the
    retriever."""
    candidates: int = Field(200, ge=1, le=100_000)
    """How many are reordered."""
    weight: float | None = Field(None, ge=0, le=1)
    """Of the scorer: 0 leaves the retriever's order, 1 does not look at its scores. None chooses it on
    validation, or takes .5 where there is none."""


class Rerank(Model):
    name = "rerank"
    Settings = RerankSettings

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        s = self.settings
        self.retriever = self._stage("retriever", s.retriever)
        scorer = self._stage("scorer", s.scorer)
        if not isinstance(scorer, PairModel):
            raise SettingsError(
                "rerank.scorer: expected a model that compares a candidate with the history: din or bst. Got "
                f"{scorer.name}."
            )
        if scorer.prior is not None:
            raise SettingsError(
                "rerank.scorer.prior: expected none, since it is added to scores of all items. Got "
                f"{scorer.prior.name}; give it to the retriever."
            )
        self.scorer = scorer
        self.weight = EVEN if s.weight is None else s.weight
        self.reads_baskets = self.retriever.reads_baskets or scorer.reads_baskets
        self._refused: np.ndarray | None = None

    @staticmethod
    def _stage(stage: str, given: dict[str, Any]) -> Any:
        settings = dict(given)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise SettingsError(f"rerank.{stage}: expected a dictionary with a name. Got {shown(given)}.")
        return models.get(name)(**settings)

    @property
    def stages(self) -> dict[str, Any]:
        """Retriever and scorer."""
        return {"retriever": self.retriever, "scorer": self.scorer}

    def configuration(self) -> dict[str, Any]:
        stages = {k: {"name": m.reference(), **m.configuration()} for k, m in self.stages.items()}
        return {**stages, "candidates": self.settings.candidates, "weight": self.settings.weight}

    def fit_split(self, split: Split, on: FitOptions) -> None:
        """As ``Model.fit_split``.

        Raises:
            SettingsError: a start, which it cannot begin with.
        """
        if on.start is not None:
            raise SettingsError("fit.start: a rerank cannot begin with an earlier one. Leave it out.")
        again = None if on.again is None else on.again.members
        checkpoints = []
        self.scorer.within = Within(self.retriever, self.settings.candidates, self.weight)
        for i, (stage, model) in enumerate(self.stages.items()):
            log.info("rerank: %s, %s", stage, model.name)
            checkpoint = None
            if on.checkpoint is not None:
                checkpoint = f"{str(on.checkpoint).removesuffix('.safetensors')}-{stage}.safetensors"
                checkpoints.append(checkpoint)
            own: dict[str, Any] = {"checkpoint": checkpoint, "baselines": False, "again": None}
            if again is not None:
                report = FitReport.from_json(again[i])
                own |= {"stop_after": report.whole_epochs, "schedule_epochs": report.schedule_epochs}
            model.fit(split, on.model_copy(update=own))
        self.scorer.within = None
        self.reads_times = any(model.reads_times for model in self.stages.values())
        if self.settings.weight is None and on.stop_after is None and len(split.validation):
            self._choose_weight(split)
        retriever, scorer = self.retriever.fit_report, self.scorer.fit_report
        self.fit_report = FitReport(
            train_seconds=retriever.train_seconds + scorer.train_seconds,
            epochs=max(retriever.epochs or 0, scorer.epochs or 0),
            best_epoch=max(retriever.best_epoch or 0, scorer.best_epoch or 0),
            parameters=(retriever.parameters or 0) + (scorer.parameters or 0),
            seed=on.seed,
            members=tuple(
                {"name": m.name, "weight": w, **m.fit_report.to_json()}
                for m, w in zip(self.stages.values(), (1 - self.weight, self.weight), strict=True)
            ),
        )
        for checkpoint in checkpoints:
            storage.remove(checkpoint)

    def as_fitted(self, report: FitReport) -> dict[str, Any]:
        """Its settings with what that fit chose, for another one."""
        assert report.members is not None
        made = self.configuration()
        for stage, one in zip(self.stages, report.members, strict=True):
            made[stage] = FitReport.from_json(one).settled(made[stage])
        return {**made, "weight": report.members[1]["weight"]}

    def _choose_weight(self, split: Split) -> None:
        """Takes the one that is best on validation, the smallest of equals."""
        s = self.scorer.train
        measure, k = metrics.parse(s.metric)
        queries = split.validation
        if len(queries) > MOST_QUERIES:
            some = np.random.default_rng(0).choice(len(queries), MOST_QUERIES, replace=False)
            queries = queries.select(np.sort(some))
        within = Within(self.retriever, self.settings.candidates, 0.0)
        pairs = Remembered(self.scorer.pairs(self.scorer.network))
        found: dict[float, float] = {}
        for tenth in range(11):
            pairs.begin()
            order = replace(within, weight=tenth / 10).reordered(pairs)
            found[tenth / 10] = self._validated(order, split, queries, measure, k, s.filter_seen)
        self.weight = max(found, key=found.__getitem__)
        log.info(
            "rerank: weight %g; validation %s by weight %s.",
            self.weight,
            s.metric,
            ", ".join(f"{weight:g}: {value:.4f}" for weight, value in found.items()),
        )
        if not self.weight:
            log.warning(
                "rerank: on validation no order of %s was better than that of %s, which stays as it is.",
                self.scorer.name,
                self.retriever.name,
            )

    @staticmethod
    def _validated(
        order: Any, split: Split, queries: Queries, measure: metrics.Metric, k: int, filter_seen: bool
    ) -> float:
        ranks = ranking.rank(order, split, queries, lists=False)
        values = metrics.values(measure, ranks.headline(filter_seen), k, ranks.offsets)
        return float(values.mean())

    def score(self, query: Query) -> Tensor:
        items = 0 if self.item_catalogue is None else len(self.item_catalogue)
        found = torch.empty(len(query), items)
        for some in self.score_blocks(query):
            found[torch.from_numpy(some.rows)] = some.block(0, items).cpu()
        return found

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        pairs = self.scorer.pairs(self.scorer.network)
        within = Within(self.retriever, self.settings.candidates, self.weight, self._never(self._refused))
        return within.reordered(pairs).score_blocks(query, rows)

    def _never(self, refused: np.ndarray | None) -> np.ndarray:
        """(items,) bool, True for items that take no place among the candidates."""
        assert self.item_catalogue is not None
        never = np.zeros(len(self.item_catalogue), dtype=bool) if refused is None else refused.copy()
        never[self.unlearned] = True
        return never

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        warn = getattr(self.retriever, "warn_unless", None)
        if warn is not None:
            warn(filter)
        self.scorer.warn_unless(filter)
        assert self.item_catalogue is not None
        among = copy.copy(self)
        among._refused = filter.refused(len(self.item_catalogue))
        return super(Rerank, among).best(query, k, filter)

    def knows(self, query: Query) -> np.ndarray:
        known: np.ndarray = self.retriever.knows(query)
        return known

    @property
    def unlearned(self) -> np.ndarray:
        if not self.weight:
            unlearned: np.ndarray = self.retriever.unlearned
            return unlearned
        return np.union1d(self.retriever.unlearned, self.scorer.unlearned)

    def export_onnx(self, *_: Any, **__: Any) -> None:
        """
        Raises:
            SettingsError: always; what is exported are states and item vectors.
        """
        raise SettingsError(
            "rerank: it cannot be exported to ONNX, since its scores are no products of states and item "
            "vectors. Export its retriever, trained by itself, or serve the model's folder."
        )

    def to(self, device: torch.device) -> None:
        for model in self.stages.values():
            model.to(device)

    def state(self) -> dict[str, np.ndarray]:
        arrays = {f"{stage}.{k}": v for stage, m in self.stages.items() for k, v in m.state().items()}
        return arrays | {"weight": np.array([self.weight])}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        weight = state.get("weight")
        if weight is None or weight.shape != (1,) or weight.dtype.kind != "f" or not 0 <= weight[0] <= 1:
            raise DataError("its weight is not a number from 0 to 1.")
        self.weight = float(weight[0])
        for stage, model in self.stages.items():
            own = f"{stage}."
            model.load_state(
                {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}, items, users
            )
            model.item_catalogue = self.item_catalogue
        self.reads_times = any(model.reads_times for model in self.stages.values())


@dataclass(frozen=True)
class Within:
    """The retriever's candidates, and how they are reordered.

    Attributes:
        retriever: trained.
        candidates: how many are reordered.
        weight: of the scorer.
        never: (items,) bool, True for items that are no candidates; None: what the retriever learned nothing
            of.
    """

    retriever: Model
    candidates: int
    weight: float
    never: np.ndarray | None = None

    def described(self) -> list[Any]:
        """What makes its order, as JSON has it."""
        return [self.retriever.reference(), self.retriever.configuration(), self.candidates, self.weight]

    def reordered(self, pairs: PairScorer | Remembered) -> Reordered:
        """All items, the candidates in the order of these pairs."""
        return Reordered(self, pairs)


@dataclass(frozen=True)
class Reordered:
    """Scores whose first ones are reordered: see the top of the file.

    Attributes:
        within: the candidates, and the share of the scorer.
        pairs: scores a candidate after a history.
    """

    within: Within
    pairs: PairScorer | Remembered

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return Rerank.name

    def numbering(self) -> dict[str, Catalogue | None]:
        """Nothing: the model that it is of says that."""
        return {}

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        """As ``seqrec.scoring.Scorer``; all items at once, fewer rows where they are many."""
        retriever = self.within.retriever
        items = 1 if retriever.item_catalogue is None else len(retriever.item_catalogue)
        at_once = max(1, min(rows, CELLS // items))
        order = np.argsort(query.lengths, kind="stable")
        for begin in range(0, len(order), at_once):
            some = order[begin : begin + at_once]
            asked = query.select(some)
            yield Scores.whole(some, asked, self._reorder(asked, retriever.score(asked)))

    @torch.no_grad()
    def _reorder(self, query: Query, scores: Tensor) -> Tensor:
        """(queries, items) the retriever's scores, which it may write to, with those of candidates above all
        others."""
        w = self.within
        if not w.weight:
            return scores
        # of whom a stage knows nothing, the retriever's order stays
        rows = torch.from_numpy(np.flatnonzero(w.retriever.knows(query) & self.pairs.knows(query)))
        if not len(rows):
            return scores
        asked, own = query.select(rows.numpy()), scores[rows]
        if torch.isnan(own).any():
            raise diverged(w.retriever.name)
        found = candidates_of(own, asked, w.candidates, self._never(own.shape[1]))
        by_pairs = self.pairs.of(asked, found.items.to(self.pairs.device)).to(own)
        if not torch.isfinite(by_pairs).all():
            raise diverged(self.pairs.name)
        first = own.gather(1, found.items)
        ranked, spread = standardised(first, found.mask)
        mixed = (1 - w.weight) * ranked + w.weight * standardised(by_pairs, found.mask)[0]
        # above the best of the others, which are at most the least of the candidates
        least = first.masked_fill(~found.mask, torch.inf).amin(1, keepdim=True)
        lowest = mixed.masked_fill(~found.mask, torch.inf).amin(1, keepdim=True)
        raised = least + spread * (1 + mixed - lowest)
        scores[rows] = own.scatter(1, found.items, torch.where(found.mask, raised, first))
        return scores

    def _never(self, items: int) -> np.ndarray:
        if self.within.never is not None:
            return self.within.never
        never = np.zeros(items, dtype=bool)
        never[self.within.retriever.unlearned] = True
        return never


@dataclass(frozen=True)
class Found:
    """Candidates of some queries.

    Attributes:
        items: (n, most) int64, best first.
        mask: (n, most) bool, False where it is no candidate.
    """

    items: Tensor
    mask: Tensor


def candidates_of(scores: Tensor, query: Query, count: int, never: np.ndarray) -> Found:
    """The best items of each row until ``count`` of them are not in the history.

    Args:
        scores: (queries, items) of the retriever.
        never: (items,) bool, True for items that are no candidates.
    """
    seen = Seen(query, scores.device)
    barred = scores.masked_fill(torch.from_numpy(never).to(scores.device), -torch.inf)
    most_seen = int(torch.bincount(seen.row, minlength=len(scores)).max()) if len(seen.row) else 0
    values, items = largest(barred, min(count + most_seen, scores.shape[1]))
    in_history = torch.zeros_like(scores, dtype=torch.bool)
    in_history[seen.row, seen.item] = True
    new = ~in_history.gather(1, items)
    # one of the history belongs to them if it comes before the last new one
    mask = torch.isfinite(values) & (new.cumsum(1) - new.long() < count)
    return Found(items, mask)


def standardised(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, candidates) distances from the mean in standard deviations, and (rows, 1) these, which are no
    smaller than a thousandth of the largest score, so that equal scores are 0."""
    n = mask.sum(1, keepdim=True).clamp(min=1)
    mean = (scores * mask).sum(1, keepdim=True) / n
    far = (scores - mean) * mask
    spread = (far.square().sum(1, keepdim=True) / n).sqrt()
    spread = spread.maximum(1e-3 * (scores * mask).abs().amax(1, keepdim=True)).clamp(min=1e-9)
    return far / spread, spread


class Remembered:
    """Scores of pairs that are asked for several times in the same order, and computed once.

    Args:
        pairs: who computes them.
    """

    def __init__(self, pairs: PairScorer):
        self.pairs, self.name, self.device = pairs, pairs.name, pairs.device
        self.found: list[Tensor] = []
        self.next = 0

    def begin(self) -> None:
        """What is asked for next is what was asked for first."""
        self.next = 0

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool, as ``PairScorer.knows``."""
        return self.pairs.knows(query)

    def of(self, query: Query, candidates: Tensor) -> Tensor:
        """(queries, candidates) scores, as ``PairScorer.of``."""
        self.next += 1
        if len(self.found) < self.next:
            self.found.append(self.pairs.of(query, candidates))
        return self.found[self.next - 1]
