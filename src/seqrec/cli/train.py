"""``seqrec train``."""

from __future__ import annotations

import logging
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
    Processes,
    TimeFormat,
    Where,
    data_section,
    engine_section,
    is_quiet,
    refuse_beside_conf,
)
from seqrec.errors import SettingsError

log = logging.getLogger("seqrec")


def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that override the file's, as train.epochs=3.")
    ] = None,
    conf: Annotated[str | None, typer.Option("--conf", help="YAML file of the run.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Without --conf: a log, a prepared folder or a known data set. Repeatable, for a log of "
            "several files.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Without --conf: the model.")] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder for the model, its metrics and its checkpoint."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Train from scratch and replace the run in the output folder.")
    ] = False,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="After the test, also fit a model on all events, held-out ones included, for seqrec "
            "recommend.",
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Begin with the weights of an earlier model (its folder, or its run's): on a log that has "
            "grown, new items and users get fresh vectors. Without --conf and --model the settings are its "
            "own, too.",
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
    engine: Engine = None,
    master: Master = None,
    processes: Processes = None,
) -> None:
    """Train a model, test it and print its metrics. An interrupted run resumes from its checkpoint.

    Run files of MetaSpore's sequential demo and of RecBole work too: they are converted as by seqrec migrate,
    and a table shows what each key became.

    seqrec train --data events.csv --model sasrec -o runs/sasrec
    """
    from seqrec import migrate as migrations
    from seqrec.experiment import settings as experiment_settings
    from seqrec.experiment.settings import RunSettings
    from seqrec.processes import launched
    from seqrec.settings import yaml_file

    if (conf is None) == (not data):
        raise SettingsError(
            "expected either --conf FILE or --data LOG (with --model). See seqrec train --help."
        )
    content: dict[str, Any]
    rows = {"time_format": time_format, "where": where, "missing_ids": missing_ids}
    if conf is not None:
        if model is not None:
            raise SettingsError(
                "--model: a run file names its model. Write model.name=... to replace it, or use --data."
            )
        refuse_beside_conf(column, format=format, delimiter=delimiter, encoding=encoding, **rows)
        if migrations.recognise(yaml_file.parse(conf)[0]) is None:
            content = experiment_settings.read(conf, overrides or ())
        else:
            migration = migrations.read(conf)
            if not launched()[0]:
                migration.table().print()
            content = migration.filled(overrides or ())
    else:
        assert data is not None
        content = {
            "data": data_section(
                data, format, column, data_dir, delimiter=delimiter, encoding=encoding, **rows
            ),
            "model": {"name": model or "sasrec"} if model or start is None else {},
        }
        for override in overrides or ():
            yaml_file.apply_override(content, override)
    if data_dir is not None and conf is not None:
        content.setdefault("data", {}).setdefault("folder", data_dir)
    if output is not None:
        content.setdefault("output", {})["folder"] = output
    if start is not None:
        content.setdefault("fit", {})["start"] = start
    content = experiment_settings.as_its_start(content)
    if refit:
        content.setdefault("output", {})["refit"] = True
    if on := engine_section(engine, master=master, processes=processes):
        content["engine"] = {**(content.get("engine") or {}), **on}
    settings = RunSettings.of(content, "")
    settings.check_names()
    settings.check_sources()
    if settings.output.folder is None:
        log.warning(
            "No output folder: the model is tested, and then thrown away. --output FOLDER "
            "(output.folder) keeps it."
        )
    if settings.on_spark:
        from seqrec.spark import session
        from seqrec.spark import train as on_spark

        assert settings.engine is not None
        with session.session(settings.engine.master) as spark:
            table = on_spark.train(spark, settings, settings.engine.processes, restart)
        table.print()
        return
    from seqrec.experiment import train as experiments  # torch, which takes a while, once all names are right

    _, table = experiments.train(settings, progress=not is_quiet(), restart=restart)
    if not launched()[0]:  # the first process prints
        table.print()
