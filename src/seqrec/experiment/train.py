"""A run: data, split, model, loss, negatives, train, fit, evaluate, output, as one YAML file or one object
describes it.

    protocol: ml-1m-origin-v1         # data and split of a benchmark protocol; or say both yourself:
    data: {path: events.csv}
    split: {name: leave_one_out}
    model: {name: gru4rec, width: 64}
    loss: {name: bpr}
    negatives: {in_batch: true}
    train: {epochs: 20}
    fit: {seed: 1, device: cpu}
    features: {item: [item_id, genres], user: [gender, age]}  # or the path of a schema; without it, ids only
    prior: markov                     # what usually comes next is added to the scores; without it, nothing
    evaluate: {metrics: [recall@20, ndcg@20], filter_seen: false}
    output: {folder: runs/my-run}

`seqrec prepare --conf` reads the same file: data and split, and a section ``samples`` for tables with one row
an event.

Everything is checked before any data is read.
"""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from typing import Any

import numpy as np

from seqrec import models, processes, storage
from seqrec.errors import SeqrecError, SettingsError, masked
from seqrec.evaluation import lists
from seqrec.experiment import fitting, judge
from seqrec.experiment.data import read_split
from seqrec.experiment.data_check import warnings_of_order
from seqrec.experiment.protocol import read_protocol
from seqrec.experiment.recipe import SECTIONS, Recipe
from seqrec.experiment.settings import TRAINED, RunSettings, upgraded
from seqrec.models.model import Model
from seqrec.models.neural import NeuralModel
from seqrec.models.warm_start import Start
from seqrec.splitting import Split
from seqrec.storage import lock, marker
from seqrec.tables import Table
from seqrec.training import streams
from seqrec.training.options import FitOptions, FitReport, FitSettings

log = logging.getLogger("seqrec")

AGAIN = "Train with --restart (restart=True) to replace the run"


def train(run: RunSettings, progress: bool = True, restart: bool = False) -> tuple[Model, Table]:
    """Trains (again, on training and validation events, where the protocol says so) and tests, and writes
    what ``output`` asks for. Where the output folder has a checkpoint of the
    same run, it goes on from there. A finished run goes on too if ``train.epochs`` is raised: the schedule of
    rates is then that of the new number, so that a rate that had fallen rises again.

    Processes that torchrun starts are one run: they share the streams of training and the queries, and the
    first one writes. All of them need the log; the output folder only the first.

    Args:
        restart: train anew, and replace what is in the output folder.

    Returns:
        the model, and the table of the test metrics that were asked for (metrics.json has all).
    Raises:
        SettingsError: a setting is wrong, or the output folder has another run.
        StorageError: another process trains into the output folder.
        TrainingError: training cannot go on; or another process of the run is lost.
    """
    run.refuse_engine("seqrec.spark.train.train")
    model = run.check()
    check_shared(model, processes.launched()[1])
    with processes.joined():
        return _train_together(run, model, progress, restart)


def check_shared(model: Model, started: int) -> None:
    """Checks, before any data is read, that so many processes can train a model.

    Args:
        started: how many there are.

    Raises:
        SettingsError: they cannot.
    """
    if isinstance(model, NeuralModel):
        streams.check(model.train, started)
    elif started > 1:
        raise SettingsError(
            f"model.name: expected a network with {started} processes, which share the streams of its "
            f"training. Got {model.name}, which one process fits alone. Start it without torchrun."
        )


def _train_together(run: RunSettings, model: Model, progress: bool, restart: bool) -> tuple[Model, Table]:
    start = None
    if run.fit.start is not None:
        start = Start.of(run.fit.start, type(model))
        start.check(model)
    folder = run.output.folder
    if folder is None:
        return _train(run, progress, restart, start)

    def earlier() -> bytes:
        return json.dumps(None if restart else _check_is_ours(run, folder)).encode()

    earlier_epochs = json.loads(processes.from_first(earlier))
    if storage.is_remote(folder):
        log.info("%s: a remote folder cannot be locked; see that nothing else writes into it", folder)
    with lock.held(folder) if processes.first() else nullcontext():
        try:
            return _train(run, progress, restart, start, earlier_epochs)
        except KeyboardInterrupt:
            if storage.exists(storage.join(folder, "checkpoint.safetensors")):
                log.warning("Stopped. The same command goes on from the last complete epoch, in %s.", folder)
            else:
                log.warning("Stopped, before there was anything to keep. The same command starts again.")
            raise


