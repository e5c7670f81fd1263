"""Files at the door: CSV, TSV, Parquet and JSON Lines, plain or gzipped, read in batches so that a log may
exceed memory.

Text stays text here: what is a number or a time is decided in ``seqrec.data.columns``, which can then name
the row it could not read. Rows count from 1; a header and blank lines are not counted.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from seqrec import storage
from seqrec.errors import DataError

MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "<NA>", "None"]
"""Unquoted text that means "no value" (what pandas, polars, R and SQL write); quoted, it is a value."""

BLOCK = 4 << 20
"""Bytes of text parsed at a time."""
ROWS = 1 << 20
"""Rows of a Parquet file read at a time."""
SAMPLE = 1 << 16
"""Bytes from which marks and line ends are told."""
LONGEST_LINE = 64 << 20
"""Bytes that a line may have: what has more is no log, and would be held in memory."""
LONGEST_FIELD = 1 << 20
"""Bytes within which a quoted field of several lines must close."""
GZIP_FREE, GZIP_RATIO, GZIP_PIECE = 64 << 20, 250, 1 << 20
"""A gzip may unpack to so many bytes, and beyond them to so many times its size (logs: 3 to 30 times)."""
HIDDEN_DELIMITER = "\x1f"
"""Stands in for a delimiter of several bytes: the unit separator, which no log contains."""
LINE_END, NO_LINE_END = re.compile(rb"\r\n|\n|\r"), re.compile(rb"[^\r\n]")
QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
QUOTE, NEW_LINE, RETURN = b'"\n\r'
EDGE = 1
LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL
)
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark -> encoding; UTF-32's begins as UTF-16's does, and so comes first."""
NO_ENCODINGS = ("idna", "punycode", "undefined", "unicode-escape", "unicode_escape", "raw-unicode-escape")
"""Codecs of Python that are no encodings of files."""
UNPACK = "Unpack it and give the file in it"
NO_LOGS = {
    b"PK": f"a zip archive or an Excel workbook. {UNPACK}, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. Save the sheet as CSV",
    b"BZh": f"a bzip2 archive. {UNPACK}",
    b"\xfd7zXZ": f"an xz archive. {UNPACK}",
    b"7z\xbc\xaf": f"a 7z archive. {UNPACK}",
    b"\x28\xb5\x2f\xfd": f"a zstd archive. {UNPACK}",
    b"SQLite format 3": "an SQLite database. Export the table as CSV",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file. Save the table as Parquet",
    b"ARROW1": "an Arrow (Feather) file. Save the table as Parquet",
}
"""First bytes -> what the file is, where it is no log."""


class _Gunzip(gzip.GzipFile):
    """A gzip stream that says which file is damaged, and refuses one that would unpack without end."""

    def __init__(self, stream: IO[bytes], path: str):
        super().__init__(fileobj=stream, mode="rb")
        self.packed, self.path, self.unpacked = stream, path, 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK), b""))
        try:
            piece = super().read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            message = f"{self.path}: truncated or damaged gzip ({error}). Fetch the file again."
            raise DataError(message) from error
        self.unpacked += len(piece)
        if self.unpacked > GZIP_FREE and self.unpacked > GZIP_RATIO * self.packed.tell():
            raise DataError(
                f"{self.path}: the gzip unpacks to more than {GZIP_RATIO} times its size, as no log does. "
                "If it is one, unpack it and give the plain file."
            )
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.unpacked = 0
        return super().seek(offset, whence)


