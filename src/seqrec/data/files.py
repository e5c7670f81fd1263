"""Files at the door: CSV, TSV, Parquet and JSON Lines, plain or gzipped, read in batches so that a log may
exceed memory.

Text stays text here: what is a number or a time is decided in ``seqrec.data.columns``, which can then name
the row it could not read. Rows count from 1; a header and blank lines are not counted.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from seqrec import storage
from seqrec.errors import DataError

MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "<NA>", "None"]
"""Unquoted text that means "no value" (what pandas, polars, R and SQL write); quoted, it is a value."""

BLOCK = 32 << 20
"""Bytes of text parsed at a time."""
ROWS = 1 << 20
"""Rows of a Parquet file read at a time."""
HIDDEN_DELIMITER = "\x1f"
"""Stands in for a delimiter of several characters: the unit separator, which no log contains."""


class _Gunzip(gzip.GzipFile):
    """A gzip stream that says which file was cut off."""

    def __init__(self, stream: IO[bytes], path: str):
        super().__init__(fileobj=stream, mode="rb")
        self.path = path

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            message = f"{self.path}: truncated or damaged gzip ({error}). Fetch the file again."
            raise DataError(message) from error


@contextmanager
def open_plain(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary stream of the file's content, decompressed if it is gzip (told by its first bytes, not its
    name)."""
    with storage.open_read(path) as stream:
        start = stream.read(2)
        stream.seek(0)
        yield io.BufferedReader(_Gunzip(stream, str(path))) if start == b"\x1f\x8b" else stream


def read_text(path: str | Path, encoding: str = "utf-8-sig") -> str:
    """The whole file as text.

    Raises:
        DataError: not in that encoding (names the line), or a truncated gzip.
    """
    with open_plain(path) as stream:
        data = stream.read()
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(_bad_encoding(path, encoding, data.count(b"\n", 0, error.start) + 1)) from error


def first_line(path: str | Path, encoding: str = "utf-8") -> str:
    """The first line that is not blank, without its line break.

    Raises:
        DataError: the file is empty.
    """
    with open_plain(path) as stream:
        for line in stream:
            if line.strip():
                try:
                    return line.decode("utf-8-sig" if encoding == "utf-8" else encoding).rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(_bad_encoding(path, encoding, 1)) from error
    raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")


def batches(
    path: str | Path,
    kind: str,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    quote: bool = True,
    names: Sequence[str] | None = None,
    select: Sequence[str] | None = None,
    block: int = BLOCK,
    rows: int = ROWS,
) -> Iterator[pl.DataFrame]:
    """The rows of a table, some at a time, in file order.

    Args:
        kind: ``csv`` or ``tsv`` (text columns come as strings), ``parquet`` or ``jsonl``.
        delimiter: one or more characters; by default what the kind says (for ``csv`` told from the header:
            comma, tab, ``;`` or ``|``).
        quote: whether ``"`` quotes a field.
        names: the columns of a file without a header; ``["0", "1", ...]`` are made up if this is ``[]``.
        select: the columns to read (all by default).
        block: bytes of text, rows: of Parquet, that are read at a time.
    Raises:
        DataError: no such file, an empty file, a header with a duplicate column, a row with too few or too
            many fields, an encoding that does not fit, a truncated gzip, broken JSON or Parquet; names the
            file and the row.
    """
    if kind in ("csv", "tsv"):
        yield from _text_batches(path, kind, delimiter, encoding, quote, names, select, block)
    elif kind == "parquet":
        yield from _parquet_batches(path, select, rows)
    elif kind == "jsonl":
        yield from _json_batches(path, encoding, select, block)
    else:
        raise DataError(f"kind: expected csv, tsv, parquet or jsonl. Got {kind!r}.")


def read(path: str | Path, kind: str, **options: Any) -> pl.DataFrame:
    """The whole table; arguments as ``batches``."""
    return pl.concat(list(batches(path, kind, **options)), how="diagonal_relaxed", rechunk=True)


