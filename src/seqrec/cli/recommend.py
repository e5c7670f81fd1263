"""``seqrec recommend``."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

from seqrec.cli.options import (
    Columns,
    DataDir,
    Delimiter,
    Encoding,
    Engine,
    Format,
    Master,
    MissingIds,
    TimeFormat,
    check_write,
    data_section,
    engine_section,
    is_quiet,
    mapping,
)
from seqrec.errors import SettingsError

log = logging.getLogger("seqrec")


def recommend(
    source: Annotated[str, typer.Argument(help="Folder of a trained model, or a log to train one on.")],
    sequence: Annotated[
        list[str] | None,
        typer.Option(
            "--sequence",
            "-s",
            help="A history: item ids or titles, oldest first, as a,b,c. One with a comma stands in quotes. "
            "Repeatable. With --user, as often: what each user did since.",
        ),
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A user of the training data. Repeatable.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            help="A file of histories (.parquet, .jsonl, .csv; - is JSON Lines on standard input): a column "
            "of lists of items (or of baskets, lists of lists), or user_id, item_id (and basket_id) a row an "
            "event, or user_id alone. With a model the options of reading a log (--column ...) are about "
            "this file.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="With --input: the file to write (.parquet, .jsonl, .csv; - is JSON Lines on standard "
            "output).",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="With --output: a row a history, with lists of items (lists; not in CSV), or a row an item "
            "(items). By default lists, but in CSV.",
        ),
    ] = None,
    since: Annotated[
        bool,
        typer.Option(
            "--since",
            help="With --input: its users are known, and its histories what they did since training.",
        ),
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    model: Annotated[
        str | None, typer.Option(help="With a log: the model to train. By default sasrec.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(help="With a log: save the trained model to this folder.")
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(help="A file of item ids: only these. A table with a column item_id, or an id a line."),
    ] = None,
    deny: Annotated[str | None, typer.Option(help="A file of item ids: none of these.")] = None,
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Whether to recommend items of the history too. By default as the run's test did; else not.",
        ),
    ] = None,
    on_unknown: Annotated[
        str | None,
        typer.Option(
            help="What to do about ids that the model does not know: raise, warn or ignore. By default "
            "raise; with --input warn, at the end, with their number."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="Of a model that reads times: the moment that is asked about, as 2024-01-31T18:30 (UTC), as "
            "the log writes its times, or now.",
        ),
    ] = None,
    times: Annotated[
        list[str] | None,
        typer.Option(
            "--times",
            help="Of a model that reads times: when the items of each --sequence were taken, with commas "
            "between.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also show which items of the history are nearest to each, by what the model has learned of "
            "them. Not with --input.",
        ),
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Search the index that seqrec index has built, in place of all items."
        ),
    ] = False,
    format: Format = "auto",
    column: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            help="With a model: attributes of the items to recommend, as 'genres = Comedy'. With a log: its "
            "rows to train on, as 'rating >= 4'.",
        ),
    ] = None,
    missing_ids: MissingIds = "refuse",
    data_dir: DataDir = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write", help="Write the table (.csv, .json, .md or .parquet) instead of printing it."
        ),
    ] = None,
    engine: Engine = None,
    master: Master = None,
) -> None:
    """Recommend the next items for given histories, for users, for a file of either, or (with a log) for all
    its users.

    seqrec recommend chosen --user u42 -k 5
    """
    from seqrec import models
    from seqrec.experiment import recommend
    from seqrec.serving.histories import Reading

    _check(sequence, user, input, output, write, {"--rows": rows, "--since": since})
    if explain and input is not None:
        raise SettingsError("--explain: cannot be given beside --input. Got both. Leave it out.")
    if len(times or ()) not in (0, len(sequence or ())):
        raise SettingsError(
            "--times: expected one for each --sequence, of when its items were taken. Got "
            f"{len(times or ())} for {len(sequence or ())}."
        )
    is_model = models.folder_of(source) is not None
    if engine_section(engine, master=master).get("name") == "spark":
        for option, given in {"--approximate": approximate, "--model": model, "--save": save}.items():
            if given:
                raise SettingsError(
                    f"{option}: cannot be given with --engine spark. Got {given!r}. Leave it out."
                )
        if input is None or output is None or not is_model:
            raise SettingsError(
                "--engine: expected a trained model, --input (Parquet) and --output with spark. Leave "
                "--engine out for "
                "anything else."
            )
        from seqrec.spark import recommend as on_spark
        from seqrec.spark import session

        filters = recommend.filters_seen(source) if seen is None else not seen
        choice = recommend.Choice(k, filters, allow, deny, where)
        with session.session(master) as spark:
            count = on_spark.recommend_file(
                spark,
                source,
                input,
                output,
                choice,
                on_unknown or "ignore",
                since,
                rows or "lists",
                mapping(column),
            )
        print(f"{output}: {count:,} histories")
        return
    options = {"delimiter": delimiter, "encoding": encoding, "time_format": time_format}
    of_file = is_model and input is not None  # else they are of the log
    of_log: dict[str, Any] = {} if of_file else options
    section = data_section(
        source,
        format,
        None if of_file else column,
        data_dir,
        where=None if is_model else where,
        missing_ids=missing_ids,
        **of_log,
    )
    if approximate and not is_model:
        raise SettingsError(
            f"--approximate: expected the folder of a model with an index (seqrec index). Got {source}."
        )
    trained = recommend.open_or_train(source, model, section, save, not is_quiet(), approximate)
    filters = recommend.filters_seen(source) if seen is None else not seen
    if seen is None and not filters:
        log.info("Items of the history are recommended too, as the run was tested. --unseen leaves them out.")
    choice = recommend.Choice(k, filters, allow, deny, where if is_model else None)
    if input is not None:
        reading = Reading(columns=mapping(column), **options) if of_file else Reading()
        recommend.recommend_file(
            *(trained, input, str(output), choice, on_unknown or "warn", since, rows, reading),
            *(not is_quiet(), at),
        )
        return
    frame = recommend.recommend(
        trained, sequence or None, user or None, choice, on_unknown or "raise", at, times, explain
    )
    if write:
        recommend.write_frame(frame, write)
    else:
        recommend.table_of(frame).print()


def _check(
    sequence: list[str] | None,
    user: list[str] | None,
    input: str | None,
    output: str | None,
    write: str | None,
    of_files: dict[str, Any],
) -> None:
    """Refuses options that do not go together, before any work is done."""
    if input is None:
        for option, value in {"--output": output, **of_files}.items():
            if value:
                raise SettingsError(
                    f"{option}: cannot be given without --input. Got {value!r}. Leave it out."
                )
        check_write(write, (".parquet",))
    else:
        from seqrec.serving import batch, histories

        for option, given in (("--sequence", sequence), ("--user", user), ("--write", write)):
            if given:
                raise SettingsError(
                    f"{option}: cannot be given beside --input, a file of histories, whose answers --output "
                    f"names. Got {given!r}. Leave it out."
                )
        if output is None:
            raise SettingsError(
                "--output: expected the file to write the recommendations to, such as recs.parquet, or - for "
                "standard output. Got none."
            )
        batch.check(output, of_files["--rows"])
        histories.kind_of(input)
    if sequence and user and len(sequence) != len(user):
        raise SettingsError(
            f"--sequence: expected one for each --user, of what the user did since. Got {len(sequence)} for "
            f"{len(user)} users."
        )
