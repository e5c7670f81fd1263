"""Which version of seqrec wrote a file, and in which format: what a reader must know before it trusts the
rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrec import __version__
from seqrec.errors import DataError, SeqrecError


def stamp(format: int) -> dict[str, Any]:
    """What a writer adds to what it writes about its files: ``{"format": 2, "seqrec": "0.1.0"}``."""
    return {"format": format, "seqrec": __version__}


def check(
    about: Any, reads: Sequence[int], path: str | Path, advice: str, error: type[SeqrecError] = DataError
) -> None:
    """Refuses what this version cannot read.

    Args:
        about: what the file says about itself: a dictionary with ``format`` and, of most versions,
            ``seqrec``.
        reads: the formats that this version reads.
        path, advice: for the message: the file, and what to do besides taking another version of seqrec.
        error: the kind of error to raise.
    """
    about = about if isinstance(about, Mapping) else {}
    if about.get("format") not in reads:
        raise error(
            f"{path}: expected format {' or '.join(map(str, reads))}, which this version, seqrec "
            f"{__version__}, reads. Got {about.get('format')!r}, which was written by seqrec "
            f"{about.get('seqrec', 'of an unknown version')}. Use a version of seqrec that reads "
            f"it, or {advice}."
        )
