"""Moments as people give them, for models that read times: the one that is asked about, and those at which
the items of a history were taken. Written as a log may write them: numbers in any unit since 1970, dates,
text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from seqrec.data import times
from seqrec.data.query import Query
from seqrec.errors import DataError, SettingsError, shown
from seqrec.topk import Known

NOW = "now"
"""Stands for the moment of asking."""
EXPECTED = "a date such as 2024-01-31 18:30 (UTC), or a number, as in the log"


def seconds(values: Sequence[Any], name: str) -> np.ndarray:
    """(n,) seconds since 1970, float64, of (n,) moments: dates, texts, or numbers in one unit.

    Args:
        name: for messages.

    Raises:
        SettingsError: one cannot be read; names it.
    """
    if not len(values):
        return np.empty(0)
    given = [time.time() if isinstance(one, str) and one.strip().lower() == NOW else one for one in values]
    parts = []
    for one in given:
        plain = one.item() if isinstance(one, np.generic) else one
        read = None
        if isinstance(plain, str | int | float | date | datetime) and not isinstance(plain, bool):
            read = times.parsed(pl.Series([plain.strip() if isinstance(plain, str) else plain]))
        if read is None or read.null_count() or (read.dtype.is_float() and not np.isfinite(read[0])):
            raise SettingsError(f"{name}: expected {EXPECTED}. Got {shown(one)}.")
        parts.append(read)
    try:
        together = times.joined(parts, name)
    except DataError as error:
        raise SettingsError(str(error)) from error
    return together.cast(pl.Float64).to_numpy()


def of_items(given: Any, items: int, name: str) -> np.ndarray:
    """(items,) seconds since 1970 at which the items of a history were taken.

    Raises:
        SettingsError: not a moment an item, oldest first.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SettingsError(f"{name}: expected a list of times, one an item. Got {shown(given)}.")
    found = seconds(list(given), name)
    if len(found) != items:
        raise SettingsError(f"{name}: expected a time for each of its {items:,} items. Got {len(found):,}.")
    if (np.diff(found) < 0).any():
        at = int(np.argmax(np.diff(found) < 0)) + 1
        raise SettingsError(
            f"{name}: expected the oldest first. Got {times.utc(found[at - 1])} before "
            f"{times.utc(found[at])}."
        )
    return found


def at_moment(model: Known, query: Query, at: Any) -> Query:
    """The same, asked at a moment, or each at one of its own.

    Args:
        at: the moment, or (n,) of them; None: nothing is said.

    Raises:
        SettingsError: none for a model that reads times, or one for a model that does not; one that cannot be
            read, or before the last event of a history; not one a query; histories without times.
    """
    if not model.reads_times:
        if at is not None:
            raise SettingsError(
                f"at: cannot be given, since {model.name} reads no times: it recommends the same at any "
                f"moment. Got {shown(at)}. Leave it out."
            )
        return query
    if at is None:
        raise SettingsError(
            f"at: expected the moment that is asked about, since {model.name} reads times: {EXPECTED}; or "
            f"{NOW!r}. Got none."
        )
    if query.events.times is None:
        raise SettingsError(
            f"times: expected those of the events of each history, since {model.name} reads them. Got none. "
            "Give sequences=[[...], ...] with times=[[...], ...]; or train the model again, if it was saved "
            "by an earlier version."
        )
    one = isinstance(at, str | date | datetime) or np.isscalar(at)
    asked = seconds([at] if one else list(at), "at")
    if one:
        asked = np.repeat(asked, len(query))
    if len(asked) != len(query):
        raise SettingsError(f"at: expected one moment, or {len(query):,}, one a history. Got {len(asked):,}.")
    some = np.flatnonzero(query.lengths > 0)
    last = query.events.times[query.stops[some] - 1]
    if (late := np.flatnonzero(last > asked[some])).size:
        row = some[late[0]]
        raise SettingsError(
            f"at: expected a moment after the last event of each history. Got {times.utc(asked[row])} for "
            f"history {row}, which goes to {times.utc(last[late[0]])}."
        )
    return replace(query, asked_at=asked)
