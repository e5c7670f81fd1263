"""Runs a protocol: each model and seed in a process of its own, one result file each; what is done already is
not run again.

A process of its own, because its peak memory is then that of one run from the log to the test metrics.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec import storage
from seqrec.benchmark.results import Result, collect, same_settings
from seqrec.errors import DataError, SettingsError, TrainingError, did_you_mean
from seqrec.experiment import keys
from seqrec.experiment.protocol import Protocol, read_protocol, read_sequences
from seqrec.experiment.recipe import SECTIONS, Recipe
from seqrec.models import MODELS, get
from seqrec.settings import names as resolve
from seqrec.settings import yaml_file
from seqrec.settings.base import Settings
from seqrec.training.options import FitSettings

if TYPE_CHECKING:  # it imports torch
    from seqrec.models.model import Model

log = logging.getLogger("seqrec")
FOLDER = Path(__file__).parent / "configs"


class Config(Settings):
    """A model's settings under a protocol, as ``configs/<protocol>/<label>.yaml`` has them."""

    model: str | dict[str, Any]
    """The model's name, or its settings with the name among them; without a name it is the file's."""
    loss: str | dict[str, Any] | None = None
    """Neural models: the loss and its settings."""
    negatives: dict[str, Any] | None = None
    """Neural models: the negatives of losses that sample."""
    train: dict[str, Any] | None = None
    """Neural models: how it is trained. The validation metric comes with the protocol."""
    fit: FitSettings = FitSettings()
    """Device and precision. The seed comes with the run."""
    features: str | dict[str, Any] | None = None
    """Neural models: which attributes are read beside the ids."""
    prior: dict[str, Any] | str | None = None
    """Neural models: what is added to their scores."""
    item_table: dict[str, Any] | str | None = None
    """Neural models: how they store the vectors of items."""
    retrain: bool = False
    """A variant: after selection the model is trained again on training and validation events, for the chosen
    number of epochs, also where the protocol does not ask for it."""


def labels(protocol: str, configs: str | Path | None = None) -> list[str]:
    """The rows that have settings under a protocol, simple models first."""
    folder = storage.join(configs or FOLDER, protocol)
    found = (
        [name.removesuffix(".yaml") for name in storage.names(folder) if name.endswith(".yaml")]
        if storage.is_folder(folder)
        else []
    )
    known = list(MODELS)
    return sorted(
        found,
        key=lambda label: (known.index(m) if (m := label.split("-")[0]) in known else len(known), label),
    )


def read_config(
    protocol: str,
    label: str,
    configs: str | Path | None = None,
    own: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, Sequence[str]] | None = None,
) -> Config:
    """The settings of one row: its file, or, for a model without one, the model's own defaults.

    Args:
        own: label -> a YAML file, instead of the one in the folder.
        overrides: label -> settings that replace the file's, as ``train.epochs=3``.

    Raises:
        SettingsError: neither a file nor a model of that name, or a file with an unknown section.
    """
    path = str((own or {}).get(label) or storage.join(configs or FOLDER, protocol, f"{label}.yaml"))
    changes = list((overrides or {}).get(label, ()))
    if label in (own or {}) or storage.exists(path):
        content = yaml_file.read(path)
        content.setdefault("model", label.split("-")[0])
        if isinstance(content["model"], str) and any(one.startswith("model.") for one in changes):
            content["model"] = {"name": content["model"]}
        for change in changes:
            yaml_file.apply_override(content, change)
        return Config.of(content, f"{protocol}/{label}")
    if changes:
        content = {"model": {"name": label}}
        for change in changes:
            yaml_file.apply_override(content, change)
        return Config.of(content, f"{protocol}/{label}")
    if ":" in label:
        get(label)
        return Config(model=label)
    try:
        resolve.check("model", label, MODELS)
    except SettingsError as error:
        raise SettingsError(
            f"models: {label!r} is not a model, and has no settings under "
            f"{protocol}.{did_you_mean(label, labels(protocol, configs) or MODELS)}"
        ) from error
    return Config(model=label)


