"""The columns of a log: their names, aliases and types. What does not fit is refused here, once, naming file,
row and column."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from seqrec.data import times
from seqrec.errors import DataError, did_you_mean, some_of

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
        "stockcode",
    ),
    "timestamp": (
        "timestamp",
        "time",
        "datetime",
        "ts",
        "unixtime",
        "unixtimestamp",
        "unixreviewtime",
        "epoch",
        "timestampms",
        "timems",
        "utctime",
        "utctimestamp",
        "timestamputc",
        "eventtime",
        "eventdate",
        "eventdatetime",
        "eventtimestamp",
        "date",
        "datetimeutc",
        "tdat",
        "createdat",
        "createdon",
        "createtime",
        "createdtime",
        "creationtime",
        "creationdate",
        "createdate",
        "createddate",
        "purchasedate",
        "purchasetime",
        "purchasedat",
        "invoicedate",
        "orderdate",
        "ordertime",
        "orderedat",
        "transactiondate",
        "transactiontime",
        "saledate",
        "salesdate",
        "reviewdate",
        "reviewtime",
        "ratingdate",
        "ratedat",
        "clicktime",
        "clickedat",
        "viewtime",
        "viewedat",
        "visitdate",
        "visittime",
        "visitedat",
        "playedat",
        "listenedat",
        "watchedat",
        "checkintime",
        "dateadded",
        "addedat",
        "occurredat",
        "loggedat",
        "servertime",
        "localtime",
    ),
    "position": ("position",),
    "rating": ("rating", "overall", "stars"),
    "basket_id": (
        "basketid",
        "basket",
        "orderid",
        "orderno",
        "ordernumber",
        "transactionid",
        "invoiceid",
        "invoice",
        "invoiceno",
        "invoicenumber",
        "receiptid",
    ),
    "session_id": ("sessionid", "session"),
}
"""Canonical column -> names by which it also goes, without case, spaces and punctuation, the likeliest
first."""

IDS = ("user_id", "item_id", "basket_id", "session_id")
NEEDED = ("user_id", "item_id")
"""The ids that every event must have. Baskets and sessions may be empty for some."""
OTHER_DATES = r"birth|born|dob$|release|publish|expir|signup|register|joined|founded|updated|modified|deleted"
"""Names of columns whose dates are not those of the events, without case and punctuation."""
ROUNDED = r"^\s*\d(\.\d{1,7})?[eE]\+?(09|9|1\d)\s*$"
"""Times as programs write them that keep few digits: 1.57784e+09."""
MissingIds = Literal["refuse", "drop"]
Sample = Callable[[], pl.DataFrame]
"""Gives a log's first rows, where a column's name does not say enough."""
CANONICAL_INTEGER = r"^(0|-?[1-9]\d{0,17})(\.0+)?$"

logger = logging.getLogger(__name__)


def resolve(
    found: Sequence[str],
    columns: Mapping[str, str | int | None] | None,
    name: str,
    required: Sequence[str] = NEEDED,
    sample: Sample | None = None,
    say: bool = True,
) -> dict[str, str]:
    """Which column of the file is which of the log.

    Args:
        found: the columns of the file.
        columns: what the caller says, ``{"item_id": "sku"}``; ``None`` as a column means "leave this one
            out"; an integer is a column's number in a file without a header. What is not said is found by
            alias. A log without users but with sessions is a log whose users are its sessions.
        name: the file, for messages.
        sample: the first rows, where what orders the events shall be found by values too. A date and a time
            of day in two columns are one time.
        say: warn of what was found by values only, or not found.
    Returns:
        canonical name -> name in the file; of a time in two columns ``date+time``.
    Raises:
        DataError: a column that is named is not there, a required one is not found, or several may be meant
            as the time; with what was meant, probably.
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
        given = source
        source = next((c for c in found if c.strip() == str(given).strip()), str(given))
        if any(part not in found for part in sources(source, found)):
            near = did_you_mean(str(source), found)
            raise DataError(
                f"{name}: no column {given!r} for {canonical}. The file has: "
                f"{some_of(found)}.{near if 'Did' in near else ''}"
            )
        chosen[canonical] = source
    taken = {part for source in chosen.values() for part in sources(source, found)}
    plain = {column: re.sub(r"[^a-z0-9]", "", column.lower()) for column in found}
    for canonical, aliases in ALIASES.items():
        if canonical in said:
            continue
        named = [c for c in found if c.strip() == canonical]
        matches = named or [c for alias in aliases for c in found if plain[c] == alias]
        free = [column for column in matches if column not in taken]
        if canonical == "timestamp" and sample is not None and not named and len(free) > 1:
            free = [_one_time(free, sample(), name)]
        if free:
            chosen[canonical] = free[0]
            taken.update(sources(free[0], found))
    if "user_id" in required and "user_id" not in chosen and "user_id" not in said and "session_id" in chosen:
        chosen["user_id"] = chosen.pop("session_id")
    for canonical in required:
        if canonical not in chosen:
            free = [c for c in found if c not in taken] or list(found)
            near = did_you_mean(canonical, free)
            raise DataError(
                f"{name}: no column for {canonical}. The file has: "
                f"{some_of(found)}.{near if 'Did' in near else ''} Map one, for example "
                f"columns={{{canonical!r}: {free[0]!r}}} (--column {canonical}={free[0]}); "
                f"in a file without a header by number (--column {canonical}=0)."
            )
    if sample is not None and "timestamp" not in chosen and "timestamp" not in said:
        rest = [c for c in found if c not in taken]
        if (by_type := _time_by_type(rest, sample(), name, "position" in chosen, say)) is not None:
            chosen["timestamp"] = by_type
    return {canonical: chosen[canonical] for canonical in ALIASES if canonical in chosen}


