"""The command line: thin. Each command reads its options, calls one function and prints what it returns."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from seqrec import __version__
from seqrec.errors import DataError, SeqrecError, SettingsError, did_you_mean

PURPOSE = "Sequential recommendation: prepare logs, train models, compare them honestly, recommend."
app = typer.Typer(help=PURPOSE, no_args_is_help=True, add_completion=False)
data_app = typer.Typer(help="Look at logs, and fetch known data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Which column is which, as user_id=customer; user_id=0 numbers the columns of a file without a header; timestamp= leaves time out. "
        "Repeatable.",
    ),
]
Delimiter = Annotated[str | None, typer.Option(help="What separates the columns of a text file; told from the header if nothing is said.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of a text file; UTF-8 if nothing is said.")]
Format = Annotated[str, typer.Option(help="Format of the log; auto tells it from the name and the first line.")]
DataDir = Annotated[str | None, typer.Option("--data-dir", envvar="SEQREC_DATA", help="Where the files of known data sets are.")]
Write = Annotated[str | None, typer.Option("--write", help="Also write the table to this file (.json, .csv or .md).")]


def main() -> None:
    """Runs the command line; a user's mistake is one line, not a traceback."""
    warnings.showwarning = lambda message, *_, **__: logging.getLogger("seqrec").warning("%s", message)
    try:
        app()
    except SeqrecError as error:
        _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}. See to the path, its permissions and the space left on its disk.")


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
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no log lines.")] = False,
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


def _mapping(pairs: list[str] | None) -> dict[str, str | int | None]:
    """``user_id=customer`` names a column, ``user_id=0`` numbers it, ``timestamp=`` leaves it out."""
    mapping: dict[str, str | int | None] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SettingsError(f"--column: expected name=column. Got {pair!r}.")
        mapping[key] = int(value) if re.fullmatch("[0-9]+", value) else value or None
    return mapping


def _data_section(source: str, format: str, columns: list[str] | None, data_dir: str | None = None, **more: Any) -> dict[str, Any]:
    """The ``data`` section for a source that is a file, a prepared folder, or the name of a known data set."""
    from seqrec import datasets, storage

    more |= {"format": format, "columns": _mapping(columns)}
    if storage.exists(source):
        return {"path": source, **more}
    if re.fullmatch(r"[\w-]+", source):  # a name, not a file's
        if source not in datasets.DATASETS:
            raise DataError(f"{source}: no such file or folder, and no known data set of that name.{did_you_mean(source, datasets.DATASETS)}")
        return {"name": source, "folder": data_dir, **more}
    return {"path": source, **more}


def _refuse_beside_conf(columns: list[str] | None, **options: Any) -> None:
    """Refuses what only a log on the command line has use for."""
    from seqrec import run

    options |= {"columns": _mapping(columns)}
    run.refuse_settings(run.DataSettings.of(options, "data"), options, "--conf names a file that says it (data.KEY=VALUE replaces what it says)")


def _check_write(path: str | None, more: tuple[str, ...] = ()) -> None:
    """That a table can be written there, before there is one."""
    from seqrec import storage, tables

    if path is not None:
        storage.check_file(path, (*tables.SUFFIXES, *more))


@data_app.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help="A log, a prepared folder, or a known data set such as ml-100k.")],
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """What is in a log, and what to beware of: sizes, ties, repeats, leaks, and whether order matters."""
    from seqrec import data_check as checks
    from seqrec import run

    _check_write(write)
    settings = run.DataSettings.of(_data_section(source, format, column, data_dir, delimiter=delimiter, encoding=encoding), "data")
    sequences, origin = run.read_sequences(settings)
    table = checks.check(sequences).table(origin)
    table.print()
    if write:
        table.write(write)


@data_app.command("download")
def data_download(
    name: Annotated[str, typer.Argument(help="A known data set, such as ml-100k.")],
    data_dir: DataDir = None,
) -> None:
    """Finds or fetches a known data set, and says where it came from and under which terms."""
    from seqrec import datasets

    log = datasets.load(name, data_dir=data_dir)
    print(f"{name}: {len(log.frame):,} events from {log.source}")
    if log.terms:
        print(log.terms)


