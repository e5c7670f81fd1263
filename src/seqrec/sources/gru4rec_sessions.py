"""GRU4Rec's sessions: a tab-separated file with the header ``SessionId ItemId Time``. A session is what a
user is elsewhere.

Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016 (the form of
hidasib/GRU4Rec's input).
"""

from __future__ import annotations

from pathlib import Path

from seqrec.data.frames import Columns
from seqrec.data.interactions import Interactions
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import log_frame

COLUMNS = {"user_id": "SessionId", "item_id": "ItemId", "timestamp": "Time"}


def read(path: str | Path, columns: Columns | None = None) -> Interactions:
    """Reads such a file; ``columns`` where its header has other names.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    options = ReadOptions(format="tsv", columns={**COLUMNS, **(columns or {})})
    return Interactions(log_frame([path], options, str(path)), source=str(path))