def sources(source: str, found: Sequence[str]) -> list[str]:
    """The columns of the file behind one of a mapping: two for a time such as ``date+time``."""
    return [source] if source in found or "+" not in source else source.split("+")


def _say_which(columns: Sequence[str]) -> str:
    both = f"; a date and a time of day as one: {'+'.join(columns)}" if len(columns) == 2 else ""
    return (
        f"columns={{'timestamp': {columns[0]!r}}} (--column timestamp={columns[0]}){both}; without times: "
        "columns={'timestamp': None} (--column timestamp=)"
    )


def _one_time(candidates: Sequence[str], sample: pl.DataFrame, name: str) -> str:
    """Which of several columns, all named as times are, holds the times of the events."""
    there = [c for c in candidates if c in sample.columns]
    clocks = [c for c in there if times.is_clock(sample[c])]
    readable = [c for c in there if c not in clocks and times.is_readable(sample[c])]
    if len(readable) == 1 and len(clocks) == 1 and not _has_clock(sample[readable[0]]):
        return f"{readable[0]}+{clocks[0]}"
    if len(readable) == 1:
        return readable[0]
    if not readable:
        return candidates[0]
    raise DataError(
        f"{name}: {' and '.join(map(repr, readable))} may both be the time of the events. Say which: "
        f"{_say_which(readable)}."
    )


def _log(say: bool) -> Callable[..., None]:
    return logger.warning if say else logger.debug


def _has_clock(series: pl.Series) -> bool:
    """Whether dates come with a time of day."""
    if series.dtype == pl.String:
        return bool(series.drop_nulls().str.contains(":").any())
    return series.dtype != pl.Date


def _time_by_type(
    rest: Sequence[str], sample: pl.DataFrame, name: str, position: bool, say: bool
) -> str | None:
    """The only column of dates in a log none of whose names is a time's; says what orders the events."""
    dates = [c for c in rest if c in sample.columns and times.looks_like(sample[c])]
    likely = [c for c in dates if not re.search(OTHER_DATES, re.sub(r"[^a-z0-9]", "", c.lower()))]
    if len(likely) > 1:
        raise DataError(
            f"{name}: {' and '.join(map(repr, likely))} may each be the time of the events. Say which: "
            f"{_say_which(likely)}."
        )
    if likely:
        _log(say)(
            "%s: %r is read as the time of the events, as the only column of dates. If it is not: "
            "columns={'timestamp': None} (--column timestamp=).",
            name,
            likely[0],
        )
        return likely[0]
    looked = dates + [
        c
        for c in rest
        if c not in dates
        and (
            re.search(r"time|date|_at$|_on$", c.lower())
            or (c in sample.columns and times.may_be_seconds(sample[c]))
        )
    ]
    if looked:
        hint = f" Could {', '.join(map(repr, looked))} be the time? Then {_say_which(looked)}."
    else:
        hint = " If a column holds times, name it: columns={'timestamp': ...} (--column timestamp=...)."
    order = "position" if position else "the order of the file"
    _log(say)("%s: no column of times was found: %s orders the events.%s", name, order, hint)
    return None


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
            f"{name}: no column for {key}. The file has: {some_of(found)}. Rename its column of ids to {key}."
        ) from error


