"""Options that several commands have, and what they mean."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from seqrec.errors import DataError, SettingsError, did_you_mean

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Which column is which, as user_id=customer; user_id=0 numbers the columns of a file without "
        "a header; timestamp= leaves time out. "
        "Repeatable.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="What separates the columns of a text file; told from the header if nothing is said."),
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of a text file; UTF-8 if nothing is said.")]
Format = Annotated[
    str, typer.Option(help="Format of the log; auto tells it from the name and the first line.")
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", envvar="SEQREC_DATA", help="Where the files of known data sets are."),
]
Write = Annotated[
    str | None, typer.Option("--write", help="Also write the table to this file (.json, .csv or .md).")
]


def mapping(pairs: list[str] | None) -> dict[str, str | int | None]:
    """``user_id=customer`` names a column, ``user_id=0`` numbers it, ``timestamp=`` leaves it out."""
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
    """The ``data`` section for a source that is a file, a prepared folder, or the name of a known data
    set."""
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
    """Refuses what only a log on the command line has use for."""
    from seqrec.experiment import data, settings

    options |= {"columns": mapping(columns)}
    data.refuse_settings(
        settings.DataSettings.of(options, "data"),
        options,
        "--conf names a file that says it (data.KEY=VALUE replaces what it says)",
    )


def check_write(path: str | None, more: tuple[str, ...] = ()) -> None:
    """That a table can be written there, before there is one."""
    from seqrec import storage, tables

    if path is not None:
        storage.check_file(path, (*tables.SUFFIXES, *more))


def check_pages(leaderboard: str | None, report: str | None) -> None:
    """That these can be written, before there is anything to write."""
    from seqrec import storage

    for path, ending in ((leaderboard, ".md"), (report, ".html")):
        if path is not None:
            storage.check_file(path, [ending])