@contextmanager
def open_plain(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary stream of the file's content, decompressed if it is gzip (told by its first bytes, not its
    name).

    Raises:
        DataError: an archive or a document that is no log, told by its first bytes; a damaged gzip.
    """
    with storage.open_read(path) as stream:
        start = stream.read(16)
        stream.seek(0)
        for magic, what in NO_LOGS.items():
            if start.startswith(magic):
                raise DataError(f"{path}: expected a log as CSV, TSV, JSON Lines or Parquet. Got {what}.")
        if start.startswith(b"\x1f\x8b"):
            yield io.BufferedReader(_Gunzip(stream, str(path)))
        else:
            yield stream


class _Text:
    """A file's text, in pieces of UTF-8, whatever its encoding; line ends as they are, save that those of old
    Macs (a carriage return alone) become new lines."""

    def __init__(self, stream: IO[bytes], path: str | Path, encoding: str):
        self._stream, self._path, self._lines = stream, path, 0
        self._ahead = self._bytes(SAMPLE)
        if self._ahead.startswith(b"PAR1"):
            raise DataError(f"{path}: expected text. Got a Parquet file. Give format='parquet'.")
        self.encoding = _encoding_of(self._ahead, encoding)
        self._decoder = None
        if self.encoding == "utf-8":
            self._ahead = self._ahead.removeprefix(codecs.BOM_UTF8)
        else:
            self._decoder = codecs.getincrementaldecoder(self.encoding)()
        self._mac = False
        self._ahead = self._plain(self._ahead)
        # a carriage return at the very end of what was read may be half of a line end
        self._mac = b"\n" not in self._ahead and b"\r" in self._ahead[:-1]
        if self._mac:
            self._ahead = self._ahead.replace(b"\r", b"\n")

    def read(self, size: int) -> bytes:
        """About so many bytes, nothing only at the end."""
        data, self._ahead = self._ahead, b""
        while not data:
            more = self._bytes(size)
            data = self._plain(more)
            if not more:
                break
        if b"\0" in data:
            row = self._lines + data.count(b"\n", 0, data.index(b"\0")) + 1
            raise DataError(
                f"{self._path}, line {row}: a NUL byte, which no text has. Where the file is UTF-16 give its "
                "encoding, encoding='utf-16-le' (--encoding utf-16-le); else it is damaged or no text."
            )
        if self._decoder:
            self._lines += data.count(b"\n")
        return data

    def first_line(self) -> tuple[bytes, bytes]:
        """The first line that is not blank, without its line end, and what was read beyond it."""
        data = b""
        while True:
            more = self.read(SAMPLE)
            data = (data + more).lstrip()
            found = LINE_END.search(data)
            # a carriage return that ends the piece may be half of a line end
            if found and (found.end() < len(data) or not more):
                return data[: found.start()], data[found.end() :]
            if not more:
                return data, b""
            _check_line(self._path, len(data))

    def _bytes(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error}).") from error

    def _plain(self, data: bytes) -> bytes:
        if self._decoder:
            try:
                text = self._decoder.decode(data, final=not data)
                data = text.encode()
            except UnicodeError as error:
                raise DataError(_bad_encoding(self._path, self.encoding, self._lines + 1)) from error
        return data.replace(b"\r", b"\n") if self._mac else data


@contextmanager
def _open_text(path: str | Path, encoding: str) -> Iterator[_Text]:
    with open_plain(path) as stream:
        yield _Text(stream, path, encoding)


def _encoding_of(start: bytes, encoding: str) -> str:
    """Python's name of the encoding: what a byte order mark says, where the encoding is UTF-8 or not given.

    Raises:
        DataError: there is no such encoding.
    """
    try:
        name = codecs.lookup(encoding).name
        with suppress(UnicodeError):
            b"x".decode(name)  # refuses codecs that make no text of bytes
        if name in NO_ENCODINGS:
            raise LookupError
    except (LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"encoding: expected an encoding that Python knows, utf-8, utf-16, latin-1 or cp1252 say. Got "
            f"{encoding!r}."
        ) from error
    if name in ("utf-8", "utf-8-sig"):
        for mark, other in MARKS.items():
            if start.startswith(mark):
                return other
        return "utf-8"
    return name


def _check_line(path: str | Path, length: int) -> None:
    if length > LONGEST_LINE:
        raise DataError(
            f"{path}: a line of more than {LONGEST_LINE >> 20} MiB. Expected a row a line: is this a log, "
            "and are its line ends right?"
        )


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """The whole file as text.

    Raises:
        DataError: not in that encoding (names the line), or a truncated gzip.
    """
    with _open_text(path, encoding) as text:
        data = b"".join(iter(lambda: text.read(BLOCK), b""))
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(_bad_encoding(path, encoding, data.count(b"\n", 0, error.start) + 1)) from error


def start(path: str | Path, encoding: str = "utf-8", size: int = SAMPLE) -> str:
    """About so many characters of a text file's beginning; what does not fit the encoding is replaced."""
    with _open_text(path, encoding) as text:
        return text.read(size)[:size].decode(errors="replace").removeprefix("\ufeff")


