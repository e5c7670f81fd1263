"""What a run may say: data, split, model, loss, negatives, train, fit, evaluate, output. All of it is checked
before any data is read."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from seqrec import sources, storage
from seqrec.data.baskets import Derived
from seqrec.errors import DataError, SettingsError, did_you_mean, shown
from seqrec.evaluation.metrics import Measured
from seqrec.experiment import keys
from seqrec.experiment import protocol as protocols
from seqrec.experiment.recipe import SECTIONS, Recipe
from seqrec.samples.tables import SampleSettings
from seqrec.serving import artifact
from seqrec.settings import yaml_file
from seqrec.settings.base import Settings
from seqrec.sources.options import ReadOptions
from seqrec.splitting import SplitSettings
from seqrec.storage import marker
from seqrec.training.options import FitSettings

if TYPE_CHECKING:  # it imports torch
    from seqrec.models.model import Model

log = logging.getLogger("seqrec")

OF_ONE_FIT = ("epochs", "learning_rate", "patience", "minutes", "metric", "filter_seen")
"""Settings of ``train`` that a warm start does not take over from the model that it starts with."""
TRAINED = "trained"
"""The section of a run.json that is no setting: what training made of those that follow the log."""


class DataSettings(ReadOptions):
    """Which log. Give ``name`` (a known data set) or ``path`` (a file, or a folder that ``seqrec prepare``
    wrote)."""

    name: str | None = None
    """A data set that seqrec knows, such as ml-100k."""
    path: str | Annotated[list[str], Field(min_length=1)] | None = None
    """A log of your own, one file or several that together are the log; or a prepared folder."""
    folder: str | None = None
    """Where the files of the named data set are; by default it is looked for as ``seqrec data download``
    does."""
    items: str | None = None
    """A table of item attributes (titles, genres ...) with a column of item ids."""
    users: str | None = None
    """A table of user attributes with a column of user ids."""
    min_item_count: int = Field(0, ge=0)
    """Items with fewer events are left out."""
    min_user_count: int = Field(0, ge=0)
    """Users with fewer events are left out."""
    until_stable: bool = False
    """Whether both minima are asked again until nothing changes (the k-core); by default once, items
    first."""
    cold_items: bool = False
    """Whether items of the table ``items`` that have no event are items, too: to be recommended by models
    that read their attributes (``features.item``)."""
    tie_order: Literal["file", "random"] = "file"
    """Order of a user's events of the same second."""
    tie_seed: int = Field(0, ge=0, lt=2**42)
    """Seed of the random tie order."""
    basket: Derived | None = None
    """Which of a user's events are a basket: those of one time (``same_time``) or of one day, UTC
    (``same_day``); by default what the log's column ``basket_id`` says, if it has one."""


class EvaluateSettings(Settings):
    """How a trained model is tested."""

    metrics: list[Measured] = Field(
        default_factory=lambda: ["ndcg@10", "recall@10", "mrr@10", "recall@20", "ndcg@20"], min_length=1
    )
    """What is printed, also ``auc``, which has no cut-off; all metrics are written, ``auc`` where it is asked
    for."""
    filter_seen: bool | None = None
    """Whether what a user has seen is left out; None: as the protocol says, else yes."""
    topk: str | None = None
    """A file (.csv or .parquet) for the 20 best items of each test query."""


class OutputSettings(Settings):
    """What a run leaves behind."""

    folder: str | None = None
    """Where the run is written: run.json, model/, metrics.json, checkpoint while it trains. None writes
    nothing."""
    refit: bool = False
    """After the test, a fresh model is fitted on all events, validation and test included, for the epochs
    that validation chose, and saved as serving/: what `seqrec recommend` then uses, and `seqrec evaluate`
    never."""


class EngineSettings(Settings):
    """What a run is computed on."""

    name: Literal["local", "spark"] = "local"
    """This machine, or a cluster of Apache Spark (the extra ``spark``)."""
    master: str | None = None
    """Spark: the address of the cluster, such as ``local[4]`` or ``spark://host:7077``. None: the session
    that runs here, or as Spark is configured."""
    shards: int = Field(8, ge=1, le=1_000_000)
    """Spark: parts of the users that `seqrec prepare` sorts at the same time."""
    processes: int = Field(1, ge=1, le=100_000)
    """Spark: processes that train, which share ``train.streams``."""


