"""Columns of embeddings: what an encoder of texts, images or sounds made of each row, a list of numbers a
cell.

    id    title_embedding                 vectors
    i0    [3.0, 4.0]                      [ .6   .8 ]
    i1    (none)                ->        [  0    0 ]       nothing is known
    i2    [0.0, 0.5]                      [  0    1 ]

Each is brought to length 1, since encoders differ in lengths and mean directions. So a new item's vector does
not depend on what else is in the table.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from seqrec.data.catalogue import Catalogue
from seqrec.errors import SettingsError, shown

MOST = 16_384
"""Numbers that a cell may have."""


def is_embedding(series: pl.Series) -> bool:
    """Whether a column holds lists of numbers with a decimal point. Lists of whole numbers, and of texts, are
    categories."""
    dtype = series.dtype
    return isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_float()


def vectors_of(series: pl.Series, catalogue: Catalogue, where: str) -> np.ndarray:
    """(rows, numbers) float32 vectors of length 1, zeros where a cell is missing or has zeros alone.

    Args:
        series: a column of embeddings, a cell a row of the catalogue.
        where: for messages: what names the column.

    Raises:
        SettingsError: cells of several lengths, a number that is missing or not finite, or nothing but empty
            cells; names the column and the id.
    """
    known = series.is_not_null().to_numpy()
    lists = series.cast(pl.List(pl.Float64)).filter(pl.Series(known))
    ids = catalogue.ids.filter(pl.Series(known))
    lengths = lists.list.len().to_numpy()
    name = f"{where}: column {series.name!r}"
    numbers = int(np.bincount(lengths).argmax()) if len(lengths) else 0
    if not numbers:
        raise SettingsError(f"{name}: expected lists of numbers. Got nothing but empty cells. Leave it out.")
    if (odd := np.flatnonzero(lengths != numbers)).size:
        raise SettingsError(
            f"{name}: expected lists of one length; most have {numbers:,} numbers. Got {lengths[odd[0]]:,} "
            f"for {shown(ids[int(odd[0])])}{_others(odd)}. Embed all texts with the same encoder, or leave "
            "the cell empty (null). Lists of categories are lists of texts."
        )
    if numbers > MOST:
        raise SettingsError(f"{name}: expected lists of at most {MOST:,} numbers. Got {numbers:,}.")
    rows = lists.explode().fill_null(float("nan")).to_numpy().reshape(-1, numbers)
    if (odd := np.flatnonzero(~np.isfinite(rows).all(1))).size:
        row = rows[odd[0]]
        raise SettingsError(
            f"{name}: expected finite numbers. Got {row[~np.isfinite(row)][0]} for "
            f"{shown(ids[int(odd[0])])}{_others(odd)}. Leave the whole cell empty (null) where nothing is "
            "known."
        )
    largest = np.abs(rows).max(1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)  # so that no square is too large or too small
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not length.any():
        raise SettingsError(f"{name}: expected numbers other than 0. Got none. Leave it out.")
    vectors = np.zeros((len(series), numbers), dtype=np.float32)
    vectors[known] = rows / np.where(length > 0, length, 1)
    return vectors


def _others(odd: np.ndarray) -> str:
    return f" (and {len(odd) - 1:,} more)" if len(odd) > 1 else ""
