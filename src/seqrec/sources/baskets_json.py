"""Baskets as one JSON object: ``{"user": [["item", ...], ...], ...}``, a user's baskets in order. No times.

The form of "A Next Basket Recommendation Reality Check" (Li et al., TOIS 2023; its ``mergeddataset``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.data import columns, files
from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, shown


def read(path: str | Path) -> Interactions:
    """Reads such a file. An empty basket is none.

    Raises:
        DataError: something else in it, a user twice, or no event.
    """
    try:
        content = json.loads(files.read_text(path), object_pairs_hook=lambda pairs: pairs)
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, list) or not all(isinstance(one, tuple) for one in content):
        raise DataError(f"{path}: expected one JSON object, a user's baskets under each key.")
    users: list[str] = []
    items: list[Any] = []
    baskets: list[int] = []
    seen: set[str] = set()
    basket = 0
    for user, of_user in content:
        if user in seen:
            raise DataError(f"{path}: expected each user once. Got {shown(user)} twice.")
        seen.add(user)
        if not isinstance(of_user, list) or not all(isinstance(one, list) for one in of_user):
            raise DataError(
                f"{path}: user {shown(user)}: expected a list of baskets, a list of items each. "
                f"Got {shown(of_user)}."
            )
        for one in of_user:
            users += [user] * len(one)
            items += one
            baskets += [basket] * len(one)
            basket += 1
    if not items:
        raise DataError(f"{path}: the file is empty. Expected a log with at least one event.")
    for user, item in zip(users, items):
        if isinstance(item, bool) or not isinstance(item, int | str) or item == "":
            raise DataError(
                f"{path}: user {shown(user)}: expected whole numbers or texts as items. Got {shown(item)}."
            )
    frame = pl.DataFrame({"user_id": users, "item_id": list(map(str, items)), "basket_id": baskets})
    return Interactions(
        frame.with_columns(columns.integers(frame[name]) for name in ("user_id", "item_id")),
        source=str(path),
    )