def recipe_of(protocol: Protocol, label: str, config: Config) -> Recipe:
    """Which model the runs of a row have.

    Raises:
        SettingsError: it says what the protocol or the run sets.
    """
    own = {"name": config.model} if isinstance(config.model, str) else {"name": label, **config.model}
    selection = protocol.select.model_dump()
    fixed = [f"train.{key}" for key in selection if key in (config.train or {})]
    fixed += [f"fit.{key}" for key in ("seed", "start") if key in config.fit.model_fields_set]
    if fixed:
        raise SettingsError(f"{label}: {fixed[0]}: set by the protocol or the run. Leave it out.")
    sections = {name: getattr(config, name) for name in SECTIONS}
    keys.check(own, **sections)
    return Recipe(own, **sections, selection=selection)


def settings_of(model: Model, config: Config) -> dict[str, Any]:
    """All settings of a run but the seed, as JSON values: the same for all seeds of a row."""
    of_fit = config.fit.model_dump(exclude={"seed", "start", "track"})
    own: dict[str, Any] = {"fit": of_fit} if "train" in model.sections else {}
    if config.retrain:
        own["retrain"] = True
    settings: dict[str, Any] = json.loads(
        json.dumps({"model": model.reference(), **model.configuration(), **own})
    )
    return settings


def result_path(results_dir: str | Path, protocol: str, label: str, seed: int) -> str:
    """Where the result of a run is written: ``<results_dir>/<protocol>/<label>/seed-<seed>.json``."""
    return storage.join(results_dir, protocol, _file_name(label), f"seed-{seed}.json")


def _file_name(label: str) -> str:
    return label.replace(":", ".")  # package.module:Name


def is_done(path: str, protocol: Protocol, settings: dict[str, Any]) -> bool:
    """Whether the file is a result of these very settings on this very split."""
    if not storage.exists(path):
        return False
    result = Result.read(path)
    return same_settings(result["settings"], settings) and protocol.split_hash in (None, result["split_hash"])


def check_split(
    protocol: Protocol, results_dir: str | Path, data_dir: str | None, replaced: Iterable[str]
) -> None:
    """That a protocol's results are of the split which its data gives now. Only a protocol without a pinned
    hash needs its data for that.

    Args:
        replaced: paths of results that will be run again, whatever they are of.

    Raises:
        DataError: a result of another split.
    """
    folder = storage.join(results_dir, protocol.name)
    if protocol.split_hash is not None or not storage.is_folder(folder):
        return
    again = set(replaced)
    kept = [result for result in collect(folder) if result.path not in again]
    if not kept:
        return
    now = protocol.apply(read_sequences(protocol.data, protocol.ties, data_dir)[0]).hash
    for result in kept:
        if result["split_hash"] != now:
            raise DataError(
                f"{result.path}: expected a result of the split that the data of {protocol.name} gives now, "
                f"{now}. Got one of {result['split_hash']}: the data or the protocol's split has changed. "
                "Run all models and seeds of this folder with --again (again=True) to replace them, remove "
                "the file, or name another folder with --results."
            )