@app.command()
def prepare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOG FOLDER | [FOLDER] [section.key=value ...]",
            help="A log or a known data set, and the folder for sequences and catalogues. With --conf: that folder "
            "(by default sequences in output.folder), and settings that replace those of the file.",
        ),
    ] = None,
    conf: Annotated[str | None, typer.Option("--conf", help="YAML file of a run: its data, split and samples are prepared.")] = None,
    samples: Annotated[
        str | None, typer.Option("--samples", help="Also write tables of samples here, one row an event: train, validation, test, item.")
    ] = None,
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    data_dir: DataDir = None,
    duplicates: Annotated[str, typer.Option(help="keep or drop events that stand twice.")] = "keep",
    min_item_count: Annotated[int, typer.Option(help="Leave out items with fewer events.")] = 0,
    min_user_count: Annotated[int, typer.Option(help="Leave out users with fewer events.")] = 0,
) -> None:
    """Turns a log into sequences and catalogues on disk, which everything else opens at once; and into tables of samples, if asked."""
    from seqrec import run, yaml_file

    given = arguments or []
    content: dict[str, Any]
    more = {
        "duplicates": duplicates,
        "min_item_count": min_item_count,
        "min_user_count": min_user_count,
        "delimiter": delimiter,
        "encoding": encoding,
    }
    if conf is not None:
        _refuse_beside_conf(column, format=format, **more)
        overrides = [argument for argument in given if re.match(r"[a-z_]+(\.[a-z_0-9]+)*=", argument)]
        folders = [argument for argument in given if argument not in overrides]
        if len(folders) > 1:
            raise SettingsError(f"expected one folder beside --conf, for the sequences. Got {', '.join(folders)}.")
        content = yaml_file.read(conf, overrides)
        if data_dir is not None:
            content.setdefault("data", {}).setdefault("folder", data_dir)
        folder = folders[0] if folders else None
    else:
        if len(given) != 2:
            raise SettingsError("expected a log and a folder, or --conf FILE. See seqrec prepare --help.")
        content, folder = {"data": _data_section(given[0], format, column, data_dir, **more)}, given[1]
    for line in run.prepare_run(run.RunSettings.of(content, ""), folder, samples):
        print(line)


@app.command()
def train(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings that replace those of the file, as train.epochs=3.")] = None,
    conf: Annotated[str | None, typer.Option("--conf", help="YAML file of the run.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Without a file: a log, a prepared folder or a known data set.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Without a file: which model.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder for the model, its metrics and its checkpoint.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Train anew, and replace the run that is in the output folder.")] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="After the test, also fit a model on all events, held-out ones included, which seqrec recommend uses.")
    ] = False,
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    data_dir: DataDir = None,
) -> None:
    """Trains a model, tests it, prints its metrics. A run that was stopped goes on from its checkpoint.

    A run file of MetaSpore's sequential demo or of RecBole is understood too: it is converted as by seqrec migrate, and the table of what became of
    its keys is printed.
    """
    from seqrec import migrate as migrations
    from seqrec import run, yaml_file

    if (conf is None) == (data is None):
        raise SettingsError("expected either --conf FILE or --data LOG (with --model). See seqrec train --help.")
    content: dict[str, Any]
    if conf is not None:
        if model is not None:
            raise SettingsError("--model: a run file names its model. Write model.name=... to replace it, or use --data.")
        _refuse_beside_conf(column, format=format, delimiter=delimiter, encoding=encoding)
        if migrations.recognise(yaml_file.parse(conf)[0]) is None:
            content = yaml_file.read(conf, overrides or ())
        else:
            migration = migrations.read(conf)
            migration.table().print()
            content = migration.filled(overrides or ())
    else:
        assert data is not None
        content = {
            "data": _data_section(data, format, column, data_dir, delimiter=delimiter, encoding=encoding),
            "model": {"name": model or "sasrec"},
        }
        for override in overrides or ():
            yaml_file.apply_override(content, override)
    if data_dir is not None and conf is not None:
        content.setdefault("data", {}).setdefault("folder", data_dir)
    if output is not None:
        content.setdefault("output", {})["folder"] = output
    if refit:
        content.setdefault("output", {})["refit"] = True
    settings = run.RunSettings.of(content, "")
    _, table = run.train(settings, restart=restart)
    table.print()


@app.command()
def migrate(
    file: Annotated[str, typer.Argument(help="A run file (YAML) of MetaSpore's sequential demo or of RecBole.")],
    additions: Annotated[list[str] | None, typer.Argument(help="Keys that the file leaves to a command line, as model=GRU4Rec.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write the run file here instead of printing it.")] = None,
    write: Write = None,
) -> None:
    """Turns another project's run file into one of seqrec, and says what became of each of its keys."""
    from seqrec import migrate as migrations
    from seqrec import storage

    if output is not None and output == file:
        raise SettingsError(f"--output {output}: expected another file than the one that is read.")
    _check_write(write)
    if output is not None:
        storage.check_file(output)
    migration = migrations.read(file, additions or ())
    migration.table().print()
    if write:
        migration.table().write(write)
    if output is not None:
        storage.write_text(migration.yaml(), output)
    else:
        print()
        print(migration.yaml(), end="")


