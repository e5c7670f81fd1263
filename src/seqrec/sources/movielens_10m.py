"""MovieLens-10M: ``ratings.dat`` and ``movies.dat`` as in MovieLens-1M, half stars among the ratings, no
attributes of users."""

from __future__ import annotations

from pathlib import Path

from seqrec.data.interactions import Interactions
from seqrec.sources import movielens_1m
from seqrec.sources.fetch import find

URL = "https://files.grouplens.org/datasets/movielens/ml-10m.zip"
MD5 = "ce571fd55effeba0271552578f2648bd"
TERMS = (
    "MovieLens 10M, GroupLens Research: research use with acknowledgement; no redistribution, no "
    "commercial use without permission"
)

read = movielens_1m.read


def load(
    name: str = "ml-10m", data_dir: str | Path | None = None, cache: str | Path | None = None
) -> Interactions:
    """As ``seqrec.sources.load``."""
    found = find(name, ["ratings.dat"], data_dir, cache, url=URL, md5=MD5, also=["ml-10M100K"])
    return found.attach(read(found.folder), TERMS)
