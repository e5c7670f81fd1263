"""``seqrec compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import DataDir, Write, check_write

RUN = "the output folder of seqrec train, a result file, or a folder with the results of one model's seeds."


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help=f"A: {RUN}")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help=f"B: {RUN}")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A metric, as ndcg@10. Repeatable. By default ndcg, recall, mrr @10."),
    ] = None,
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """Compare two runs on the same test queries, with a paired test.

    seqrec compare runs/gru4rec runs/sasrec
    """
    from seqrec import storage
    from seqrec.benchmark import runs
    from seqrec.errors import DataError

    check_write(write)
    for run in (run_a, run_b):
        if not storage.exists(run):
            raise DataError(f"{run}: no such file or folder.")
    table = runs.compare(run_a, run_b, metric or ("ndcg@10", "recall@10", "mrr@10"), data_dir)
    table.print()
    if write:
        table.write(write)
