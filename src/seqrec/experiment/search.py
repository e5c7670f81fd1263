"""Looks for better settings of a model, on validation alone, within some minutes.

Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) proposes settings from what earlier trials
reached; a trial that is below the median of the others after as many epochs is stopped. Each trial is a file
of its own, so that a search that was interrupted goes on: a finished trial is not run again, and one that was
not goes on from its last epoch.

Test queries are out of reach: trials are fitted by ``seqrec.experiment.fitting``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from seqrec import storage
from seqrec.errors import DataError, SeqrecError, SettingsError, shown
from seqrec.evaluation.evaluation import Evaluation
from seqrec.experiment import fitting
from seqrec.experiment.fitting import Fitted
from seqrec.experiment.recipe import Recipe
from seqrec.experiment.spaces import Range, Space
from seqrec.splitting.split import Split
from seqrec.tables import Table
from seqrec.training.options import FitOptions

log = logging.getLogger("seqrec")

AT_ONCE = 6
"""A trial gets at most one of so many parts of the time: so many trials there are at least."""
FIRST = 4
"""Trials with random settings before any is proposed, and before any is stopped early."""
IN_VAIN = 20
"""Failures, and proposals of what was tried, in a row after which a search ends."""


@dataclass(frozen=True)
class Trial:
    """What one trial was, and what came of it.

    Attributes:
        number: from 0, which has the settings as they are.
        settings: key -> value of what the search chose; ``{}`` of trial 0.
        minutes: that it may train, at most.
        state: "started" until it has ended; "stopped" where it was below the median of the others.
        value: of the metric on validation; None where there is none.
        seconds: wall clock of fitting and validating.
        epochs: the best epoch, of a model that has epochs.
        curve: [epoch, value] of each validation.
        error: why it failed.
    """

    number: int
    settings: dict[str, Any]
    minutes: float | None = None
    state: Literal["started", "complete", "stopped", "failed"] = "started"
    value: float | None = None
    seconds: float = 0.0
    epochs: int | None = None
    curve: list[list[float]] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Search:
    """A search in its folder.

    Attributes:
        recipe: the model, whose settings a trial replaces.
        space: what is tried.
        metric, filter_seen: what is best.
        folder: where the trials are.
    """

    recipe: Recipe
    space: Space
    metric: str
    filter_seen: bool
    folder: str

    def trials(self) -> list[Trial]:
        """Those that have ended or begun, in their order.

        Raises:
            DataError: a file that is no trial.
        """
        if not storage.exists(self.folder):
            return []
        names = sorted(name for name in storage.names(self.folder) if name.startswith("trial-"))
        found = []
        for name in names:
            if name.endswith(".json"):
                path = storage.join(self.folder, name)
                try:
                    found.append(Trial(**storage.read_json(path)))
                except TypeError as error:
                    raise DataError(f"{path}: expected a trial of a search. Remove it ({error}).") from error
        return found

    def run(
        self, split: Split, minutes: float, on: FitOptions, most: int | None = None
    ) -> Iterator[tuple[Trial, Fitted | None]]:
        """Runs trials until the minutes are used, earlier ones of the same folder included.

        Args:
            on: seed, device and the like.
            most: trials, at most.

        Yields:
            each new trial when it has ended, and what it fitted, if anything.
        Raises:
            SettingsError: nothing to try, or Optuna is not installed.
        """
        _optuna()
        if not self.space:
            raise SettingsError(
                f"search: expected settings to try for {self.recipe.model.get('name')}. Got none. Say some, "
                "as --search model.width=32,64."
            )
        known = split.without_test()
        self._check_is_ours(known, on.seed)
        trials = self.trials()
        ended = [trial for trial in trials if trial.state != "started"]
        begun = next((trial for trial in trials if trial.state == "started"), None)
        # what earlier parts of the search took, and from here on the clock: proposing takes time as well
        before, begin = sum(trial.seconds for trial in ended), time.perf_counter()
        in_vain = 0
        while True:
            if ended:
                self._check_is_useful(ended[0])
            left = 60 * minutes - before - (time.perf_counter() - begin)
            # the settings as they are count in any case
            if ended and (left <= 0 or len(ended) >= (most or len(ended) + 1) or in_vain >= IN_VAIN):
                return
            proposal = self._proposal(ended, on.seed, None if begun is None else begun.settings, in_vain)
            if begun is None and any(proposal.settings == trial.settings for trial in ended):
                in_vain += 1  # tried already
                continue
            trial, begun = begun, None
            if trial is None:
                limit = max(1.0, min(left, 60 * minutes / AT_ONCE)) / 60
                trial = Trial(len(ended), proposal.settings, minutes=limit)
                self.write(trial)
            trial, fitted = self._try(trial, proposal, known, on)
            self.write(trial)
            storage.remove(self._checkpoint(trial))
            ended.append(trial)
            in_vain = in_vain + 1 if trial.state == "failed" else 0
            yield trial, fitted

    def _check_is_useful(self, first: Trial) -> None:
        """Refuses to go on where the settings as they are give no right answer."""
        if first.settings or first.value:
            return
        why = (
            "where the history is filtered: if people take things again, say evaluate.filter_seen=false."
            if self.filter_seen
            else "so that no trial could be told from another."
        )
        raise SettingsError(
            f"search: expected some right answers on validation. Got a {self.metric} of 0 with the settings "
            f"as they are, {why}"
        )

    def _check_is_ours(self, split: Split, seed: int) -> None:
        """Writes what the search is, or refuses a folder that has another one."""
        ours = {
            "model": self.recipe.make().configuration() | {"name": self.recipe.model.get("name")},
            "space": {key: repr(values) for key, values in self.space.items()},
            "metric": self.metric,
            "filter_seen": self.filter_seen,
            "split": split.hash,
            "seed": seed,
        }
        if other := claim(storage.join(self.folder, "search.json"), ours):
            key, there = other
            raise SettingsError(
                f"{self.folder}: has a search with another {key}: {shown(there)}. Got "
                f"{shown(ours[key])}. Name another folder, or remove it."
            )

    def best(self) -> Trial | None:
        """The complete trial with the highest value, the first of several; None where there is none."""
        found = [trial for trial in self.trials() if trial.state == "complete" and trial.value is not None]
        return max(found, key=lambda trial: trial.value or 0.0, default=None)

    def recipe_of(self, trial: Trial) -> Recipe:
        """The model with the settings of a trial."""
        return with_settings(self.recipe, trial.settings)

    def table(self) -> Table:
        """All trials, best first."""
        keys = list(self.space)
        rows = [
            {
                "trial": trial.number,
                self.metric: trial.value,
                "state": trial.state,
                "epochs": trial.epochs,
                "seconds": round(trial.seconds, 1),
                **{key: trial.settings[key] for key in keys if key in trial.settings},
            }
            for trial in sorted(
                self.trials(), key=lambda t: -1.0 if t.value is None else t.value, reverse=True
            )
        ]
        title = f"{self.recipe.model.get('name')}: validation {self.metric}"
        notes = ["Trial 0 has the settings as they are. An empty cell: the setting was left as it is."]
        return Table(title, ["trial", self.metric, "state", "epochs", "seconds", *keys], rows, notes)

    def _try(
        self, trial: Trial, proposal: _Proposal, known: Split, on: FitOptions
    ) -> tuple[Trial, Fitted | None]:
        begin = time.perf_counter()
        curve: list[list[float]] = []

        def watch(epoch: int, value: float) -> bool:
            curve.append([epoch, value])
            return proposal.goes_on(epoch, value)

        recipe = self.recipe_of(trial)
        try:
            model = recipe.make()
            if "train" in model.sections and (recipe.train or {}).get("minutes") is None:
                recipe = replace(recipe, train={**(recipe.train or {}), "minutes": trial.minutes})
            changes = {"watch": watch, "baselines": False, "checkpoint": self._checkpoint(trial)}
            fitted = fitting.fit(recipe, known, on.model_copy(update=changes))
            value = self.validated(fitted)[self.metric]
        except (SeqrecError, RuntimeError, MemoryError) as error:
            if not trial.settings:
                raise
            taken = time.perf_counter() - begin
            return replace(trial, state="failed", error=str(error), seconds=taken, curve=curve), None
        report = fitted.chosen.fit_report
        curve = [[p["epoch"], p[self.metric]] for p in report.curve if self.metric in p] or curve
        # what an interrupted part of it took counts too
        taken = max(time.perf_counter() - begin, report.train_seconds)
        stopped = proposal.stopped
        ended = replace(
            trial,
            state="stopped" if stopped else "complete",
            value=value,
            seconds=taken,
            epochs=report.best_epoch,
            curve=curve,
        )
        return ended, fitted

    def validated(self, fitted: Fitted) -> Evaluation:
        """What a fitted model reaches on validation."""
        return fitted.validate([self.metric], self.filter_seen)

    def _checkpoint(self, trial: Trial) -> str:
        return storage.join(self.folder, f"trial-{trial.number:04}.safetensors")

    def write(self, trial: Trial) -> None:
        """Writes a trial, as it is so far."""
        storage.write_json(asdict(trial), storage.join(self.folder, f"trial-{trial.number:04}.json"))

    def _proposal(
        self, ended: Sequence[Trial], seed: int, settings: dict[str, Any] | None, again: int = 0
    ) -> _Proposal:
        """The next trial, given the ones before.

        Args:
            settings: of one that was begun; None to propose some.
            again: how many proposals were in vain: another one is drawn.
        """
        optuna = _optuna()
        number = len(ended)
        distributions = {key: _distribution(values) for key, values in self.space.items()}
        study = optuna.create_study(
            direction="maximize",
            # a trial's own seed: what is proposed does not depend on whether the search was interrupted
            sampler=optuna.samplers.TPESampler(
                seed=seed * 10_007 + number + 1_000_003 * again, n_startup_trials=FIRST
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST, n_warmup_steps=1),
        )
        for trial in ended:
            if trial.value is not None and trial.settings:
                study.add_trial(
                    optuna.trial.create_trial(
                        params={key: _told(value) for key, value in trial.settings.items()},
                        distributions=distributions,
                        value=trial.value,
                        intermediate_values={int(epoch): value for epoch, value in trial.curve},
                    )
                )
            elif trial.value is not None:
                # whose settings are those of the model, which need not be in the space
                study.add_trial(
                    optuna.trial.create_trial(
                        value=trial.value,
                        intermediate_values={int(epoch): value for epoch, value in trial.curve},
                    )
                )
        if settings is None:
            settings = {}
            if number:
                trial = study.ask(distributions)
                settings = {key: _chosen(self.space[key], trial.params[key]) for key in self.space}
                return _Proposal(settings, trial)
        told = {key: _told(value) for key, value in settings.items()}
        study.enqueue_trial(told)
        return _Proposal(settings, study.ask(distributions if settings else {}))


class _Proposal:
    """Settings to try, and whether it is worth going on."""

    def __init__(self, settings: dict[str, Any], trial: Any):
        self.settings, self.trial, self.stopped = settings, trial, False

    def goes_on(self, epoch: int, value: float) -> bool:
        self.trial.report(value, epoch)
        self.stopped = bool(self.settings) and self.trial.should_prune()
        return not self.stopped


def claim(path: str, ours: dict[str, Any]) -> tuple[str, Any] | None:
    """Writes what a folder is for, unless that stands there.

    Returns:
        the first key in which what stands there differs, and its value there; None where nothing does.
    """
    if not storage.exists(path):
        storage.write_json(ours, path)
        return None
    there = storage.read_json(path)
    return next(((key, there.get(key)) for key, value in ours.items() if there.get(key) != value), None)


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with other settings.

    Args:
        settings: key -> value, as ``{"model.width": 64, "prior": "markov"}``.
    """
    changed: dict[str, Any] = {}
    for key, value in sorted(settings.items(), key=lambda one: "." in one[0]):
        section, _, name = key.partition(".")
        if not name:
            own = getattr(recipe, section)
            same = isinstance(own, dict) and own.get("name", "markov") == value
            changed[section] = own if same else value  # with all that the recipe says of it
            continue
        before = changed.get(section, getattr(recipe, section))
        before = {"name": before} if isinstance(before, str) else dict(before or {})
        changed[section] = {**before, name: value}
    return replace(recipe, **changed)


def _distribution(values: Range | tuple[Any, ...]) -> Any:
    d = _optuna().distributions
    if isinstance(values, tuple):
        return d.CategoricalDistribution([_told(value) for value in values])
    if isinstance(values.low, int) and isinstance(values.high, int):
        return d.IntDistribution(values.low, values.high, log=values.log)
    return d.FloatDistribution(values.low, values.high, log=values.log)


def _told(value: Any) -> Any:
    """A value as Optuna takes it: lists and dictionaries are told as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _chosen(values: Range | tuple[Any, ...], told: Any) -> Any:
    """The value that stands behind what Optuna chose; numbers with three significant digits are told apart
    well enough, and read well."""
    if isinstance(values, tuple):
        return next(value for value in values if _told(value) == told)
    return told if isinstance(told, int) else min(max(float(f"{told:.3g}"), values.low), values.high)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SettingsError("search: needs Optuna. Install it with: pip install 'seqrec[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
