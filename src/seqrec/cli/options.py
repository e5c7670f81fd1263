"""Options that several commands share."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from seqrec.errors import DataError, SeqrecError, SettingsError, did_you_mean


def refuse_repeats(command: Any, context: Any, arguments: list[str]) -> None:
    """Refuses an option that stands twice where only its last value would count.

    Raises:
        SettingsError: names the option and what to do.
    """
    parser = command.make_parser(context)
    _, _, order = parser.parse_args(args=list(arguments))
    seen = set()
    for parameter in order:
        if parameter.param_type_name != "option" or parameter.multiple or getattr(parameter, "count", False):
            continue
        if parameter.name in seen and not parameter.is_flag:
            raise SettingsError(
                f"{parameter.opts[0]}: expected once. Got it several times. Keep one of them."
            )
        seen.add(parameter.name)


class Command(TyperCommand):
    """A command that refuses an option given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Click's, after a look for repeats."""
        refuse_repeats(self, ctx, args)
        return super().parse_args(ctx, args)


class Asking(Command):
    """A command whose errors call Python's arguments by its own options."""

    def invoke(self, ctx: Any) -> Any:
        """As Click's, with other words in errors.

        Raises:
            SeqrecError: as the command's.
        """
        try:
            return super().invoke(ctx)
        except SeqrecError as error:
            options = {p.name: p.opts[0] for p in self.params if p.param_type_name == "option"}
            raise type(error)(in_options(str(error), options)) from error


def in_options(message: str, options: dict[str, str]) -> str:
    """A message about arguments as one about options: ``users: ...`` becomes ``--user: ...``, and
    ``on_unknown='warn'`` becomes ``--on-unknown warn``.

    Args:
        options: parameter -> its option, as ``on_unknown`` -> ``--on-unknown``.
    """

    def named(match: re.Match[str]) -> str:
        name = match[1] if match[1] in options else match[1].removesuffix("s")
        return f"{options[name]}{match[2]}" if name in options else match[0]

    message = re.sub(r"^(\w+)(:| has )", named, message)
    for name, option in options.items():
        message = re.sub(rf"\b{name}='(\w+)'( or )'(\w+)'", rf"{option} \1\2\3", message)
    return message


class Group(TyperGroup):
    """A group of commands, that refuses an option given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Click's, after a look for repeats."""
        refuse_repeats(self, ctx, args)
        return super().parse_args(ctx, args)


def is_quiet() -> bool:
    """Whether ``-q`` was given: only results, warnings and errors are shown."""
    return not logging.getLogger("seqrec").isEnabledFor(logging.INFO)


Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Maps a column, as user_id=customer. In a file without a header give its number, user_id=0; "
        "timestamp= leaves the times out. Repeatable.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="local (this machine, the default) or spark (a cluster of Apache Spark)."),
]
Master = Annotated[
    str | None,
    typer.Option(
        "--master", help="With --engine spark: the address of the cluster, as local[4] or spark://host:7077."
    ),
]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, help="With --engine spark: processes that share the work.")
]


def engine_section(engine: str | None, **given: Any) -> dict[str, Any]:
    """The section ``engine`` of a run: what is said.

    Args:
        given: its other settings.

    Raises:
        SettingsError: these without an engine that has a use for them.
    """
    said = {name: value for name, value in given.items() if value is not None}
    if said and engine != "spark":
        name = next(iter(said))
        raise SettingsError(
            f"--{name}: cannot be given without --engine spark. Got {said[name]!r}. Leave it out."
        )
    return said if engine is None else {"name": engine, **said}


Delimiter = Annotated[
    str | None,
    typer.Option(help="Column separator of a text file. By default detected from the header."),
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of a text file. By default UTF-8.")]
Format = Annotated[
    str, typer.Option(help="Format of the log. auto detects it from the file's name and first line.")
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        "--time-format",
        help="How times in text are written: day_first, month_first, or a format such as '%d.%m.%y %H:%M'. "
        "By default detected from the whole column.",
    ),
]
Where = Annotated[
    str | None, typer.Option("--where", help="Rows to keep, as 'event = purchase' or 'rating >= 4'.")
]
MissingIds = Annotated[
    str, typer.Option("--missing-ids", help="Whether to refuse or drop rows without a user or an item.")
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
    source: str | Sequence[str],
    format: str,
    columns: list[str] | None,
    data_dir: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The section ``data`` of a source: a file, a prepared folder, or the name of a known data set; or of
    several files that together are the log."""
    from seqrec import sources, storage

    more |= {"format": format, "columns": mapping(columns)}
    if not isinstance(source, str):
        if len(source) > 1:
            for one in source:
                if not storage.exists(one):
                    raise DataError(f"{one}: no such file. Several sources must all be files of one log.")
            return {"path": list(source), **more}
        source = source[0]
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
