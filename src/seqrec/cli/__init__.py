"""The command line, one file per command.

Each command reads its options, calls one function and prints what it returns.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from seqrec import __version__
from seqrec.cli import (
    benchmark,
    compare,
    data,
    evaluate,
    migrate,
    prepare,
    recommend,
    report,
    settings,
    train,
)
from seqrec.cli.options import Command, Group
from seqrec.errors import SeqrecError

PURPOSE = "Sequential recommendation: prepare logs, train models, compare them honestly, recommend."
app = typer.Typer(help=PURPOSE, cls=Group, no_args_is_help=True, add_completion=False)


def main() -> None:
    """Runs the command line. A user's mistake is one line, not a traceback."""
    warnings.showwarning = lambda message, *_, **__: logging.getLogger("seqrec").warning("%s", message)
    try:
        app()
    except SeqrecError as error:
        _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(
            f"{where}{error.strerror or error}. Check the path, its permissions and the space left on "
            "its disk."
        )


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[red]error:[/red] {_plain(message)}", highlight=False, soft_wrap=True)
    sys.exit(2)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _version(value: bool) -> None:
    if value:
        print(f"seqrec {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Only results, warnings and errors: no progress, no log lines."),
    ] = False,
) -> None:
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("seqrec")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


data_commands = typer.Typer(
    help="Inspect logs and download known data sets.", cls=Group, no_args_is_help=True
)
data_commands.command("check", cls=Command)(data.check)
data_commands.command("download", cls=Command)(data.download)
app.add_typer(data_commands, name="data")
for command in (
    prepare.prepare,
    train.train,
    migrate.migrate,
    evaluate.evaluate,
    benchmark.benchmark,
    compare.compare,
    report.report,
    recommend.recommend,
    settings.settings,
):
    app.command(cls=Command)(command)
