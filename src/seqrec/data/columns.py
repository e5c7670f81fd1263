"""The columns of a log: their names, aliases and types. What does not fit is refused here, once, naming file,
row and column."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

import polars as pl

from seqrec.errors import DataError, did_you_mean

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("userid", "user", "uid", "customerid", "customer", "visitorid", "reviewerid"),
    "item_id": (
        "itemid",
        "item",
        "iid",
        "movieid",
        "movie",
        "productid",
        "product",
        "asin",
        "articleid",
        "trackid",
        "bookid",
    ),
    "timestamp": ("timestamp", "time", "datetime", "ts", "unixtime", "unixreviewtime", "eventtime", "date"),
    "position": ("position",),
    "rating": ("rating", "overall", "stars"),
    "basket_id": ("basketid", "basket", "orderid", "transactionid", "invoiceid"),
    "session_id": ("sessionid", "session"),
}
"""Canonical column -> names by which it also goes, without case, spaces and punctuation, the likeliest
first."""

IDS = ("user_id", "item_id", "basket_id", "session_id")
YEAR_10000 = 253_402_300_800
"""In seconds; so many milliseconds are in 1978. A time this late is in milliseconds, one a thousand times as
late in microseconds, and so on."""
YEAR_1, YEAR_1990 = -62_135_596_800, 631_152_000
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
COMPACT_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Dates written as integers, by their digits."""
CANONICAL_INTEGER = r"^(0|-?[1-9]\d{0,17})$"

logger = logging.getLogger(__name__)


def resolve(
    found: Sequence[str],
    columns: Mapping[str, str | int | None] | None,
    name: str,
    required: Sequence[str] = ("user_id", "item_id"),
) -> dict[str, str]:
    """Which column of the file is which of the log.

    Args:
        found: the columns of the file.
        columns: what the caller says, ``{"item_id": "sku"}``; ``None`` as a column means "leave this one
            out"; an integer is a column's number in a file without a header. What is not said is found by
            alias. A log without users but with sessions is a log whose users are its sessions.
        name: the file, for messages.
    Returns:
        canonical name -> name in the file.
    Raises:
        DataError: a column that is named is not there, or a required one is not found; with what was meant,
            probably.
    """
    chosen: dict[str, str] = {}
    said = dict(columns or {})
    for canonical, source in said.items():
        if canonical not in ALIASES:
            raise DataError(
                f"columns: {canonical!r} is not a column of a log.{did_you_mean(canonical, ALIASES)}"
            )
        if source is None:
            continue
        if str(source) not in found:
            near = did_you_mean(str(source), found)
            raise DataError(
                f"{name}: no column {source!r} for {canonical}. The file has: "
                f"{', '.join(found)}.{near if 'Did' in near else ''}"
            )
        chosen[canonical] = str(source)
    taken = set(chosen.values())
    plain = {column: re.sub(r"[^a-z0-9]", "", column.lower()) for column in found}
    for canonical, aliases in ALIASES.items():
        if canonical in said:
            continue
        matches = (
            [canonical]
            if canonical in found
            else [c for alias in aliases for c in found if plain[c] == alias]
        )
        free = [column for column in matches if column not in taken]
        if free:
            chosen[canonical] = free[0]
            taken.add(free[0])
    if "user_id" in required and "user_id" not in chosen and "user_id" not in said and "session_id" in chosen:
        chosen["user_id"] = chosen.pop("session_id")
    for canonical in required:
        if canonical not in chosen:
            free = [c for c in found if c not in taken] or list(found)
            near = did_you_mean(canonical, free)
            raise DataError(
                f"{name}: no column for {canonical}. The file has: "
                f"{', '.join(found)}.{near if 'Did' in near else ''} Map one, for example "
                f"columns={{{canonical!r}: {free[0]!r}}} (--column {canonical}={free[0]}); "
                f"in a file without a header by number (--column {canonical}=0)."
            )
    return {canonical: chosen[canonical] for canonical in ALIASES if canonical in chosen}


def key_of(found: Sequence[str], key: str, name: str, usual: str | int | None = None) -> str:
    """The column with the ids in a table of attributes, whose columns no setting names.

    Args:
        usual: what the log calls it.
    Raises:
        DataError: there is none.
    """
    if isinstance(usual, str) and usual in found:
        return usual
    try:
        return resolve(found, None, name, required=[key])[key]
    except DataError as error:
        raise DataError(
            f"{name}: no column for {key}. The file has: {', '.join(found)}. Rename its column of ids to "
            f"{key}."
        ) from error


