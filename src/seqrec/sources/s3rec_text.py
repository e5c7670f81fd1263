"""S3-Rec's text: ``user item item ...`` a line, one line a user, items in order. No header, no times.

Zhou et al., S3-Rec: Self-Supervised Learning for Sequential Recommendation, CIKM 2020
(RUCAIBox/CIKM2020-S3Rec, data/).
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
        DataError: a line without items, or a user with two lines.
    """
    words = [line.split() for line in files.read_text(path).splitlines() if line.strip()]
    if not words:
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")
    seen: set[str] = set()
    for row, (user, *items) in enumerate(words):
        if not items or user in seen:
            what = "a second line of the same user" if user in seen else "a user without items"
            raise DataError(
                f"{path}, row {row + 1}: expected one line per user, 'user item item ...'. Got {what} "
                f"({user!r})."
            )
        seen.add(user)
    frame = pl.DataFrame({"user_id": [w[0] for w in words], "item_id": [w[1:] for w in words]}).explode(
        "item_id"
    )
    return Interactions(
        frame.select(columns.integers(frame[name]) for name in frame.columns), source=str(path)
    )
