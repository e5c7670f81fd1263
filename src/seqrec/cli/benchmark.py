"""``seqrec benchmark``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import DataDir, Write, check_pages, check_write, is_quiet
from seqrec.errors import SettingsError


def pairs(
    option: str, given: list[str] | None, example: str, between: str, several: bool = False
) -> list[tuple[str, str]]:
    """What stands before and after the separator in each of an option's values.

    Raises:
        SettingsError: it is missing, or (unless ``several``) one label stands twice.
    """
    found: list[tuple[str, str]] = []
    for text in given or ():
        label, separator, value = text.partition(between)
        if not separator or not label or not value:
            raise SettingsError(f"{option}: expected a row and its setting, as {example}. Got {text!r}.")
        if not several and label in dict(found):
            raise SettingsError(f"{option}: expected one file for {label}. Got several. Keep one.")
        found.append((label, value))
    return found


def benchmark(
    protocol: Annotated[str, typer.Argument(help="Name of a protocol, or a YAML file with your own.")],
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated models or variants. By default all that have settings."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per model, with seeds 0, 1, ...")] = 3,
    results: Annotated[str, typer.Option(help="Folder for the result files.")] = "benchmarks/results",
    leaderboard: Annotated[str | None, typer.Option(help="Write the leaderboard here (.md).")] = None,
    report: Annotated[str | None, typer.Option(help="Write the HTML report here.")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", help="A row's own settings, as gru4rec-mine=file.yaml. Repeatable."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of a row that replaces its file's, as gru4rec.train.epochs=3. Repeatable.",
        ),
    ] = None,
    topk_dir: Annotated[
        str | None,
        typer.Option(
            help="Also write the top-k lists of every run to this folder. Finished runs without lists there "
            "are run again."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat finished runs and replace their results.")
    ] = False,
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """Run models under a protocol, with one result file per run. Finished runs are skipped.

    seqrec benchmark ml-100k-leave-one-out-v1 --models markov,sasrec --seeds 1 --results runs/table
    """
    from seqrec import benchmark as benchmarks
    from seqrec import report as reports
    from seqrec import storage
    from seqrec.benchmark import leaderboard as leaderboards

    check_write(write)
    check_pages(leaderboard, report)
    for folder in (results, topk_dir):
        if folder is not None:
            storage.check_folder(folder)
    names = [name.strip() for name in models.split(",")] if models else None
    own = pairs("--config", config, "gru4rec-mine=file.yaml", "=")
    overrides: dict[str, list[str]] = {}
    for label, change in pairs("--set", override, "gru4rec.train.epochs=3", ".", several=True):
        overrides.setdefault(label, []).append(change)
    benchmarks.run(
        protocol,
        models=names,
        seeds=range(seeds),
        results_dir=results,
        data_dir=data_dir,
        topk_dir=topk_dir,
        again=again,
        own=dict(own),
        overrides=overrides,
        progress=not is_quiet(),
    )
    table = leaderboards.table(results, protocol)
    table.print()
    if write:
        table.write(write)
    if leaderboard:
        leaderboards.write(results, leaderboard)
    if report:
        reports.write(results, report, protocols=[protocol])
