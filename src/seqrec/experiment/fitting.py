"""Fitting and validating: what every run does before its test, and all that a search for settings does.

Test queries are out of reach. Whatever split comes in, models get ``split.without_test()``, in which neither
the queries nor their events are; and this module knows nothing of the judge, who alone asks them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from seqrec.evaluation import metrics
from seqrec.evaluation.evaluation import Evaluation, evaluate
from seqrec.experiment.recipe import Recipe
from seqrec.models.model import Model
from seqrec.splitting.split import Split
from seqrec.training.options import FitOptions, FitReport


@dataclass(frozen=True)
class Fitted:
    """
    Attributes:
        chosen: fitted on the training events, its epochs chosen on validation: to be validated.
        final: to be tested: the same, or one that was fitted again on training and validation events.
        split: what ``chosen`` was fitted on.
    """

    chosen: Model
    final: Model
    split: Split

    def validate(
        self, names: Iterable[str] = (), filter_seen: bool = True, cutoffs: Iterable[int] = metrics.CUTOFFS
    ) -> Evaluation:
        """Asks the validation queries."""
        v = self.split.validation
        return evaluate(
            self.chosen, self.split, v, names, filter_seen, cutoffs=cutoffs, role="validation", lists=False
        )


def fit(recipe: Recipe, split: Split, on: FitOptions, retrain: bool = False) -> Fitted:
    """Fits a model on the training events of a split.

    Args:
        on: whose checkpoint, if any, is that of the first fit.
        retrain: then fit another one on training and validation events, as long as the first one chose.
    """
    known = split.without_test()
    chosen = recipe.make().fit(known, on)
    final = chosen
    if retrain:
        final = fit_again(recipe, split.retrain(), chosen.fit_report, on, checkpoint=None)
    return Fitted(chosen, final, known)


def fit_again(
    recipe: Recipe, split: Split, report: FitReport, on: FitOptions, checkpoint: str | None
) -> Model:
    """Fits a fresh model on more events, for as many epochs as an earlier fit chose, in batches of its size
    and at its rates, and validates nothing."""
    chosen = {"stop_after": report.whole_epochs, "schedule_epochs": report.schedule_epochs, "again": report}
    changes = {**chosen, "checkpoint": checkpoint, "earlier_epochs": None, "track": None}
    again = on.model_copy(update=changes)
    return planned(recipe, report).make().fit(split.without_test(), again)


def planned(recipe: Recipe, report: FitReport) -> Recipe:
    """The recipe with what followed the log of an earlier fit as it was there, whatever the next log has."""
    recipe = replace(recipe, **report.settled({"train": recipe.train, "prior": recipe.prior}))
    if report.members:
        made: Any = recipe.make()  # of several models: an ensemble, a rerank
        recipe = replace(recipe, model={**recipe.model, **made.as_fitted(report)})
    return recipe
