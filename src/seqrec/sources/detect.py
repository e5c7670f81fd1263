"""Which format a log has, from its name, header and first lines; what is ambiguous is asked, not guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from seqrec import storage
from seqrec.data import files
from seqrec.data.columns import resolve
from seqrec.errors import DataError

FOLDERS = {
    "u.data": "ml-100k",
    "ml-100k.inter": "ml-100k",
    "ratings.dat": "ml-1m",
    "sequences.tsv.gz": "ml-1m",
    "ml-1m.txt": "ml-1m",
    "ratings.csv": "ml-20m",
}
"""A file -> the format of a folder that holds it."""

SAMPLE = 1 << 16
"""Bytes looked at."""


def detect(path: str | Path, encoding: str | None = None) -> str:
    """The format of a file or folder: a kind of table (``csv``, ``tsv``, ``parquet``, ``jsonl``) or one of
    ``seqrec.sources.FORMATS``.

    Args:
        encoding: of a text file, where it is known.
    Raises:
        DataError: no such file, an empty file, or one whose format cannot be told.
    """
    if storage.is_folder(path):
        names = storage.names(path)
        for name, format in FOLDERS.items():
            if name in names:
                return format
        atomic = [name for name in names if name.endswith(".inter")]
        if len(atomic) == 1:
            return "recbole"
        raise DataError(f"{path}: not a folder of a known data set. Give the log's file.")
    encoding = encoding or "utf-8"
    name = str(path).replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gz")
    if name == "u.data":
        return "ml-100k"
    if name == "sequences.tsv":
        return _of_text(path, "tsv", encoding)
    if name.endswith(".inter"):
        return "recbole"
    kind = files.kind_of(path)
    format = _of_text(path, "csv", encoding) if kind == "csv" else kind or _by_content(path, encoding)
    return (
        "samples"
        if format in ("csv", "tsv", "parquet") and is_samples(_columns(path, format, encoding))
        else format
    )


def _columns(path: str | Path, kind: str, encoding: str) -> list[str]:
    """The columns of a table, as far as its first line tells."""
    if kind == "parquet":
        return files.header(path, kind)
    line = files.first_line(path, encoding)
    return line.split(files.delimiter_of(line, kind))


def is_samples(columns: Sequence[str]) -> bool:
    """Whether a table with these columns has a row a sample, as ``seqrec.samples.tables`` writes it."""
    lists = filter(None, (re.fullmatch(r"recent_(.+)_ids", column) for column in columns))
    return {"label", "user_id"} <= set(columns) and any(f"{match[1]}_id" in columns for match in lists)


KNOWN = {
    "user_id\tposition\tmovie_id\trating\ttimestamp": "ml-1m",
    "userId,movieId,rating,timestamp": "ml-20m",
    "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE": (
        "ta-feng"
    ),
}
"""The header of a data set's own table -> its format."""


def _of_text(path: str | Path, kind: str, encoding: str) -> str:
    """The data set's format if the header is exactly that of one, else the plain kind."""
    return KNOWN.get(files.first_line(path, encoding).strip(), kind)


def _by_content(path: str | Path, encoding: str) -> str:
    with files.open_plain(path) as stream:
        if stream.read(4) == b"PAR1":
            return "parquet"
    start = files.start(path, encoding, SAMPLE)
    lines = start.splitlines()
    lines = [line for line in (lines if len(start) < SAMPLE else lines[:-1] or lines) if line.strip()]
    if not lines:
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")
    if lines[0].lstrip().startswith("["):
        raise DataError(
            f"{path}: expected a log. Got what looks like one JSON array. Write JSON Lines: an object a "
            "line, without brackets and commas."
        )
    if re.match(r'\s*\{\s*"[^"]*"\s*:\s*\[\s*\[', start):
        return "baskets"
    if lines[0].lstrip().startswith("{"):
        return "jsonl"
    if all(re.fullmatch(r"\d+::\d+::[\d.]+::\d+", line) for line in lines):
        return "ml-1m"
    if lines[0].startswith("SessionId\tItemId\tTime"):
        return "gru4rec"
    delimiter = files.delimiter_of(lines[0])
    try:
        resolve(lines[0].split(delimiter), None, str(path))
        return "tsv" if delimiter == "\t" else "csv"
    except DataError:  # no header: what shape do the lines have?
        words = [line.split() for line in lines]
    if (
        all(len(w) == 4 for w in words)
        and all("\t" in line for line in lines)
        and all(x.isdigit() for w in words for x in w)
    ):
        return "ml-100k"
    distinct = len({w[0] for w in words}) == len(words)
    if all(len(w) == 2 for w in words) and not distinct:
        return "sasrec"
    if distinct and len({len(w) for w in words}) > 1 and "," not in start:
        return "s3rec"
    raise DataError(
        f"{path}: cannot tell the format from {lines[0][:60]!r}. Give it, for example format='csv' "
        "(--format csv, with --delimiter, and without "
        "a header with columns={'user_id': 0, 'item_id': 1}, --column user_id=0 --column item_id=1), "
        "'sasrec' (user item) or 's3rec' (user item "
        "item ...)."
    )
