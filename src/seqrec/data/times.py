"""Times of a log, whatever their notation: numbers in some unit since 1970, compact dates (20200131), ISO
dates with or without a zone, dates with the month's name, days and months in either order.

What a column means is decided over the whole of it, or asked; nothing ambiguous is guessed in silence.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import cast

import polars as pl

from seqrec.errors import DataError

YEAR_10000 = 253_402_300_800
"""In seconds; so many milliseconds are in 1978. A time this late is in milliseconds, one a thousand times as
late in microseconds, and so on."""
YEAR_1, YEAR_1990 = -62_135_596_800, 631_152_000
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
COMPACT_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Dates written as integers, by their digits."""
ISO = r"^\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[ T]|$)"
CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?"
DAY_AND_MONTH = rf"^(\d{{1,2}})[/.-](\d{{1,2}})[/.-](\d{{4}})(?:,?[ T]+({CLOCK}))?$"
"""Dates whose day and month may stand in either order: 12/1/2010 8:26, 27-04-2015."""
ORDERS = ("day_first", "month_first")
NAMED_MONTHS = (
    "%a %b %d %H:%M:%S %z %Y",
    "%d %b %Y %H:%M:%S",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y %H:%M:%S",
    "%d-%b-%Y",
    "%b %d, %Y %H:%M:%S",
    "%b %d, %Y",
    "%B %d, %Y",
)
"""Dates with the month's name, which leave nothing to ask."""
FLOAT32_WHOLE = 2**24
"""Up to here Float32 holds every whole number."""
EARLIEST_BESIDE_DATES = 100_000_000
"""Seconds: numbers among dates are times too, and not an order, only from 1973 on."""

logger = logging.getLogger(__name__)


def check_format(format: str) -> None:
    """Refuses what is no way to write a time.

    Raises:
        ValueError: says what was expected.
    """
    if format in ORDERS:
        return
    if "%" not in format:
        near = difflib.get_close_matches(format, ORDERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"day_first, month_first, or a format such as '%d/%m/%Y %H:%M'{hint}")
    moment = datetime(2021, 12, 31, 10, 20, 30, tzinfo=UTC)
    try:
        read = _in_format(pl.Series([moment.strftime(format)]), format)[0]
        readable = read is not None and read.date() == moment.date()
    except (ValueError, pl.exceptions.PolarsError):
        readable = False
    if not readable:
        raise ValueError("a format with at least day, month and year, such as '%d/%m/%Y %H:%M'")


def parsed(series: pl.Series, format: str | None = None) -> pl.Series | None:
    """Times as they are written: numbers (Int64, Float64), or dates (Datetime in microseconds, UTC).

    Args:
        series: text without blanks around it, dates or numbers.
        format: of text: a format such as ``%d/%m/%Y %H:%M``, ``day_first`` or ``month_first``. By default the
            notation that reads most: an integer, a number, an ISO date, a date with the month's name.
    Returns:
        null where a value is missing, cannot be read or is in no calendar; None for a column that holds no
        times at all.
    """
    if series.dtype == pl.String:
        return _of_text(series, format)
    if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        micros, end = _in_micros(series), YEAR_10000 * 1_000_000
        micros = pl.select(pl.when(micros.is_between(-end, end)).then(micros)).to_series()
        return micros.cast(pl.Datetime("us")).alias(series.name)
    if series.dtype.is_integer() or series.dtype == pl.Null:
        return series.cast(pl.Int64, strict=False)
    if series.dtype.is_float() or series.dtype.is_decimal():
        return series.cast(pl.Float64).fill_nan(None)
    return None


def are_dates(times: pl.Series) -> bool:
    """Whether ``parsed`` found dates, and not numbers."""
    return isinstance(times.dtype, pl.Datetime)


