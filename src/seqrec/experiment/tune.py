"""`seqrec tune`: the same minutes for each model, and a run file with the best settings of each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from seqrec import models, storage
from seqrec.errors import SettingsError
from seqrec.experiment.data import read_split
from seqrec.experiment.recipe import SECTIONS, Recipe
from seqrec.experiment.search import Search, Trial, with_settings
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.spaces import Range, space_of
from seqrec.models.model import told_of_baskets_once
from seqrec.storage import lock
from seqrec.tables import Table
from seqrec.training.options import FitOptions

log = logging.getLogger("seqrec")


def tune(
    run: RunSettings,
    names: Sequence[str],
    minutes: float,
    folder: str,
    space: Mapping[str, Range | tuple[Any, ...]] | None = None,
    most: int | None = None,
    progress: bool = True,
) -> list[Search]:
    """Searches the settings of models on the validation queries of a run.

    Args:
        run: its data, split and model; ``model.name`` may be missing where names are given.
        names: of the models; of the run's own where there are none.
        minutes: for each model, those of an earlier part of the same search included.
        folder: for the trials, in a folder a model, and their run files ``best.yaml``.
        space: what is tried instead of what ``seqrec.experiment.spaces`` says.
        most: trials of each model, at most.

    Returns:
        a search a model, in the order of the names.
    Raises:
        SettingsError: a wrong setting; or the folder has another search.
    """
    if not minutes > 0:
        raise SettingsError(f"minutes: expected more than 0. Got {minutes}.")
    if most is not None and most < 1:
        raise SettingsError(f"trials: expected at least 1. Got {most}.")
    storage.check_folder(folder)
    run.refuse_engine("seqrec.spark.train.train for each of its trials")
    run.check_data()
    if run.fit.start is not None:
        raise SettingsError("fit.start: a search trains from random weights. Got a start. Leave it out.")
    recipes = recipes_of(run, names)
    for name, recipe in recipes.items():
        _check_space(name, recipe, space)
    split, source, filter_seen = read_split(run)
    selection = run.selection()
    metric = (run.train or {}).get("metric") or selection.get("metric", "ndcg@10")
    filter_seen = selection.get("filter_seen", filter_seen)
    on = FitOptions(**run.fit.model_dump() | {"start": None}, progress=progress)
    log.info("%s: %d queries validate", source, len(split.validation))
    found = []
    with lock.held(folder), told_of_baskets_once():
        for name, recipe in recipes.items():
            cls = models.get(name)
            own = space_of(name, bool(cls.sections), filter_seen) if space is None else space
            search = Search(recipe, own, metric, filter_seen, storage.join(folder, name))
            for trial, _ in search.run(split, minutes, on, most):
                log.info("%s", said(name, trial, search))
            found.append(search)
            write_best(run, search)
    return found


def _check_space(name: str, recipe: Recipe, space: Mapping[str, Range | tuple[Any, ...]] | None) -> None:
    """Makes a model with each value of the space, before anything is trained.

    Raises:
        SettingsError: a setting that it does not have, a value out of range, or nothing to try.
    """
    recipe.make()
    own = space_of(name, bool(models.get(name).sections), True) if space is None else space
    if not own:
        raise SettingsError(
            f"models: there is nothing to try for {name}. Leave it out, or say some with --search."
        )
    for key, values in own.items():
        for value in values if isinstance(values, tuple) else (values.low, values.high):
            with_settings(recipe, {key: value}).make()


def recipes_of(run: RunSettings, names: Sequence[str]) -> dict[str, Recipe]:
    """Name -> recipe: the run's own for its model, and for others their defaults.

    Raises:
        SettingsError: no model is named, or one twice.
    """
    own = run.model.get("name")
    names = list(names) or ([own] if own is not None else [])
    if not names:
        raise SettingsError("models: expected at least one, as --models hrm,gru4rec. Got none.")
    if len(set(names)) < len(names):
        raise SettingsError(f"models: expected each once. Got {', '.join(names)}.")
    recipe = run.recipe()
    return {
        name: recipe if name == own else Recipe({"name": name}, selection=recipe.selection) for name in names
    }


def said(name: str, trial: Trial, search: Search) -> str:
    """One line about a trial that has ended."""
    if trial.state == "failed":
        return f"{name} trial {trial.number}: failed ({trial.error})"
    best = search.best()
    reached = "" if best is None or best.value is None else f", best so far {best.value:.4f}"
    stopped = ", stopped early" if trial.state == "stopped" else ""
    return (
        f"{name} trial {trial.number}: {search.metric} {trial.value:.4f}{stopped}, {trial.seconds:.0f} s"
        f"{reached}"
    )


def write_best(run: RunSettings, search: Search) -> None:
    """Writes ``best.yaml``, a run file with the best settings, beside the trials."""
    best = search.best()
    if best is None:
        return
    content: dict[str, Any] = run.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    recipe = with_settings(search.recipe, best.settings)
    for section in ("model", *SECTIONS):
        content.pop(section, None)
        if (value := getattr(recipe, section)) is not None:
            content[section] = value
    content.pop("output", None)
    text = f"# Trial {best.number}: validation {search.metric} {best.value:.4f}.\n"
    storage.write_text(
        text + yaml.safe_dump(content, sort_keys=False), storage.join(search.folder, "best.yaml")
    )


def summary(searches: Sequence[Search]) -> Table:
    """What the searches found, a row a model, best first."""
    rows: list[dict[str, Any]] = []
    for search in searches:
        trials, best = search.trials(), search.best()
        first = next((trial for trial in trials if not trial.settings), None)
        rows.append(
            {
                "model": search.recipe.model.get("name"),
                "trials": len(trials),
                "as it was": None if first is None else first.value,
                "best": None if best is None else best.value,
                "trial": None if best is None else best.number,
                "minutes": round(sum(trial.seconds for trial in trials) / 60, 1),
                "settings": "" if best is None else ", ".join(f"{k}={v}" for k, v in best.settings.items()),
            }
        )
    metric = searches[0].metric
    rows.sort(key=lambda row: -(row["best"] or 0.0))
    return Table(
        f"Validation {metric}",
        ["model", "trials", "as it was", "best", "trial", "minutes", "settings"],
        rows,
        ["The test is not touched: train with a best.yaml to test it."],
    )
