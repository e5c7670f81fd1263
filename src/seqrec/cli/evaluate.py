"""``seqrec evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.cli.options import DataDir, Engine, Master, Processes, Write, check_write, engine_section
from seqrec.errors import DataError, SettingsError


def evaluate(
    folder: Annotated[
        str, typer.Argument(help="Output folder of a run, or a top-k file of any library (with --protocol).")
    ],
    write_topk: Annotated[
        str | None,
        typer.Option("--write-topk", help="Write the 20 best items of each test query (.csv or .parquet)."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol for a top-k file.")] = None,
    unfiltered: Annotated[bool, typer.Option("--unfiltered", help="Do not filter seen items.")] = False,
    data: Annotated[
        str | None, typer.Option("--data", help="Where the run's log is now, if it has moved.")
    ] = None,
    data_dir: DataDir = None,
    write: Write = None,
    engine: Engine = None,
    master: Master = None,
    processes: Processes = None,
) -> None:
    """Test a trained model again, or evaluate the top-k lists of another library under a protocol.

    seqrec evaluate runs/sasrec
    """
    from seqrec import storage
    from seqrec.experiment.protocol import read_protocol
    from seqrec.experiment.settings import EngineSettings, read_run
    from seqrec.processes import launched

    # All that takes no torch comes first: a mistake is answered at once.
    check_write(write)
    on = EngineSettings.of(engine_section(engine, master=master, processes=processes), "engine")
    if on.name == "spark" and protocol is not None:
        raise SettingsError("--engine: a file of lists is judged on one machine. Leave it out. Got spark.")
    if write_topk is not None:
        storage.check_file(write_topk, (".csv", ".parquet"))
    if protocol is not None:
        read_protocol(protocol)
        if not storage.exists(folder):
            raise DataError(f"{folder}: no such file.")
    else:
        read_run(folder)
    from seqrec.experiment import judge

    if protocol is not None:
        if launched()[1] > 1:
            raise SettingsError(
                "--protocol: a file of lists is judged by one process. Start it without torchrun."
            )
        for option, given in (("--write-topk", write_topk), ("--data", data)):
            if given is not None:
                raise SettingsError(
                    f"{option}: cannot be used with --protocol, which evaluates a file of lists. Got "
                    f"{given!r}. Leave it out."
                )
        table = judge.judge(folder, protocol, data_dir, False if unfiltered else None)
    elif on.name == "spark":
        from seqrec.spark import session
        from seqrec.spark import train as on_spark

        filters = False if unfiltered else None
        with session.session(on.master) as spark:
            table = on_spark.evaluate(spark, folder, on.processes, write_topk, data_dir, filters, data)
    else:
        table = judge.evaluate(folder, write_topk, data_dir, False if unfiltered else None, data)
    if launched()[0]:
        return  # the first process prints
    table.print()
    if write:
        table.write(write)
