"""Recommending on Spark: each worker loads the model once, and answers the histories of its part of the
table."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from seqrec import storage
from seqrec.errors import DataError, SettingsError
from seqrec.experiment.recommend import Choice
from seqrec.serving import batch, histories, recommender
from seqrec.serving.histories import Reading
from seqrec.spark.session import told

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 8192
"""Histories that a worker answers at once."""


def recommend(
    table: DataFrame,
    folder: str,
    *,
    k: int = 10,
    filter_seen: bool = True,
    allow: Any = None,
    deny: Any = None,
    on_unknown: str = "ignore",
    since: bool = False,
    rows: str = "lists",
    columns: dict[str, str | int | None] | None = None,
) -> DataFrame:
    """The k best next items after each history of a table, as a table.

    Args:
        table: with a column of lists of items, oldest first, and ``user_id`` or not; or ``user_id`` alone,
        for users
            whose histories the model has kept.
        folder: of a saved model, or of a run, which all workers can read.
        k, filter_seen, allow, deny: as of ``recommend`` of a model.
        on_unknown: what to do with ids that the model never saw: "raise" an error, or leave them out
        ("ignore").
        since: the table's users are those of the training data, and its histories what they did since.
        rows: "lists", a row a history, or "items", a row an item.
        columns: which column is which, ``{"item_id": "history"}``.

    Returns:
        ``user_id`` (or, without users, nothing), ``item_id`` and ``score`` (lists, or values with a
        ``rank``), and ``source``. The order of the rows is Spark's.

    Raises:
        DataError: no model in that folder, or columns that are no histories.
        SettingsError: a setting out of range.
    """
    from pyspark.sql.pandas.types import to_arrow_schema

    if rows not in batch.ROWS:
        raise SettingsError(f"rows: expected {' or '.join(map(repr, batch.ROWS))}. Got {rows!r}.")
    if on_unknown not in ("raise", "ignore"):
        raise SettingsError(f"on_unknown: expected 'raise' or 'ignore' on Spark. Got {on_unknown!r}.")
    users, items = _columns_of(table, columns or {})
    wanted = [name for name in (users, items) if name is not None]
    table = table.select(*(f"`{name}`" for name in wanted))
    kinds = dict(zip(to_arrow_schema(table.schema).names, to_arrow_schema(table.schema).types, strict=True))
    model = _open(folder)  # a mistake is told here, and not by every worker
    catalogue = recommender.checked(model, k, on_unknown)
    recommender.filter_of(catalogue, filter_seen, allow, deny, on_unknown)
    item = pa.string() if catalogue.ids.dtype == pl.String else pa.int64()
    found = [] if users is None else [("user_id", kinds[users])]
    if rows == "lists":
        found += [("item_id", pa.list_(item)), ("score", pa.list_(pa.float32()))]
    else:
        found += [("item_id", item), ("score", pa.float32()), ("rank", pa.int64())]
    schema = pa.schema([*found, ("source", pa.string())])
    options = {"k": k, "filter_seen": filter_seen, "allow": allow, "deny": deny, "since": since}
    said = {"user_id": users, "item_id": items}
    task = partial(
        _answer,
        storage.absolute(folder),
        uuid.uuid4().hex,
        options | {"on_unknown": on_unknown, "rows": rows},
        said,
        schema,
    )
    return table.mapInArrow(task, _of_spark(schema))


def recommend_file(
    spark: SparkSession,
    folder: str,
    source: str,
    target: str,
    choice: Choice,
    on_unknown: str = "ignore",
    since: bool = False,
    rows: str = "lists",
    columns: dict[str, Any] | None = None,
) -> int:
    """Recommendations for a Parquet file of histories, or a folder of such, as a folder of Parquet files. The
    folder is whole when it has a file ``_SUCCESS``.

    Args:
        spark: a running session.
        folder, on_unknown, since, rows, columns: as of ``recommend``.
        source, target: paths that all workers can reach.
        choice: what may be recommended.

    Returns:
        how many histories were answered.

    Raises:
        DataError, SettingsError: as ``recommend``; or the target is there already.
    """
    if not target.endswith(".parquet"):
        raise SettingsError(f"--output: expected a name that ends in .parquet, of a folder. Got {target}.")
    if not storage.is_remote(source) and not storage.exists(source) and not storage.is_folder(source):
        raise DataError(f"{source}: no such file.")
    if storage.exists(target) or storage.is_folder(target):
        raise SettingsError(
            f"--output: expected a folder that is not there. Got {target}. Remove it, or name another."
        )
    table = spark.read.parquet(storage.absolute(source))
    catalogue = _open(folder).item_catalogue
    assert catalogue is not None
    more = choice.arguments(catalogue) | {"on_unknown": on_unknown, "since": since, "rows": rows}
    with told():
        recommend(table, folder, columns=columns, **more).write.parquet(storage.absolute(target))
        return table.count()


def _columns_of(table: DataFrame, columns: dict[str, Any]) -> tuple[str | None, str | None]:
    """The columns of users and of lists of items, found as in a file."""
    from pyspark.sql.types import ArrayType

    lists = [field.name for field in table.schema.fields if isinstance(field.dataType, ArrayType)]
    frame = pl.DataFrame(
        schema={name: pl.List(pl.String) if name in lists else pl.String for name in table.columns}
    )
    users, items = histories.columns_of(frame, columns, "table")
    if items is not None and items not in lists:
        raise DataError(
            f"table: expected a column of lists on Spark, a row a history. Got a row an event (column "
            f"{items!r}). "
            "Group it by user, in order of time: groupBy(user_id).agg(collect_list(...))."
        )
    return users, items


def _open(folder: str) -> Any:
    from seqrec import models

    found = models.folder_of(folder)
    if found is None:
        raise DataError(f"{folder}: expected the folder of a trained model, or of its run. Got none.")
    return models.load(found, "cpu")


@lru_cache(maxsize=1)
def _model(folder: str, token: str) -> Any:
    """The model, once a worker for each call of ``recommend``."""
    return _open(folder)


def _answer(
    folder: str,
    token: str,
    options: dict[str, Any],
    columns: dict[str, str | None],
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Runs on a worker."""
    model = _model(folder, token)
    frames = (
        pl.DataFrame(pl.from_arrow(some.slice(begin, ROWS)))
        for some in batches
        for begin in range(0, some.num_rows, ROWS)
    )
    said = {name: column for name, column in columns.items() if column is not None}
    found = histories.of_frames(frames, Reading(columns=said), "table")
    for answers in batch.answers(model, found, name="table", **options):
        yield from answers.select(schema.names).cast(schema).to_batches()


def _of_spark(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)
