"""``seqrec recommend``."""

from __future__ import annotations

import logging
from typing import Annotated

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
    check_write,
    data_section,
    is_quiet,
)
from seqrec.errors import SettingsError

log = logging.getLogger("seqrec")


def recommend(
    source: Annotated[str, typer.Argument(help="Folder of a trained model, or a log to train one on.")],
    sequence: Annotated[
        list[str] | None,
        typer.Option(
            "--sequence",
            "-s",
            help="A history: item ids, oldest first, as a,b,c. An id with a comma stands in quotes. "
            "Repeatable.",
        ),
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A user of the training data. Repeatable.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    model: Annotated[
        str | None, typer.Option(help="With a log: the model to train. By default sasrec.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(help="With a log: save the trained model to this folder.")
    ] = None,
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Whether to recommend items of the history too. By default as the run's test did; else not.",
        ),
    ] = None,
    on_unknown: Annotated[
        str, typer.Option(help="What to do about ids that the model does not know: raise, warn or ignore.")
    ] = "raise",
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    where: Where = None,
    missing_ids: MissingIds = "refuse",
    data_dir: DataDir = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write", help="Write the table (.csv, .json, .md or .parquet) instead of printing it."
        ),
    ] = None,
) -> None:
    """Recommend the next items for given histories, for users, or (with a log) for all its users."""
    from seqrec.experiment import recommend

    if sequence and user:
        raise SettingsError("--user: expected either --sequence or --user. Got both. Run the command twice.")
    rows = {"time_format": time_format, "where": where, "missing_ids": missing_ids}
    check_write(write, (".parquet",))
    section = data_section(source, format, column, data_dir, delimiter=delimiter, encoding=encoding, **rows)
    trained = recommend.open_or_train(source, model, section, save, progress=not is_quiet())
    filters = recommend.filters_seen(source) if seen is None else not seen
    if seen is None and not filters:
        log.info("Items of the history are recommended too, as the run was tested. --unseen leaves them out.")
    frame = recommend.recommend(trained, sequence, user, k, filters, on_unknown)
    if write:
        recommend.write_frame(frame, write)
    else:
        recommend.table_of(frame).print()