def together(series: Sequence[pl.Series]) -> pl.Series:
    """A date and a time of day from two columns (or more) as one text."""
    if len(series) == 1:
        return _plain(series[0])
    texts = [s.cast(pl.String).str.strip_chars().alias(str(i)) for i, s in enumerate(series)]
    return pl.DataFrame(texts).select(pl.concat_str(pl.all(), separator=" ")).to_series()


def needs_order(series: pl.Series) -> bool:
    """Whether most of a column's first values are dates whose day and month may stand in either order."""
    if series.dtype != pl.String:
        return False
    start = series.head(1000).str.strip_chars().drop_nulls()
    start = start.filter(start != "")
    return len(start) > 0 and int(start.str.contains(DAY_AND_MONTH).sum()) * 2 > len(start)


def order_of_dates(parts: Iterable[pl.Series], name: str, column: str) -> str:
    """Whether days or months come first, ``day_first`` or ``month_first``, in all of a column, some of it at
    a time.

    A number above 12 decides. Where there is none, but all dates are one date, the order of the events is
    the same either way: months are taken to come first, and that is said.

    Raises:
        DataError: both orders are possible, or neither.
    """
    largest = [0, 0]
    examples: list[str] = []
    for part in parts:
        text = part.str.strip_chars()
        dates = text.str.extract_groups(DAY_AND_MONTH).struct.unnest()
        numbers = [dates[i].cast(pl.Int64) for i in ("1", "2")]
        largest = [max(most, cast(int, n.max() or 0)) for most, n in zip(largest, numbers)]
        if len(examples) < 2:
            days = (
                text.filter(dates["1"].is_not_null())
                .str.extract(r"^([^, T]+)")
                .drop_nulls()
                .unique(maintain_order=True)
                .head(2)
            )
            examples += [day for day in days.to_list() if day not in examples]
    if largest[0] > 12 and largest[1] > 12:
        raise DataError(
            f"{name}, column {column!r}: in some dates the day comes first, in others the month. Write all "
            "in one way."
        )
    if largest[0] > 12:
        return "day_first"
    if largest[1] > 12:
        return "month_first"
    if len(examples) == 1:
        logger.warning(
            "%s, column %r: all times are of one date, %s. It is read with the month first; the order of the "
            "events is the same either way. To read it otherwise: time_format=day_first (--time-format "
            "day_first).",
            name,
            column,
            examples[0],
        )
        return "month_first"
    raise DataError(
        f"{name}, column {column!r}: dates such as {examples[0]} and {examples[1]} may have the day or the "
        "month first. Say which: time_format=day_first or time_format=month_first (--time-format day_first)."
    )


def looks_like(series: pl.Series) -> bool:
    """Whether the values of a column are dates beyond doubt: of such a type, or text that reads as such."""
    series = _plain(series)
    if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        return True
    if series.dtype != pl.String:
        return False
    text = series.str.strip_chars().drop_nulls()
    if not len(text):
        return False
    if bool(text.str.contains(DAY_AND_MONTH).all()):
        return True
    dates = _dates(text)
    return dates is not None and dates.null_count() == 0


def may_be_seconds(series: pl.Series) -> bool:
    """Whether all of a column's values are numbers that would be times from 1990 to 2096, in seconds or
    milliseconds; ids and prices may be so too."""
    numbers = series.cast(pl.Float64, strict=False) if series.dtype == pl.String else series
    if not numbers.dtype.is_numeric() or numbers.null_count() > series.null_count():
        return False
    if numbers.null_count() == len(numbers):
        return False
    first, last = float(cast(float, numbers.min())), float(cast(float, numbers.max()))
    return any(631_152_000 * unit <= first <= last <= 4_000_000_000 * unit for unit in (1, 1000))


def is_readable(series: pl.Series) -> bool:
    """Whether all of a column's values are times, numbers too."""
    series = _plain(series).drop_nulls()
    if needs_order(series):
        return True
    times = parsed(series.str.strip_chars() if series.dtype == pl.String else series)
    return times is not None and len(times) > 0 and times.null_count() == 0