def run(
    protocol: str | Path,
    models: Sequence[str] | None = None,
    seeds: int | Iterable[int] = 3,
    results_dir: str | Path = "benchmarks/results",
    data_dir: str | Path | None = None,
    *,
    configs: str | Path | None = None,
    own: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, Sequence[str]] | None = None,
    topk_dir: str | Path | None = None,
    threads: int | None = None,
    again: bool = False,
    progress: bool = True,
) -> list[str]:
    """Runs models under a protocol and writes a result file for each seed. Runs that are done, with the same
    settings, are skipped.

    Args:
        protocol: a shipped protocol's name, or the path of a YAML file.
        models: rows to run: models, or labels with a settings file; None for all that have one.
        seeds: a number n for 0 .. n-1, or the seeds themselves.
        data_dir: where the data set's files are; else they are looked for as ``seqrec.sources`` does.
        configs: a folder of your own with ``<protocol>/<label>.yaml``.
        own: label -> a YAML file with its settings; labels that ``models`` does not name are run too.
        overrides: label -> settings that replace those of its file, as ``["train.epochs=3"]``; labels that
            ``models`` does not name are run too.
        topk_dir: also write each run's top-k lists there, as ``<protocol>/<label>-seed-<n>.csv``, for another
            judge. A finished run whose lists are not there is run again.
        threads: of each run; None for what torch chooses.
        again: run also what is done, and replace its results.

    Returns:
        the paths of all result files asked for, whether written now or before.

    Raises:
        SettingsError: an unknown protocol, model or setting; before anything runs.
        DataError: there are results of another split than the data gives now, and they are not run again;
            before anything runs.
        TrainingError: some runs failed; the others are done, and their files are there.
    """
    declared = read_protocol(protocol)
    named = [*(own or {}), *(overrides or {})]
    chosen = list(models) if models is not None else named or labels(declared.name, configs)
    chosen = list(dict.fromkeys([*chosen, *named]))
    if not chosen:
        raise SettingsError(
            f"models: {declared.name} has no settings files. Name models to run with their defaults: "
            f"{', '.join(MODELS)}."
        )
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    runs = []
    rows = [(label, read_config(declared.name, label, configs, own, overrides)) for label in chosen]
    recipes = [recipe_of(declared, label, config) for label, config in rows]  # all names, before torch
    for (label, config), recipe in zip(rows, recipes, strict=True):
        settings = settings_of(recipe.make(), config)
        for seed in numbers:
            runs.append((label, config, seed, settings, result_path(results_dir, declared.name, label, seed)))
    check_split(
        declared,
        results_dir,
        None if data_dir is None else str(data_dir),
        [path for *_, path in runs] if again else [],
    )
    failed, warn = [], True
    for number, (label, config, seed, settings, path) in enumerate(runs, 1):
        lists = (
            None
            if topk_dir is None
            else storage.join(topk_dir, declared.name, f"{_file_name(label)}-seed-{seed}.csv")
        )
        done = not again and is_done(path, declared, settings)
        # a result file has no lists
        for_lists = done and lists is not None and not storage.exists(lists)
        state = ", again for its lists" if for_lists else ", already done" if done else ""
        done = done and not for_lists
        if progress:
            print(
                f"[{number}/{len(runs)}] {declared.name}: {label}, seed {seed}{state}",
                file=sys.stderr,
                flush=True,
            )
        if done:
            continue
        request = {
            "protocol": str(protocol),
            "label": label,
            "config": config.model_dump(exclude_unset=True),
            "seed": seed,
            "path": path,
            "data_dir": None if data_dir is None else str(data_dir),
            "topk": lists,
            "progress": progress,
            "warn": warn,
            "parent": os.getpid(),
        }
        warn = False
        # models, splits and metrics from outside are there where they are here
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-m", "seqrec.benchmark.worker"]
        with _ending_is_an_error():  # after which subprocess.run ends the worker
            finished = subprocess.run(
                command,
                input=json.dumps(request),
                text=True,
                env=environment,
                stderr=None if progress else subprocess.PIPE,
            )
        for line in (finished.stderr or "").splitlines() if not finished.returncode else ():
            log.warning("%s", line)
        if finished.returncode:
            failed.append(
                f"{label}, seed {seed}"
                + (f" ({finished.stderr.strip().splitlines()[-1]})" if finished.stderr else "")
            )
    if failed:
        raise TrainingError(
            f"{declared.name}: {len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}. Results of "
            f"the others are in {results_dir}."
        )
    return [path for *_, path in runs]


@contextmanager
def _ending_is_an_error() -> Iterator[None]:
    """Within the block SIGTERM raises ``SystemExit``, as Ctrl-C does ``KeyboardInterrupt``.

    Both say how to go on.
    """

    def end(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    main = threading.current_thread() is threading.main_thread()  # in others there are no signals
    before = signal.signal(signal.SIGTERM, end) if main else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print("Stopped. The same command goes on from the last complete epoch.", file=sys.stderr)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
