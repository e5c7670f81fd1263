"""A protocol: everything that must be the same for two numbers to stand in one table.

Each is a YAML file in ``protocols/``, named with its version. A change of anything that moves a number is a
new version.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from seqrec import storage
from seqrec.data.baskets import Derived
from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import COLUMNS, Sequences
from seqrec.errors import DataError, SettingsError, did_you_mean, shown
from seqrec.evaluation import metrics
from seqrec.evaluation.metrics import MetricName
from seqrec.settings import yaml_file
from seqrec.settings.base import Settings
from seqrec.sources.options import ReadOptions
from seqrec.splitting import SplitSettings
from seqrec.splitting.split import Split

TieOrder = Literal["file", "random"]
FOLDER = Path(__file__).parent / "protocols"


class DataSettings(Settings):
    """The data of a protocol."""

    name: str
    """Data set, as ``seqrec.sources`` names it; or, for a protocol of your own, the path of a log (with a
    suffix, as ``events.csv``), looked for beside the protocol's file and then in the folder of the data."""
    form: Literal["log", "benchmark", "timed"] = "log"
    """"log": the publisher's events as they are. Of ml-1m only: "benchmark", the form the field uses
    (``sources.movielens_1m.benchmark_log``); "timed", the same with the second of every event
    (``timed_log``)."""
    revision: str
    """Which publication of the data, in words."""
    min_item_count: int = Field(0, ge=0)
    """Items with fewer events are left out, with their events."""
    min_user_count: int = Field(0, ge=0)
    """Users with fewer events are left out."""
    until_stable: bool = False
    """Whether both minima are asked again until nothing changes (the k-core); by default once, items
    first."""
    basket: Derived | None = None
    """Which of a user's events are a basket: those of one time, or of one day (UTC); by default what the
    data's own column says, if it has one."""
    read: ReadOptions = ReadOptions()
    """How a log of your own is read: ``columns``, ``format``, ``delimiter``, ``encoding``, ``duplicates``;
    and the tables beside it, ``items`` (titles ...) and ``users``, which are looked for where the log is."""
    largest_user_id: int | None = None
    """Only users up to this id train and are asked; the candidates stay those of the whole data."""
    _beside: str | None = PrivateAttr(None)
    """Folder of the protocol's file, if it is one of your own."""

    def log_path(self, data_dir: str | None) -> str:
        """Where the log of a protocol of your own is.

        Raises:
            DataError: neither beside the protocol's file nor in the folder of the data.
        """
        folders = (
            []
            if storage.is_remote(self.name)
            else [folder for folder in (self._beside, data_dir) if folder is not None]
        )
        tried = [storage.join(folder, self.name) for folder in folders] or [self.name]
        found = next((path for path in tried if storage.exists(path)), None)
        if found is None:
            raise DataError(
                f"data.name: expected a log at {' or '.join(tried)}. Got none. "
                "Put it next to the protocol's file, or give its folder with --data-dir."
            )
        return found

    def read_beside(self, path: str) -> ReadOptions:
        """How the log at that path is read, with the places of the tables beside it."""
        tables = {}
        for kind in ("items", "users"):
            name = getattr(self.read, kind)
            if isinstance(name, str) and not storage.exists(name):
                tables[kind] = storage.sibling(path, name)
        return self.read.model_copy(update=tables)


class Selection(Settings):
    """How settings and epochs are chosen."""

    metric: str = "ndcg@10"
    """Validation metric by which settings and epochs are chosen; a protocol's first headline metric if
    nothing is said."""
    filter_seen: bool = True
    """Whether it filters what a user has seen; as the protocol's headline if nothing is said."""


class Variant(Settings):
    """Another set of test queries for the same trained model."""

    split: dict[str, Any]
    """What is different from the protocol's split."""
    split_hash: str | None = None
    """Hash of the split that it must give."""


