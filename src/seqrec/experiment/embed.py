"""What `seqrec embed` writes: a table with a column of embeddings more."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from seqrec import storage
from seqrec.data import files
from seqrec.data.columns import integers, typed
from seqrec.errors import DataError, SettingsError, did_you_mean
from seqrec.features import text
from seqrec.sources.plain_tables import TEXT


def embed(
    table: str,
    output: str,
    columns: Sequence[str] = ("title",),
    to: str | None = None,
    width: int = 256,
    fit_on: str | None = None,
) -> str:
    """Writes a table with the embeddings of its texts.

    Args:
        table: CSV, TSV, Parquet or JSON Lines; whatever it has stays.
        output: the Parquet file to write.
        columns: of texts, which are joined.
        to: what the new column is called; None: as the first of ``columns``, with _embedding.
        width: numbers of an embedding.
        fit_on: a table with the same columns of texts, see ``seqrec.features.text.embed``.

    Returns:
        what was written, a line.
    Raises:
        DataError: no such table or column.
        SettingsError: the output is no Parquet file, or the new column has the name of another.
    """
    storage.check_file(output, (".parquet",))
    frame = _read(table)
    texts = _texts(frame, columns, table)
    name = to or f"{columns[0]}_embedding"
    if name in frame.columns:
        raise SettingsError(
            f"--to: expected the name of a new column. {table} has {name!r} already. Name another one."
        )
    known = None if fit_on is None else _texts(_read(fit_on), columns, fit_on)
    embedded = text.embed(texts, width, known).alias(name)
    storage.write_parquet(frame.with_columns(embedded), output)
    empty = embedded.null_count()
    return (
        f"{output}: {len(frame):,} rows, {embedded.dtype.shape[0]} numbers each in {name}"  # type: ignore[attr-defined]
        + (f"; {empty:,} rows without a text that says anything" if empty else "")
    )


def _read(path: str) -> pl.DataFrame:
    kind = files.kind_of(path)
    if kind is None:
        raise SettingsError(f"{path}: expected a table as .csv, .tsv, .parquet or .jsonl.")
    if not storage.exists(path):
        raise DataError(f"{path}: no such file.")
    files.header(path, kind)
    frame = files.read(path, kind)
    if kind not in TEXT:
        return frame
    # numbers as a log has them that is read from text: Parquet is taken as it is
    return frame.with_columns(typed(integers(frame[name])) for name in frame.columns)


def _texts(frame: pl.DataFrame, columns: Sequence[str], name: str) -> pl.Series:
    for column in columns:
        if column not in frame.columns:
            raise DataError(f"{name}: no column {column!r}.{did_you_mean(column, frame.columns)}")
    joined = pl.concat_str([pl.col(c).cast(pl.String) for c in columns], separator=" ", ignore_nulls=True)
    return frame.select(joined.alias(columns[0])).to_series()
