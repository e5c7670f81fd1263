"""Preparing a log on Spark. What is written is the folder that one machine writes, byte for byte.

    files of the log      read by seqrec's own reader, a task a file
    ids                   numbered on the driver: users as they first appear, items in the order of their ids
    events                sorted by user, time and place in the log, in shards of whole users
    folder                the shards' columns, one after another, and the manifest last

A task writes its shard's columns into the folder, under names of its own, so that one that runs twice does no
harm; the driver puts them together and removes them. So all machines must reach the log and the folder by the
same paths. The driver holds the catalogues and 24 bytes a user, and never the events.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from seqrec import storage
from seqrec.data import columns as log_columns
from seqrec.data import times
from seqrec.data.baskets import DAY, Derived, gathered
from seqrec.data.catalogue import Catalogue
from seqrec.data.frames import aligned, report_duplicates
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import Column, Sequences, TieOrder, write_columns
from seqrec.errors import DataError, SettingsError
from seqrec.experiment.data import prepared_folder
from seqrec.experiment.settings import RunSettings
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import KINDS, TEXT, Chosen, log_batches, with_tables
from seqrec.sources.reading import Paths, opened
from seqrec.spark.session import session, told

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger("seqrec")

OF_FILE = 1 << 40
"""More rows than a file has: the place of an event in the log is its file's number times this, and its
row."""
IDS = {"user_id": "u", "item_id": "i", "basket_id": "basket", "session_id": "session"}
"""Columns of ids in a log, and what they are called here."""
WITHOUT = "Prepare it on one machine, without --engine"


def prepare(
    spark: SparkSession,
    path: Paths,
    out: str | Path,
    options: ReadOptions | None = None,
    *,
    shards: int = 8,
    min_item_count: int = 0,
    min_user_count: int = 0,
    until_stable: bool = False,
    tie_order: TieOrder = "file",
    basket: Derived | None = None,
    **changes: Any,
) -> Sequences:
    """As ``seqrec.sources.preparing.prepare``, on Spark. The folder's files have the same content.

    Args:
        spark: a running session.
        path, options, changes: as in ``read_log``; a log is divided by its files.
        out: the folder to write.
        shards: parts of the users that are sorted and written at the same time.
        min_item_count, min_user_count, until_stable: as in ``Interactions.filter``.
        tie_order, basket: as in ``Interactions.sequences``.

    Returns:
        the sequences that were written.

    Raises:
        DataError: as ``read_log``; or the log is one that only one machine can prepare, which is said.
        SettingsError: a setting that only one machine knows.
    """
    if tie_order != "file":
        raise SettingsError(
            f"data.tie_order: expected file with the engine spark, which cannot draw the random order of "
            "one machine. "
            f"Got {tie_order}. {WITHOUT}."
        )
    storage.check_folder(str(out))
    paths, known, source = opened(path, ReadOptions.changed(options, changes))
    if known.format not in KINDS:
        raise SettingsError(
            f"data.format: expected {', '.join(KINDS)} with the engine spark. Got {known.format} ({source}). "
            f"{WITHOUT}."
        )
    if basket is not None and basket not in ("same_time", "same_day"):
        raise DataError(f"basket: expected 'same_time' or 'same_day'. Got {basket!r}.")
    with told():
        events = _Events(spark, paths, known, source, shards)
        try:
            events.drop_duplicates()
            events.filter(min_item_count, min_user_count, until_stable)
            events.write(storage.absolute(str(out)), basket)
        finally:
            events.release()
    return Sequences.load(out)


def prepare_run(run: RunSettings, folder: str | None, samples: str | None) -> str:
    """As ``seqrec.experiment.prepare.prepare_run``, on the engine of the run.

    Args:
        folder: for the sequences; by default ``sequences`` in the run's output folder.
        samples: None.

    Returns:
        what was written.

    Raises:
        SettingsError: there is no folder, or something that only one machine can prepare.
        DataError: as ``prepare``.
    """
    run.check_data()
    data, engine = run.data, run.engine
    assert engine is not None
    if samples is not None or run.samples is not None:
        raise SettingsError(
            f"samples: expected none with the engine spark, which writes sequences. {WITHOUT}."
        )
    if folder is None and run.output.folder is not None:
        folder = storage.join(run.output.folder, "sequences")
    if folder is None:
        raise SettingsError("expected a folder for the sequences (an argument, or output.folder).")
    if data.path is None or (run.split is not None and run.split.name == "files") or prepared_folder(data):
        raise SettingsError(
            f"data.path: expected a log with the engine spark. {WITHOUT}, where there is another."
        )
    with session(engine.master, engine.shards) as spark:
        s = prepare(
            spark,
            data.path,
            folder,
            data,
            shards=engine.shards,
            min_item_count=data.min_item_count,
            min_user_count=data.min_user_count,
            until_stable=data.until_stable,
            tie_order=data.tie_order,
            basket=data.basket,
        )
    return (
        f"{folder}: {s.events:,} events of {s.users:,} users and {len(s.item_catalogue):,} items, "
        f"{s.bytes_per_event:.1f} bytes an event"
    )


class _Events:
    """The events of a log on the cluster: ``u`` and ``i`` (numbers of user and item), ``o`` (place in the
    log), and as far as the log has them ``t`` and ``f`` (time: whole and fraction), ``position``, ``rating``,
    ``basket`` and ``session``."""

    def __init__(self, spark: SparkSession, paths: list[str], options: ReadOptions, source: str, shards: int):
        from pyspark.sql.pandas.types import from_arrow_schema

        self.spark, self.options, self.source, self.shards = spark, options, source, shards
        self.kept: list[DataFrame] = []
        plain = options.model_copy(update={"items": None, "users": None})
        paths = [storage.absolute(path) for path in paths]  # workers are in folders of their own
        first = next((valid for path in paths for valid in _valid(path, plain)), None)
        if first is None:
            raise DataError(
                f"{source}: expected at least one event. Got none. Correct data.where, or leave it out."
            )
        if "position" in first.columns and "timestamp" in first.columns:
            raise DataError(
                f"{source}: expected times or positions with the engine spark. Got both. Leave one out: "
                "columns={'position': None} (--column position=)."
            )
        schema = _arrow_schema(_framed(first, 0))
        arguments = {name: getattr(plain, name) for name in ReadOptions.model_fields}
        files = spark.createDataFrame(list(enumerate(paths)), "file int, path string")
        rows = files.repartitionById(len(paths), "file").mapInArrow(
            partial(_read, arguments, schema), from_arrow_schema(schema)
        )
        rows = self._keep(rows)
        self.ids: dict[str, pl.Series] = {}
        for name in ("user_id", "item_id"):
            rows = self._numbered(rows, name)
        self.rows = self._keep(rows)
        self.times = _Times.of(self.rows, source) if "timestamp" in first.columns else None
        if self.times is not None and self.times.missing:
            self.times = None  # positions order the events, and there is no time to split by

    def _keep(self, frame: DataFrame) -> DataFrame:
        """The frame, computed once."""
        self.kept.append(frame.persist())
        return self.kept[-1]

    def release(self) -> None:
        """Frees what the cluster keeps."""
        for frame in self.kept:
            frame.unpersist()

    def _numbered(self, rows: DataFrame, name: str) -> DataFrame:
        """The rows with numbers in place of ids; text that is all integers is such, and ``7`` and ``7.0`` are
        one."""
        column = IDS[name]
        found = _table(rows.select(column).distinct())[column]
        ids = log_columns.integers(found) if self.options.format in TEXT else found
        self.ids[name] = ids.unique()
        numbers = pl.DataFrame(
            {"id": self.ids[name], "number": np.arange(len(self.ids[name]), dtype=np.int32)}
        )
        of_found = pl.DataFrame({column: found, "id": ids}).join(numbers, on="id")
        return self._replaced(rows, column, of_found.select(column, "number"))

    def _replaced(self, rows: DataFrame, column: str, numbers: pl.DataFrame) -> DataFrame:
        """The rows with ``number`` in place of a column."""
        known = self.spark.createDataFrame(numbers.to_arrow().cast(_arrow_schema(numbers)))
        return rows.join(known, column).drop(column).withColumnRenamed("number", column)

    def drop_duplicates(self) -> None:
        """As ``Interactions.without_duplicates``; nothing is said of duplicates that are kept."""
        from pyspark.sql import functions as F

        keys = [c for c in ("position", "t", "f") if c in self.rows.columns]
        if self.options.duplicates != "drop" or not keys:
            return
        same = ["u", "i", *keys]
        rest = [c for c in self.rows.columns if c not in same]
        first = self.rows.groupBy(same).agg(
            F.min(F.struct("o", *(c for c in rest if c != "o"))).alias("first")
        )
        before = self.rows.count()
        self.rows = self._keep(first.select(*same, *(F.col(f"first.{c}").alias(c) for c in rest)))
        report_duplicates(before - self.rows.count(), "drop", self.source)

    def filter(self, min_item_count: int, min_user_count: int, until_stable: bool) -> None:
        """As ``Interactions.filter``."""
        from pyspark.sql import functions as F

        while True:
            before = self.rows
            for column, least in (("i", min_item_count), ("u", min_user_count)):
                if least > 1:
                    enough = self.rows.groupBy(column).count().where(F.col("count") >= least).select(column)
                    self.rows = self.rows.join(enough, column, "left_semi")
            if self.rows is before:
                return
            self.rows = self._keep(self.rows)
            count = self.rows.count()
            if not count:
                raise DataError(
                    f"min_item_count={min_item_count}, min_user_count={min_user_count}: no event of "
                    f"{self.source} is left. Lower them."
                )
            if not until_stable or count == before.count():
                return

    def write(self, out: str, basket: Derived | None) -> None:
        """As ``Interactions.sequences`` and ``Sequences.save``."""
        from pyspark.sql import functions as F

        if basket is not None and self.times is None:
            raise DataError(
                f"basket: {basket} makes baskets of events by their times. Got a log without times. Leave "
                "it out, or name a column of baskets (basket_id)."
            )
        users = _table(self.rows.groupBy("u").agg(F.min("o").alias("first"), F.count("*").alias("n")))
        users = users.sort("first")
        before = users["n"].cum_sum() - users["n"]
        shard = (before * self.shards // int(users["n"].sum())).cast(pl.Int32)
        order = np.arange(len(users), dtype=np.int32)
        placed = pl.DataFrame({"u": users["u"], "user": order, "shard": shard})
        user_ids = self.ids["user_id"].gather(users["u"])
        used = _table(self.rows.select("i").distinct())["i"]
        used = used.gather(self.ids["item_id"].gather(used).arg_sort())
        item_ids = self.ids["item_id"].gather(used)
        items = pl.DataFrame({"i": used, "number": np.arange(len(used), dtype=np.int32)})
        rows = self._replaced(self.rows, "i", items)
        for column in ("basket", "session"):
            if column in rows.columns and not (column == "basket" and basket is not None):
                rows = self._by_appearance(rows, column)
        known = self.spark.createDataFrame(placed.to_arrow().cast(_arrow_schema(placed)))
        keys = ["t", "f"] if self.times is not None else ["position"] if "position" in rows.columns else []
        columns: list[str] = [c for c in ("rating", "basket", "session") if c in rows.columns]
        if basket is not None:
            columns = [c for c in columns if c != "basket"]
        whole = rows.join(known, "u").select("shard", "user", "i", *keys, "o", *columns)
        whole = whole.repartitionById(self.shards, "shard").sortWithinPartitions("shard", "user", *keys, "o")
        token = f"piece-{uuid.uuid4().hex[:12]}"
        task = partial(
            _write_shard, out, token, None if self.times is None else self.times.to_json(), columns
        )
        try:
            written = whole.mapInArrow(task, "shard int, users long, events long, name string").collect()
            pieces = sorted(written, key=lambda row: row["shard"])
            if sum(piece["events"] for piece in pieces) != int(users["n"].sum()):
                raise DataError(
                    f"{out}: expected all events in the shards. Got fewer; the log may have changed."
                )
            nothing = pl.DataFrame({"user_id": user_ids.clear(), "item_id": item_ids.clear()})
            about = with_tables(Interactions(nothing, source=self.source), self.options)
            read = partial(_column, out, [piece["name"] for piece in pieces])
            events = int(users["n"].sum())
            names = {"rating": "ratings", "basket": "baskets", "session": "sessions"}
            found = {"items": Column(np.dtype(np.int32), events, read("items"))}
            lengths = np.concatenate(list(read("lengths")()))
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            found["offsets"] = Column.of(offsets)
            if self.times is not None:
                found["times"] = Column(np.dtype(self.times.dtype), events, read("times"))
            for column in columns:
                kind = np.dtype(np.float32 if column == "rating" else np.int64)
                found[names[column]] = Column(kind, events, read(column))
            if basket is not None:
                found["baskets"] = Column(
                    np.dtype(np.int64), events, partial(_derived, read("times"), basket)
                )
            write_columns(
                out,
                found,
                Catalogue(item_ids, aligned(about.items, "item_id", item_ids)),
                Catalogue(user_ids, aligned(about.users, "user_id", user_ids)),
            )
        finally:
            for name in storage.names(out) if storage.is_folder(out) else ():
                if name.startswith(token):
                    storage.remove(storage.join(out, name))

    def _by_appearance(self, rows: DataFrame, column: str) -> DataFrame:
        """The rows with the numbers of baskets or sessions by first appearance.

        Raises:
            DataError: an event has none.
        """
        from pyspark.sql import functions as F

        found = _table(rows.groupBy(column).agg(F.min("o").alias("first"))).sort("first")
        if found[column].null_count():
            raise DataError(
                f"{self.source}: expected a {column} of every event with the engine spark. Got some "
                "without. Fill "
                f"them in, or leave the column out (--column {column}_id=). {WITHOUT}, it is taken as it is."
            )
        numbers = found.select(column, number=pl.Series(np.arange(len(found), dtype=np.int64)))
        return self._replaced(rows, column, numbers)


class _Times:
    """What the times of the whole log are.

    Attributes:
        dates: whether they were dates, in microseconds; else numbers.
        unit: of numbers: seconds (0), milliseconds (1) and so on.
        fraction: whether some have a fraction of a second, so that all are float64.
        missing: whether some are not there.
    """

    def __init__(self, dates: bool, unit: int, fraction: bool, missing: bool):
        self.dates, self.unit, self.fraction, self.missing = dates, unit, fraction, missing

    def to_json(self) -> list[Any]:
        """The arguments."""
        return [self.dates, self.unit, self.fraction, self.missing]

    @property
    def dtype(self) -> str:
        """Of the column."""
        return "float64" if self.fraction else "int64"

    @classmethod
    def of(cls, rows: DataFrame, source: str) -> _Times:
        """Looks at all of them.

        Raises:
            DataError: dates beside numbers, numbers in several units, or numbers that may be dates.
        """
        from pyspark.sql import functions as F

        t, f, date = F.col("t"), F.col("f"), F.col("date")
        found = rows.agg(
            F.min(t).alias("first"),
            F.max(t).alias("last"),
            F.max(t.isNull()).alias("missing"),
            F.max(f != 0).alias("fraction"),
            F.min(date).alias("all"),
            F.max(date).alias("any"),
            *(F.max(t % 1000**unit != 0).alias(f"rest{unit}") for unit in (1, 2, 3)),
        ).collect()[0]
        if found["all"] != found["any"]:
            raise DataError(f"{source}: expected times in one notation. Got dates and numbers. {WITHOUT}.")
        missing = bool(found["missing"])
        if found["first"] is None or missing:
            return cls(bool(found["any"]), 0, False, True)
        if found["any"]:
            return cls(True, 0, bool(found["rest2"]), missing)
        ends = pl.Series([found["first"], found["last"]])
        unit = times.unit_of(ends, source)
        if unit is None:
            raise DataError(
                f"{source}: expected seconds since 1970. Got numbers such as {found['first']}, which may be "
                "dates, "
                f"and {found['last']}. {WITHOUT}."
            )
        fraction = bool(found["fraction"]) or (unit > 0 and bool(found[f"rest{unit}"]))
        if unit:
            log.warning("%s: times are read as %s since 1970.", source, times.UNITS[unit])
        return cls(False, unit, fraction, missing)

    def seconds(self, t: np.ndarray, f: np.ndarray) -> np.ndarray:
        """(n,) seconds since 1970 of the whole and the fraction of each."""
        whole = pl.Series(t)
        if self.dates:
            found = times.seconds_of(whole.cast(pl.Datetime("us", "UTC")))
        else:
            numbers = whole if not f.any() else pl.Series(t + f)
            found = times.divided(numbers, 1000**self.unit) if self.unit else numbers
        return found.cast(pl.Float64 if self.fraction else pl.Int64).to_numpy()


def _valid(path: str, options: ReadOptions) -> Iterator[pl.DataFrame]:
    """The validated rows of a file, some at a time."""
    return log_batches([path], options, features=False, part=Chosen(options.where, options.missing_ids))


def _framed(valid: pl.DataFrame, row: int) -> pl.DataFrame:
    """Validated rows as they are here, of which the first has that place in the log."""
    columns = {"o": pl.Series(np.arange(row, row + len(valid)))}
    for name in valid.columns:
        columns |= _of_column(name, valid[name])
    return pl.DataFrame(columns)


def _read(arguments: dict[str, Any], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Any]:
    """Runs on a worker: the rows of some files."""
    options = ReadOptions.of(arguments, "data")
    for batch in batches:
        for number, path in zip(*(batch.column(i).to_pylist() for i in (0, 1)), strict=True):
            row = number * OF_FILE
            for valid in _valid(path, options):
                table = _framed(valid, row)
                found = _arrow_schema(table)
                if found != schema:
                    raise DataError(
                        f"{path}: expected the columns of the first file, and of their types: "
                        f"{_shown(schema)}. "
                        f"Got {_shown(found)}. Write all files alike."
                    )
                row += len(valid)
                yield from table.to_arrow().cast(schema).to_batches(max_chunksize=1 << 16)


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _of_column(name: str, values: pl.Series) -> dict[str, pl.Series]:
    if name in IDS:
        return {IDS[name]: values}
    if name == "rating":
        return {name: values.cast(pl.Float32).fill_null(float("nan"))}
    if name != "timestamp":
        return {name: values}
    dates = times.are_dates(values)
    if dates:
        values = values.dt.cast_time_unit("us").to_physical()
    if values.dtype.is_float():
        whole = values.floor()
        t, f = whole.cast(pl.Int64), values - whole
    else:
        t, f = values.cast(pl.Int64), pl.Series(np.zeros(len(values)))
    return {"t": t, "f": f, "date": pl.Series(np.full(len(values), dates))}


def _write_shard(
    out: str, token: str, of_times: list[Any] | None, columns: list[str], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Runs on a worker: writes the columns of a shard, of which a partition has at most one."""
    table = pa.Table.from_batches([*batches])
    if not len(table):
        return
    frame = pl.DataFrame(pl.from_arrow(table))
    user = frame["user"].to_numpy()
    begins = np.flatnonzero(np.diff(user, prepend=user[0] - 1))
    if (np.diff(user[begins]) != 1).any():
        raise DataError(
            "shard: expected users that follow each other. Got others; this is a fault of seqrec."
        )
    lengths = np.diff(begins, append=len(user))
    found: dict[str, np.ndarray] = {"items": frame["i"].to_numpy()}
    if of_times is not None:
        found["times"] = _Times(*of_times).seconds(frame["t"].to_numpy(), frame["f"].to_numpy())
    found |= {column: frame[column].to_numpy() for column in columns}
    if "basket" in found:
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        order = gathered(offsets, found["basket"])
        if order is not None:
            found = {name: values[order] for name, values in found.items()}
    found["lengths"] = lengths.astype(np.int64)
    name = f"{token}-{uuid.uuid4().hex[:12]}"
    for column, values in found.items():
        storage.write_array(np.ascontiguousarray(values), storage.join(out, f"{name}-{column}.npy"))
    shard = int(frame["shard"][0])
    row = {"shard": [shard], "users": [len(lengths)], "events": [len(user)], "name": [name]}
    types = {"shard": pa.int32(), "users": pa.int64(), "events": pa.int64(), "name": pa.string()}
    yield pa.RecordBatch.from_pydict(row, schema=pa.schema(types))


