"""What `seqrec prepare` writes: sequences, and tables of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqrec import storage
from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError
from seqrec.experiment.data import prepared_folder, read_sequences, read_split
from seqrec.experiment.settings import DataSettings, RunSettings
from seqrec.samples import tables
from seqrec.samples.tables import SampleSettings
from seqrec.sources import preparing
from seqrec.splitting import Split, SplitSettings


def prepare(data: DataSettings, folder: str | Path) -> Sequences:
    """Turns a log into a folder of sequences and catalogues, and opens it. A file is streamed, so it may
    exceed memory."""
    if data.path is not None and prepared_folder(data) is None:
        ties: dict[str, Any] = {"tie_order": data.tie_order, "seed": data.tie_seed, "basket": data.basket}
        return preparing.prepare(
            data.path,
            folder,
            data,
            **ties,
            min_item_count=data.min_item_count,
            min_user_count=data.min_user_count,
            until_stable=data.until_stable,
            cold_items=data.cold_items,
        )
    read_sequences(data)[0].save(folder)
    return Sequences.load(folder)


def prepare_run(run: RunSettings, folder: str | None = None, samples_folder: str | None = None) -> list[str]:
    """Writes what the data and split of a run become: sequences, and the tables of samples if they are asked
    for.

    Args:
        folder: for the sequences; by default ``sequences`` in the run's output folder. Without either only
            the samples are written.
        samples_folder: for the samples, instead of what the run says.

    Returns:
        what was written, a line each.
    Raises:
        SettingsError: the run does not say which data, or where anything goes; or nothing can be written
            there.
    """
    run.refuse_engine("seqrec.spark.prepare.prepare")
    run.check_data()
    settings = run.samples or SampleSettings()
    samples_folder = samples_folder or settings.folder
    if folder is None and run.output.folder is not None:
        folder = storage.join(run.output.folder, "sequences")
    if folder is None and samples_folder is None:
        raise SettingsError(
            "expected a folder for the sequences (an argument, or output.folder), or one for samples "
            "(--samples, or samples.folder)."
        )
    for one in (folder, samples_folder):
        if one is not None:
            storage.check_folder(one)
    lines: list[str] = []
    split: Split | None = None
    if folder is not None:
        if run.protocol is None and (run.split is None or run.split.name != "files"):
            sequences = prepare(run.data, folder)
        else:
            split = read_split(run)[0]
            sequences = split.sequences
            sequences.save(folder)
        s = sequences
        lines.append(
            f"{folder}: {s.events:,} events of {s.users:,} users and {len(s.item_catalogue):,} items, "
            f"{s.bytes_per_event:.1f} bytes an event"
        )
        if split is None and samples_folder is not None:
            split = (run.split or SplitSettings()).apply(sequences)
    if samples_folder is not None:
        about = tables.write(split or read_split(run)[0], samples_folder, settings)
        lines += [
            f"{storage.join(samples_folder, name)}.parquet: {count:,} rows"
            for name, count in about["rows"].items()
        ]
    return lines
