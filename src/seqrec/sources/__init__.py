"""Data sets and file formats by name.

One file a source: where it comes from, under which terms, its checksum and its reader.

    sources.load("ml-100k")                 finds or fetches a data set
    seqrec.read_log("events.csv")           reads files (``seqrec.sources.reading``)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec.errors import DataError, did_you_mean
from seqrec.sources.detect import detect

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions

MOVIELENS = {
    "ml-100k": "movielens_100k",
    "ml-1m": "movielens_1m",
    "ml-10m": "movielens_10m",
    "ml-20m": "movielens_csv",
    "ml-25m": "movielens_csv",
    "ml-32m": "movielens_csv",
    "ml-latest-small": "movielens_csv",
}
DATASETS = MOVIELENS | {"beauty": "beauty", "ta-feng": "ta_feng", "complete-journey": "complete_journey"}
"""Name -> module of this package, whose ``load(name, data_dir, cache)`` gives the log."""

FORMATS = MOVIELENS | {
    "sasrec": "sasrec_text",
    "s3rec": "s3rec_text",
    "recbole": "recbole_inter",
    "gru4rec": "gru4rec_sessions",
    "baskets": "baskets_json",
    "ta-feng": "ta_feng",
    "samples": "samples",
}
"""Format -> module of this package, whose ``read(path)`` reads it; ``read(path, options)`` of those
``WITH_HEADER``, and ``read(paths, options)`` of samples."""

WITH_HEADER = ("recbole", "gru4rec")

__all__ = ["DATASETS", "FORMATS", "detect", "load"]


def load(name: str, data_dir: str | Path | None = None, cache: str | Path | None = None) -> Interactions:
    """A data set by name, with the attributes of its items and users; ``source`` and ``terms`` say where it
    came from and what is allowed.

    Looked for in this order: ``data_dir`` (or ``SEQREC_DATA``), the cache (``cache``, ``SEQREC_CACHE`` or
    ``~/.cache/seqrec``), the publisher's archive (checked against its checksum, then cached) and what else
    the data set's own file names.

    Args:
        name: one of ``DATASETS``.
        data_dir: a folder with the data set's files or its zip, or a folder with such a folder in it.
    Raises:
        DataError: no such data set, or no such folder.
        DownloadError: it could not be had from any source; says what was tried and what to do.
    """
    if name not in DATASETS:
        raise DataError(f"data set: {name!r} is not known.{did_you_mean(name, DATASETS)}")
    log: Interactions = module(DATASETS[name]).load(name, data_dir, cache)
    return log


def module(name: str) -> Any:
    """A data set's or a format's own file, imported when it is first used."""
    return importlib.import_module(f"seqrec.sources.{name}")
