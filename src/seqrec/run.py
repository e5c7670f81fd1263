"""A run: data, split, model, loss, negatives, train, evaluate, output, as one YAML file or one object describes it.

    protocol: ml-1m-origin-v1         # data and split of a benchmark protocol; or say both yourself:
    data: {path: events.csv}
    split: {name: leave_one_out}
    model: {name: gru4rec, width: 64}
    loss: {name: bpr}
    negatives: {in_batch: true}
    train: {epochs: 20}
    features: {item: [item_id, genres], user: [gender, age]}    # or the path of a schema; or nothing: ids only
    evaluate: {metrics: [recall@20, ndcg@20], filter_seen: false}
    output: {folder: runs/my-run}

`seqrec prepare --conf` reads the same file: data and split, and a section ``samples`` for tables with one row an event.

Everything is checked before any data is read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from seqrec import comparison, evaluation, metrics, models, preparing, storage, topk, yaml_file
from seqrec.benchmark import protocol as protocols
from seqrec.catalogue import Catalogue
from seqrec.config import MetricName, Settings
from seqrec.errors import SettingsError
from seqrec.features import samples
from seqrec.features.samples import SampleSettings
from seqrec.interactions import Interactions
from seqrec.models import neural
from seqrec.models.model import Model
from seqrec.models.neural import NeuralModel
from seqrec.sequences import Sequences
from seqrec.splitting import Split, SplitSettings
from seqrec.tables import Table

log = logging.getLogger("seqrec")


class DataSettings(Settings):
    """Which log. Give ``name`` (a known data set) or ``path`` (a file, or a folder that ``seqrec prepare`` wrote)."""

    name: str | None = None
    """A data set that seqrec knows, such as ml-100k."""
    path: str | list[str] | None = None
    """A log of your own, one file or several that together are the log; or a prepared folder."""
    folder: str | None = None
    """Where the files of the named data set are; by default it is looked for as ``seqrec data download`` does."""
    format: str = "auto"
    """Format of the log."""
    columns: dict[str, str | int | None] = Field(default_factory=dict)
    """Which column of the file is which: ``{user_id: customer, item_id: sku, timestamp: bought_at}``; numbers from 0 where the file has no header,
    null leaves a column out. Of tables of samples also label and recent."""
    delimiter: str | None = None
    """What separates the columns of a text file; None tells it from the header."""
    encoding: str | None = None
    """Encoding of a text file; UTF-8 if nothing is said."""
    items: str | None = None
    """A table of item attributes (titles, genres ...) with a column of item ids."""
    users: str | None = None
    """A table of user attributes with a column of user ids."""
    duplicates: Literal["keep", "drop"] = "keep"
    """What becomes of events that stand twice (same user, item and time)."""
    min_item_count: int = Field(0, ge=0)
    """Items with fewer events are left out."""
    min_user_count: int = Field(0, ge=0)
    """Users with fewer events are left out."""
    tie_order: Literal["file", "random"] = "file"
    """Order of a user's events of the same second."""
    tie_seed: int = Field(0, ge=0)
    """Seed of the random tie order."""


class EvaluateSettings(Settings):
    metrics: list[MetricName] = Field(default_factory=lambda: ["ndcg@10", "recall@10", "mrr@10", "recall@20", "ndcg@20"], min_length=1)
    """What is printed; all metrics are written."""
    filter_seen: bool | None = None
    """Whether what a user has seen is left out; None: as the protocol says, else yes."""
    topk: str | None = None
    """A file (.csv or .parquet) for the 20 best items of each test query."""


class OutputSettings(Settings):
    folder: str | None = None
    """Where the run is written: run.json, model/, metrics.json, checkpoint while it trains. None writes nothing."""
    refit: bool = False
    """After the test, a fresh model is fitted on all events, validation and test included, for the epochs that validation chose, and saved as
    serving/: what `seqrec recommend` then uses, and `seqrec evaluate` never."""