def is_clock(series: pl.Series) -> bool:
    """Whether a column holds times of day and no dates."""
    if series.dtype == pl.Time:
        return True
    series = _plain(series)
    text = series.drop_nulls()
    return (
        series.dtype == pl.String
        and len(text) > 0
        and bool(text.str.strip_chars().str.contains(f"^{CLOCK}$").all())
    )


def _plain(series: pl.Series) -> pl.Series:
    """Text that is kept as categories, as text."""
    return series.cast(pl.String) if series.dtype in (pl.Categorical, pl.Enum) else series


def _in_micros(dates: pl.Series) -> pl.Series:
    """Microseconds since 1970 of dates or times, null where they exceed 64 bits. Polars' own casts panic
    there."""
    numbers = dates.to_physical().cast(pl.Int64)
    unit = dates.dtype.time_unit if isinstance(dates.dtype, pl.Datetime) else "day"
    if unit == "ns":
        return numbers // 1000
    factor = {"day": 86_400_000_000, "ms": 1000, "us": 1}[unit]
    most = (2**63 - 1) // factor
    return pl.select(pl.when(numbers.is_between(-most, most)).then(numbers * factor)).to_series()


def seconds_of(dates: pl.Series) -> pl.Series:
    """Datetimes as seconds since 1970: Int64, or Float64 where one has a fraction."""
    micros = dates.cast(pl.Datetime("us")).dt.epoch("us")
    return (
        micros // 1_000_000
        if bool((micros % 1_000_000 == 0).fill_null(True).all())
        else divided(micros, 1_000_000)
    )


def joined(parts: Sequence[pl.Series], name: str) -> pl.Series:
    """The times of a whole log as seconds since 1970, from its parts as ``parsed`` gives them: dates beside
    numbers too, as long as each of them can only be a time.

    Raises:
        DataError: numbers in several units, or numbers beside dates that may be no more than an order.
    """
    are = [are_dates(part) for part in parts]
    dates = [seconds_of(part) for part, is_date in zip(parts, are) if is_date]
    numbers = [part for part, is_date in zip(parts, are) if not is_date]
    if not dates:
        return in_seconds(_concat(numbers), name)
    if not numbers:
        return whole(_concat(dates))
    read = _beside_dates(_concat(numbers), name)
    at, in_order = 0, []
    for part, is_date in zip(parts, are):
        if is_date:
            in_order.append(dates.pop(0))
        else:
            in_order.append(read.slice(at, len(part)))
            at += len(part)
    return whole(_concat(in_order))


def _beside_dates(numbers: pl.Series, name: str) -> pl.Series:
    """Numbers as seconds since 1970 that stand in one log with dates.

    Raises:
        DataError: they may be no times, but an order.
    """
    read = in_seconds(numbers, name)
    if read.null_count() < len(read) and float(cast(float, read.min())) < EARLIEST_BESIDE_DATES:
        raise DataError(
            f"{name}: some times are dates, others numbers such as {numbers.min()!r}. Write all in one way, "
            "or leave time out: columns={'timestamp': None} (--column timestamp=)."
        )
    return read


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
        unit = _unit(times, first, last, name)
        if not unit:
            return times
        seconds, what = whole(divided(times, 1000**unit)), f"{UNITS[unit]} since 1970"
    begin, end = utc(cast(float, seconds.min())), utc(cast(float, seconds.max()))
    logger.warning("%s: times are read as %s: they go from %s to %s.", name, what, begin, end)
    return seconds


def _unit(times: pl.Series, first: float, last: float, name: str) -> int:
    """Which of ``UNITS`` they are in."""
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
    return unit


def unit_of(ends: pl.Series, name: str) -> int | None:
    """In which of ``UNITS`` all times of a log are as ``in_seconds`` reads them, of which (2,) whole numbers
    are the first and the last; None where they may be dates such as 20200131, which only all of them tell.

    Raises:
        DataError: they are in several units.
    """
    first, last = float(ends[0]), float(ends[1])
    if _are_mixed(ends, first, last) or _compact_dates(ends, first, last) is not None:
        return None
    return _unit(ends, first, last, name)


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
    return seconds_of(dates) if dates.null_count() == times.null_count() else None


