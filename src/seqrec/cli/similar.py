"""``seqrec similar``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import check_write


def similar(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, of a run, or of an export.")],
    item: Annotated[list[str], typer.Option("--item", "-i", help="An item's id. Repeatable.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    by: Annotated[str, typer.Option(help="Of item vectors: cosine, or dot for their product.")] = "cosine",
    on_unknown: Annotated[
        str, typer.Option(help="What to do about ids that the model does not know: raise, warn or ignore.")
    ] = "raise",
    write: Annotated[
        str | None,
        typer.Option(
            "--write", help="Write the table (.csv, .json, .md or .parquet) instead of printing it."
        ),
    ] = None,
) -> None:
    """Show the items most like some, by what a model has learned of them.

    seqrec similar chosen --item i42 -k 5
    """
    from seqrec.experiment import recommend

    check_write(write, (".parquet",))
    frame = recommend.similar(recommend.open_trained(model), item, k, by, on_unknown)
    if write:
        recommend.write_frame(frame, write)
    else:
        recommend.table_of(frame).print()
