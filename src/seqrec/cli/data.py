"""``seqrec data check`` and ``seqrec data download``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import (
    Columns,
    DataDir,
    Delimiter,
    Encoding,
    Format,
    MissingIds,
    TimeFormat,
    Where,
    Write,
    check_write,
    data_section,
)


def check(
    source: Annotated[
        list[str],
        typer.Argument(
            help="A log (one file, or several that together are it), a prepared folder, or a known data set "
            "such as ml-100k."
        ),
    ],
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    where: Where = None,
    missing_ids: MissingIds = "refuse",
    data_dir: DataDir = None,
    basket: Annotated[
        str | None,
        typer.Option(help="Events that are a basket, where the log has none: same_time or same_day."),
    ] = None,
    write: Write = None,
) -> None:
    """Report what is in a log: sizes, ties, repeats, leaks, and whether order matters.

    seqrec data check events.csv
    """
    from seqrec.experiment import data_check as checks
    from seqrec.experiment.data import read_sequences
    from seqrec.experiment.settings import DataSettings

    rows = {"time_format": time_format, "where": where, "missing_ids": missing_ids, "basket": basket}
    check_write(write)
    settings = DataSettings.of(
        data_section(source, format, column, data_dir, delimiter=delimiter, encoding=encoding, **rows), "data"
    )
    sequences, origin = read_sequences(settings)
    table = checks.check(sequences).table(origin)
    table.print()
    if write:
        table.write(write)


def download(
    name: Annotated[str, typer.Argument(help="A known data set, such as ml-100k.")],
    data_dir: DataDir = None,
) -> None:
    """Find or download a known data set, and report its source and terms of use.

    seqrec data download ml-100k
    """
    from seqrec import sources

    log = sources.load(name, data_dir=data_dir)
    print(f"{name}: {len(log.frame):,} events from {log.source}")
    if log.terms:
        print(log.terms)
