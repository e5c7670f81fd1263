"""MovieLens 20M, 25M, 32M and latest-small: ``ratings.csv`` (userId, movieId, rating, timestamp) and
``movies.csv`` (titles, genres)."""

from __future__ import annotations

from pathlib import Path

from seqrec import storage
from seqrec.data.interactions import Interactions
from seqrec.sources.fetch import find
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import log_frame, with_tables

URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
MD5 = {
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}
"""latest-small has none: its publisher renews it."""
TERMS = "{name}, GroupLens Research: research use with acknowledgement; no commercial use without permission"
COLUMNS = {"user_id": "userId", "item_id": "movieId"}


def read(path: str | Path) -> Interactions:
    """Reads ``ratings.csv``, or the folder with it, with the ``movies.csv`` beside it.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    ratings = storage.join(path, "ratings.csv") if storage.is_folder(path) else str(path)
    movies = storage.sibling(ratings, "movies.csv")
    options = ReadOptions(format="csv", columns=COLUMNS, items=movies if storage.exists(movies) else None)
    return with_tables(Interactions(log_frame([ratings], options, ratings), source=ratings), options)


def load(name: str, data_dir: str | Path | None = None, cache: str | Path | None = None) -> Interactions:
    """As ``seqrec.sources.load``."""
    found = find(name, ["ratings.csv"], data_dir, cache, url=URL.format(name=name), md5=MD5.get(name))
    return found.attach(read(found.folder), TERMS.format(name=name))