def validated(
    frame: pl.DataFrame,
    mapping: Mapping[str, str],
    name: str,
    text: bool,
    first_row: int = 0,
    features: bool = True,
    time_format: str | None = None,
    rows: pl.Series | None = None,
) -> pl.DataFrame:
    """The frame with canonical columns of canonical types. Times are numbers or Datetimes, as they came; the
    whole log's make seconds of them (``times.joined``).

    Args:
        mapping: canonical name -> column of the frame, as ``resolve`` gives it.
        text: the values come from a text file: strings that may be numbers or times. Ids (without blanks
            around them) and features stay strings, since only the whole column tells what they are; see
            ``integers`` and ``typed``.
        first_row: rows before this frame in the same file, so that messages name the file's rows.
        features: keep the other columns too.
        time_format: how times in text are written, see ``times.parsed``.
        rows: the number of each row in the file, where not all of them are here.
    Raises:
        DataError: an id is missing or of no usable type; a time or position that cannot be read, is negative,
            or is missing where nothing else orders the events; names the row.
    """
    columns = {}
    used = {part for source in mapping.values() for part in sources(source, frame.columns)}
    for canonical, source in mapping.items():
        parts = [frame[part] for part in sources(source, frame.columns)]
        series = times.together(parts).alias(canonical)
        where = _Place(name, source, first_row, rows)
        if canonical in IDS:
            columns[canonical] = _ids(series, where, text, may_be_missing=canonical not in NEEDED)
        elif canonical == "timestamp":
            found = _times(series, where, "position" in mapping, time_format)
            columns[canonical] = found.alias(canonical)
        elif canonical == "position":
            columns[canonical] = _positions(series, where)
        else:
            columns[canonical] = _numbers(series, where)
    if features:
        for column in frame.columns:
            if column not in used and column not in columns:
                columns[column] = frame[column]
    return pl.DataFrame(list(columns.values()))


def has_ids(frame: pl.DataFrame, mapping: Mapping[str, str]) -> pl.Series:
    """(rows,) bool, whether each row has a user and an item."""
    present = pl.Series([True]).new_from_index(0, len(frame))
    for canonical in NEEDED:
        if canonical in mapping:
            present &= ~_missing(frame[mapping[canonical]])
    return present


def integers(ids: pl.Series) -> pl.Series:
    """Ids read from text, as integers if every one of them is written as a whole number is (``7`` or ``7.0``,
    not ``07``)."""
    if (
        ids.dtype == pl.String
        and ids.head(100).str.contains(CANONICAL_INTEGER).all()
        and ids.str.contains(CANONICAL_INTEGER).all()
    ):
        fraction = bool(ids.str.contains(".", literal=True).any())
        return (ids.str.replace(r"\.0+$", "") if fraction else ids).cast(pl.Int64)
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


@dataclass(frozen=True)
class _Place:
    """Where some values stand, for messages."""

    name: str
    column: str
    first_row: int
    rows: pl.Series | None

    def refuse(self, at: int, message: str) -> DataError:
        row = self.first_row + at + 1 if self.rows is None else int(self.rows[at])
        return DataError(f"{self.name}, row {row}, column {self.column!r}: {message}")

    def refuse_all(self, message: str) -> DataError:
        return DataError(f"{self.name}, column {self.column!r}: {message}")


def _first(mask: pl.Series) -> int | None:
    """Index of the first True, None if there is none."""
    return mask.arg_max() if mask.any() else None


def _missing(series: pl.Series) -> pl.Series:
    missing = series.is_null()
    if series.dtype.is_float():
        missing = missing | series.is_nan().fill_null(True)
    elif series.dtype in (pl.Categorical, pl.Enum):
        missing = missing | (series.cast(pl.String).str.strip_chars() == "").fill_null(True)
    elif series.dtype == pl.String:
        missing = missing | (series.str.strip_chars() == "").fill_null(True)
    return missing


def _ids(series: pl.Series, where: _Place, text: bool, may_be_missing: bool) -> pl.Series:
    """Int64, or String; null where missing, if that may be."""
    missing = _missing(series)
    if (at := _first(missing)) is not None:
        if not may_be_missing:
            raise where.refuse(
                at,
                "missing id. Every event needs one; fill it in, or leave such rows out: missing_ids='drop' "
                "(--missing-ids drop).",
            )
        series = pl.select(pl.when(~missing).then(series).alias(series.name)).to_series()
    if series.dtype in (pl.Categorical, pl.Enum) or series.dtype == pl.Null:
        series = series.cast(pl.String)
    if series.dtype.is_integer():
        numbers = series.cast(pl.Int64, strict=False)
        if (at := _first(numbers.is_null() & series.is_not_null())) is not None:
            raise where.refuse(at, f"an id exceeds 2^63. Got {series[at]!r}. Read the column as strings.")
        return numbers
    if series.dtype.is_float():
        whole = ((series == series.round()) & (series.abs() < 2.0**53)).fill_null(True)
        if (at := _first(~whole)) is not None:
            raise where.refuse(at, f"expected an integer or a string as id. Got {series[at]!r}.")
        return series.cast(pl.Int64)
    if series.dtype != pl.String:
        raise where.refuse_all(
            f"expected integers or strings as ids. Got {series.dtype}. Convert the column first."
        )
    return series.str.strip_chars() if text else series