@app.command()
def evaluate(
    folder: Annotated[str, typer.Argument(help="Output folder of a run, or a top-k file of any library (with --protocol).")],
    write_topk: Annotated[str | None, typer.Option("--write-topk", help="Write the 20 best items of each test query (.csv or .parquet).")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol by which a top-k file is judged.")] = None,
    unfiltered: Annotated[bool, typer.Option("--unfiltered", help="Do not leave out what a user has seen.")] = False,
    data: Annotated[str | None, typer.Option("--data", help="Where the run's log is now, if not where it was.")] = None,
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """Tests a trained model again, or judges another library's lists on equal terms."""
    from seqrec import run

    _check_write(write)
    if protocol is not None:
        for option, given in (("--write-topk", write_topk), ("--data", data)):
            if given is not None:
                raise SettingsError(f"{option}: expected nothing beside --protocol, which judges a file of lists. Got {given!r}. Leave it out.")
        table = run.judge(folder, protocol, data_dir, False if unfiltered else None)
    else:
        table = run.evaluate(folder, write_topk, data_dir, False if unfiltered else None, data)
    table.print()
    if write:
        table.write(write)


@app.command()
def benchmark(
    protocol: Annotated[str, typer.Argument(help="A protocol by name, or your own as a YAML file.")],
    models: Annotated[str | None, typer.Option(help="Comma-separated models or variants; all that have settings by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs a model, with seeds 0, 1, ...")] = 3,
    results: Annotated[str, typer.Option(help="Folder of the result files.")] = "benchmarks/results",
    leaderboard: Annotated[str | None, typer.Option(help="Write the leaderboard here (.md).")] = None,
    report: Annotated[str | None, typer.Option(help="Write the HTML report here.")] = None,
    topk_dir: Annotated[str | None, typer.Option(help="Also write every run's top-k lists into this folder.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Run also what is done, and replace its results.")] = False,
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """Runs models under a protocol, one result file a run; what is there already is not run again."""
    from seqrec import benchmark as benchmarks
    from seqrec import report as reports
    from seqrec import storage
    from seqrec.benchmark import leaderboard as leaderboards

    _check_write(write)
    _check_pages(leaderboard, report)
    for folder in (results, topk_dir):
        if folder is not None:
            storage.check_folder(folder)
    names = [name.strip() for name in models.split(",")] if models else None
    benchmarks.run(protocol, models=names, seeds=range(seeds), results_dir=results, data_dir=data_dir, topk_dir=topk_dir, again=again)
    table = leaderboards.table(results, protocol)
    table.print()
    if write:
        table.write(write)
    if leaderboard:
        leaderboards.write(results, leaderboard)
    if report:
        reports.write(results, report, protocols=[protocol])


def _check_pages(leaderboard: str | None, report: str | None) -> None:
    """That these can be written, before there is anything to write."""
    from seqrec import storage

    for path, ending in ((leaderboard, ".md"), (report, ".html")):
        if path is not None:
            storage.check_file(path, [ending])


@app.command()
def report(
    results: Annotated[str, typer.Argument(help="Folder of result files.")] = "benchmarks/results",
    output: Annotated[str, typer.Option("--output", "-o", help="The HTML page.")] = "report.html",
    leaderboard: Annotated[str | None, typer.Option(help="Also write the leaderboard here (.md).")] = None,
) -> None:
    """Draws result files as one self-contained HTML page."""
    from seqrec import report as reports
    from seqrec.benchmark import leaderboard as leaderboards

    _check_pages(leaderboard, output)
    reports.write(results, output)
    if leaderboard:
        leaderboards.write(results, leaderboard)
    print(output)


@app.command()
def recommend(
    source: Annotated[str, typer.Argument(help="A trained model's folder; or a log, on which a model is trained first.")],
    sequence: Annotated[list[str] | None, typer.Option("--sequence", "-s", help="A history: item ids, oldest first, as a,b,c. Repeatable.")] = None,
    user: Annotated[list[str] | None, typer.Option("--user", "-u", help="A user of the training data. Repeatable.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    model: Annotated[str | None, typer.Option(help="With a log: which model to train; sasrec if nothing is said.")] = None,
    save: Annotated[str | None, typer.Option(help="With a log: keep the trained model in this folder.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Also recommend what is in the history.")] = False,
    on_unknown: Annotated[str, typer.Option(help="raise, warn or ignore ids that the model never saw.")] = "raise",
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    data_dir: DataDir = None,
    write: Annotated[str | None, typer.Option("--write", help="Write the table (.csv, .json, .md or .parquet) instead of printing it.")] = None,
) -> None:
    """Recommends next items: for histories given by hand, for users, or (with a log) for all its users."""
    from seqrec import run

    if sequence and user:
        raise SettingsError("--user: expected either --sequence or --user. Got both. Ask twice.")
    _check_write(write, (".parquet",))
    section = _data_section(source, format, column, data_dir, delimiter=delimiter, encoding=encoding)
    trained = run.open_or_train(source, model, section, save)
    frame = run.recommend(trained, sequence, user, k, not seen, on_unknown)
    if write:
        run.write_frame(frame, write)
    else:
        run.table_of(frame).print()


if __name__ == "__main__":
    main()
