"""``seqrec embed``."""

from __future__ import annotations

from typing import Annotated

import typer


def embed(
    table: Annotated[str, typer.Argument(help="A table of items: .csv, .tsv, .parquet or .jsonl.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The table to write (.parquet).")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", "-c", help="A column of texts. Repeatable: they are joined. By default title."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Name of the new column. By default the first text's and _embedding.")
    ] = None,
    width: Annotated[int, typer.Option(help="Numbers of an embedding.")] = 256,
    fit_on: Annotated[
        str | None,
        typer.Option(
            "--fit-on",
            help="A table that was embedded before: texts get the embeddings that they had there, so that a "
            "model trained on it can go on (train --from).",
        ),
    ] = None,
) -> None:
    """Add a column of embeddings of texts to a table, so that items are known by what is written of them.

    seqrec embed items.csv --column title -o embedded.parquet
    """
    from seqrec.experiment import embed

    print(embed.embed(table, output, tuple(column or ("title",)), to, width, fit_on))