def first_line(path: str | Path, encoding: str = "utf-8") -> str:
    """The first line that is not blank (white space), without its line break.

    Raises:
        DataError: the file is empty.
    """
    with _open_text(path, encoding) as text:
        line, _ = text.first_line()
    return _first_line(path, line, encoding)


def _first_line(path: str | Path, line: bytes, encoding: str) -> str:
    try:
        decoded = line.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(_bad_encoding(path, encoding, 1)) from error
    if not decoded.strip():
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")
    return decoded


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


def schema_of(path: str | Path) -> pa.Schema:
    """The names and types of a Parquet file's columns."""
    with _parquet(path) as file:
        return file.schema_arrow


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
        first = first_line(path, encoding)
        found = list(_object(first, f"{path}, row 1"))
        if not found:
            raise DataError(
                f"{path}, row 1: expected an object with the columns of the log as keys. Got {{}}."
            )
    else:
        line = first_line(path, encoding)
        found = _header(path, line, _delimiter(delimiter, line, kind), quote)
    twice = sorted(name for name, count in Counter(found).items() if count > 1)
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


def _delimiter(delimiter: str | None, line: str, kind: str) -> str:
    if delimiter and set(delimiter) & set('\r\n"\0'):
        raise DataError(f"delimiter: expected what separates two columns, not {delimiter!r}.")
    return delimiter or delimiter_of(line, kind)


def _header(path: str | Path, line: str, delimiter: str, quote: bool) -> list[str]:
    hidden, _ = _hidden(line.encode(), delimiter)
    if not quote:
        return line.split(delimiter)
    fields, _ = _Quotes(path, delimiter, 0).record(hidden, 0, spans=False) or ([], 0)
    if any(value.startswith(b'"') and not quoted for value, quoted in fields):
        raise DataError(f"{path}: a quote is opened in the header and never closed. Correct it.")
    return [value.decode() for value, _ in fields]