class RunSettings(Settings):
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
    features: str | dict[str, Any] | None = None
    """Which attributes a neural model reads beside the ids (``FeatureSchema``): the path of a YAML file, or the schema itself."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """What is measured."""
    output: OutputSettings = OutputSettings()
    """What is written."""
    samples: SampleSettings | None = None
    """Tables of samples that `seqrec prepare` writes; training does not read them."""

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = ()) -> RunSettings:
        """From a YAML file (local or remote), with overrides such as ``train.epochs=3``."""
        return cls.of(yaml_file.read(path, overrides), "")

    def check(self) -> Model:
        """The untrained model, after everything in the run has been checked that can be checked without data.

        Raises:
            SettingsError: says the section and key, what was expected and what came.
        """
        self.check_data()
        if self.output.folder is not None:
            storage.check_folder(self.output.folder)
        if self.evaluate.topk is not None:
            storage.check_file(self.evaluate.topk, topk.SUFFIXES)
        if self.output.refit and self.output.folder is None:
            raise SettingsError("output.refit: expected output.folder, where the model that is fitted on all events is saved. Got none.")
        return make_model(self.model, self.loss, self.negatives, self.train, self.features, self.selection())

    def selection(self) -> dict[str, Any]:
        """By what epochs are chosen where ``train`` does not say: as the protocol chooses, else with the filter that the test has."""
        if self.protocol is not None:
            return protocols.load_protocol(self.protocol).select.model_dump()
        return {} if self.evaluate.filter_seen is None else {"filter_seen": self.evaluate.filter_seen}

    def check_data(self) -> None:
        """Checks that the run says which data, once.

        Raises:
            SettingsError: it does not.
        """
        if self.protocol is not None:
            protocols.load_protocol(self.protocol)
            given = self.data.model_fields_set - {"folder"}
            if given or self.split is not None:
                extra = "split" if self.split is not None else f"data.{sorted(given)[0]}"
                raise SettingsError(f"{extra}: the protocol {self.protocol} says which data and split. Leave {extra} out, or leave protocol out.")
        elif (self.data.name is None) == (self.data.path is None):
            raise SettingsError("data: expected either data.name (a known data set) or data.path (a log), or a protocol.")


def make_model(
    model: dict[str, Any], loss: Any = None, negatives: Any = None, train: Any = None, features: Any = None, training: dict[str, Any] | None = None
) -> Model:
    """An untrained model from the sections of a run.

    Args:
        training: what a model that is trained by gradient has in its section ``train`` where that says nothing.
    """
    settings = dict(model)
    name = settings.pop("name", None)
    if name is None:
        raise SettingsError(f"model.name: missing. Known: {', '.join(models.MODELS)}.")
    cls = models.get(name)
    sections = {"loss": loss, "negatives": negatives, "train": train, "features": features}
    given = {section: value for section, value in sections.items() if value is not None}
    if given and not issubclass(cls, NeuralModel):
        raise SettingsError(f"{next(iter(given))}: {name} is not trained by gradient and has no such section. Leave it out.")
    if training and issubclass(cls, NeuralModel):
        given["train"] = {**training, **(train or {})}
    return cls(**given, **settings)


def prepared_folder(data: DataSettings) -> str | None:
    """The path, if it is a folder that `seqrec prepare` wrote."""
    return data.path if isinstance(data.path, str) and storage.exists(storage.join(data.path, "sequences.json")) else None


def read_sequences(data: DataSettings) -> tuple[Sequences, str]:
    """The sequences of a log, and where they came from.

    Raises:
        SettingsError: a setting that has no say in how this data is read.
    """
    prepared = prepared_folder(data)
    if prepared is not None:
        refuse_settings(data, [*OF_FILES, *OF_READING], f"{prepared} was prepared already, which decided it")
    elif data.name is not None:
        refuse_settings(data, OF_FILES, f"{data.name} is a known data set, which has its own")
    if prepared is not None:
        return Sequences.load(prepared), prepared
    interactions = read_log(data)
    if data.min_item_count or data.min_user_count:
        interactions = interactions.filter(min_item_count=data.min_item_count, min_user_count=data.min_user_count)
    return interactions.sequences(tie_order=data.tie_order, seed=data.tie_seed), interactions.source


OF_FILES = ("format", "columns", "delimiter", "encoding", "items", "users")
OF_READING = ("duplicates", "min_item_count", "min_user_count", "tie_order", "tie_seed")


def refuse_settings(data: DataSettings, names: Iterable[str], why: str) -> None:
    """Refuses settings of these names that are not as they are by default, since they would have no effect.

    Raises:
        SettingsError: names the first of them, and why.
    """
    for name in names:
        value, usual = getattr(data, name), DataSettings.model_fields[name].get_default(call_default_factory=True)
        if value != usual:
            raise SettingsError(f"data.{name}: expected nothing, since {why}. Got {value!r}. Leave it out.")


def read_log(data: DataSettings) -> Interactions:
    """The log, as it is."""
    if data.name is not None:
        from seqrec import datasets

        return datasets.load(data.name, data_dir=data.folder).without_duplicates(data.duplicates)
    return Interactions.read(data.path or "", **reading(data))


def reading(data: DataSettings) -> dict[str, Any]:
    """The arguments of a reader of logs."""
    names = ("format", "duplicates", "delimiter", "encoding", "items", "users")
    return {"columns": data.columns or None} | {name: getattr(data, name) for name in names}


def read_split(run: RunSettings) -> tuple[Split, str, bool]:
    """The split of a run, the source of its data, and whether its headline filters what a user has seen."""
    if run.protocol is not None:
        protocol = protocols.load_protocol(run.protocol)
        sequences, source = protocols.load_sequences(protocol.data, protocol.ties, run.data.folder)
        split, filters = protocol.apply(sequences), protocol.filter_seen
    else:
        sequences, source = read_sequences(run.data)
        split, filters = (run.split or SplitSettings()).apply(sequences), True
    return split, source, filters if run.evaluate.filter_seen is None else run.evaluate.filter_seen


def train(run: RunSettings, progress: bool = True, restart: bool = False) -> tuple[Model, Table]:
    """Trains and tests, and writes what ``output`` asks for. Where the output folder has a checkpoint of the same run, it goes on from there.

    Args:
        restart: train anew, and replace what is in the output folder.

    Returns:
        the model, and the table of the test metrics that were asked for (metrics.json has all).
    Raises:
        SettingsError: a setting is wrong, or the output folder has another run.
    """
    model = run.check()
    if run.output.folder is not None and not restart:
        _check_is_ours(run, run.output.folder)
    split, source, filter_seen = read_split(run)
    s = split.sequences
    log.info("%s: %d users, %d items, %d events", source, s.users, len(s.item_catalogue), s.events)
    log.info("%d events train, %d queries validate, %d test", split.train_events.sum(), len(split.validation), len(split.test))
    options: dict[str, Any] = {}
    folder = run.output.folder
    if isinstance(model, NeuralModel):
        options["progress"] = progress
        if folder is not None:
            options["checkpoint"] = storage.join(folder, "checkpoint.safetensors")
            if restart:
                storage.remove(options["checkpoint"])
    model.fit(split, **options)
    tested = test(model, split, run.evaluate.metrics, filter_seen)
    if folder is not None:
        described = storage.join(folder, "run.json")  # gone first and back last: where it is, model and metrics are its own
        storage.remove(described)
        storage.remove(storage.join(folder, "serving", "model.json"))  # of the model that is now replaced
        model.save(storage.join(folder, "model"))
        tested.table().write(storage.join(folder, "metrics.json"))
        storage.write_json(_described(run), described)
    if run.evaluate.topk is not None:
        tested.write_topk(run.evaluate.topk)
    if folder is not None and run.output.refit:
        refit(model, run.check(), split, folder, progress)
    return model, tested.table(run.evaluate.metrics)


def _described(run: RunSettings) -> dict[str, Any]:
    """A run as its run.json has it: paths absolute, for whoever evaluates it from another folder."""
    content = run.model_dump(mode="json", exclude_none=True)
    data = content["data"]
    for name in ("path", "items", "users", "folder"):
        if isinstance(data.get(name), str):
            data[name] = storage.absolute(data[name])
    if isinstance(data.get("path"), list):
        data["path"] = [storage.absolute(path) for path in data["path"]]
    if str(run.protocol).endswith((".yaml", ".yml")):
        content["protocol"] = storage.absolute(str(run.protocol))
    return content


def _check_is_ours(run: RunSettings, folder: str) -> None:
    path = storage.join(folder, "run.json")
    if not storage.exists(path):
        return
    there, ours = storage.read_json(path), _described(run)
    for section in ("protocol", "data", "split", "model", "loss", "negatives", "train", "features"):
        if there.get(section) != ours.get(section):
            raise SettingsError(
                f"output.folder: {folder} has a run with another section {section}: {there.get(section)}. Got {ours.get(section)}. "
                "Name another folder, or train with --restart (restart=True) to replace it."
            )


def refit(tested: Model, fresh: Model, split: Split, folder: str, progress: bool) -> None:
    """Fits a fresh model on all events of a split, for as many epochs as the tested one has chosen, and saves it as ``serving`` in the run's folder.

    Its checkpoint has a name of its own, made from all that must be the same for it to go on; those of other refits are removed.
    """
    whole, options = split.refit(), {}
    kept = ""
    if isinstance(fresh, NeuralModel):
        epochs = tested.fit_report["best_epoch"]
        kept = f"refit-{epochs}-{neural.fingerprint_of(fresh, whole)}.safetensors"
        options = {"stop_after": epochs, "schedule_epochs": tested.fit_report["schedule_epochs"], "progress": progress}
        options["checkpoint"] = storage.join(folder, kept)
    log.info("refit: %d events train, for %s", whole.train_events.sum(), storage.join(folder, "serving"))
    fresh.fit(whole, **options)
    fresh.save(storage.join(folder, "serving"))
    for name in storage.names(folder):
        if name.startswith("refit-") and name.endswith(".safetensors") and name != kept:
            storage.remove(storage.join(folder, name))


@dataclass(frozen=True)
class Tested:
    """What a test found.

    Attributes:
        intervals: every metric at every cut-off, with its 95% interval over users.
    """

    title: str
    intervals: dict[str, dict[str, float]]
    ranks: evaluation.Ranks
    split: Split
    filter_seen: bool

    def table(self, names: Iterable[str] | None = None) -> Table:
        """The metrics of these names; all if none is named."""
        return Table(self.title, ["metric", "value"], [{"metric": name, "value": self.intervals[name]} for name in names or self.intervals])

    def write_topk(self, path: str) -> None:
        """Writes the 20 best items of each test query."""
        topk.write(self.ranks, self.split, path, self.filter_seen)


def test(model: Model, split: Split, names: Iterable[str], filter_seen: bool) -> Tested:
    """Asks a trained model the test queries of a split.

    Args:
        names: metrics that must be among those computed.
    """
    ranks = evaluation.rank(model, split, split.test)
    cutoffs = tuple(sorted({*metrics.CUTOFFS, *(metrics.parse(name)[1] for name in names)}))
    values = metrics.from_ranks(ranks.headline(filter_seen), cutoffs)
    intervals = comparison.intervals(comparison.by_user(values, ranks.users))
    shown = "seen items filtered" if filter_seen else "seen items not filtered"
    return Tested(f"{model.name}: test metrics of {len(split.test):,} queries, {shown}", intervals, ranks, split, filter_seen)


def prepare(data: DataSettings, folder: str | Path) -> Sequences:
    """Turns a log into a folder of sequences and catalogues, and opens it. A file is streamed, so it may exceed memory."""
    if data.path is not None and prepared_folder(data) is None:
        ties: dict[str, Any] = {"tie_order": data.tie_order, "seed": data.tie_seed}
        return preparing.prepare(data.path, folder, **reading(data), **ties, min_item_count=data.min_item_count, min_user_count=data.min_user_count)
    read_sequences(data)[0].save(folder)
    return Sequences.load(folder)


def prepare_run(run: RunSettings, folder: str | None = None, samples_folder: str | None = None) -> list[str]:
    """Writes what the data and split of a run become: sequences, and the tables of samples if they are asked for.

    Args:
        folder: for the sequences; by default ``sequences`` in the run's output folder. Without either only the samples are written.
        samples_folder: for the samples, instead of what the run says.

    Returns:
        what was written, a line each.
    Raises:
        SettingsError: the run does not say which data, or where anything goes; or nothing can be written there.
    """
    run.check_data()
    settings = run.samples or SampleSettings()
    samples_folder = samples_folder or settings.folder
    if folder is None and run.output.folder is not None:
        folder = storage.join(run.output.folder, "sequences")
    if folder is None and samples_folder is None:
        raise SettingsError("expected a folder for the sequences (an argument, or output.folder), or one for samples (--samples, or samples.folder).")
    for one in (folder, samples_folder):
        if one is not None:
            storage.check_folder(one)
    lines: list[str] = []
    split: Split | None = None
    if folder is not None:
        if run.protocol is None:
            sequences = prepare(run.data, folder)
        else:
            split = read_split(run)[0]
            sequences = split.sequences
            sequences.save(folder)
        s = sequences
        lines.append(
            f"{folder}: {s.events:,} events of {s.users:,} users and {len(s.item_catalogue):,} items, {s.bytes_per_event:.1f} bytes an event"
        )
        if run.protocol is None and samples_folder is not None:
            split = (run.split or SplitSettings()).apply(sequences)
    if samples_folder is not None:
        about = samples.write(split or read_split(run)[0], samples_folder, settings)
        lines += [f"{storage.join(samples_folder, name)}.parquet: {count:,} rows" for name, count in about["rows"].items()]
    return lines


def evaluate(
    folder: str, topk_path: str | None = None, data_folder: str | None = None, filter_seen: bool | None = None, data_path: str | None = None
) -> Table:
    """Tests the model of a run's output folder again, on the data and split of its run.json.

    Args:
        topk_path: also write the 20 best items of each test query.
        data_folder: where the data set is now, if not where it was.
        filter_seen: replaces what the run says.
        data_path: where the log is now, if not where it was.
    """
    path = storage.join(folder, "run.json")
    if topk_path is not None:
        storage.check_file(topk_path, topk.SUFFIXES)
    if not storage.exists(path):
        raise SettingsError(f"{folder}: expected the output folder of `seqrec train` (with a run.json). Train with --output first.")
    content = storage.read_json(path)
    if data_folder is not None:
        content.setdefault("data", {})["folder"] = data_folder
    if data_path is not None:
        if "path" not in content.get("data", {}):
            raise SettingsError(
                f"--data: {folder} is a run on a known data set or a protocol, not on a log. Say with --data-dir where its files are."
            )
        content["data"]["path"] = data_path
    run = RunSettings.of(content, "")
    model = models.load(storage.join(folder, "model"))
    split, _, filters = read_split(run)
    if model.provenance.get("split_hash") != split.hash:
        trained_on = model.provenance.get("split_hash")
        raise SettingsError(
            f"{folder}: its model was trained on the split {trained_on}; the data gives {split.hash} now. Train again: the data has changed."
        )
    tested = test(model, split, run.evaluate.metrics, filters if filter_seen is None else filter_seen)
    if topk_path is not None:
        tested.write_topk(topk_path)
    return tested.table(run.evaluate.metrics)


def judge(topk_path: str, protocol_name: str, data_folder: str | None = None, filter_seen: bool | None = None) -> Table:
    """Metrics of a top-k file, whoever made it, on the test queries of a protocol."""
    run = RunSettings(protocol=protocol_name, data=DataSettings(folder=data_folder), model={"name": "popularity"})
    split, _, filters = read_split(run)
    if protocols.load_protocol(protocol_name).retrain:
        split = split.retrain()  # what is cold is decided as for the models that train here
    filters = filters if filter_seen is None else filter_seen
    scored = topk.score(topk_path, split, filters)
    intervals = comparison.intervals(comparison.by_user(scored.metrics(), scored.users))
    rows = [{"metric": name, "value": value} for name, value in intervals.items()]
    notes = [
        f"{scored.without_list:,} of {len(scored.ranks):,} queries have no list and count as misses.",
        f"Rows left out: {scored.unknown_users:,} of users that are not asked. Items not in the catalogue: {scored.unknown_items:,}.",
    ]
    return Table(f"{topk_path} under {protocol_name}", ["metric", "value"], rows, notes=notes)


def open_or_train(source: str, model_name: str | None, data: dict[str, Any], save: str | None = None) -> Model:
    """The model in a folder; or one trained on a log just now (sasrec if none is named), and kept in ``save`` if that is given.

    Raises:
        SettingsError: something that only a log has use for, beside a model.
    """
    for folder in (source, storage.join(source, "serving"), storage.join(source, "model")):
        if storage.exists(storage.join(folder, "model.json")):
            for option, given in (("model", model_name), ("save", save)):
                if given:
                    raise SettingsError(f"{option}: expected nothing, since {source} is a trained model. Got {given!r}. Leave it out, or name a log.")
            refuse_settings(DataSettings.of(data, "data"), OF_FILES, f"{source} is a trained model")
            return models.load(folder)
    if save is not None:
        storage.check_folder(save)
    sequences, _ = read_sequences(DataSettings.of(data, "data"))
    model = make_model({"name": model_name or "sasrec"}).fit(sequences)
    if save is not None:
        model.save(save)
    return model


def recommend(model: Model, sequences: list[str] | None, users: list[str] | None, k: int, filter_seen: bool, on_unknown: str) -> pl.DataFrame:
    """Recommendations for ids given as text, with the items' titles where the catalogue has them; for all users if none is named."""
    assert model.item_catalogue is not None
    if sequences is not None:
        histories = [_typed([part.strip() for part in text.split(",") if part.strip()], model.item_catalogue) for text in sequences]
        frame = model.recommend(histories, k=k, filter_seen=filter_seen, on_unknown=on_unknown)
    else:
        if model.sequences is None:
            raise SettingsError(f"--user: {model.name} was saved without its users' histories. Give --sequence, or save it with histories=True.")
        if model.known_stops is not None and (model.known_stops < model.sequences.offsets[1:]).any():
            log.info(
                "The users' histories end before the held-out test events, which may be recommended again. Train with --refit (output.refit: true) "
                "for a model that knows all events; seqrec recommend then uses it."
            )
        catalogue = model.sequences.user_catalogue
        chosen = catalogue.ids.to_list() if users is None else _typed(users, catalogue)
        frame = model.recommend(users=chosen, k=k, filter_seen=filter_seen, on_unknown=on_unknown)
    attributes = model.item_catalogue.attributes
    if attributes is None or "title" not in attributes.columns:
        return frame
    titles = pl.DataFrame({"item_id": model.item_catalogue.ids, "title": attributes["title"]})
    return frame.join(titles, on="item_id", how="left", maintain_order="left")


def _typed(ids: list[str], catalogue: Catalogue) -> list[Any]:
    """Ids from the command line as the catalogue has them; text that is no number stays text, and so is unknown."""
    if not catalogue.ids.dtype.is_integer():
        return list(ids)
    return [int(text) if re.fullmatch("-?[0-9]+", text) else text for text in ids]


def table_of(frame: pl.DataFrame) -> Table:
    return Table("", frame.columns, frame.to_dicts(), formats={"item_id": str, "user_id": str})


def write_frame(frame: pl.DataFrame, path: str) -> None:
    """Writes recommendations as .csv, .json, .md or .parquet."""
    if path.endswith(".parquet"):
        storage.write_parquet(frame, path)
    else:
        table_of(frame).write(path)