class Protocol(Settings):
    """What a benchmark fixes: data, split, candidates, filter and metrics."""

    name: str
    """Name and version."""
    title: str
    """One line for tables."""
    description: str = ""
    """What a reader must know to compare with other publications."""
    data: DataSettings
    """Which events."""
    order: Literal["time", "position"] = "time"
    """What orders a user's events."""
    ties: TieOrder = "file"
    """Events of the same second: as in the publisher's file, or a seeded random order."""
    split: SplitSettings
    """Which events train, validate and test."""
    variants: dict[str, Variant] = Field(default_factory=dict)
    """More sets of test queries for the same trained model; their results are ``metrics_<name>``."""
    candidates: Literal["all"] = "all"
    """Every query ranks the whole catalogue."""
    filter_seen: bool = True
    """Headline: with the items of the full history filtered, or without. The other is reported beside it."""
    headline: list[MetricName] = Field(default_factory=lambda: ["ndcg@10", "recall@10"], min_length=1)
    """Metrics in the table; the first one ranks the models."""
    cutoffs: list[int] = Field(default_factory=lambda: list(metrics.CUTOFFS))
    """The k of all metrics."""
    select: Selection = Selection()
    """How settings and epochs are chosen, on validation queries only."""
    retrain: bool = False
    """After selection the model is trained again on training and validation events, for the chosen number of
    epochs."""
    split_hash: str | None = None
    """Hash of the split that the data must give; None for a protocol whose hash is not known yet."""

    @model_validator(mode="before")
    @classmethod
    def _selects_as_it_tests(cls, content: Any) -> Any:
        """What ``select`` does not say is as in the headline: its first metric, its filter."""
        if not isinstance(content, dict) or not isinstance(content.get("select", {}), dict):
            return content
        headline = content.get("headline") or ["ndcg@10"]
        usual = {"filter_seen": content.get("filter_seen", True)}
        if isinstance(headline, list) and isinstance(headline[0], str):
            usual["metric"] = headline[0]
        return {**content, "select": {**usual, **content.get("select", {})}}

    @property
    def other(self) -> str:
        """Key of the metrics beside the headline."""
        return "metrics_unfiltered" if self.filter_seen else "metrics_filtered"

    def apply(self, sequences: Sequences) -> Split:
        """The split, checked against the pinned hash.

        Raises:
            DataError: the data gives another split than the protocol says.
        """
        return checked(self.split.apply(sequences), self.split_hash, self.name)

    def variant(self, name: str, sequences: Sequences) -> Split:
        """The split of a variant, checked as well."""
        v = self.variants[name]
        settings = SplitSettings.of({"name": self.split.name, **self.split.arguments, **v.split}, "split")
        return checked(settings.apply(sequences), v.split_hash, f"{self.name} ({name})")


def checked(split: Split, expected: str | None, name: str) -> Split:
    """The split itself, if its hash is the expected one, or if none is expected.

    Raises:
        DataError: the data gives another split than the protocol says.
    """
    if expected is not None and split.hash != expected:
        s = split.sequences
        raise DataError(
            f"{name}: expected data that gives the split {expected}. Got {split.hash} from {s.users} users, "
            f"{len(s.item_catalogue)} items, {s.events} events. The data is another revision, order or "
            "selection; results on it would not be comparable. Use the data that the protocol names, or "
            "write your own protocol."
        )
    return split


def names() -> list[str]:
    """The protocols that the package ships."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_protocol(name: str | Path) -> Protocol:
    """A shipped protocol by name, or one of your own by the path of its YAML file.

    Raises:
        SettingsError: no such protocol, or a wrong key or value in it.
    """
    own = str(name).endswith((".yaml", ".yml"))
    path = str(name) if own else FOLDER / f"{name}.yaml"
    if not (storage.exists(path) if own else name in names()):  # a plain name: no way into other folders
        raise SettingsError(f"protocol: unknown name {shown(str(name))}.{did_you_mean(str(name), names())}")
    protocol = Protocol.of(yaml_file.read(path), "protocol")
    if own:
        protocol.data._beside = storage.parent(path)
    return protocol


def read_sequences(data: DataSettings, ties: TieOrder, data_dir: str | None) -> tuple[Sequences, str]:
    """The sequences of a protocol's data, and where they came from.

    Raises:
        SettingsError: ``data.read`` beside a known data set.
        DataError: the data cannot be found or read.
    """
    from seqrec import sources
    from seqrec.sources import movielens_1m, reading

    if "." in data.name:
        path = data.log_path(data_dir)
        log = reading.read_log(path, data.read_beside(path))
    elif data.read != ReadOptions():
        raise SettingsError(
            f"data.read: cannot be given, since {data.name} is a known data set, which has its own. "
            "Leave it out."
        )
    else:
        timed = data.form == "timed"
        log = movielens_1m.timed_log(data_dir) if timed else sources.load(data.name, data_dir=data_dir)
    if data.form == "benchmark":
        log = movielens_1m.benchmark_log(log)
    if data.min_item_count or data.min_user_count:
        log = log.filter(data.min_item_count, data.min_user_count, data.until_stable)
    sequences = log.sequences(tie_order=ties, basket=data.basket)
    if data.largest_user_id is not None:
        ids = sequences.user_catalogue.ids.cast(int)
        sequences = of_users(sequences, np.flatnonzero((ids <= data.largest_user_id).to_numpy()))
    return sequences, log.source


def of_users(sequences: Sequences, users: np.ndarray) -> Sequences:
    """The sequences of some users, with the whole item catalogue.

    Args:
        users: (n,) user indices in ascending order.
    """
    mask = np.zeros(sequences.users, dtype=bool)
    mask[users] = True
    events = np.repeat(mask, sequences.lengths)
    attributes = sequences.user_catalogue.attributes
    return replace(
        sequences,
        items=sequences.items[events],
        offsets=np.concatenate([[0], np.cumsum(sequences.lengths[mask])]).astype(np.int64),
        user_catalogue=Catalogue(
            sequences.user_catalogue.decode(users), None if attributes is None else attributes[users]
        ),
        **{name: array[events] for name in COLUMNS if (array := getattr(sequences, name)) is not None},
    )