def validated(
    frame: pl.DataFrame,
    mapping: Mapping[str, str],
    name: str,
    text: bool,
    first_row: int = 0,
    features: bool = True,
) -> pl.DataFrame:
    """The frame with canonical columns of canonical types.

    Args:
        mapping: canonical name -> column of the frame, as ``resolve`` gives it.
        text: the values come from a text file: strings that may be numbers or times. Ids and features stay
            strings, since only the whole column tells what they are; see ``integers`` and ``typed``.
        first_row: rows before this frame in the same file, so that messages name the file's rows.
        features: keep the other columns too.
    Raises:
        DataError: an id is missing or of no usable type; a time or position that cannot be read, is negative,
            or is missing where nothing else orders the events; names the row.
    """
    columns = {}
    for canonical, source in mapping.items():
        series = frame[source].alias(canonical)
        where = (name, source, first_row)
        if canonical in IDS:
            columns[canonical] = _ids(series, *where)
        elif canonical == "timestamp":
            columns[canonical] = _times(series, *where, may_be_missing="position" in mapping)
        elif canonical == "position":
            columns[canonical] = _positions(series, *where)
        else:
            columns[canonical] = _numbers(series, *where)
    if features:
        for column in frame.columns:
            if column not in mapping.values() and column not in columns:
                columns[column] = frame[column]
    return pl.DataFrame(list(columns.values()))


def integers(ids: pl.Series) -> pl.Series:
    """Ids read from text, as integers if every one of them is written as an integer is (``7``, not ``07`` or
    ``7.0``)."""
    if (
        ids.dtype == pl.String
        and ids.head(100).str.contains(CANONICAL_INTEGER).all()
        and ids.str.contains(CANONICAL_INTEGER).all()
    ):
        return ids.cast(pl.Int64)
    return ids


def typed(series: pl.Series) -> pl.Series:
    """A feature read from text: Int64 or Float64 if all its values are such, else as it is. Codes (``02215``)
    stay text."""
    if (
        series.dtype != pl.String
        or series.null_count() == len(series)
        or series.str.contains(r"^-?0\d").any()
    ):
        return series
    for dtype in (pl.Int64, pl.Float64):
        cast = series.cast(dtype, strict=False)
        if cast.null_count() == series.null_count():
            return cast
    return series


def _refuse(name: str, column: str, row: int, message: str) -> DataError:
    return DataError(f"{name}, row {row}, column {column!r}: {message}")


def _first(mask: pl.Series) -> int | None:
    """Index of the first True, None if there is none."""
    return mask.arg_max() if mask.any() else None


def _ids(series: pl.Series, name: str, column: str, first_row: int) -> pl.Series:
    missing = series.is_null()
    if series.dtype.is_float():
        missing = missing | series.is_nan().fill_null(True)
    elif series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        missing = missing | (series.str.strip_chars() == "").fill_null(True)
    if (at := _first(missing)) is not None:
        raise _refuse(
            name, column, first_row + at + 1, "missing id. Every event needs one; drop the row or fill it in."
        )
    if series.dtype.is_integer():
        numbers = series.cast(pl.Int64, strict=False)
        if (at := _first(numbers.is_null())) is not None:
            raise _refuse(
                name,
                column,
                first_row + at + 1,
                f"an id exceeds 2^63. Got {series[at]!r}. Read the column as strings.",
            )
        return numbers
    if series.dtype.is_float():
        whole = (series == series.round()) & (series.abs() < 2.0**53)
        if (at := _first(~whole)) is not None:
            raise _refuse(
                name,
                column,
                first_row + at + 1,
                f"expected an integer or a string as id. Got {series[at]!r}.",
            )
        return series.cast(pl.Int64)
    if series.dtype != pl.String:
        raise DataError(
            f"{name}, column {column!r}: expected integers or strings as ids. Got {series.dtype}. Convert "
            "the column first."
        )
    return series


def _stripped(text: pl.Series) -> pl.Series:
    """Numbers or times as text without blanks, null where nothing is left: a file that quotes everything
    writes a missing number as ``""``."""
    text = text.str.strip_chars()
    if not (text == "").any():
        return text
    return pl.select(pl.when(text != "").then(text)).to_series().alias(text.name)


def _numbers(series: pl.Series, name: str, column: str, first_row: int) -> pl.Series:
    """Float64 (or Float32 as it was), null where missing."""
    if series.dtype == pl.Float32:
        return series.fill_nan(None)
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        series = _stripped(series)
    elif not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"{name}, column {column!r}: expected numbers. Got {series.dtype}.")
    numbers = series.cast(pl.Float64, strict=False)
    if (at := _first(numbers.is_null() & series.is_not_null())) is not None:
        raise _refuse(name, column, first_row + at + 1, f"expected a number. Got {series[at]!r}.")
    return numbers.fill_nan(None)


