"""The data of a run: its log, its sequences, its split."""

from __future__ import annotations

from collections.abc import Iterable

from seqrec import storage
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError
from seqrec.experiment import protocol as protocols
from seqrec.experiment.settings import DataSettings, RunSettings
from seqrec.sources import reading
from seqrec.sources.options import ReadOptions
from seqrec.splitting import Split, SplitSettings
from seqrec.splitting.files import PARTS, in_parts


def prepared_folder(data: DataSettings) -> str | None:
    """The path, if it is a folder that `seqrec prepare` wrote."""
    return (
        data.path
        if isinstance(data.path, str) and storage.exists(storage.join(data.path, "sequences.json"))
        else None
    )


def read_sequences(data: DataSettings) -> tuple[Sequences, str]:
    """The sequences of a log, and where they came from.

    Raises:
        SettingsError: a setting that has no say in how this data is read.
    """
    prepared = prepared_folder(data)
    if prepared is not None:
        refuse_settings(data, [*OF_FILES, *OF_READING], f"{prepared} is already prepared, which fixed it")
    elif data.name is not None:
        refuse_settings(data, OF_FILES, f"{data.name} is a known data set, which has its own")
    if prepared is not None:
        return Sequences.load(prepared), prepared
    interactions = read_log(data)
    if data.min_item_count or data.min_user_count:
        interactions = interactions.filter(
            min_item_count=data.min_item_count,
            min_user_count=data.min_user_count,
            until_stable=data.until_stable,
        )
    sequences = interactions.sequences(
        tie_order=data.tie_order, seed=data.tie_seed, basket=data.basket, cold_items=data.cold_items
    )
    return sequences, interactions.source


def read_files(data: DataSettings, split: SplitSettings) -> tuple[Sequences, str]:
    """The sequences of a split's own files, each read as ``data`` says, and where they came from.

    Raises:
        SettingsError: a setting that would move events from part to part.
    """
    why = "the split's files say which events train, validate and test"
    refuse_settings(data, ["min_item_count", "min_user_count", "until_stable", "basket"], why)
    logs = {
        part: reading.read_log(path, data)
        for part in PARTS
        if (path := split.arguments.get(part)) is not None
    }
    sequences = in_parts(**logs, tie_order=data.tie_order, seed=data.tie_seed, cold_items=data.cold_items)
    return sequences, ", ".join(log.source for log in logs.values())


OF_FILES = tuple(name for name in ReadOptions.model_fields if name not in ("duplicates", "where"))


OF_READING = (
    "duplicates",
    "where",
    "min_item_count",
    "min_user_count",
    "until_stable",
    "tie_order",
    "tie_seed",
    "basket",
    "cold_items",
)


def refuse_settings(data: DataSettings, names: Iterable[str], why: str) -> None:
    """Refuses settings of these names that are not as they are by default, since they would have no effect.

    Raises:
        SettingsError: names the first of them, and why.
    """
    for name in names:
        value, usual = (
            getattr(data, name),
            DataSettings.model_fields[name].get_default(call_default_factory=True),
        )
        if value != usual:
            raise SettingsError(f"data.{name}: cannot be given, since {why}. Got {value!r}. Leave it out.")


def read_log(data: DataSettings) -> Interactions:
    """The log, as it is."""
    if data.name is not None:
        from seqrec import sources

        log = sources.load(data.name, data_dir=data.folder)
        return reading.chosen(log, data.where).without_duplicates(data.duplicates)
    return reading.read_log(data.path or "", data)


def read_split(run: RunSettings) -> tuple[Split, str, bool]:
    """The split of a run, the source of its data, and whether its headline filters what a user has seen."""
    if run.protocol is not None:
        protocol = protocols.read_protocol(run.protocol)
        sequences, source = protocols.read_sequences(protocol.data, protocol.ties, run.data.folder)
        split, filters = protocol.apply(sequences), protocol.filter_seen
    elif run.split is not None and run.split.name == "files":
        sequences, source = read_files(run.data, run.split)
        split, filters = run.split.apply(sequences), True
    else:
        sequences, source = read_sequences(run.data)
        split, filters = (run.split or SplitSettings()).apply(sequences), True
    return split, source, filters if run.evaluate.filter_seen is None else run.evaluate.filter_seen