def _train(
    run: RunSettings, progress: bool, restart: bool, start: Start | None, earlier_epochs: int | None = None
) -> tuple[Model, Table]:
    split, source, filter_seen = read_split(run)
    s = split.sequences
    log.info("%s: %d users, %d items, %d events", masked(source), s.users, len(s.item_catalogue), s.events)
    random = run.data.tie_order == "random" or (
        run.protocol is not None and read_protocol(run.protocol).ties == "random"
    )
    for warning in warnings_of_order(s, random):
        log.warning("%s", warning)
    log.info(
        "%d events train, %d queries validate, %d test",
        split.train_events.sum(),
        len(split.validation),
        len(split.test),
    )
    folder = run.output.folder
    checkpoint = None if folder is None else storage.join(folder, "checkpoint.safetensors")
    if checkpoint is not None and restart and processes.first():
        storage.remove(checkpoint)
    on = FitOptions(
        **run.fit.model_dump() | {"start": start},
        progress=progress,
        checkpoint=checkpoint,
        earlier_epochs=earlier_epochs,
    )
    retrain = run.protocol is not None and read_protocol(run.protocol).retrain
    fitted = fitting.fit(run.recipe(), split, on, retrain)
    model = fitted.final
    known = split.retrain() if retrain else split
    if start is not None and (seen := int(start.known(known, known.test).sum())):
        log.warning(
            "%s knew the answers of %d of %d test queries: the figures are too good. Begin with a model that "
            "was trained before them.",
            start.name,
            seen,
            len(known.test),
        )
    tested = judge.ask(model, known, run.evaluate.metrics, filter_seen)
    if folder is not None and processes.first():
        described = storage.join(folder, "run.json")
        if not _is_there(model, folder):
            # gone first and back last: where it is, model and metrics are its own
            storage.remove(described)
            model.save(storage.join(folder, "model"))
            storage.remove(storage.join(folder, "serving", "model.json"))  # of the model that was replaced
        tested.table().write(storage.join(folder, "metrics.json"))
        storage.write_json(_described(run) | _trained(fitted.chosen.fit_report), described)
    if run.evaluate.topk is not None and processes.first():
        lists.write(tested.ranks, known, run.evaluate.topk, filter_seen)
    if folder is not None and run.output.refit:
        refit(run.recipe(), fitted.chosen.fit_report, split.refit(), folder, on)
    return model, tested.table(run.evaluate.metrics)


def _is_there(model: Model, folder: str) -> bool:
    """Whether the run's folder is whole and has this very model: the same run again, which replaces
    nothing."""
    if not storage.exists(storage.join(folder, "run.json")):
        return False
    try:
        there = models.load_model(storage.join(folder, "model"), "cpu")
    except SeqrecError:
        return False  # a damaged one, or none
    ours, theirs = model.state(), there.state()
    return (
        there.reference() == model.reference()
        and there.configuration() == model.configuration()
        and there.provenance == model.provenance
        and [c and c.digest for c in there.numbering().values()]
        == [c and c.digest for c in model.numbering().values()]
        and ours.keys() == theirs.keys()
        and all(
            array.dtype == theirs[name].dtype and np.array_equal(array, theirs[name])
            for name, array in ours.items()
        )
    )


def _described(run: RunSettings) -> dict[str, Any]:
    """A run as its run.json has it: paths absolute, for whoever evaluates it from another folder."""
    return dict(_masked(with_absolute_paths(run)))


