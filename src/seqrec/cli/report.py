"""``seqrec report``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import DataDir, check_pages
from seqrec.errors import DataError


def report(
    results: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of result files, result files, or output folders of seqrec train (whose models are "
            "tested again). By default benchmarks/results."
        ),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The HTML page.")] = "report.html",
    leaderboard: Annotated[str | None, typer.Option(help="Also write the leaderboard here (.md).")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make one self-contained HTML page from result files and runs.

    seqrec report runs/table -o report.html
    """
    from seqrec import report as reports
    from seqrec.benchmark import leaderboard as leaderboards
    from seqrec.benchmark import runs

    check_pages(leaderboard, output)
    found = runs.collect(results or ["benchmarks/results"], data_dir)
    if not found:
        raise DataError(
            f"{', '.join(results or ())}: expected result files of seqrec benchmark, or output folders "
            "of seqrec train. Got none."
        )
    reports.write(found, output)
    if leaderboard:
        leaderboards.write(found, leaderboard)
    print(output)
