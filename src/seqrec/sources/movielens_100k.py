"""MovieLens-100K: 943 users, 1,682 films, 100,000 ratings (1997-1998), each with its second. GroupLens
Research.

Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015. Files: ``u.data`` (user,
item, rating, time, tab-separated), ``u.item`` and ``u.user`` (``|``-separated, Latin-1).

Where only a package index can be reached, RecBole's wheel has a copy (``ml-100k.inter``, ``.item``,
``.user``). Its log has the same rows in the same order as ``u.data``, so events of the same second tie alike
and the splits are the same; its attributes are poorer (no release date) and its titles come without the year,
which is put back.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import polars as pl

from seqrec import storage
from seqrec.data import columns, files
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, DownloadError
from seqrec.sources import recbole_inter
from seqrec.sources.fetch import checksum, find

URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MD5 = "0e33842e24a9c977be4e0107933c0723"
TERMS = (
    "MovieLens 100K, GroupLens Research: research use with acknowledgement; no redistribution, no "
    "commercial use without permission"
)
WHEEL = "recbole==1.2.1"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k/"
WHEEL_MD5 = "a8a8c3f165aedc53f63b5dc0a0463b14"
"""Of ``ml-100k.inter``."""
PIP_SECONDS = 60

GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
        "Film-Noir",
    ),
    *("Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The flags of ``u.item``, in their order."""


def load(
    name: str = "ml-100k", data_dir: str | Path | None = None, cache: str | Path | None = None
) -> Interactions:
    """As ``seqrec.sources.load``; the last resort is RecBole's wheel."""
    found = find(name, ["u.data", "ml-100k.inter"], data_dir, cache, url=URL, md5=MD5, otherwise=from_wheel)
    return found.attach(read(found.folder), TERMS)


def read(path: str | Path) -> Interactions:
    """Reads ``u.data`` (or a file of its form), RecBole's ``ml-100k.inter``, or the folder with either, with
    the attributes beside it.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    if storage.is_folder(path):
        names = storage.names(path)
        path = storage.join(path, "u.data" if "u.data" in names else "ml-100k.inter")
    if str(path).endswith(".inter"):
        return _from_recbole(path)
    names = ["user_id", "item_id", "rating", "timestamp"]
    raw = files.read(path, "tsv", names=names, quote=False)
    frame = columns.validated(
        raw, {name: name for name in (*names[:2], "timestamp", "rating")}, str(path), text=True
    )
    frame = frame.with_columns(columns.integers(frame[name]) for name in names[:2])
    log = Interactions(frame, source=str(path))
    item, user = storage.sibling(path, "u.item"), storage.sibling(path, "u.user")
    return log.with_attributes(
        _items(item) if storage.exists(item) else None, _users(user) if storage.exists(user) else None
    )


def from_wheel(target: Path, python: str = sys.executable, seconds: float = PIP_SECONDS) -> str:
    """Fills a folder with the copy in RecBole's wheel, fetched with the user's own pip and its configuration.

    Args:
        python: whose pip; seconds: how long it may take.
    Raises:
        DownloadError: there is no pip, or pip cannot get the wheel, or the copy in it is another.
    """
    what = f"pip download {WHEEL}"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            python,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--retries=1",
            "--timeout=5",
            "-q",
            "-d",
            folder,
            WHEEL,
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise DownloadError(f"{what} (no end after {seconds} s)") from error
        if "No module named pip" in done.stderr:
            raise DownloadError(f"{what} (this Python has no pip; `python -m ensurepip` adds it)")
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise DownloadError(
                f"{what} ({lines[-1].removeprefix('ERROR: ') if lines else f'exit status {done.returncode}'})"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                for ending in ("inter", "item", "user"):
                    with (
                        wheel.open(f"{WHEEL_FOLDER}ml-100k.{ending}") as content,
                        open(target / f"ml-100k.{ending}", "wb") as file,
                    ):
                        shutil.copyfileobj(content, file)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DownloadError(f"{what} (the wheel has no whole {WHEEL_FOLDER}: {error})") from error
    if (found := checksum(target / "ml-100k.inter")) != WHEEL_MD5:
        raise DownloadError(f"{what} (ml-100k.inter: MD5 {found}, expected {WHEEL_MD5})")
    return f"the copy in RecBole's wheel ({WHEEL}, {WHEEL_FOLDER})"


def _from_recbole(path: str | Path) -> Interactions:
    log = recbole_inter.read(path)
    if log.items is None or "movie_title" not in log.items.columns:
        return log
    year = pl.col("release_year").cast(pl.String)
    unknown = pl.col("movie_title") == "unkonwn"  # as the file spells it
    title = pl.when(unknown).then(pl.lit("unknown")).otherwise(pl.format("{} ({})", "movie_title", year))
    items = log.items.select(
        "item_id", title.alias("title"), pl.col("class").str.replace_all(" ", "|").alias("genres")
    )
    return log.with_attributes(items=items)


def _items(path: str) -> pl.DataFrame:
    """``u.item``: id, title, release date, video date, address, 19 flags of genres."""
    names = ["item_id", "title", "release_date", "video_release_date", "address", *GENRES]
    raw = files.read(path, "csv", delimiter="|", encoding="latin-1", names=names, quote=False)
    genres = pl.concat_str(
        [pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in GENRES], separator="|", ignore_nulls=True
    )
    return raw.select(
        pl.col("item_id").cast(pl.Int64),
        pl.col("title").str.strip_chars(),
        genres.alias("genres"),
        "release_date",
    )


def _users(path: str) -> pl.DataFrame:
    """``u.user``: id, age, gender, occupation, zip code."""
    raw = files.read(
        path,
        "csv",
        delimiter="|",
        encoding="latin-1",
        names=["user_id", "age", "gender", "occupation", "zip_code"],
        quote=False,
    )
    try:
        return raw.with_columns(pl.col("user_id", "age").cast(pl.Int64))
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"{path}: expected user|age|gender|occupation|zip ({error}).") from error
