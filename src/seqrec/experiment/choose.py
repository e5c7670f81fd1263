"""`seqrec choose`: which model for this log, within some minutes.

    log -> split and filter that suit it -> simple models -> networks, in order of promise -> better settings
    of the best network -> the simplest model that nothing beats on validation -> test -> fitted on everything

Nothing here knows any data set: what is tried follows from the log's size, times and repeats, and what is
taken follows from validation. The judge tests two models, once: the one that is taken, and a simpler one.

Everything that has ended is a file in the folder, so that the same call goes on where it was interrupted.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from seqrec import models, storage
from seqrec.data.sequences import Sequences
from seqrec.errors import SeqrecError, SettingsError, TrainingError, shown
from seqrec.evaluation import comparison
from seqrec.evaluation.comparison import UserValues
from seqrec.evaluation.evaluation import Evaluation
from seqrec.experiment import data_check, fitting, judge
from seqrec.experiment.recipe import SECTIONS, Recipe
from seqrec.experiment.search import Search, Trial, claim, with_settings
from seqrec.experiment.spaces import space_of
from seqrec.models.model import Model, told_of_baskets_once
from seqrec.splitting import Split, SplitSettings
from seqrec.storage import lock
from seqrec.tables import Table
from seqrec.training.options import FitOptions

log = logging.getLogger("seqrec")

SIMPLE = ("popularity", "recent_popularity", "markov", "item_knn", "vsknn")
"""Models without training by gradient, the simplest first."""
OF_BASKETS = ("personal_top", "up_cf", "tifu_knn")
"""And those that are tried where the log has baskets."""
TRYING = 0.8
"""Share of the time for trying models; the rest is for the test and for fitting on everything."""
FIRST_ROUND = 0.5
"""Share of that in which each network is tried once, as it is."""
SIMPLE_TRIALS = 0.05
"""Share of the time for better settings of each of the two best simple models."""
HOPELESS = 0.6
"""A network is stopped that is, from its third validation on, below this share of the best value so far."""
CLOSE = 0.97
"""A simple model is taken for as good as the best where it has at least this share of its value, too."""
ALPHA = 0.05
"""A model is taken for better than a simpler one where the paired test gives less than this."""
WHOLE = 50_000
"""Items up to which networks compare a target with all of them, and not with a sample."""
REPEATS = 0.1
"""Share of events with an item that its user had, above which the history is not filtered."""
SESSION, SHORT = 86_400, 20
"""Users are sessions where the median lasts less than a day and has at most so many events."""


@dataclass(frozen=True)
class Tried:
    """One model that was tried, or why it was not.

    Attributes:
        label: its name, or ``NAME-tuned``.
        recipe: the sections of a run that make it.
        value: of the metric on validation; None where there is none.
        low, high: its 95% interval over users.
        seconds: wall clock of fitting and validating, or of the search.
        epochs: the best epoch, of a model that has epochs.
        note: why it was stopped, failed or was skipped.
    """

    label: str
    recipe: dict[str, Any]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float = 0.0
    epochs: int | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The model's."""
        return str(self.recipe["model"]["name"])


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        model: fitted on all events, to be used.
        tested: the same model as it was tested, fitted on training events alone.
        taken: which it is.
        words: what to take and why, in sentences.
        tried: all that was tried or skipped, best first.
        test: label -> its test, of the two models that were tested.
        metric, filter_seen: what was measured.
        split: which split judged.
    """

    model: Model
    tested: Model
    taken: Tried
    words: Sequence[str]
    tried: Sequence[Tried]
    test: dict[str, Evaluation]
    metric: str
    filter_seen: bool
    split: Split = field(repr=False)

    def table(self) -> Table:
        """What was tried, best first, with the test of the two models that have one."""
        rows = [
            {
                "model": tried.label,
                f"validation {self.metric}": None
                if tried.value is None
                else {"mean": tried.value, "low": tried.low, "high": tried.high},
                f"test {self.metric}": self.test[tried.label].metrics[self.metric]
                if tried.label in self.test
                else None,
                "seconds": round(tried.seconds, 1),
                "epochs": tried.epochs,
                "note": f"{tried.note} taken".strip() if tried.label == self.taken.label else tried.note,
            }
            for tried in self.tried
        ]
        columns = ["model", f"validation {self.metric}", f"test {self.metric}", "seconds", "epochs", "note"]
        return Table("What was tried", columns, rows, list(self.words), notes_first=True)


@dataclass(frozen=True)
class Plan:
    """What follows from looking at the log.

    Attributes:
        split: which events train, validate and test.
        filter_seen: whether the history is left out.
        simple: models without training by gradient that are tried, the simplest first.
        networks: which are tried, in order of promise.
        reasons: a sentence for each decision.
        baskets: whether most events were taken together with another one.
    """

    split: SplitSettings
    filter_seen: bool
    simple: tuple[str, ...]
    networks: tuple[str, ...]
    reasons: tuple[str, ...]
    baskets: bool = False


def plan(sequences: Sequences, split: SplitSettings | None = None, filter_seen: bool | None = None) -> Plan:
    """Looks at a log.

    Args:
        split, filter_seen: where these are decided already.
    """
    reasons = []
    found = {f.name: f.value for f in (*data_check.sizes(sequences), *data_check.repeats(sequences))}
    repeats, span = float(found["repeats"] or 0), found["spans_median"]
    sessions = span is not None and float(span) < SESSION and float(found["length_median"] or 0) <= SHORT
    baskets = _are_baskets(sequences)
    if split is None:
        split, reason = _split_for(sequences, sessions, baskets)
        reasons.append(reason)
    if filter_seen is None:
        filter_seen = repeats <= REPEATS
        verb = "are filtered" if filter_seen else "are not filtered"
        reasons.append(f"Seen items {verb}: {repeats:.0%} of the events are of an item that their user had.")
    networks = ["sasrec", "gru4rec", "hstu", "lrurec", "hrm"]
    if sessions:
        networks.sort(key=lambda name: name != "gru4rec")  # which was made for them
    simple = (*SIMPLE, *OF_BASKETS) if baskets else SIMPLE
    return Plan(split, filter_seen, simple, tuple(networks), tuple(reasons), baskets)


def _are_baskets(sequences: Sequences) -> bool:
    """Whether most events were taken together with another one."""
    baskets = sequences.baskets
    if baskets is None or not sequences.events:
        return False
    new = np.ones(sequences.events + 1, dtype=bool)
    new[1:-1] = np.diff(baskets) != 0
    new[sequences.offsets] = True
    alone = new[:-1] & new[1:]
    return bool(alone.mean() < 0.5)


def _split_for(sequences: Sequences, sessions: bool, baskets: bool) -> tuple[SplitSettings, str]:
    """The first of these that gives enough queries to tell models apart."""
    candidates = []
    if baskets:
        reason = "The log has baskets: each user's last one tests, the one before validates."
        candidates.append((SplitSettings(name="last_basket"), reason))
    if sequences.times is not None and sessions:
        reason = "Users are sessions: the last tenth of them tests, the tenth before validates."
        candidates.append((SplitSettings(name="last_sessions"), reason))
    if sequences.times is not None:
        reason = "Times are known: the last tenth of the events tests, the tenth before validates."
        candidates.append((SplitSettings(name="global_temporal"), reason))
    for settings, reason in candidates:
        try:
            split = settings.apply(sequences)
        except SeqrecError:
            continue
        if min(len(split.validation), len(split.test)) >= data_check.FEW:
            return settings, reason
    why = (
        "a cut in time leaves too few users to ask"
        if candidates
        else "there are no times, so the future cannot be kept apart"
    )
    return SplitSettings(
        name="leave_one_out"
    ), f"Each user's last event tests, the one before validates: {why}."


def recipe_for(name: str, planned: Plan, metric: str, items: int) -> dict[str, Any]:
    """The sections of a run with which a model is tried first.

    Args:
        items: how many the catalogue has.
    """
    content: dict[str, Any] = {"model": {"name": name}}
    if name in planned.networks:
        content |= {"prior": "markov", "train": {"metric": metric, "filter_seen": planned.filter_seen}}
        content["loss"] = {"name": "softmax"} if items <= WHOLE else {"name": "sampled_softmax"}
        if planned.filter_seen and name != "hrm":
            content["loss"]["seen"] = "mask"
        if planned.baskets and name == "hrm":
            content["model"]["baskets"] = 1
            del content["prior"]  # which goes from item to item
    return content


def choose(
    data: Any,
    minutes: float = 30.0,
    folder: str | None = None,
    *,
    split: SplitSettings | None = None,
    filter_seen: bool | None = None,
    metric: str = "ndcg@10",
    on: FitOptions | None = None,
) -> Choice:
    """Chooses a model for a log.

    Args:
        data: a log, sequences, or a frame with ``user_id, item_id`` and, if known, ``timestamp``.
        minutes: about how long it may take, earlier parts of an interrupted choice included.
        folder: where it leaves the models (``serving``, fitted on everything; ``model``, as tested), and what
            it needs to go on after an interruption; None for none.
        split: which split judges; None for one that suits the log.
        filter_seen: whether the history is left out; None to see from the log.
        metric: by which models are compared.
        on: seed, device and the like.

    Raises:
        SettingsError: a wrong argument, or the folder has another choice.
        TrainingError: no model could be fitted.
    """
    if not minutes > 0:
        raise SettingsError(f"minutes: expected more than 0. Got {minutes}.")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return choose(
                data, minutes, temporary, split=split, filter_seen=filter_seen, metric=metric, on=on
            )
    storage.check_folder(folder)
    sequences = data if isinstance(data, Sequences) else _sequences_of(data)
    planned = plan(sequences, split, filter_seen)
    for reason in planned.reasons:
        log.info("%s", reason)
    whole = planned.split.apply(sequences)
    with lock.held(folder), told_of_baskets_once():
        chooser = _Chooser(planned, whole, metric, 60 * minutes, folder, on or FitOptions())
        return chooser.choose()


def _sequences_of(data: Any) -> Sequences:
    from seqrec.data.interactions import Interactions

    found = data if isinstance(data, Interactions) else Interactions.from_frame(data)
    return found.sequences()


class _Chooser:
    """One choice in its folder."""

    def __init__(self, planned: Plan, split: Split, metric: str, seconds: float, folder: str, on: FitOptions):
        self.plan, self.split, self.metric, self.folder, self.on = planned, split, metric, folder, on
        self.seconds = seconds
        self.known = split.without_test()
        self.values: dict[str, UserValues] = {}

    def choose(self) -> Choice:
        self._check_is_ours()
        for name in self.plan.simple:
            self._once(name, self._recipe_for(name), None)
        self._tune_simple()
        limit = self.seconds * TRYING * FIRST_ROUND / len(self.plan.networks)
        for name in self.plan.networks:
            self._once(name, self._recipe_for(name), limit)
        self._tune()
        tried = self._tried()
        if not self.values:
            raise TrainingError(f"no model could be fitted: {tried[0].note}")
        taken, reference, words = self._decide(tried)
        return self._finish(tried, taken, reference, words)

    def _recipe_for(self, name: str) -> dict[str, Any]:
        return recipe_for(name, self.plan, self.metric, len(self.split.sequences.item_catalogue))

    def _check_is_ours(self) -> None:
        ours = {
            "split": self.split.settings,
            "split_hash": self.split.hash,
            "ids": self.split.sequences.ids_digest,
            "filter_seen": self.plan.filter_seen,
            "metric": self.metric,
            "minutes": self.seconds / 60,
            "seed": self.on.seed,
        }
        if other := claim(storage.join(self.folder, "choice.json"), ours):
            key, there = other
            raise SettingsError(
                f"{self.folder}: has another choice, with {key} {shown(there)}. Got "
                f"{shown(ours[key])}. Name another folder, or remove it."
            )

    def _path(self, *names: str) -> str:
        return storage.join(self.folder, "tried", *names)

    def _tried(self) -> list[Tried]:
        """Best first; those without a value last."""
        if not storage.exists(self._path()):
            return []
        names = [name for name in storage.names(self._path()) if name.endswith(".json")]
        found = [Tried(**storage.read_json(self._path(name))) for name in sorted(names)]
        return sorted(found, key=lambda one: (one.value is None, -(one.value or 0.0)))

    def _best(self) -> float:
        return max((one.value for one in self._tried() if one.value is not None), default=0.0)

    def _once(self, label: str, content: dict[str, Any], limit: float | None) -> None:
        """Tries a model, unless that was done.

        Args:
            limit: seconds of training.
        """
        done = self._path(f"{label}.json")
        if storage.exists(done):
            tried = Tried(**storage.read_json(done))
            if tried.value is not None:
                self.values[label] = self._read_values(label)
            return
        begin, best, stopped = time.perf_counter(), self._best(), False

        def watch(epoch: int, value: float) -> bool:
            nonlocal stopped
            stopped = epoch >= 3 and value < HOPELESS * best
            return not stopped

        checkpoint = self._path(f"{label}.safetensors")
        try:
            recipe = Recipe(**content)
            if limit is not None:
                recipe = replace(recipe, train={**(recipe.train or {}), "minutes": limit / 60})
            on = self.on.model_copy(
                update={"watch": watch, "baselines": False, "checkpoint": checkpoint if limit else None}
            )
            fitted = fitting.fit(recipe, self.known, on)
            found = fitted.validate([self.metric], self.plan.filter_seen)
        except (SeqrecError, RuntimeError, MemoryError) as error:
            tried = Tried(label, content, note=f"skipped: {error}")
        else:
            report = fitted.chosen.fit_report
            seconds = max(time.perf_counter() - begin, report.train_seconds)
            self._keep(label, fitted.chosen, found)
            interval = found.metrics[self.metric]
            tried = Tried(
                label,
                content,
                interval["mean"],
                interval["low"],
                interval["high"],
                seconds=seconds,
                epochs=report.best_epoch,
                note="stopped: could not win" if stopped else "",
            )
        storage.write_json(asdict(tried), done)
        storage.remove(checkpoint)
        self._say(tried)

    def _say(self, tried: Tried) -> None:
        if tried.value is None:
            log.info("%s: %s", tried.label, tried.note)
            return
        note = f" ({tried.note})" if tried.note else ""
        log.info(
            "%s: validation %s %.4f, %.0f s%s", tried.label, self.metric, tried.value, tried.seconds, note
        )

    def _keep(self, label: str, model: Model, found: Evaluation) -> None:
        """Keeps what a model reached for each user, and the model itself."""
        of_users = self.values[label] = self._by_user(found)
        columns = np.stack([of_users.users, of_users.counts, of_users.sums[self.metric]])
        storage.write_array(columns.astype(np.float64), self._path(f"{label}.npy"))
        if "train" in model.sections:
            model.save(self._path(label), histories=False)

    def _by_user(self, found: Evaluation) -> UserValues:
        """What each user got of the metric."""
        values = found.ranks.metrics(self.plan.filter_seen, more=[self.metric])[self.metric]
        return comparison.by_user({self.metric: values}, found.ranks.users)

    def _read_values(self, label: str) -> UserValues:
        users, counts, sums = storage.read_array(self._path(f"{label}.npy"))
        return UserValues(users.astype(np.int64), counts.astype(np.int64), {self.metric: sums})

    def _tune_simple(self) -> None:
        """Better settings of the two best simple models, where that takes next to no time."""
        simple = [one for one in self._tried() if one.label in self.plan.simple and one.value is not None]
        for first in simple[:2]:
            if space_of(first.name, False, self.plan.filter_seen):
                self._improve(first, SIMPLE_TRIALS * self.seconds, most=10)

    def _tune(self) -> None:
        """Better settings of the best network, in the time that is left for trying."""
        tried = self._tried()
        networks = [one for one in tried if one.label in self.plan.networks and one.value is not None]
        if not networks:
            return
        first = networks[0]
        simple = max((one.value or 0.0 for one in tried if one.name in self.plan.simple), default=0.0)
        others = [one for one in tried if one.label != f"{first.name}-tuned"]
        left = TRYING * self.seconds - sum(one.seconds for one in others)
        why = ""
        if left < 2 * first.seconds:
            why = "skipped: no time left for two more trainings"
        elif (first.value or 0.0) < 0.9 * simple:
            why = "skipped: no network comes near the simple models"
        self._improve(first, left, why=why)

    def _improve(self, first: Tried, seconds: float, most: int | None = None, why: str = "") -> None:
        """Searches better settings of a model that was tried, unless that was done.

        Args:
            seconds: for the search.
            most: trials, at most.
            why: it is skipped; "": it is not.
        """
        label = f"{first.name}-tuned"
        done = self._path(f"{label}.json")
        if storage.exists(done):
            if Tried(**storage.read_json(done)).value is not None:
                self.values[label] = self._read_values(label)
            return
        if why:
            return self._write(Tried(label, first.recipe, note=why), done)
        recipe = Recipe(**first.recipe)
        network = first.name in self.plan.networks
        space = space_of(first.name, network, self.plan.filter_seen)
        if first.recipe["model"].get("baskets"):
            space.pop("prior", None)
        search = Search(recipe, space, self.metric, self.plan.filter_seen, self._path(f"{label}-trials"))
        if not search.trials():  # the settings as they are were tried already
            known = Trial(
                0, {}, state="complete", value=first.value, seconds=first.seconds, epochs=first.epochs
            )
            search.write(known)
        before, kept = first.seconds, storage.join(search.folder, "kept.json")
        try:
            for trial, fitted in search.run(self.known, (seconds + before) / 60, self.on, most):
                reached = trial.value or 0.0
                log.info("%s trial %d: %.4f, %.0f s", label, trial.number, reached, trial.seconds)
                if fitted is not None and trial == search.best():
                    self._keep(label, fitted.chosen, search.validated(fitted))
                    storage.write_json(trial.number, kept)
        except SettingsError as error:  # Optuna is not installed
            return self._write(Tried(label, first.recipe, note=f"skipped: {error}"), done)
        trials, found = search.trials(), search.best()
        seconds = sum(trial.seconds for trial in trials) - before
        if found is None or not found.settings:
            note = f"{len(trials) - 1} trials: none better"
            return self._write(Tried(label, first.recipe, seconds=seconds, note=note), done)
        made = with_settings(recipe, found.settings)
        if storage.exists(kept) and storage.read_json(kept) == found.number:
            self.values[label] = self._read_values(label)
        else:  # interrupted after the trial had ended and before its model was kept
            limit = {**(made.train or {}), "minutes": found.minutes}
            again = replace(made, train=limit) if network else made
            fitted = fitting.fit(again, self.known, self.on.model_copy(update={"baselines": False}))
            self._keep(label, fitted.chosen, search.validated(fitted))
        content = {name: getattr(made, name) for name in ("model", *SECTIONS)}
        of_users = self.values[label]
        interval = comparison.intervals(of_users)[self.metric]
        tried = Tried(
            label,
            {name: value for name, value in content.items() if value is not None},
            interval["mean"],
            interval["low"],
            interval["high"],
            seconds=seconds,
            epochs=found.epochs,
            note=f"best of {len(trials)} trials",
        )
        self._write(tried, done)

    def _write(self, tried: Tried, path: str) -> None:
        storage.write_json(asdict(tried), path)
        self._say(tried)

    def _decide(self, tried: Sequence[Tried]) -> tuple[Tried, Tried | None, list[str]]:
        """Which model to take by validation, what to test it against, and why.

        Where nothing is significantly better than the simplest model, that one: there is nothing to learn,
        or too little to tell. Else the best; or a simple one that is not significantly worse, and close.
        """
        found = comparison.compare(self.values, self.metric, ALPHA)
        like_best = {one.model for one in found if one.like_best}
        order = [*self.plan.simple, *self.plan.networks]
        of_label = {one.label: one for one in tried if one.label in self.values}

        def simplicity(label: str) -> tuple[int, int]:
            return order.index(of_label[label].name), int(label.endswith("-tuned"))

        best = of_label[found[0].model]
        simplest = min(of_label, key=simplicity)
        nothing = simplest in like_best
        close = [
            label
            for label in like_best
            if of_label[label].name in self.plan.simple
            and (of_label[label].value or 0.0) >= CLOSE * (best.value or 0.0)
        ]
        taken = of_label[simplest if nothing else min(close, key=simplicity, default=best.label)]
        words = []
        if taken.name in self.plan.simple and taken is not best:
            p = next(one.p for one in found if one.model == taken.label)
            why = "nothing is significantly better" if nothing else "it is simple, and as good"
            words.append(
                f"Take {taken.label}: {why}. On validation the best, {best.label}, has {self.metric} "
                f"{best.value:.4f}, {taken.label} {taken.value:.4f} (paired test, p = {p:.2f})."
            )
        elif taken.name in self.plan.simple:
            words.append(f"Take {taken.label}: on validation nothing is better.")
        else:
            words.append(f"Take {taken.label}: on validation it is the best.")
            unsure = [one for one in found if one.like_best and of_label[one.model].name in self.plan.simple]
            if unsure:
                words.append(
                    f"How sure that is: {unsure[0].model}, which is simple, has {unsure[0].mean:.4f} against "
                    f"{best.value:.4f}, and the paired test does not tell the two apart (p = "
                    f"{unsure[0].p:.2f})."
                )
        rest = [
            label for label in of_label if label != taken.label and of_label[label].name in self.plan.simple
        ]
        if taken.name in self.plan.simple:
            reference = of_label.get("popularity") if taken.label != "popularity" else None
        else:
            reference = of_label[max(rest, key=lambda label: of_label[label].value or 0.0)] if rest else None
        return taken, reference, words

    def _finish(
        self, tried: Sequence[Tried], taken: Tried, reference: Tried | None, words: list[str]
    ) -> Choice:
        """The test of two models, and the chosen one fitted on everything."""
        tested = self._model_of(taken)
        asked = {taken.label: tested}
        if reference is not None:
            asked[reference.label] = self._model_of(reference)
        test = {
            label: judge.ask(model, self.split, [self.metric], self.plan.filter_seen)
            for label, model in asked.items()
        }
        words += list(self._said(test, taken, reference))
        if not self._is_there("model"):
            tested.save(storage.join(self.folder, "model"))
        model = self._fitted_on_everything(taken, tested)
        choice = Choice(
            model, tested, taken, words, tried, test, self.metric, self.plan.filter_seen, self.split
        )
        choice.table().write(storage.join(self.folder, "choice.md"))
        test[taken.label].table().write(storage.join(self.folder, "metrics.json"))
        return choice

    def _is_there(self, name: str) -> bool:
        return storage.exists(storage.join(self.folder, name, "model.json"))

    def _said(self, test: dict[str, Evaluation], taken: Tried, reference: Tried | None) -> Iterator[str]:
        own = test[taken.label].metrics[self.metric]
        line = (
            f"On {len(self.split.test):,} test queries, asked once: {taken.label} {own['mean']:.4f} "
            f"[{own['low']:.4f}, {own['high']:.4f}]"
        )
        if reference is None:
            yield line + "."
            return
        other = test[reference.label].metrics[self.metric]
        values = [self._by_user(test[label]) for label in (taken.label, reference.label)]
        p = float(comparison.paired_tests(values, self.metric)[0, 1])
        more = f"{own['mean'] / other['mean'] - 1:+.0%}" if other["mean"] else "more than nothing"
        sure = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        yield f"{line}, {reference.label} {other['mean']:.4f}: {more} ({sure})."
        if p >= ALPHA:
            yield "The difference on test is within chance."
        elif own["mean"] < other["mean"]:
            yield f"On test {reference.label} is better: the two are close, and validation chose the other."

    def _model_of(self, tried: Tried) -> Model:
        """The model that was validated; one without training by gradient is fitted again, in no time."""
        if tried.name in self.plan.simple:
            return Recipe(**tried.recipe).make().fit(self.known, self.on)
        model = models.load_model(self._path(tried.label))
        model.sequences, model.known_stops = self.known.sequences, self.known.known_stops
        model.known_times = self.known.sequences.last_times(self.known.known_stops)
        return model

    def _fitted_on_everything(self, tried: Tried, tested: Model) -> Model:
        place = storage.join(self.folder, "serving")
        if self._is_there("serving"):
            return models.load_model(place)
        whole = self.split.refit()
        log.info("%s: fits on all %s events", tried.label, f"{whole.sequences.events:,}")
        recipe = Recipe(**tried.recipe)
        if tried.name in self.plan.simple:
            model = recipe.make().fit(whole, self.on)
        else:
            checkpoint = self._path("serving.safetensors")
            model = fitting.fit_again(recipe, whole, tested.fit_report, self.on, checkpoint)
            storage.remove(checkpoint)
        model.save(place)
        return model