def _column(out: str, names: list[str], column: str) -> Any:
    """A function that gives a column's parts, shard by shard."""
    return partial(_parts, out, names, column)


def _parts(out: str, names: list[str], column: str) -> Iterator[np.ndarray]:
    for name in names:
        yield storage.read_array(storage.join(out, f"{name}-{column}.npy"))


def _derived(parts: Any, basket: Derived) -> Iterator[np.ndarray]:
    """As ``seqrec.data.baskets.derived``, some events at a time."""
    number, last = 0, None
    for moments in parts():
        moment = np.floor(moments / DAY) if basket == "same_day" else moments
        numbers = number + np.cumsum(np.diff(moment, prepend=moment[:1] if last is None else last) != 0)
        yield numbers
        number, last = int(numbers[-1]), moment[-1:]


def _table(frame: DataFrame) -> pl.DataFrame:
    """All rows, on the driver."""
    return pl.DataFrame(pl.from_arrow(frame.toArrow()))


def _arrow_schema(frame: pl.DataFrame) -> pa.Schema:
    """As Spark has it: texts with offsets of 32 bits."""
    kinds = {pl.String: pa.string(), pl.Int64: pa.int64(), pl.Int32: pa.int32(), pl.Float32: pa.float32()}
    kinds |= {pl.Float64: pa.float64(), pl.Boolean: pa.bool_()}
    return pa.schema([(name, kinds[type(dtype)]) for name, dtype in frame.schema.items()])
