"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from seqrec.errors import DataError, SettingsError, did_you_mean

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Maps a column, as user_id=customer. In a file without a header give its number, user_id=0; "
        "timestamp= leaves the times out. Repeatable.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Column separator of a text file. By default detected from the header."),
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of a text file. By default UTF-8.")]
Format = Annotated[
    str, typer.Option(help="Format of the log. auto detects it from the file's name and first line.")
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", envvar="SEQREC_DATA", help="Folder with the files of known data sets."),
]
Write = Annotated[
    str | None, typer.Option("--write", help="Also write the table to this file (.json, .csv or .md).")
]


def mapping(pairs: list[str] | None) -> dict[str, str | int | None]:
    """The options ``--column`` as a dictionary: a name, a number, or None for a column left out."""
    mapping: dict[str, str | int | None] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SettingsError(f"--column: expected name=column. Got {pair!r}.")
        mapping[key] = int(value) if re.fullmatch("[0-9]+", value) else value or None
    return mapping


def data_section(
    source: str, format: str, columns: list[str] | None, data_dir: str | None = None, **more: Any
) -> dict[str, Any]:
    """The section ``data`` of a source: a file, a prepared folder, or the name of a known data set."""
    from seqrec import sources, storage

    more |= {"format": format, "columns": mapping(columns)}
    if storage.exists(source):
        return {"path": source, **more}
    if re.fullmatch(r"[\w-]+", source):  # a name, not a file's
        if source not in sources.DATASETS:
            raise DataError(
                f"{source}: no such file or folder, and no known data set of that "
                f"name.{did_you_mean(source, sources.DATASETS)}"
            )
        return {"name": source, "folder": data_dir, **more}
    return {"path": source, **more}


def refuse_beside_conf(columns: list[str] | None, **options: Any) -> None:
    """Refuses options that only apply to a log named on the command line."""
    from seqrec.experiment import data, settings

    options |= {"columns": mapping(columns)}
    data.refuse_settings(
        settings.DataSettings.of(options, "data"),
        options,
        "the file of --conf says it (replace it with data.KEY=VALUE)",
    )


def check_write(path: str | None, more: tuple[str, ...] = ()) -> None:
    """Checks, before any work is done, that a table can be written to a path."""
    from seqrec import storage, tables

    if path is not None:
        storage.check_file(path, (*tables.SUFFIXES, *more))


def check_pages(leaderboard: str | None, report: str | None) -> None:
    """Checks, before any work is done, that leaderboard and report can be written."""
    from seqrec import storage

    for path, ending in ((leaderboard, ".md"), (report, ".html")):
        if path is not None:
            storage.check_file(path, [ending])
