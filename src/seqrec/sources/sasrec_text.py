"""SASRec's text: ``user item`` a line, each user's lines in order. No header, no times; the order of the file
is the order of events.

Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018; the files come with the authors' code
(kang205/SASRec, data/).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from seqrec.data import columns, files
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError


def read(path: str | Path) -> Interactions:
    """Reads such a file.

    Raises:
        DataError: a line that has not two fields.
    """
    words = [line.split() for line in files.read_text(path).splitlines() if line.strip()]
    if not words:
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")
    for row, pair in enumerate(words):
        if len(pair) != 2:
            raise DataError(f"{path}, row {row + 1}: expected 'user item'. Got {' '.join(pair)[:80]!r}.")
    users, items = zip(*words)
    ids = {
        name: columns.integers(pl.Series(name, values))
        for name, values in (("user_id", users), ("item_id", items))
    }
    return Interactions(pl.DataFrame(ids), source=str(path))
