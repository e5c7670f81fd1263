"""``seqrec settings``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import Write, check_write


def settings(
    name: Annotated[
        str, typer.Argument(help="A section, model, loss or split, such as train, gru4rec, bpr or last_n.")
    ] = "",
    write: Write = None,
) -> None:
    """List the settings of a section, model, loss or split: keys, types, defaults, choices and meaning.

    seqrec settings gru4rec
    """
    from seqrec.experiment import settings_table

    check_write(write)
    table = settings_table.table(name)
    table.print()
    if write:
        table.write(write)