def _stripped(text: pl.Series) -> pl.Series:
    """Numbers or times as text without blanks, null where nothing is left: a file that quotes everything
    writes a missing number as ``""``."""
    text = text.str.strip_chars()
    if not (text == "").any():
        return text
    return pl.select(pl.when(text != "").then(text)).to_series().alias(text.name)


def _numbers(series: pl.Series, where: _Place) -> pl.Series:
    """Float64 (or Float32 as it was), null where missing."""
    if series.dtype == pl.Float32:
        return series.fill_nan(None)
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        series = _stripped(series)
    elif not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        raise where.refuse_all(f"expected numbers. Got {series.dtype}.")
    numbers = series.cast(pl.Float64, strict=False)
    if (at := _first(numbers.is_null() & series.is_not_null())) is not None:
        raise where.refuse(at, f"expected a number. Got {series[at]!r}.")
    return numbers.fill_nan(None)


def _positions(series: pl.Series, where: _Place) -> pl.Series:
    numbers = series if series.dtype.is_integer() else _numbers(series, where)
    places = numbers.cast(pl.Int64, strict=False)  # null where infinite or beyond 2^63
    if (at := _first(places.is_null() | (numbers != numbers.round()).fill_null(False))) is not None:
        raise where.refuse(
            at, f"expected a whole number, the event's place in its user's sequence. Got {series[at]!r}."
        )
    return places


def _times(series: pl.Series, where: _Place, may_be_missing: bool, format: str | None) -> pl.Series:
    """Numbers as they are (Int64, or Float64 where one has a fraction), dates as Datetime."""
    if series.dtype == pl.Float32 and (series.abs() > times.FLOAT32_WHOLE).fill_null(False).any():
        raise where.refuse_all(
            "expected times to the second. Got Float32, which holds times of today only to 128 seconds, so "
            "that events of two minutes have one time. Write the column as Int64 or Float64."
        )
    if series.dtype == pl.String:
        series = _stripped(series)
    found = times.parsed(series, format)
    if found is None:
        raise where.refuse_all(
            f"expected seconds since 1970 or dates. Got {series.dtype}. Convert the column first."
        )
    if series.dtype == pl.String and found.dtype == pl.Float64 and series.str.contains(ROUNDED).any():
        logger.warning(
            "%s, column %r: times such as %s are written with so few digits that many events have one time. "
            "Write them as whole numbers.",
            where.name,
            where.column,
            series.filter(series.str.contains(ROUNDED).fill_null(False))[0],
        )
    unreadable = found.is_null()
    if found.dtype == pl.Float64 and series.dtype != pl.String:
        series = found  # NaN is a missing time, not one that cannot be read
    if not times.are_dates(found):
        unreadable |= (found.abs() >= 2**62).fill_null(False)
    if (at := _first(unreadable & series.is_not_null())) is not None:
        # a date that no calendar has is shown as the number that it is
        came = series[at] if series.dtype == pl.String else series.to_physical()[at]
        if format:
            expected = f"a time written as {format}"
        else:
            expected = "seconds since 1970 or an ISO date such as 2020-01-31T10:00:00Z"
        advice = ""
        if series.dtype == pl.String and re.match(times.ISO, came):
            advice = " Write all times in one way."
        elif series.dtype == pl.String:
            advice = " For dates in another notation say which: time_format='%d/%m/%Y %H:%M' (--time-format)."
        raise where.refuse(at, f"expected {expected}. Got {came!r}.{advice}")
    if not may_be_missing and (at := _first(found.is_null())) is not None:
        raise where.refuse(
            at,
            "missing time. A partly empty time column needs a position column to order the events; or leave "
            "time out: columns={'timestamp': None} (--column timestamp=).",
        )
    since = times.seconds_of(found) if times.are_dates(found) else found
    if (at := _first((since < 0).fill_null(False))) is not None:
        # no calendar of Python has dates before the year 1
        came = series[at] if series.dtype == pl.String or since[at] > times.YEAR_1 else since[at]
        raise where.refuse(at, f"expected a time since 1970. Got {came!r}.")
    return times.whole(found)
