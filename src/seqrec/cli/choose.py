"""``seqrec choose``."""

from __future__ import annotations

from typing import Annotated, Any

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
    is_quiet,
)


def choose(
    source: Annotated[
        list[str],
        typer.Argument(
            help="A log (one file, or several that together are it), a prepared folder, or a known data set."
        ),
    ],
    minutes: Annotated[float, typer.Option("--minutes", help="How long it may take, about.")] = 30.0,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for the chosen model; an interrupted choice goes on."),
    ] = "chosen",
    metric: Annotated[str, typer.Option("--metric", help="By which models are compared.")] = "ndcg@10",
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Which split judges, as leave_one_out. By default one that suits the log."
        ),
    ] = None,
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Whether people may get again what they had. By default as the log has it.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    where: Where = None,
    missing_ids: MissingIds = "refuse",
    data_dir: DataDir = None,
    write: Write = None,
) -> None:
    """Choose a model for a log: try simple ones and networks on validation, test the best of them once, and
    fit it on everything. Then: seqrec recommend FOLDER, seqrec serve FOLDER.

    seqrec choose events.csv --minutes 30 -o chosen
    """
    import yaml

    from seqrec import storage
    from seqrec.evaluation import metrics
    from seqrec.experiment.data import read_sequences
    from seqrec.experiment.settings import DataSettings
    from seqrec.splitting import SplitSettings

    check_write(write)
    metrics.parse(metric)
    storage.check_folder(output)
    rows = {"time_format": time_format, "where": where, "missing_ids": missing_ids}
    content = data_section(source, format, column, data_dir, delimiter=delimiter, encoding=encoding, **rows)
    settings = DataSettings.of(content, "data")
    own_split = None if split is None else SplitSettings.of({"name": split}, "split")
    sequences, _ = read_sequences(settings)
    from seqrec.experiment import choose as choosing  # torch, which takes a while, once all names are right
    from seqrec.report import choice as page
    from seqrec.training.options import FitOptions

    found = choosing.choose(
        sequences,
        minutes,
        output,
        split=own_split,
        filter_seen=None if seen is None else not seen,
        metric=metric,
        on=FitOptions(seed=seed, progress=not is_quiet()),
    )
    run: dict[str, Any] = {
        "data": settings.model_dump(mode="json", exclude_defaults=True),
        "split": found.split.settings,
        **found.taken.recipe,
        "evaluate": {"metrics": [metric], "filter_seen": found.filter_seen},
    }
    storage.write_text(yaml.safe_dump(run, sort_keys=False), storage.join(output, "run.yaml"))
    page.write(found, storage.join(output, "choice.html"))
    table = found.table()
    table.print()
    if write:
        table.write(write)
    print(f"Now: seqrec recommend {output} --user ID, or seqrec serve {output}.")
