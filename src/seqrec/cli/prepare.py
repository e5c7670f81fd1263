"""``seqrec prepare``."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from seqrec.cli.options import (
    Columns,
    DataDir,
    Delimiter,
    Encoding,
    Engine,
    Format,
    Master,
    MissingIds,
    TimeFormat,
    Where,
    data_section,
    engine_section,
    refuse_beside_conf,
)
from seqrec.errors import SettingsError


def prepare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOG... FOLDER | [FOLDER] [section.key=value ...]",
            help="A log (one file, or several) or a known data set, and the output folder. With --conf: the "
            "output folder (by default sequences in output.folder), and settings that override the file's.",
        ),
    ] = None,
    conf: Annotated[
        str | None,
        typer.Option("--conf", help="YAML file of a run; prepares its data, split and samples."),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            "--samples",
            help="Also write tables of samples to this folder, one row per event: train, validation, "
            "test, item.",
        ),
    ] = None,
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    where: Where = None,
    missing_ids: MissingIds = "refuse",
    data_dir: DataDir = None,
    duplicates: Annotated[str, typer.Option(help="Whether to keep or drop duplicate events.")] = "keep",
    min_item_count: Annotated[int, typer.Option(help="Exclude items with fewer events.")] = 0,
    min_user_count: Annotated[int, typer.Option(help="Exclude users with fewer events.")] = 0,
    until_stable: Annotated[
        bool, typer.Option("--until-stable", help="Ask both minima again until nothing changes (the k-core).")
    ] = False,
    engine: Engine = None,
    master: Master = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards", min=1, help="With --engine spark: parts of the users that are sorted at once."
        ),
    ] = None,
) -> None:
    """Convert a log to sequences and catalogues on disk, and optionally to tables of samples.

    seqrec prepare events.csv prepared
    """
    from seqrec.experiment import prepare, settings
    from seqrec.settings import yaml_file

    given = arguments or []
    content: dict[str, Any]
    more = {
        "duplicates": duplicates,
        "min_item_count": min_item_count,
        "min_user_count": min_user_count,
        "until_stable": until_stable,
        "delimiter": delimiter,
        "encoding": encoding,
        "time_format": time_format,
        "where": where,
        "missing_ids": missing_ids,
    }
    if conf is not None:
        refuse_beside_conf(column, format=format, **more)
        overrides = [argument for argument in given if re.match(r"[a-z_]+(\.[a-z_0-9]+)*=", argument)]
        folders = [argument for argument in given if argument not in overrides]
        if len(folders) > 1:
            raise SettingsError(
                f"expected at most one folder with --conf, for the sequences. Got {', '.join(folders)}."
            )
        content = yaml_file.read(conf, overrides)
        if data_dir is not None:
            content.setdefault("data", {}).setdefault("folder", data_dir)
        folder = folders[0] if folders else None
    else:
        if len(given) < 2:
            raise SettingsError("expected a log and a folder, or --conf FILE. See seqrec prepare --help.")
        content = {"data": data_section(given[:-1], format, column, data_dir, **more)}
        folder = given[-1]
    if on := engine_section(engine, master=master, shards=shards):
        content["engine"] = {**(content.get("engine") or {}), **on}
    run = settings.RunSettings.of(content, "")
    if run.on_spark:
        from seqrec.spark import prepare as on_spark

        print(on_spark.prepare_run(run, folder, samples))
        return
    for line in prepare.prepare_run(run, folder, samples):
        print(line)