def parts(path: str | Path) -> list[str]:
    """The files of a table: itself, or the Parquet files of a folder by name; where some are the parts that
    Spark or Dask wrote, only those."""
    if not storage.is_folder(path):
        return [str(path)]
    found = [
        name for name in storage.names(path) if name.endswith(".parquet") and not name.startswith((".", "_"))
    ]
    found = [name for name in found if name.startswith("part")] or found
    return [storage.join(path, name) for name in found] or [str(path)]


def rows_of_parquet(path: str | Path) -> int:
    """How many rows a Parquet file says that it has."""
    with _parquet(path) as file:
        return int(file.metadata.num_rows)


def kind_of(path: str | Path) -> str | None:
    """The kind that the file's name says, ``None`` if it says nothing."""
    name = str(path).lower().removesuffix(".gz")
    for kind, endings in {
        "csv": (".csv",),
        "tsv": (".tsv", ".tab"),
        "parquet": (".parquet", ".pq"),
        "jsonl": (".jsonl", ".ndjson"),
    }.items():
        if name.endswith(endings):
            return kind
    return None


def header(
    path: str | Path, kind: str, delimiter: str | None = None, encoding: str = "utf-8", quote: bool = True
) -> list[str]:
    """The columns of a table with a header (for JSON Lines, the keys of the first line).

    Raises:
        DataError: a column that occurs twice.
    """
    found: list[str]
    if kind == "parquet":
        with _parquet(path) as file:
            found = file.schema_arrow.names
    elif kind == "jsonl":
        try:
            found = list(json.loads(first_line(path, encoding)))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, row 1: not valid JSON ({error}). Expected one object a line."
            ) from error
    else:
        line = first_line(path, encoding)
        found = _fields(line, delimiter or delimiter_of(line, kind), quote)
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: column {twice[0]!r} occurs twice in the header ({', '.join(found)}). Rename one of "
            "them."
        )
    return found


def delimiter_of(line: str, kind: str = "csv") -> str:
    """The delimiter of a header: a tab for ``tsv``, else the one of comma, tab, ``;``, ``|`` that occurs most
    often."""
    return "\t" if kind == "tsv" else max(",\t;|", key=line.count)


def _fields(line: str, delimiter: str, quote: bool) -> list[str]:
    if len(delimiter) > 1:
        return line.split(delimiter)
    return next(
        csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE)
    )


def _text_batches(
    path: str | Path,
    kind: str,
    delimiter: str | None,
    encoding: str,
    quote: bool,
    names: Sequence[str] | None,
    select: Sequence[str] | None,
    block: int,
) -> Iterator[pl.DataFrame]:
    line = first_line(path, encoding)
    delimiter = delimiter or delimiter_of(line, kind)
    if names is None:
        columns = header(path, kind, delimiter, encoding, quote)
    else:
        columns = list(names) or [str(i) for i in range(len(_fields(line, delimiter, quote)))]
    parse = pyarrow.csv.ParseOptions(
        delimiter=delimiter if len(delimiter) == 1 else HIDDEN_DELIMITER,
        quote_char='"' if quote else False,
        newlines_in_values=quote,
    )
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=list(select) if select is not None else None,
        strings_can_be_null=True,
        null_values=MISSING,
        quoted_strings_can_be_null=False,
    )
    rows, last = 0, None
    try:
        with open_plain(path) as stream:
            if len(delimiter) > 1:
                stream = io.BytesIO(stream.read().replace(delimiter.encode(), HIDDEN_DELIMITER.encode()))
            _skip_to_rows(stream, has_header=names is None)
            read_options = pyarrow.csv.ReadOptions(block_size=block, column_names=columns, encoding=encoding)
            for batch in pyarrow.csv.open_csv(stream, read_options, parse, convert):
                rows += len(batch)
                if len(batch):
                    last = pl.DataFrame(pl.from_arrow(batch))
                    yield last
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if "Empty CSV" not in str(error):
            fault = _fault(path, delimiter, encoding, quote, names is None, len(columns))
            raise DataError(fault or f"{path}: cannot be parsed ({error}).") from error
    # does the last row swallow what follows a stray quote?
    if quote and last is not None and any("\n" in (value or "") for value in last.row(-1)):
        fault = _fault(path, delimiter, encoding, quote, names is None, len(columns))
        if fault and "never closed" in fault:
            raise DataError(fault)
    if not rows:
        raise DataError(f"{path}: the file has a header but no events. Expected at least one row.")


