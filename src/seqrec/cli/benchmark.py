"""``seqrec benchmark``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import DataDir, Write, check_pages, check_write


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
    topk_dir: Annotated[
        str | None, typer.Option(help="Also write the top-k lists of every run to this folder.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat finished runs and replace their results.")
    ] = False,
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """Run models under a protocol, with one result file per run. Finished runs are skipped."""
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
    benchmarks.run(
        protocol,
        models=names,
        seeds=range(seeds),
        results_dir=results,
        data_dir=data_dir,
        topk_dir=topk_dir,
        again=again,
    )
    table = leaderboards.table(results, protocol)
    table.print()
    if write:
        table.write(write)
    if leaderboard:
        leaderboards.write(results, leaderboard)
    if report:
        reports.write(results, report, protocols=[protocol])
