"""Ensemble: several networks, whose log-probabilities are added with weights chosen on validation.

    score(j | history) = sum_m w_m log softmax_j s_m(history)

s_m are the scores of member m: up to a constant a row this is the weighted geometric mean of what the members
expect (a product of experts: Hinton, 2002, equation 1). Members err apart, and where they agree they are
right more often (Hansen and Salamon, 1990). Weights are shares in steps of a tenth, or of a fifth where there
are more than three members; of all such weights the best on validation is taken.

Beside networks a member may be a model of baskets that counts: ``personal_top``, ``tifu_knn``, ``up_cf`` or
``taiw``. Its scores c are at least 0, and stand for the probabilities (1 - e) c_j / sum c + e / items, e =
.01, since what it has never counted is not impossible.

Members are trained one after the other, each as it is by itself. A member that knows nothing of a query (a
network of items, of an empty history) has no say in it.

Raises:
    SettingsError: a member has no probabilities, none is trained by gradient, or there are not as many
        weights.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from seqrec import models, storage
from seqrec.data.query import Query
from seqrec.errors import DataError, SettingsError, shown
from seqrec.evaluation import metrics
from seqrec.models.model import Model
from seqrec.scoring import CELLS, Seen
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.topk import Filter, TopK
from seqrec.training.options import FitOptions, FitReport

log = logging.getLogger("seqrec")

UNCOUNTED = 0.01
"""The probability, spread over all items, that a member which counts gives to what it may never have
counted."""
MOST_QUERIES = 10_000
"""Validation queries, drawn at random, on which weights are chosen."""


class EnsembleSettings(Settings):
    """Hyperparameters of ``ensemble``."""

    members: list[dict[str, Any]] = Field(
        default_factory=lambda: [{"name": "sasrec"}, {"name": "gru4rec"}], min_length=2, max_length=8
    )
    """The networks, and beside them models of baskets that count: each a dictionary with ``name``, its own
    settings, and the sections ``loss``, ``negatives``, ``train``, ``features``, ``prior`` and ``item_table``
    where they are said."""
    weights: list[float] | None = None
    """Of the members, in their order. None chooses them on validation, or takes equal ones where there is
    none."""

    @field_validator("weights")
    @classmethod
    def _are_weights(cls, weights: list[float] | None) -> list[float] | None:
        if weights is not None and (min(weights, default=-1) < 0 or not sum(weights) > 0):
            raise ValueError("numbers of at least 0, not all of them 0")
        return weights


class Ensemble(Model):
    name = "ensemble"
    Settings = EnsembleSettings

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.members: list[Any] = [self._member(i, given) for i, given in enumerate(self.settings.members)]
        weights = self.settings.weights
        if weights is not None and len(weights) != len(self.members):
            raise SettingsError(
                f"ensemble.weights: expected one for each of {len(self.members)} members. Got {len(weights)}."
            )
        self.weights = _shares([1.0] * len(self.members) if weights is None else weights)
        self.reads_baskets = any(member.reads_baskets for member in self.members)
        self._check_members()

    def _check_members(self) -> None:
        made = self.configuration()["members"]
        if any(one == other for one, other in itertools.combinations(made, 2)):
            raise SettingsError(
                "ensemble.members: expected members that differ. Got two with the same settings, which would "
                "become the same network. Give them other settings."
            )
        if not self.trained:
            raise SettingsError(
                "ensemble.members: expected a network among them, which says by what weights are chosen. Got "
                f"{', '.join(m.name for m in self.members)}."
            )
        measures = {(m.train.metric, m.train.filter_seen) for m in self.trained}
        if len(measures) > 1:
            raise SettingsError(
                "ensemble.members: expected one train.metric and one train.filter_seen for all. Got "
                f"{', '.join(f'{metric} with filter_seen {seen}' for metric, seen in sorted(measures))}."
            )

    @staticmethod
    def _member(number: int, given: dict[str, Any]) -> Model:
        settings = dict(given)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise SettingsError(
                f"ensemble.members.{number}: expected a dictionary with a name. Got {shown(given)}."
            )
        cls = models.get(name)
        if "train" not in cls.sections and not cls.counts_occurrences:
            raise SettingsError(
                f"ensemble.members.{number}: expected a model that is trained by gradient, whose scores are "
                "log-probabilities, or one that counts baskets (personal_top, tifu_knn, up_cf, taiw). Got "
                f"{name}."
            )
        return cls(**settings)

    @property
    def trained(self) -> list[Any]:
        """The members that are trained by gradient."""
        return [member for member in self.members if "train" in member.sections]

    def configuration(self) -> dict[str, Any]:
        members = [{"name": m.reference(), **m.configuration()} for m in self.members]
        return {"members": members, "weights": self.settings.weights}

    def fit_split(self, split: Split, on: FitOptions) -> None:
        """As ``Model.fit_split``.

        Raises:
            SettingsError: a start, which it cannot begin with.
        """
        if on.start is not None:
            raise SettingsError("fit.start: an ensemble cannot begin with an earlier one. Leave it out.")
        again = None if on.again is None else on.again.members
        checkpoints = [self._checkpoint(on, i) for i in range(len(self.members))]
        for i, member in enumerate(self.members):
            log.info("ensemble: member %d of %d, %s", i + 1, len(self.members), member.name)
            own: dict[str, Any] = {"checkpoint": checkpoints[i], "baselines": False, "again": None}
            if again is not None:
                report = FitReport.from_json(again[i])
                own |= {"stop_after": report.whole_epochs, "schedule_epochs": report.schedule_epochs}
            member.fit(split, on.model_copy(update=own))
        if self.settings.weights is None and on.stop_after is None and len(split.validation):
            self.weights = self._chosen(split)
        reports = [member.fit_report for member in self.members]
        self.fit_report = FitReport(
            train_seconds=sum(report.train_seconds for report in reports),
            # as a mark that there is something to repeat; each member has its own
            epochs=max(report.epochs or 0 for report in reports),
            best_epoch=max(report.best_epoch or 0 for report in reports),
            parameters=sum(report.parameters or 0 for report in reports),
            seed=on.seed,
            members=tuple(
                {"name": m.name, "weight": w, **m.fit_report.to_json()}
                for m, w in zip(self.members, self.weights, strict=True)
            ),
        )
        for checkpoint in checkpoints:
            if checkpoint is not None:
                storage.remove(checkpoint)
        self.reads_times = any(member.reads_times for member in self.members)

    def as_fitted(self, report: FitReport) -> dict[str, Any]:
        """Its settings with what that fit chose, for another one."""
        assert report.members is not None
        reports = [FitReport.from_json(one) for one in report.members]
        members = self.configuration()["members"]
        members = [own.settled(member) for own, member in zip(reports, members, strict=True)]
        return {"members": members, "weights": [one["weight"] for one in report.members]}

    @staticmethod
    def _checkpoint(on: FitOptions, number: int) -> str | None:
        """A member's own, beside the one that was asked for."""
        path = None if on.checkpoint is None else str(on.checkpoint)
        return None if path is None else f"{path.removesuffix('.safetensors')}-member{number}.safetensors"

    def _chosen(self, split: Split) -> list[float]:
        """The weights that are best on validation."""
        s = self.trained[0].train
        measure, k = metrics.parse(s.metric)
        queries = split.validation
        if len(queries) > MOST_QUERIES:
            some = np.random.default_rng(0).choice(len(queries), MOST_QUERIES, replace=False)
            queries = queries.select(np.sort(some))
        candidates = list(_on_simplex(len(self.members), 10 if len(self.members) <= 3 else 5))
        query, targets = split.query(queries), torch.from_numpy(split.targets(queries).astype(np.int64))
        first = queries.first_targets
        ranks = np.zeros((len(candidates), len(targets)), dtype=np.int64)
        for rows, logs in self._log_probabilities(query):
            of_row = np.repeat(np.arange(len(rows)), np.diff(first)[rows])
            at = np.concatenate([np.arange(first[row], first[row + 1]) for row in rows])
            seen = Seen(query.select(rows), logs.device) if s.filter_seen else None
            row, target = torch.from_numpy(of_row).to(logs.device), targets[at].to(logs.device)
            for c, weights in enumerate(candidates):
                scores = torch.einsum("m,mnc->nc", torch.tensor(weights, device=logs.device), logs)
                if seen is not None:
                    scores[seen.row, seen.item] = -torch.inf
                own = scores[row, target]
                found = (scores[row] >= own[:, None]).sum(1)
                # a target that is filtered itself is a miss
                found[torch.isneginf(own)] = metrics.rank_of_miss(scores.shape[1])
                ranks[c, at] = found.cpu().numpy()
        if split.cold_targets_miss:
            cold = split.item_counts[targets.numpy()] == 0
            ranks[:, cold] = metrics.rank_of_miss(len(split.item_counts))
        values = np.array([metrics.values(measure, one, k, queries.offsets).mean() for one in ranks])
        best = list(candidates[int(values.argmax())])
        log.info(
            "ensemble: weights %s; validation %s %.4f",
            ", ".join(f"{m.name} {w:g}" for m, w in zip(self.members, best, strict=True)),
            s.metric,
            values.max(),
        )
        return best

    def _log_probabilities(self, query: Query) -> Iterator[tuple[np.ndarray, Tensor]]:
        """A few queries at a time: (n,) which, and (members, n, items) log-probabilities, 0 where a member
        knows nothing."""
        items = 1 if self.item_catalogue is None else len(self.item_catalogue)
        at_once = max(1, CELLS // (items * len(self.members)))
        order = np.argsort(query.lengths, kind="stable")
        for begin in range(0, len(order), at_once):
            rows = order[begin : begin + at_once]
            asked = query.select(rows)
            logs = []
            for member in self.members:
                found = member.score(asked)
                found = _counted(found) if member.counts_occurrences else torch.log_softmax(found, 1)
                found[torch.from_numpy(~member.knows(asked))] = 0
                logs.append(found)
            yield rows, torch.stack(logs)

    @torch.no_grad()
    def score(self, query: Query) -> Tensor:
        items = 0 if self.item_catalogue is None else len(self.item_catalogue)
        scores = torch.empty(len(query), items)
        weights = torch.tensor(self.weights)
        for rows, logs in self._log_probabilities(query):
            scores[torch.from_numpy(rows)] = torch.einsum("m,mnc->nc", weights, logs)
        unknown = ~self.knows(query)
        if unknown.any():
            scores[torch.from_numpy(unknown)] = torch.from_numpy(self.members[0].popularity).to(scores)
        return scores

    def knows(self, query: Query) -> np.ndarray:
        found = np.zeros(len(query), dtype=bool)
        for member, weight in zip(self.members, self.weights, strict=True):
            if weight:
                found |= member.knows(query)
        return found

    @property
    def unlearned(self) -> np.ndarray:
        counting = (m.unlearned for m, w in zip(self.members, self.weights, strict=True) if w)
        return np.unique(np.concatenate([np.empty(0, np.int64), *counting]))

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        for member in self.trained:
            member.warn_unless(filter)
        return super().best(query, k, filter)

    def to(self, device: torch.device) -> None:
        for member in self.members:
            member.to(device)

    def state(self) -> dict[str, np.ndarray]:
        arrays = {f"{i}.{k}": v for i, m in enumerate(self.members) for k, v in m.state().items()}
        return arrays | {"weights": np.array(self.weights)}

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        weights = state.get("weights")
        if weights is None or weights.shape != (len(self.members),) or weights.dtype.kind != "f":
            raise DataError(f"its weights are not {len(self.members)} numbers.")
        self.weights = weights.tolist()
        for i, member in enumerate(self.members):
            own = f"{i}."
            member.load_state(
                {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}, items, users
            )
            member.item_catalogue = self.item_catalogue
        self.reads_times = any(member.reads_times for member in self.members)


def _counted(scores: Tensor) -> Tensor:
    """(queries, items) log-probabilities of scores that count."""
    shares = scores / scores.sum(1, keepdim=True).clamp(min=1e-30)
    return torch.log((1 - UNCOUNTED) * shares + UNCOUNTED / scores.shape[1])


def _shares(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def _on_simplex(members: int, steps: int) -> Iterator[tuple[float, ...]]:
    """All shares of so many members in steps of 1 / steps, the most even ones first, so that they are taken
    where nothing is better."""
    found = [parts for parts in itertools.product(range(steps + 1), repeat=members) if sum(parts) == steps]
    found.sort(key=lambda parts: sum(part * part for part in parts))
    for parts in found:
        yield tuple(part / steps for part in parts)
