"""``seqrec migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import Write, check_write
from seqrec.errors import SettingsError


def migrate(
    file: Annotated[
        str, typer.Argument(help="A run file (YAML) of MetaSpore's sequential demo or of RecBole.")
    ],
    additions: Annotated[
        list[str] | None,
        typer.Argument(help="Keys that are missing in the file, as model=GRU4Rec."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write the run file here instead of printing it.")
    ] = None,
    write: Write = None,
) -> None:
    """Convert another project's run file to one of seqrec, and show what each key became.

    seqrec migrate recbole.yaml model=GRU4Rec -o run.yaml
    """
    from seqrec import migrate as migrations
    from seqrec import storage

    if output is not None and output == file:
        raise SettingsError(f"--output {output}: expected a file other than the input.")
    check_write(write)
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