class RunSettings(Settings):
    """A run, section by section: data, model, training, how it is tested, and what is written."""

    protocol: str | None = None
    """A benchmark protocol, which says data and split."""
    data: DataSettings = DataSettings()
    """Which log; with a protocol only ``folder`` may be given."""
    split: SplitSettings | None = None
    """Which events train, validate and test; leave_one_out if nothing is said."""
    model: dict[str, Any] = Field(default_factory=dict)
    """``name`` and the model's own settings. `seqrec prepare` needs none."""
    loss: dict[str, Any] | str | None = None
    """Loss of a neural model."""
    negatives: dict[str, Any] | None = None
    """Sampler of a neural model."""
    train: dict[str, Any] | None = None
    """Training of a neural model."""
    fit: FitSettings = FitSettings()
    """Seed, device and precision."""
    features: str | dict[str, Any] | None = None
    """Which attributes a neural model reads beside the ids (``FeatureSchema``): the path of a YAML file, or
    the schema itself."""
    prior: dict[str, Any] | str | None = None
    """What is added to the scores of a neural model."""
    item_table: dict[str, Any] | str | None = None
    """How a neural model stores the vectors of items; None: a vector an item."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """What is measured."""
    output: OutputSettings = OutputSettings()
    """What is written."""
    engine: EngineSettings | None = None
    """What `seqrec prepare` and `seqrec train` run on; None: this machine. The numbers are the same."""
    samples: SampleSettings | None = None
    """Tables of samples that `seqrec prepare` writes; training does not read them."""

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = ()) -> RunSettings:
        """From a YAML file (local or remote), with overrides such as ``train.epochs=3``."""
        return cls.of(read(path, overrides), "")

    def check(self) -> Model:
        """The untrained model, after everything in the run has been checked that can be checked without data.

        Raises:
            SettingsError: says the section and key, what was expected and what came.
        """
        from seqrec.evaluation import lists
        from seqrec.training.device import choose_device

        self.check_names()
        choose_device(self.fit.device)
        if self.evaluate.topk is not None:
            storage.check_file(self.evaluate.topk, lists.SUFFIXES)
        if self.output.refit and self.output.folder is None:
            raise SettingsError(
                "output.refit: expected output.folder, to save the model that is fitted on all "
                "events. Got none."
            )
        return self.recipe().make()

    def check_names(self) -> None:
        """Checks what can be checked at once: without data, and without the model's own file.

        Raises:
            SettingsError: as ``check``.
        """
        self.check_data()
        keys.check(self.model, **{name: getattr(self, name) for name in SECTIONS})
        if self.output.folder is not None:
            storage.check_folder(self.output.folder)
        if self.fit.start is not None:
            self._check_start(self.fit.start, self.output.folder)

    @staticmethod
    def _check_start(start: str, output: str | None) -> None:
        storage.check_path(start, "fit.start")
        if output is not None and storage.absolute(start) in (
            storage.absolute(output),
            *(storage.absolute(storage.join(output, name)) for name in ("model", "serving")),
        ):
            raise SettingsError(
                f"fit.start: expected a model of another run. Got {shown(start)}, which is in the output "
                "folder, where this run would replace it. Name another output folder."
            )

    def check_sources(self) -> None:
        """Checks, before any is opened, that the log and the tables beside it are there.

        Raises:
            SettingsError: an unknown data set.
            DataError: a file that does not exist, or no model where ``fit.start`` says.
        """
        if self.fit.start is not None:
            artifact.about_of(artifact.tested(self.fit.start))
        if self.data.name is not None and self.data.name not in sources.DATASETS:
            raise SettingsError(
                f"data.name: {self.data.name!r} is no known data "
                f"set.{did_you_mean(self.data.name, sources.DATASETS)} A log of your own is data.path."
            )
        paths = [self.data.path] if isinstance(self.data.path, str) else self.data.path or []
        if not any(storage.is_folder(path) for path in paths):  # a prepared one refuses tables beside it
            paths = [*paths, *(one for one in (self.data.items, self.data.users) if one is not None)]
        for path in paths:
            if not storage.is_remote(path) and not storage.exists(path):
                raise DataError(f"{path}: no such file.")

    @property
    def on_spark(self) -> bool:
        """Whether a cluster computes it."""
        return self.engine is not None and self.engine.name == "spark"

    def refuse_engine(self, instead: str) -> None:
        """Checks that this machine is to compute the run.

        Args:
            instead: what runs it on Spark.

        Raises:
            SettingsError: it is not.
        """
        if self.on_spark:
            raise SettingsError(
                f"engine.name: expected local here. Got spark. Call {instead} with a session, or leave the "
                "section out."
            )

    def recipe(self) -> Recipe:
        """Which model."""
        return Recipe(
            self.model, **{name: getattr(self, name) for name in SECTIONS}, selection=self.selection()
        )

    def selection(self) -> dict[str, Any]:
        """By what epochs are chosen where ``train`` does not say: as the protocol chooses, else with the
        filter that the test has."""
        if self.protocol is not None:
            return protocols.read_protocol(self.protocol).select.model_dump()
        return {} if self.evaluate.filter_seen is None else {"filter_seen": self.evaluate.filter_seen}

    def check_data(self) -> None:
        """Checks that the run says which data, once.

        Raises:
            SettingsError: it does not.
        """
        if self.protocol is not None:
            protocols.read_protocol(self.protocol)
            given = self.data.model_fields_set - {"folder"}
            if given or self.split is not None:
                extra = "split" if self.split is not None else f"data.{sorted(given)[0]}"
                raise SettingsError(
                    f"{extra}: the protocol {self.protocol} already gives data and split. "
                    f"Leave out {extra}, or the protocol."
                )
        elif self.split is not None and self.split.name == "files":
            if self.data.name is not None or self.data.path is not None:
                extra = "data.name" if self.data.path is None else "data.path"
                raise SettingsError(
                    f"{extra}: cannot be given, since split.name is files: the split's files are the log. "
                    f"Leave out {extra}."
                )
        elif (self.data.name is None) == (self.data.path is None):
            raise SettingsError(
                "data: expected either data.name (a known data set) or data.path (a log), or a protocol."
            )
        elif self.data.path is not None:
            paths = [self.data.path] if isinstance(self.data.path, str) else self.data.path
            for path in paths:
                storage.check_path(path, "data.path")
            twice = next((path for path in paths if paths.count(path) > 1), None)
            if twice is not None:
                raise SettingsError(
                    f"data.path: expected each file once. Got {twice} twice; its events would count twice."
                )
        for name in ("items", "users", "folder"):
            if isinstance(given := getattr(self.data, name), str):
                storage.check_path(given, f"data.{name}")


def read(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The content of a run file with overrides.

    Where they switch to a loss that compares with the whole catalogue, the file's own section ``negatives``
    is left out, and a log line says so.
    """
    overrides = list(overrides)
    content = yaml_file.read(path)
    before = copy.deepcopy(content)
    for override in overrides:
        yaml_file.apply_override(content, override)
    switched = any(content.get(section) != before.get(section) for section in ("model", "loss"))
    if switched and "negatives" in before and content.get("negatives") == before["negatives"]:
        name = keys.loss_without_negatives(content.get("model"), content.get("loss"))
        if name is not None:
            log.info("negatives: unused, since the loss %s compares with the whole catalogue.", name)
            del content["negatives"]
    return content