def _positions(series: pl.Series, name: str, column: str, first_row: int) -> pl.Series:
    numbers = series if series.dtype.is_integer() else _numbers(series, name, column, first_row)
    places = numbers.cast(pl.Int64, strict=False)  # null where infinite or beyond 2^63
    if (at := _first(places.is_null() | (numbers != numbers.round()).fill_null(False))) is not None:
        raise _refuse(
            name,
            column,
            first_row + at + 1,
            f"expected a whole number, the event's place in its user's sequence. Got {series[at]!r}.",
        )
    return places


def _times(series: pl.Series, name: str, column: str, first_row: int, may_be_missing: bool) -> pl.Series:
    """Numbers as they are, see ``in_seconds``; dates as seconds since 1970, UTC where they do not say: Int64,
    or Float64 where one has a fraction."""
    seconds = _seconds(series, name, column, first_row)
    if not may_be_missing and (at := _first(seconds.is_null())) is not None:
        what = (
            "missing time. A partly empty time column needs a position column to order the events; or "
            "leave time out: columns={'timestamp': None} "
            "(--column timestamp=)."
        )
        raise _refuse(name, column, first_row + at + 1, what)
    if (at := _first((seconds < 0).fill_null(False))) is not None:
        # no calendar of Python has dates before the year 1
        came = series[at] if series.dtype == pl.String or seconds[at] > YEAR_1 else seconds[at]
        raise _refuse(name, column, first_row + at + 1, f"expected a time since 1970. Got {came!r}.")
    return seconds


def _seconds(series: pl.Series, name: str, column: str, first_row: int) -> pl.Series:
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        series = _stripped(series)
        parsed = _parsed(series)
    elif series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        parsed = _from_datetime(series)
        parsed = pl.select(pl.when(parsed.is_between(-YEAR_10000, YEAR_10000)).then(parsed)).to_series()
        # a date that no calendar has is shown as the number that it is
        series = series.to_physical() if parsed.null_count() > series.null_count() else series
    elif series.dtype.is_integer() or series.dtype == pl.Null:
        parsed = series.cast(pl.Int64, strict=False)
    elif series.dtype.is_float() or series.dtype.is_decimal():
        parsed = series.cast(pl.Float64).fill_nan(None)
        series = parsed  # NaN is a missing time, not one that cannot be read
    else:
        raise DataError(
            f"{name}, column {column!r}: expected seconds since 1970 or dates. Got {series.dtype}. "
            "Convert the column first."
        )
    unreadable = (parsed.is_null() | (parsed.abs() >= 2**62).fill_null(False)) & series.is_not_null()
    if (at := _first(unreadable)) is not None:
        raise _refuse(
            name,
            column,
            first_row + at + 1,
            f"expected seconds since 1970 or an ISO date such as 2020-01-31T10:00:00Z. Got {series[at]!r}.",
        )
    return whole(parsed)


class Notation:
    """How the times of a log are written, numbers or dates, which must be the same in all of its files: the
    numbers may be dates too (20200131), or in milliseconds, and only all of them together tell."""

    def __init__(self) -> None:
        self._first: tuple[str, str, int] | None = None

    def check(self, times: pl.Series, name: str, first_row: int) -> None:
        """Looks at the first time of some rows.

        Raises:
            DataError: it is written in another way than those before.
        """
        at = _first(times.is_not_null())
        if at is None:
            return
        if times.dtype in (pl.Categorical, pl.Enum):
            times = times.cast(pl.String)
        value = times.to_physical()[at]  # a date that no calendar has cannot be shown
        kind = "dates"
        if times.dtype.is_numeric() or (
            times.dtype == pl.String
            and pl.Series([value.strip()]).cast(pl.Float64, strict=False).null_count() == 0
        ):
            kind = "numbers"
        row = first_row + at + 1
        if self._first is None:
            self._first = (kind, name, row)
        elif self._first[0] != kind:
            before, where, first = self._first
            raise _refuse(
                name,
                times.name,
                row,
                f"expected times written as in {where}, row {first}, which are {before}. Got {value!r}. "
                "Write all of them alike.",
            )