def _hidden(data: bytes, delimiter: str) -> tuple[bytes, bytes]:
    """The text with a delimiter of one byte, and that delimiter."""
    plain = delimiter.encode()
    if len(plain) == 1:
        return data, plain
    return data.replace(plain, HIDDEN_DELIMITER.encode()), HIDDEN_DELIMITER.encode()


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
    columns = header(path, kind, delimiter, encoding, quote) if names is None else list(names)
    rows = 0
    with _open_text(path, encoding) as text:
        raw, pending = text.first_line()
        line = _first_line(path, raw, encoding)
        delimiter = _delimiter(delimiter, line, kind)
        columns = columns or [str(i) for i in range(len(_header(path, line, delimiter, quote)))]
        if names is not None:
            pending = raw + b"\n" + pending
        quotes = _Quotes(path, delimiter, len(columns), known=names is None and quote and '"' in line)
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=list(select) if select is not None else None,
            strings_can_be_null=True,
            null_values=MISSING,
            quoted_strings_can_be_null=False,
        )
        for data, final in _whole_lines(text, pending, block, path):
            data = quotes.kept + _hidden(data, delimiter)[0]
            if quote and b'"' in data:
                data = quotes.settled(data, rows, final)
            if not NO_LINE_END.search(data):
                continue
            parse = pyarrow.csv.ParseOptions(
                delimiter=quotes.delimiter.decode(),
                quote_char='"' if quote else False,
                newlines_in_values=quotes.spans,
            )
            try:
                if not data.isascii():
                    data.decode()  # whichever columns are selected
                # in one piece: cut for several threads, a line could be longer than a piece
                whole = pyarrow.csv.ReadOptions(block_size=len(data) + 1, column_names=columns)
                table = pyarrow.csv.read_csv(pa.BufferReader(data), whole, parse, convert)
            except (pa.ArrowException, UnicodeDecodeError) as error:
                fault = _fault(path, data, delimiter, text.encoding, rows, quote, len(columns))
                raise DataError(fault or f"{path}: cannot be parsed ({error}).") from error
            rows += len(table)
            if len(table):
                frame = pl.DataFrame(pl.from_arrow(table))
                if quote and len(delimiter.encode()) > 1:  # within quotes it is text
                    text_columns = pl.col(pl.String)
                    frame = frame.with_columns(
                        text_columns.str.replace_all(HIDDEN_DELIMITER, delimiter, literal=True)
                    )
                yield frame
    if not rows:
        raise DataError(f"{path}: the file has a header but no events. Expected at least one row.")


def _whole_lines(text: _Text, pending: bytes, block: int, path: str | Path) -> Iterator[tuple[bytes, bool]]:
    """The text in pieces that end with a line, and whether each is the last."""
    pieces = [pending] if pending else []
    while data := text.read(block):
        cut = data.rfind(b"\n") + 1
        if not cut:
            pieces.append(data)
            _check_line(path, sum(map(len, pieces)))
            continue
        pieces.append(memoryview(data)[:cut])  # type: ignore[arg-type]
        yield b"".join(pieces), False
        pieces = [data[cut:]] if cut < len(data) else []
    yield b"".join(pieces), True