def _of_text(text: pl.Series, format: str | None) -> pl.Series:
    """Times in the notation that reads most of them."""
    if format in ORDERS:
        return _in_order(text, day_first=format == "day_first")
    if format is not None:
        return _in_format(text, format)
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == text.null_count():
        return integers
    numbers = text.cast(pl.Float64, strict=False)
    found = (numbers, _dates(text))
    return min((one for one in found if one is not None), key=pl.Series.null_count)


def _dates(text: pl.Series) -> pl.Series | None:
    """ISO dates, or dates with the month's name; null where the text is none."""
    iso = _iso(text)
    if iso.null_count() == text.null_count() or not text.head(100).str.contains("[A-Za-z]{3}").any():
        return iso
    return min([iso, *(_in_format(text, format) for format in NAMED_MONTHS)], key=pl.Series.null_count)


def _iso(text: pl.Series) -> pl.Series:
    """ISO dates and times as UTC, null where the text is none."""
    iso = pl.select(
        pl.when(text.str.contains(ISO)).then(
            text.str.replace(r"\s*(?:UTC|GMT|utc|Z)$", "Z").str.replace(r"\s*([+-]\d{2}):?(\d{2})$", "$1:$2")
            if bool(text.str.contains(r"(?::\d{2}(?:\.\d+)?\s+\S+|UTC|GMT|utc|[+-]\d{4})$").any())
            else text
        )
    ).to_series()
    try:
        times = iso.str.to_datetime(time_unit="us", strict=False)
    except pl.exceptions.ComputeError:
        return pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))
    return _without_zone(times)


def _in_format(text: pl.Series, format: str) -> pl.Series:
    # no "exact" column of dates alone: polars reads a format without a time of day as midnight
    return _without_zone(text.str.to_datetime(format, time_unit="us", strict=False))


def _in_order(text: pl.Series, day_first: bool) -> pl.Series:
    """Dates such as 12/1/2010 8:26; null where the text is none."""
    groups = text.str.extract_groups(DAY_AND_MONTH).struct.unnest()
    first, second, year, clock = (groups[name] for name in groups.columns)
    day, month = (first, second) if day_first else (second, first)
    of_day = clock.fill_null("0:00").str.to_uppercase()
    hour = of_day.str.extract(r"^(\d+)").cast(pl.Int64)
    hour = pl.select(
        pl.when(of_day.str.ends_with("PM") & (hour < 12))
        .then(hour + 12)
        .when(of_day.str.ends_with("AM") & (hour == 12))
        .then(0)
        .otherwise(hour)
    ).to_series()
    rest = of_day.str.extract(r"^\d+(:\d{2}(?::\d{2}(?:\.\d+)?)?)")
    rest = pl.select(pl.when(rest.str.count_matches(":") == 1).then(rest + ":00").otherwise(rest)).to_series()
    written = (
        year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)
        + "T" + hour.cast(pl.String).str.zfill(2) + rest
    )  # fmt: skip
    return written.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False).alias(text.name)


def _without_zone(times: pl.Series) -> pl.Series:
    zone = isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone
    return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zone else times


def _concat(parts: Sequence[pl.Series]) -> pl.Series:
    """One series of whole numbers, or of numbers where one part has fractions."""
    if len({part.dtype for part in parts}) > 1:
        parts = [part.cast(pl.Float64) for part in parts]
    return pl.concat(parts)


def divided(numbers: pl.Series, by: int) -> pl.Series:
    """Float64 quotients. Polars would multiply by ``1 / by``, which makes 1433221332.1169999 of
    1433221332117000 / 1_000_000."""
    return numbers / pl.repeat(by, len(numbers), dtype=pl.Float64, eager=True)
