"""RecBole's atomic files: tab-separated, each column with its type in the header (``user_id:token``,
``timestamp:float``).

``NAME.inter`` is the log; ``NAME.item`` and ``NAME.user`` beside it are attributes. Zhao et al., RecBole,
CIKM 2021; the format is described in RecBole's documentation, "Atomic Files".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from seqrec import storage
from seqrec.data import columns as log_columns
from seqrec.data import files
from seqrec.data.frames import Columns, finished
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError


def read(path: str | Path, columns: Columns | None = None) -> Interactions:
    """Reads an ``.inter`` file, or the folder with the only one, with the attributes beside it.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    if storage.is_folder(path):
        path = storage.join(path, next(name for name in storage.names(path) if name.endswith(".inter")))
    parts, row, mapping = [], 0, None
    for batch in _batches(path):
        mapping = mapping or log_columns.resolve(batch.columns, columns, str(path))
        parts.append(log_columns.validated(batch, mapping, str(path), text=True, first_row=row))
        row += len(batch)
    stem = str(path).removesuffix(".gz").removesuffix(".inter")
    beside = {
        kind: table(f"{stem}.{ending}")
        for kind, ending in (("items", "item"), ("users", "user"))
        if storage.exists(f"{stem}.{ending}")
    }
    return Interactions(finished(parts, text=True, name=str(path)), source=str(path)).with_attributes(
        beside.get("items"), beside.get("users")
    )


def table(path: str | Path) -> pl.DataFrame:
    """A ``.item`` or ``.user`` file: numbers as such, everything else as text; the first column is the key,
    with ids as in the log."""
    frame = pl.concat(list(_batches(path)), rechunk=True)
    key = frame.columns[0]
    return frame.select(
        log_columns.integers(frame[c]) if c == key else log_columns.typed(frame[c]) for c in frame.columns
    )


def _batches(path: str | Path) -> Iterator[pl.DataFrame]:
    header = files.header(path, "tsv", quote=False)
    for name in header:
        if ":" not in name:
            raise DataError(
                f"{path}: expected a type with each column, as in 'user_id:token'. Got {name!r}. "
                "For plain columns use format='tsv'."
            )
    names = {name: name.rsplit(":", 1)[0] for name in header}
    for batch in files.batches(path, "tsv", quote=False):
        yield batch.rename(names)