def as_its_start(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a run that says no model, but a model to start with (``fit.start``), with that model's
    sections: its settings, loss, negatives and features, and all of its training but how long, and at which
    rates. As it is where it has a section of its own, or no start.

    Raises:
        DataError: the start's folder holds no model.
    """
    fit, model = content.get("fit"), content.get("model") or {}
    start = fit.get("start") if isinstance(fit, dict) else None
    if not isinstance(start, str) or not isinstance(model, dict) or "name" in model:
        return content
    storage.check_path(start, "fit.start")
    found = artifact.about_of(artifact.tested(start))
    settings = dict(found.configuration)
    sections = {name: settings.pop(name) for name in SECTIONS if name in settings}
    train = sections.get("train")
    if isinstance(train, dict):
        sections["train"] = {
            name: value for name, value in train.items() if name not in OF_ONE_FIT and value is not None
        }
    own = {"name": found.name, **settings, **model}
    if keys.loss_without_negatives(own, sections.get("loss")) is not None:
        sections.pop("negatives", None)
    for name, value in sections.items():
        given = content.get(name)
        if isinstance(value, dict) and isinstance(given, dict) and name == "train":
            sections[name] = value | given
        elif given is not None:
            sections[name] = given
    return {**content, "model": own, **sections}


def read_run(folder: str) -> dict[str, Any]:
    """What the run.json in an output folder says, as this version writes it.

    Raises:
        SettingsError: there is none, or one with an unknown or wrong setting.
        DataError: it is no JSON object, or was changed after it was written.
    """
    path = storage.join(folder, "run.json")
    if not storage.exists(path):
        raise SettingsError(
            f"{folder}: expected the output folder of `seqrec train` (with a run.json). Train with "
            "--output first."
        )
    content = upgraded(marker.read(path, "Train it again with --restart"))
    RunSettings.of(content, path)
    return content


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A run.json, or the settings of a result file, as this version writes it, whichever version did.

    Seed, device and precision were settings of training once, and a loss listed the options of all losses.
    """
    from seqrec.training import loss as losses

    content = {name: value for name, value in content.items() if name != TRAINED}
    if isinstance(loss := content.get("loss"), dict):
        content = {**content, "loss": losses.upgraded(loss)}
    if not isinstance(content.get("train") or {}, dict) or not isinstance(content.get("fit", {}), dict):
        return content  # which whoever checks it refuses
    train = dict(content.get("train") or {})
    moved = {name: train.pop(name) for name in FitSettings.model_fields if name in train}
    if not moved:
        return content
    content = {**content, "train": train, "fit": moved | content.get("fit", {})}
    return content if train else {name: value for name, value in content.items() if name != "train"}