def _skip_to_rows(stream: IO[bytes], has_header: bool) -> None:
    """Moves the stream to its first row: past a byte order mark, blank lines and the header."""
    while has_header:
        if stream.readline().strip(b"\xef\xbb\xbf \r\n"):
            return
    start = stream.read(3)
    if start != b"\xef\xbb\xbf":
        stream.seek(0)


def _fault(
    path: str | Path, delimiter: str, encoding: str, quote: bool, has_header: bool, width: int
) -> str | None:
    """What is wrong with a text file, and in which row, found by reading it again, slowly: the fast parser
    does not say."""
    row = -int(has_header)
    single = delimiter if len(delimiter) == 1 else HIDDEN_DELIMITER
    with open_plain(path) as stream:
        lines = (line.decode(encoding).replace(delimiter, single) for line in stream)
        rows = csv.reader(
            lines, delimiter=single, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE, strict=True
        )
        try:
            for fields in rows:
                if fields:
                    row += 1
                    if len(fields) != width:
                        return (
                            f"{path}, row {row}: expected {width} fields separated by {delimiter!r}. "
                            f"Got {len(fields)}: {single.join(fields)[:80]!r}."
                        )
        except UnicodeDecodeError:
            return _bad_encoding(path, encoding, row + 1)
        except csv.Error as error:
            if "end of data" in str(error) or "limit" in str(error):
                return (
                    f"{path}, row {row + 1}: a quote is opened and never closed. Correct the row, or "
                    "write quotes within a field twice."
                )
            return f"{path}, row {row + 1}: {error}."
    return None


def _bad_encoding(path: str | Path, encoding: str, row: int) -> str:
    other = "latin-1" if encoding.startswith("utf") else "utf-8"
    what = f"{path}, row {row}: not valid {encoding.removesuffix('-sig')} text."
    return (
        f"{what} Convert the file to UTF-8, or for a log give its encoding, encoding={other!r} "
        f"(--encoding {other})."
    )


@contextmanager
def _parquet(path: str | Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    with storage.open_read(path) as stream:
        try:
            yield pyarrow.parquet.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: not a complete Parquet file ({error}).") from error


def _parquet_batches(path: str | Path, select: Sequence[str] | None, size: int) -> Iterator[pl.DataFrame]:
    rows = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(size, columns=list(select) if select is not None else None):
            rows += len(batch)
            if len(batch):
                yield pl.DataFrame(pl.from_arrow(batch))
    if not rows:
        raise DataError(f"{path}: the file has columns but no events. Expected at least one row.")


def _json_batches(
    path: str | Path, encoding: str, select: Sequence[str] | None, block: int
) -> Iterator[pl.DataFrame]:
    row = 0
    with open_plain(path) as stream:
        while lines := stream.readlines(block):
            kept = [line for line in lines if line.strip()]
            if not kept:
                continue
            data = b"".join(kept)
            if encoding.lower() not in ("utf-8", "utf8"):
                data = data.decode(encoding).encode()
            try:
                frame = pl.read_ndjson(data, infer_schema_length=None)
            except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
                raise DataError(_explain_json(path, kept, row, str(error))) from error
            row += len(frame)
            yield frame if select is None else frame.select(name for name in select if name in frame.columns)
    if not row:
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")


def _explain_json(path: str | Path, lines: list[bytes], first_row: int, error: str) -> str:
    for i, line in enumerate(lines):
        try:
            if not isinstance(json.loads(line), dict):
                return f"{path}, row {first_row + i + 1}: expected a JSON object. Got {line[:80]!r}."
        except UnicodeDecodeError:
            return _bad_encoding(path, "utf-8", first_row + i + 1)
        except json.JSONDecodeError as broken:
            return f"{path}, row {first_row + i + 1}: not valid JSON ({broken})."
    return f"{path}: cannot be parsed ({error})."
