"""``seqrec report``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import check_pages


def report(
    results: Annotated[str, typer.Argument(help="Folder of result files.")] = "benchmarks/results",
    output: Annotated[str, typer.Option("--output", "-o", help="The HTML page.")] = "report.html",
    leaderboard: Annotated[str | None, typer.Option(help="Also write the leaderboard here (.md).")] = None,
) -> None:
    """Make one self-contained HTML page from result files."""
    from seqrec import report as reports
    from seqrec.benchmark import leaderboard as leaderboards

    check_pages(leaderboard, output)
    reports.write(results, output)
    if leaderboard:
        leaderboards.write(results, leaderboard)
    print(output)
