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
            help="A history: item ids or titles, oldest first, as a,b,c. One with a comma stands in quotes. "
            "Repeatable. With --user, as often: what each user did since.",
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
    allow: Annotated[
        str | None,
        typer.Option(help="A file of item ids: only these. A table with a column item_id, or an id a line."),
    ] = None,
    deny: Annotated[str | None, typer.Option(help="A file of item ids: none of these.")] = None,
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
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            help="With a model: attributes of the items to recommend, as 'genres = Comedy'. With a log: its "
            "rows to train on, as 'rating >= 4'.",
        ),
    ] = None,
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
    from seqrec import models
    from seqrec.experiment import recommend

    if sequence and user and len(sequence) != len(user):
        raise SettingsError(
            f"--sequence: expected one for each --user, of what the user did since. Got {len(sequence)} for "
            f"{len(user)} users."
        )
    is_model = models.folder_of(source) is not None
    rows = {"time_format": time_format, "where": None if is_model else where, "missing_ids": missing_ids}
    check_write(write, (".parquet",))
    section = data_section(source, format, column, data_dir, delimiter=delimiter, encoding=encoding, **rows)
    trained = recommend.open_or_train(source, model, section, save, progress=not is_quiet())
    filters = recommend.filters_seen(source) if seen is None else not seen
    if seen is None and not filters:
        log.info("Items of the history are recommended too, as the run was tested. --unseen leaves them out.")
    choice = recommend.Choice(k, filters, allow, deny, where if is_model else None)
    frame = recommend.recommend(trained, sequence or None, user or None, choice, on_unknown)
    if write:
        recommend.write_frame(frame, write)
    else:
        recommend.table_of(frame).print()
