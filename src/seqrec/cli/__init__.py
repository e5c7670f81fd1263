"""The command line, one file per command.

Each command reads its options, calls one function and prints what it returns.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from seqrec import __version__, processes
from seqrec.cli import (
    benchmark,
    choose,
    compare,
    data,
    embed,
    evaluate,
    export,
    index,
    migrate,
    prepare,
    recommend,
    report,
    serve,
    settings,
    similar,
    train,
    tune,
)
from seqrec.cli.options import Asking, Command, Group
from seqrec.errors import SeqrecError, SettingsError, masked, shown

PURPOSE = "Sequential recommendation: prepare logs, train models, compare them honestly, recommend."
app = typer.Typer(help=PURPOSE, cls=Group, invoke_without_command=True)
BEGIN = f"""{PURPOSE}

  seqrec data check LOG        what is in a log, and what to beware of
  seqrec choose LOG -o chosen  the best model for it, in the minutes that you give
  seqrec recommend chosen      next items for a user or a history
  seqrec serve chosen          the same over HTTP, with a page to try it

seqrec --help shows all commands, seqrec COMMAND --help their options.
"""

TOGETHER = ("train", "evaluate")
"""Commands that several processes can run as one."""

_debug = False  # set by the option, and needed when the command has ended


def main() -> None:
    """Runs the command line. A user's mistake is one line, and so is one of ours: its traceback goes into a
    file, or with ``--debug`` to the terminal."""
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
    except Exception as error:
        what = "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        line = shown(" ".join(what.split()), str)
        if _debug:
            _fail(f"{line}. This is a fault of seqrec; please report it with the traceback above.", 1)
        with tempfile.NamedTemporaryFile(
            "w", prefix="seqrec-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(masked(traceback.format_exc()))
        _fail(
            f"{line}. This is a fault of seqrec; its traceback is in {file.name} (seqrec --debug shows it). "
            "Please report it.",
            1,
        )


def _fail(message: str, code: int = 2) -> None:
    try:
        number, started = processes.launched()
    except SettingsError:  # which is what is said then
        number, started = 0, 1
    if started > 1:
        processes.let_first_speak(message)
        message = f"process {number} of {started}: {message}"
    if _debug:
        print(masked(traceback.format_exc()), file=sys.stderr)
    Console(stderr=True).print(
        f"[red]error:[/red] {_plain(masked(message))}", highlight=False, soft_wrap=True
    )
    sys.exit(code)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _version(value: bool) -> None:
    if value:
        print(f"seqrec {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Only results, warnings and errors: no progress, no log lines."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = debug
    if context.invoked_subcommand is None:
        print(BEGIN, end="")
        raise typer.Exit
    number, started = processes.launched()
    if started > 1 and context.invoked_subcommand not in TOGETHER:
        raise SettingsError(
            f"seqrec {context.invoked_subcommand}: expected to be started once. Got {started} processes, "
            f"which would all do the same; torchrun is for seqrec {' and seqrec '.join(TOGETHER)}."
        )
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("seqrec")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.CRITICAL if number else logging.WARNING if quiet else logging.INFO)


data_commands = typer.Typer(
    help="Inspect logs and download known data sets.", cls=Group, no_args_is_help=True
)
data_commands.command("check", cls=Command)(data.check)
data_commands.command("download", cls=Command)(data.download)
app.add_typer(data_commands, name="data", rich_help_panel="Logs and settings")
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Begin with these": (choose.choose, train.train, recommend.recommend, serve.serve),
    "Logs and settings": (prepare.prepare, embed.embed, migrate.migrate, settings.settings),
    "Measure and compare": (
        *(tune.tune, evaluate.evaluate, compare.compare),
        *(benchmark.benchmark, report.report),
    ),
    "Use a trained model": (similar.similar, index.index, export.export),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        kind = Asking if command in (recommend.recommend, similar.similar) else Command
        app.command(cls=kind, rich_help_panel=panel)(command)