def in_seconds(times: pl.Series, name: str) -> pl.Series:
    """The times of a whole log as seconds since 1970, where they may be in a finer unit, or dates written as
    integers (20200131).

    Smaller numbers stay as they are: they may be no more than an order.

    Raises:
        DataError: some times are in another unit than others.
    """
    times = whole(times)
    if times.null_count() == len(times):
        return times
    first, last = float(cast(float, times.min())), float(cast(float, times.max()))
    if _are_mixed(times, first, last):
        raise DataError(
            f"{name}: some times are dates such as 20200131, others are seconds since 1970. Got {first:.0f} "
            f"and {last:.0f}. Write all of them alike."
        )
    if (dates := _compact_dates(times, first, last)) is not None:
        seconds, what = dates, "dates such as 20200131"
    else:
        unit, unit_of_last = (
            next(i for i in range(len(UNITS)) if time < YEAR_10000 * 1000**i) for time in (first, last)
        )
        if unit != unit_of_last:
            raise DataError(
                f"{name}: expected all times in one unit since 1970. Got times from {times.min()!r} "
                f"({UNITS[unit]}) to {times.max()!r} "
                f"({UNITS[unit_of_last]}). Correct them, or leave time out: columns={{'timestamp': None}} "
                "(--column timestamp=)."
            )
        if not unit:
            return times
        seconds, what = whole(_divided(times, 1000**unit)), f"{UNITS[unit]} since 1970"
    begin, end = utc(cast(float, seconds.min())), utc(cast(float, seconds.max()))
    logger.warning("%s: times are read as %s: they go from %s to %s.", name, what, begin, end)
    return seconds


def _are_mixed(times: pl.Series, first: float, last: float) -> bool:
    """Whether some are dates written as integers, which as seconds would be in 1970, and all others are
    seconds from 1990 on: two files of which one would be in 1970."""
    if not 19_700_101 <= first <= 20_991_231 < YEAR_1990 <= last < YEAR_10000:
        return False
    early = times.filter(times < YEAR_1990)
    days = early.cast(pl.Int64, strict=False).cast(pl.String).str.to_datetime("%Y%m%d", strict=False)
    return len(early) > 0 and days.null_count() == 0


def _compact_dates(times: pl.Series, first: float, last: float) -> pl.Series | None:
    """Seconds since 1970 of integers each of which is a date from 1970 to 2099, all written alike; else
    None."""
    digits = len(f"{first:.0f}")
    if (
        digits not in COMPACT_DATES
        or not times.dtype.is_integer()
        or not 1970 <= first // 10 ** (digits - 4) <= last // 10 ** (digits - 4) < 2100
    ):
        return None
    dates = times.cast(pl.String).str.to_datetime(COMPACT_DATES[digits], time_unit="us", strict=False)
    return _from_datetime(dates) if dates.null_count() == times.null_count() else None


def utc(seconds: float) -> str:
    """A time as text: a date, or the number where the calendar has none for it."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def whole(seconds: pl.Series) -> pl.Series:
    """Float64 seconds as Int64, where none has a fraction."""
    if seconds.dtype == pl.Float64 and bool((seconds == seconds.round()).fill_null(True).all()):
        return seconds.cast(pl.Int64)
    return seconds


def _parsed(text: pl.Series) -> pl.Series:
    """Times in the notation that reads most of them: an integer, a number, an ISO date."""
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == text.null_count():
        return integers
    numbers = text.cast(pl.Float64, strict=False)
    dates = _from_datetime(_datetimes(text))
    return min((numbers, dates), key=pl.Series.null_count)


def _from_datetime(times: pl.Series) -> pl.Series:
    micros = _in_micros(times)
    return (
        micros // 1_000_000
        if bool((micros % 1_000_000 == 0).fill_null(True).all())
        else _divided(micros, 1_000_000)
    )


def _in_micros(times: pl.Series) -> pl.Series:
    """Microseconds since 1970 of dates or times, null where they exceed 64 bits. Polars' own casts panic
    there."""
    numbers = times.to_physical().cast(pl.Int64)
    unit = "day" if times.dtype == pl.Date else times.dtype.time_unit  # type: ignore[attr-defined]
    if unit == "ns":
        return numbers // 1000
    factor = {"day": 86_400_000_000, "ms": 1000, "us": 1}[unit]
    most = (2**63 - 1) // factor
    return pl.select(pl.when(numbers.is_between(-most, most)).then(numbers * factor)).to_series()


def _divided(numbers: pl.Series, by: int) -> pl.Series:
    """Float64 quotients. Polars would multiply by ``1 / by``, which makes 1433221332.1169999 of
    1433221332117000 / 1_000_000."""
    return numbers / pl.repeat(by, len(numbers), dtype=pl.Float64, eager=True)


def _datetimes(text: pl.Series) -> pl.Series:
    """ISO dates and times as UTC, null where the text is none. Other notations are ambiguous (01/02/2020) and
    not guessed."""
    iso = pl.select(pl.when(text.str.contains(r"^\d{4}[-/]\d{2}[-/]\d{2}")).then(text)).to_series()
    try:
        times = iso.str.to_datetime(time_unit="us", strict=False)
    except pl.exceptions.ComputeError:
        return pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))
    zoned = isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone
    return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else times