class _Quotes:
    """What the quotes of a text mean, decided for each of them before the fast parser sees it.

    A quote opens a field where it stands first in one and a quote followed by a delimiter or a line end
    closes it, with quotes within written twice. Any other quote is a character; in a table known to quote
    (its header does, or a field before held a delimiter, a quote or a line end in quotes) one that opens a
    field and never closes is refused. A field of several lines is unclear where each of these lines is a row
    by itself: it is a field in a table known to quote and refused in another.

    Lines whose quotes all pair up by this rule are found with a few passes of numpy; only the others are
    read one by one, and written as the parser expects them.
    """

    def __init__(self, path: str | Path, delimiter: str, width: int, known: bool = False):
        self.path, self.name, self.width, self.known = path, delimiter, width, known
        self.delimiter = _hidden(b"", delimiter)[1]
        self.stray = False
        self.kept = b""
        """The start of a record whose end has not been read."""
        self.spans = False
        """Whether a field of the last text holds a line end."""
        self._plain = re.compile(rb"[^\r\n" + re.escape(self.delimiter) + rb"]*+")

    def settled(self, data: bytes, rows: int, final: bool) -> bytes:
        """The text with every quote as the parser expects it, ``rows`` rows into the table; an unfinished
        record at its end is kept for the next call unless the text is final."""
        self.kept, self.spans, spanned = b"", False, 0
        starts, evident = self._unpaired(data)
        out, done = [], 0
        for start in starts:
            if start < done:
                continue
            out.append(data[done:start])
            done = start
            end = data.find(b"\n", start) + 1 or len(data)
            while done < end:
                found = self.record(data, done, final=final)
                if found is None:
                    self.kept = data[done:]
                    return b"".join(out)
                fields, after = found
                extra = sum(len(LINE_END.findall(value)) for value, quoted in fields if quoted)
                if extra and self._are_rows(data, done, after):
                    if len(fields) == self.width and (self.stray or not (self.known or evident < done)):
                        row = rows + _count(data[:done]) - spanned + 1
                        raise DataError(self._unclear(extra + 1, row))
                    if len(fields) != self.width:
                        extra = 0
                if not extra:
                    fields, after = self.record(data, done, spans=False)  # type: ignore[misc]
                if len(fields) != self.width and fields != [(b"", False)]:
                    row = rows + _count(data[:done]) - spanned + 1
                    raise DataError(_wrong_width(self.path, row, self.width, fields, self.name))
                spanned += extra
                self.spans |= extra > 0
                self.known |= extra > 0
                if _has_stray(fields):
                    if self.known or evident < done:
                        row = rows + _count(data[:done]) - spanned + 1
                        raise DataError(_open_quote(self.path, row))
                    self.stray = True
                line = data[done:after]
                out += [self._written(fields), line[len(line.rstrip(b"\r\n")) :] if not extra else b"\n"]
                done = after
        out.append(data[done:])
        self.known |= evident < len(data)
        self.spans |= data.count(b"\r") != data.count(b"\r\n")
        return b"".join(out)

    def record(
        self, data: bytes, at: int, spans: bool = True, final: bool = True
    ) -> tuple[list[tuple[bytes, bool]], int] | None:
        """The fields of the record at some place, each with whether it is quoted, and where the next begins;
        None if its end is not in the data.

        Args:
            spans: whether a field may have several lines.
        """
        fields = []
        while True:
            quoted, after = False, at
            if data.startswith(b'"', at):
                match = QUOTED.match(data, at, at + LONGEST_FIELD)
                if match is None:
                    if spans and not final and len(data) - at < LONGEST_FIELD:
                        return None
                else:
                    after = match.end()
                    closed = after == len(data) or data[after : after + 1] in (self.delimiter, b"\n", b"\r")
                    quoted = closed and (spans or not LINE_END.search(match[0]))
            if quoted:
                value = match[0][1:-1].replace(b'""', b'"')  # type: ignore[index]
            else:
                value = self._plain.match(data, at)[0]  # type: ignore[index]
                after = at + len(value)
            fields.append((value, quoted))
            if data.startswith(self.delimiter, after):
                at = after + 1
                continue
            line_end = LINE_END.match(data, after)
            return fields, line_end.end() if line_end else len(data)

    def _unpaired(self, data: bytes) -> tuple[list[int], int]:
        """Where lines begin whose quotes do not pair up, and where the first field ends that only a table
        that quotes could hold (with a delimiter or a quote in it)."""
        text = np.frombuffer(data, dtype=np.uint8)
        at, ends = np.flatnonzero(text == QUOTE), np.flatnonzero(text == NEW_LINE)
        starts: list[int] = []
        pairs, lines = np.arange(0, len(at) - 1, 2), None
        if not self._all_pair(text, at, ends):
            lines = np.searchsorted(ends, at)
            first = np.r_[True, lines[1:] != lines[:-1]]
            order = np.arange(len(at))
            opens = (order - np.maximum.accumulate(np.where(first, order, 0))) % 2 == 0
            before, after = self._beside(text, at)
            fits = np.where(opens, (before == EDGE) | ((before == QUOTE) & ~first), after > 0)
            fits &= ~(opens & np.r_[first[1:], True])  # the last of a line must close
            unpaired = np.unique(lines[~fits])
            starts = [int(ends[line - 1]) + 1 if line else 0 for line in unpaired.tolist()]
            pairs = np.flatnonzero(opens & fits & ~np.isin(lines, unpaired))
        evident = len(data)
        if not self.known and len(pairs):
            delimiters = np.flatnonzero(text == self.delimiter[0])
            holds = np.searchsorted(delimiters, at[pairs]) < np.searchsorted(delimiters, at[pairs + 1])
            holds |= self._beside(text, at[pairs + 1])[1] == QUOTE
            if holds.any():
                evident = int(at[pairs[np.argmax(holds)] + 1])
        return starts, evident

    def _all_pair(self, text: np.ndarray, at: np.ndarray, ends: np.ndarray) -> bool:
        """Whether all quotes pair up, each pair within a line: the usual case."""
        if len(at) % 2:
            return False
        before = self._beside(text, at[::2])[0]
        if not (before > 0).all() or not (self._beside(text, at[1::2])[1] > 0).all():
            return False
        return not (np.searchsorted(at, ends) % 2).any()

    def _beside(self, text: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stands before and after some places: ``EDGE`` of a field, a ``QUOTE``, or 0."""
        kind = np.zeros(256, dtype=np.uint8)
        kind[[self.delimiter[0], NEW_LINE, RETURN]] = EDGE
        kind[QUOTE] = QUOTE
        before, after = kind[text[at - 1]], kind[text[np.minimum(at + 1, len(text) - 1)]]
        before[at == 0] = EDGE
        after[at == len(text) - 1] = EDGE
        return before, after

    def _are_rows(self, data: bytes, at: int, end: int) -> bool:
        """Whether each line between two places would be a row by itself."""
        while at < end:
            fields, at = self.record(data, at, spans=False)  # type: ignore[misc]
            if len(fields) != self.width:
                return False
        return True

    def _unclear(self, lines: int, row: int) -> str:
        return (
            f"{self.path}, row {row}: a quote opens a field that closes {lines - 1} lines later, and each of "
            "these lines would be a row by itself. If it is a character, write it twice in a quoted field; "
            "if the field has these lines, put the names in the header in quotes too."
        )

    def _written(self, fields: list[tuple[bytes, bool]]) -> bytes:
        return self.delimiter.join(
            b'"' + value.replace(b'"', b'""') + b'"' if quoted or b'"' in value else value
            for value, quoted in fields
        )


def _has_stray(fields: list[tuple[bytes, bool]]) -> bool:
    return any(value.startswith(b'"') and not quoted for value, quoted in fields)


def _count(data: bytes) -> int:
    """The lines of a text that are not empty."""
    return len([line for line in LINE_END.split(data) if line])


def _open_quote(path: str | Path, row: int) -> str:
    return (
        f"{path}, row {row}: a quote is opened and never closed. Correct the row, or write quotes within "
        "a field twice."
    )


def _wrong_width(
    path: str | Path, row: int, width: int, fields: list[tuple[bytes, bool]], delimiter: str
) -> str:
    if _has_stray(fields):
        return _open_quote(path, row)
    text = delimiter.join(value.decode("utf-8", "replace") for value, _ in fields)[:80]
    what = f"expected {width} fields separated by {delimiter!r}"
    return f"{path}, row {row}: {what}. Got {len(fields)}: {text!r}."


def _fault(
    path: str | Path, data: bytes, delimiter: str, encoding: str, rows: int, quote: bool, width: int
) -> str | None:
    """What is wrong with a text, ``rows`` rows into its file, and in which row: the fast parser does not
    say."""
    reader, row, at = _Quotes(path, delimiter, width), rows, 0
    while at < len(data):
        start = at
        if quote:
            fields, at = reader.record(data, at)  # type: ignore[misc]
        else:
            match = LINE_END.search(data, at)
            line = data[at : match.start() if match else len(data)]
            fields, at = (
                [(value, False) for value in line.split(reader.delimiter)],
                match.end() if match else len(data),
            )
        if fields == [(b"", False)]:
            continue
        row += 1
        if len(fields) != width:
            return _wrong_width(path, row, width, fields, delimiter)
        try:
            data[start:at].decode()
        except UnicodeDecodeError:
            return _bad_encoding(path, encoding, row)
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
        except (pa.ArrowException, OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a complete Parquet file ({error}).") from error


def _parquet_batches(path: str | Path, select: Sequence[str] | None, size: int) -> Iterator[pl.DataFrame]:
    rows = 0
    with _parquet(path) as file:
        for column in file.schema_arrow:
            if pa.types.is_decimal256(column.type):
                what = f"expected numbers of at most 38 digits. Got {column.type}. Convert the column"
                raise DataError(f"{path}, column {column.name!r}: {what}.")
        for batch in file.iter_batches(size, columns=list(select) if select is not None else None):
            rows += len(batch)
            if len(batch):
                yield pl.DataFrame(pl.from_arrow(batch))
        said = file.metadata.num_rows
    if rows != said:
        raise DataError(f"{path}: not a complete Parquet file (it says {said} rows and has {rows}).")
    if not rows:
        raise DataError(f"{path}: the file has columns but no events. Expected at least one row.")


def _json_batches(
    path: str | Path, encoding: str, select: Sequence[str] | None, block: int
) -> Iterator[pl.DataFrame]:
    with _open_text(path, encoding) as text:
        for frame in _of_json(text, path, block):
            yield frame if select is None else frame.select(name for name in select if name in frame.columns)


def json_lines(stream: IO[bytes], name: str, block: int = BLOCK) -> Iterator[pl.DataFrame]:
    """The rows of JSON Lines in a stream, some at a time, as ``batches`` gives those of a file.

    Args:
        name: what the stream is called in messages.

    Raises:
        DataError: as ``batches``.
    """
    return _of_json(_Text(stream, name, "utf-8"), name, block)


def _of_json(text: _Text, path: str | Path, block: int) -> Iterator[pl.DataFrame]:
    row = 0
    for data, _ in _whole_lines(text, b"", block, path):
        kept = [line for line in data.split(b"\n") if line.strip()]
        if not kept:
            continue
        fault = None
        try:
            data.decode()
            frame = pl.read_ndjson(b"\n".join(kept), infer_schema_length=None)
        except (pl.exceptions.PolarsError, UnicodeDecodeError, RecursionError) as error:
            fault = error
        lost = fault is None and len(frame) != len(kept)
        if fault or lost or (b"\\u" in data and LONE_SURROGATE.search(data)):
            explained = _explain_json(
                path, kept, row, "rows are lost" if lost else str(fault or ""), text.encoding
            )
            if explained:
                raise DataError(explained) from fault
        row += len(frame)
        yield frame
    if not row:
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")


def _object(line: str | bytes, where: str) -> dict[str, Any]:
    """A line of JSON Lines.

    Raises:
        DataError: it is no JSON, or no object.
    """
    try:
        found = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}). Expected one object a line.") from error
    if not isinstance(found, dict):
        shown = line[:80] if isinstance(line, str) else line[:80].decode(errors="replace")
        hint = " Write an object a line, without brackets and commas." if isinstance(found, list) else ""
        raise DataError(f"{where}: expected a JSON object. Got {shown!r}.{hint}")
    return found


def _explain_json(
    path: str | Path, lines: list[bytes], first_row: int, error: str, encoding: str
) -> str | None:
    """What is wrong with some lines, and in which; None if nothing is."""
    for i, line in enumerate(lines):
        try:
            json.dumps(_object(line, f"{path}, row {first_row + i + 1}"), ensure_ascii=False).encode()
        except UnicodeDecodeError:
            return _bad_encoding(path, encoding, first_row + i + 1)
        except UnicodeEncodeError:
            return f"{path}, row {first_row + i + 1}: half of a surrogate pair, which is no character."
        except DataError as found:
            return str(found)
    for i, line in enumerate(lines if error else []):  # what the fast parser alone refuses, 1e400 and NaN say
        try:
            pl.read_ndjson(line)
        except pl.exceptions.PolarsError as alone:
            return f"{path}, row {first_row + i + 1}: cannot be parsed ({alone})."
    return f"{path}: cannot be parsed ({error})." if error else None
