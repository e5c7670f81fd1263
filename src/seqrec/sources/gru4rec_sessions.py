"""GRU4Rec's sessions: a tab-separated file with the header ``SessionId ItemId Time``. A session is what a
user is elsewhere.

Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016 (the form of
hidasib/GRU4Rec's input).
"""

from __future__ import annotations

from pathlib import Path

from seqrec.data.frames import Columns, finished, log_batches
from seqrec.data.interactions import Interactions

COLUMNS = {"user_id": "SessionId", "item_id": "ItemId", "timestamp": "Time"}


def read(path: str | Path, columns: Columns | None = None) -> Interactions:
    """Reads such a file; ``columns`` where its header has other names.

    Raises:
        DataError: as ``Interactions.read``.
    """
    return Interactions(
        finished(list(log_batches(path, "tsv", {**COLUMNS, **(columns or {})})), text=True, name=str(path)),
        source=str(path),
    )