def with_absolute_paths(run: RunSettings) -> dict[str, Any]:
    """What a run says, without its engine; paths of data, protocol and start are absolute."""
    content: dict[str, Any] = run.model_dump(mode="json", exclude_none=True, exclude={"engine"})
    data = content["data"]
    for name in ("path", "items", "users", "folder"):
        if isinstance(data.get(name), str):
            data[name] = storage.absolute(data[name])
    if isinstance(data.get("path"), list):
        data["path"] = [storage.absolute(path) for path in data["path"]]
    if str(run.protocol).endswith((".yaml", ".yml")):
        content["protocol"] = storage.absolute(str(run.protocol))
    if isinstance(content["fit"].get("start"), str):
        content["fit"]["start"] = storage.absolute(content["fit"]["start"])
    return content


def _trained(report: FitReport) -> dict[str, Any]:
    """What a run.json has beside the settings: what followed the log, how validation went, and what it began
    with."""
    found = {
        "plan": report.plan,
        "prior": report.prior,
        "validation": report.validation,
        "start": report.start,
    }
    found = {name: value for name, value in found.items() if value is not None}
    return {TRAINED: found} if found else {}


def _masked(value: Any) -> Any:
    """The value without the credentials in its addresses, which come from the environment in the next
    session."""
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return masked(value) if isinstance(value, str) else value


def _check_is_ours(run: RunSettings, folder: str) -> int | None:
    """Checks that a folder has no other run.

    Returns:
        the epochs that the run there had, if it has now more; else None.
    """
    path = storage.join(folder, "run.json")
    if not storage.exists(path):
        return None
    content = marker.read(path, AGAIN)
    there, ours = upgraded(content), upgraded(_described(run))
    RunSettings.of(there, path)
    for one in (there, ours):  # another device may go on, and what is not said is as it is by default
        one["fit"] = {**FitSettings().model_dump(), **one.get("fit", {}), "device": "auto"}
    earlier = None
    if ours.get("model") == there.get("model") and there.get("train") != ours.get("train"):
        epochs = [
            RunSettings.of(one, "").recipe().make().configuration()["train"].pop("epochs")
            for one in (there, ours)
        ]
        if epochs[0] is None:
            epochs[0] = _epochs_of_log(content)
        if None not in epochs and epochs[0] < epochs[1]:
            earlier = epochs[0]
            for one in (there, ours):
                one["train"] = {k: v for k, v in (one.get("train") or {}).items() if k != "epochs"} or None
    for section in ("protocol", "data", "split", "model", "fit", *SECTIONS):
        if there.get(section) != ours.get(section):
            raise SettingsError(
                f"output.folder: {folder} has a run with another section {section}: {there.get(section)}. "
                f"Got {ours.get(section)}. "
                "Name another folder, or train with --restart (restart=True) to replace it."
            )
    return earlier


def _epochs_of_log(content: dict[str, Any]) -> int | None:
    """The epochs that followed the log of the run in a run.json; None where they were given."""
    found: Any = content
    for name in (TRAINED, "plan", "epochs"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, int) else None


def refit(recipe: Recipe, report: FitReport, whole: Split, folder: str, on: FitOptions) -> None:
    """Fits a fresh model on all events, for as many epochs as the tested one has chosen, and saves it as
    ``serving`` in the run's folder.

    Its checkpoint has a name of its own, made from all that must be the same for it to go on; those of other
    refits are removed.
    """
    whole_fit = fitting.planned(recipe, report).make().fingerprint(whole, on)
    kept = f"refit-{report.best_epoch}-{whole_fit}.safetensors"
    log.info("refit: %d events train, for %s", whole.train_events.sum(), storage.join(folder, "serving"))
    fresh = fitting.fit_again(recipe, whole, report, on, storage.join(folder, kept))
    if not processes.first():
        return
    fresh.save(storage.join(folder, "serving"))
    for name in storage.names(folder):
        if name.startswith("refit-") and name.endswith(".safetensors") and name != kept:
            storage.remove(storage.join(folder, name))
