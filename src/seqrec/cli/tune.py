"""``seqrec tune``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from seqrec.cli.options import (
    Columns,
    DataDir,
    Delimiter,
    Encoding,
    Format,
    MissingIds,
    TimeFormat,
    Where,
    Write,
    check_write,
    data_section,
    is_quiet,
    refuse_beside_conf,
)
from seqrec.errors import SettingsError


def tune(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that override the file's, as split.name=last_n.")
    ] = None,
    conf: Annotated[str | None, typer.Option("--conf", help="YAML file of a run.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Without --conf: a log, a prepared folder or a known data set."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", help="Comma-separated models. By default that of --conf."),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="For each model.")] = 30.0,
    trials: Annotated[int | None, typer.Option("--trials", help="Of each model, at most.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            help="What is tried instead of the usual: model.width=32,64 or model.dropout=0..0.5. Repeatable.",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder for the trials; a search there goes on.")
    ] = "tuned",
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    where: Where = None,
    missing_ids: MissingIds = "refuse",
    data_dir: DataDir = None,
    plot: Annotated[
        str | None, typer.Option("--plot", help="Draw the trials into this file (.svg; extra report).")
    ] = None,
    write: Write = None,
) -> None:
    """Search for better settings on validation, the same minutes for each model. An interrupted search goes
    on. The test is never touched.

    seqrec tune --data ml-100k --models hrm,gru4rec --minutes 10 -o tuned
    """
    from seqrec import storage
    from seqrec.experiment import settings as experiment_settings
    from seqrec.experiment import spaces
    from seqrec.experiment.settings import RunSettings
    from seqrec.settings import yaml_file

    if (conf is None) == (not data):
        raise SettingsError(
            "expected either --conf FILE or --data LOG with --models. See seqrec tune --help."
        )
    check_write(write)
    if plot is not None:
        storage.check_file(plot, (".svg",))
    content: dict[str, Any]
    rows = {"time_format": time_format, "where": where, "missing_ids": missing_ids}
    if conf is not None:
        refuse_beside_conf(column, format=format, delimiter=delimiter, encoding=encoding, **rows)
        content = experiment_settings.read(conf, overrides or ())
        if data_dir is not None:
            content.setdefault("data", {}).setdefault("folder", data_dir)
    else:
        assert data is not None
        content = {
            "data": data_section(
                data, format, column, data_dir, delimiter=delimiter, encoding=encoding, **rows
            )
        }
        for override in overrides or ():
            yaml_file.apply_override(content, override)
    space = spaces.parse(search) if search else None
    names = [] if models is None else [name.strip() for name in models.split(",")]
    settings = RunSettings.of(content, "")
    from seqrec.experiment import tune as tuning  # torch, which takes a while, once all names are right

    found = tuning.tune(settings, names, minutes, output, space, trials, progress=not is_quiet())
    table = tuning.summary(found)
    table.print()
    for one in found:
        one.table().write(storage.join(one.folder, "trials.md"))
    if write:
        table.write(write)
    if plot is not None:
        from seqrec.report import trials as drawing

        storage.write_text(drawing.drawn(found), plot)
