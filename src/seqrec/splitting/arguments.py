"""The arguments of a split, checked against its signature.

One declaration serves Python calls and the ``split`` section of a YAML file.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache, wraps
from typing import Annotated, Any, ParamSpec, get_type_hints

import pydantic
from pydantic import Field, PlainSerializer, PlainValidator

from seqrec.errors import SettingsError
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split

P = ParamSpec("P")


def _cut(value: Any) -> float | datetime:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = datetime.fromisoformat(value)
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError
    return float(value)


def _cut_or_say(value: Any) -> float | datetime:
    try:
        return _cut(value)
    except ValueError:
        raise ValueError(
            "a quantile above 0 and below 1, seconds since 1970, or a date such as 2003-02-01"
        ) from None


def readable(cut: float | datetime | None) -> float | str | None:
    """A cut as JSON has it."""
    return cut.isoformat() if isinstance(cut, datetime) else cut


Cut = Annotated[float | datetime, PlainValidator(_cut_or_say), PlainSerializer(readable, when_used="json")]
"""A point in time: below 1 a quantile of the log's times, else seconds since 1970 or a date (2003-02-01).

Dates without a time zone are UTC.
"""

Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""How many: below 1 a share of the users that can be asked, else a number of them."""


@cache
def arguments_of(function: Callable[..., Split]) -> type[Settings]:
    """Settings with a field for each argument of a split but the sequences.

    Types, ranges and defaults are those of the signature.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in list(inspect.signature(function).parameters.values())[1:]
    }
    return pydantic.create_model(function.__name__, __base__=Settings, **fields)


def splitter(function: Callable[P, Split]) -> Callable[P, Split]:
    """A split that checks its arguments before it looks at any data.

    Raises (when called):
        SettingsError: an argument is of the wrong type or out of range; names the argument, what was
            expected and what came.
    """

    @wraps(function)
    def check_then_split(*args: P.args, **kwargs: P.kwargs) -> Split:
        sequences, *given = inspect.signature(function).bind(*args, **kwargs).arguments.items()
        values = arguments_of(function).of(dict(given), function.__name__)
        checked: Any = {name: getattr(values, name) for name in type(values).model_fields}
        return function(sequences[1], **checked)

    return check_then_split


def how_many(share: float, total: int, name: str) -> int:
    """The number that a ``Share`` of ``total`` stands for.

    Raises:
        SettingsError: a fraction above 1, or a number that is not between 1 and ``total`` - 1.
    """
    count = round(share * total) if share < 1 else int(share)
    if share >= 1 and share != count:
        raise SettingsError(f"{name}: expected a share below 1, or a whole number. Got {share}.")
    if not 1 <= count < total:
        raise SettingsError(
            f"{name}: expected at least 1 and fewer than the {total} users long enough to be held out. Got "
            f"{share:g}, which is {count}."
        )
    return count
