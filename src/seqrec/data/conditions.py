"""Which rows of a log to keep: ``event = purchase``, ``rating >= 4 and event in view, purchase``.

conditions   condition, or several with "and" between them
condition    COLUMN OPERATOR VALUE
COLUMN       of the file, or of the log (rating); in double quotes where it holds blanks
OPERATOR     =  !=  <  <=  >  >=  in
VALUE        a number or a text, in quotes where it holds a comma or "and"; of ``in`` several, with commas
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from seqrec.errors import DataError, did_you_mean, some_of

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in")
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_CONDITION = re.compile(
    rf"^\s*(?P<column>{_QUOTED}|[^\s=!<>\"']+)\s*(?P<operator>==|=|!=|<=|>=|<|>|\bin\b)\s*(?P<value>.*?)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_AND = re.compile(rf"({_QUOTED})|\s+and\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value.

    Attributes:
        column: of the file, or of the log.
        operator: one of ``OPERATORS``.
        values: one, or several of ``in``.
    """

    column: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {', '.join(self.values)}"


def parse(text: str) -> tuple[Condition, ...]:
    """The conditions of a text.

    Raises:
        ValueError: it is none; says what was expected.
    """
    parts = [""]
    at = 0
    for match in _AND.finditer(text):
        if match[1] is None:
            parts[-1] += text[at : match.start()]
            parts.append("")
            at = match.end()
    parts[-1] += text[at:]
    return tuple(map(_parse_one, parts))


def _parse_one(text: str) -> Condition:
    match = _CONDITION.match(text)
    if match is None or not match["value"]:
        raise ValueError(
            "a column, an operator (=, !=, <, <=, >, >=, in) and a value, such as 'event = purchase' or "
            "'rating >= 4', and between several of them 'and'"
        )
    operator = {"==": "="}.get(match["operator"], match["operator"].lower())
    several = [found for found in re.findall(rf"({_QUOTED}|[^,]+)", match["value"]) if found.strip()]
    values = tuple(_bare(one) for one in several) if operator == "in" else (_bare(match["value"]),)
    if operator in ("<", "<=", ">", ">=") and _number(values[0]) is None:
        raise ValueError(f"a number after {operator}, such as 'rating {operator} 4'")
    return Condition(_bare(match["column"]), operator, values)


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1] if re.fullmatch(_QUOTED, text) else text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def columns_of(
    conditions: Sequence[Condition], found: Sequence[str], mapping: Mapping[str, str], name: str
) -> list[str]:
    """The columns of a file that conditions speak of.

    Raises:
        DataError: there is no such column; with what was meant, probably.
    """
    columns = []
    for condition in conditions:
        column = condition.column if condition.column in found else mapping.get(condition.column)
        if column is None or column not in found:
            near = did_you_mean(condition.column, [*found, *mapping])
            raise DataError(
                f"{name}: where: no column {condition.column!r}. The file has: "
                f"{some_of(found)}.{near if 'Did' in near else ''}"
            )
        columns.append(column)
    return columns


def holds(
    conditions: Sequence[Condition], frame: pl.DataFrame, mapping: Mapping[str, str], name: str
) -> pl.Series:
    """(rows,) bool, for which rows all conditions hold. A missing value equals nothing, and is smaller or
    larger than nothing. For a list a condition holds if it does for one of its values (``!=``: if none is
    equal).

    Raises:
        DataError: no such column, or one compared by size holds something that is no number.
    """
    kept = pl.Series([True]).new_from_index(0, len(frame))
    for condition, column in zip(conditions, columns_of(conditions, frame.columns, mapping, name)):
        kept &= _holds(condition, frame[column], name)
    return kept


def _of_lists(condition: Condition, series: pl.Series, name: str) -> pl.Series:
    """For lists: it holds where it holds of one of the values; ``!=``, where none is equal."""
    different = condition.operator == "!="
    cells = pl.DataFrame({"row": np.arange(len(series)), "value": series}).explode("value")
    each = replace(condition, operator="=") if different else condition
    rows = cells["row"].filter(_holds(each, cells["value"], name)).to_numpy()
    found = np.zeros(len(series), dtype=bool)
    found[rows] = True
    return pl.Series(~found if different else found)


def _holds(condition: Condition, series: pl.Series, name: str) -> pl.Series:
    if isinstance(series.dtype, pl.List | pl.Array):
        return _of_lists(condition, series, name)
    if isinstance(series.dtype, pl.Struct) or series.dtype == pl.Binary:
        raise DataError(f"{name}, column {condition.column!r}: where: expected numbers or text.")
    text = series.cast(pl.String).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    if condition.operator in ("<", "<=", ">", ">="):
        wrong = numbers.is_null() & text.is_not_null() & (text != "")
        if wrong.any():
            raise DataError(
                f"{name}, column {condition.column!r}: where: expected numbers to compare with "
                f"{condition.operator}. Got {text.filter(wrong)[0]!r}."
            )
        value = float(condition.values[0])
        compared = {
            "<": numbers < value,
            "<=": numbers <= value,
            ">": numbers > value,
            ">=": numbers >= value,
        }[condition.operator]
        return (compared & numbers.is_not_nan()).fill_null(False)
    equal = text.is_in(list(condition.values))
    if known := [number for value in condition.values if (number := _number(value)) is not None]:
        equal = equal | numbers.is_in(known).fill_null(False)
    equal = equal.fill_null(False)
    return ~equal if condition.operator == "!=" else equal
