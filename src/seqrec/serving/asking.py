"""How people name items: ids as text, titles, files of ids, conditions on attributes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from seqrec.data import columns, conditions, files
from seqrec.data.catalogue import UNKNOWN, Catalogue
from seqrec.errors import DataError, SettingsError, UnknownIdError, some_of
from seqrec.features.encoding import SEPARATORS

TITLE = "title"
"""The attribute by which items may be named, too."""
COMPARED = 50_000
"""Titles up to which a mistyped one is compared with all: more would take seconds."""


def typed(ids: Sequence[str], catalogue: Catalogue) -> list[Any]:
    """Ids given as text as the catalogue has them; text that is no number stays text, and so is unknown."""
    if catalogue.ids.dtype.is_integer():
        whole = [re.fullmatch(r"(-?[0-9]+)(\.0+)?", text.strip()) for text in ids]
        return [text if match is None else int(match[1]) for text, match in zip(ids, whole)]
    if all(text == text.strip() for text in ids):
        return list(ids)
    known = set(catalogue.ids)
    return [text if text in known else text.strip() for text in ids]


def column(ids: pl.Series, catalogue: Catalogue) -> pl.Series:
    """A column of ids, of the catalogue's type: whole numbers as text and the other way round, null where one
    is no number."""
    if ids.dtype == catalogue.ids.dtype:
        return ids
    if ids.dtype == pl.String and catalogue.ids.dtype.is_integer():
        plain = ids.str.strip_chars().str.replace(r"\.0+$", "")
        return plain.cast(catalogue.ids.dtype, strict=False)
    if ids.dtype.is_float():
        ids = ids.cast(pl.Int64, strict=False).set(ids != ids.floor(), None)
    return ids.cast(catalogue.ids.dtype, strict=False)


def items(texts: Sequence[str], catalogue: Catalogue, on_unknown: str = "raise") -> list[Any]:
    """Items named by id or, where the catalogue has titles, by title; an id wins over a title.

    Args:
        on_unknown: "raise" refuses what is neither; else it stays text, and so is unknown.

    Raises:
        UnknownIdError: neither an id nor a title; names the nearest titles.
        SettingsError: a title that several items have; names them.
    """
    found = typed(texts, catalogue)
    if catalogue.attributes is None or TITLE not in catalogue.attributes.columns:
        return found
    unknown = [n for n, index in enumerate(catalogue.encode(found)) if index == UNKNOWN]
    if not unknown:
        return found
    titles = catalogue.attributes[TITLE].cast(pl.String)
    for n in unknown:
        found[n] = _by_title(texts[n].strip(), titles, catalogue, on_unknown)
    return found


def _by_title(text: str, titles: pl.Series, catalogue: Catalogue, on_unknown: str) -> Any:
    """The id of the item of that title, exactly or but for its case; the text where there is none."""
    matches = (titles == text).fill_null(False).arg_true()
    if not len(matches):
        matches = (titles.str.to_lowercase() == text.lower()).fill_null(False).arg_true()
    ids = catalogue.ids.gather(matches)
    if len(ids) == 1:
        return ids[0]
    if len(ids):
        raise SettingsError(
            f"expected a title that one item has. {len(ids)} items are called {text!r}: give the id of one, "
            f"{some_of(map(str, ids.to_list()), 5)}."
        )
    if on_unknown == "raise":
        near = [f"{title!r} (id {catalogue.ids[at]})" for title, at in _near(text, titles)]
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UnknownIdError(
            f"no item that the model knows has the id or the title {text!r}.{hint} A title with a comma "
            "stands in quotes. on_unknown='warn' or 'ignore' leaves unknown items out."
        )
    return text


def _near(text: str, titles: pl.Series) -> list[tuple[str, int]]:
    """Up to three titles like a text, and where they are: those that contain it, or else the most alike."""
    there = titles.str.to_lowercase().str.contains(text.lower(), literal=True).fill_null(False)
    if there.any():
        return [(titles[at], at) for at in there.arg_true().head(3).to_list()]
    if len(titles) > COMPARED:
        return []
    at_of = {title.lower(): at for at, title in enumerate(titles.to_list()) if title is not None}
    return [(titles[at_of[one]], at_of[one]) for one in difflib.get_close_matches(text.lower(), at_of, n=3)]


def ids_in(path: str, catalogue: Catalogue) -> list[Any]:
    """The item ids in a file, of the catalogue's type where they can be: the column ``item_id`` of a table
    (CSV, TSV, Parquet, JSON Lines), or an id a line of any other text.

    Raises:
        DataError: no such file, none that can be read, no such column, or no id in it.
    """
    kind = files.kind_of(path)
    if kind is None:
        lines = [line.strip() for line in files.read_text(path).splitlines()]
        if not (texts := [line for line in lines if line]):
            raise DataError(f"{path}: expected item ids, one a line. Got none.")
        return typed(texts, catalogue)
    name = columns.key_of(files.header(path, kind), "item_id", path)
    ids = files.read(path, kind, select=[name])[name]
    if ids.null_count():
        row = int(ids.is_null().arg_true()[0]) + 1
        raise DataError(f"{path}, row {row}: expected an item id. Got none.")
    if ids.dtype == pl.String:
        return typed(ids.to_list(), catalogue)
    return column(ids, catalogue).to_list()


def where(text: str, catalogue: Catalogue) -> pl.Series:
    """The ids of the items whose attributes meet conditions such as ``genres = Comedy and year >= 1990``
    (``seqrec.data.conditions``). Of a list, or of text with ``|`` in it, one value has to.

    Raises:
        SettingsError: these are no conditions, the catalogue has no attributes, or no item meets them.
        DataError: no such attribute.
    """
    try:
        asked = conditions.parse(text)
    except ValueError as error:
        raise SettingsError(f"where: expected {error}. Got {text!r}.") from error
    if catalogue.attributes is None:
        raise SettingsError(
            "where: the model's items have no attributes. Train it on a log with a table of items "
            "(data.items), or give allow."
        )
    frame = catalogue.attributes.with_columns(
        pl.col(name).str.split(separator)
        for name, dtype in catalogue.attributes.schema.items()
        if dtype == pl.String
        for separator in [s for s in SEPARATORS if _has(catalogue.attributes[name], s)][:1]
    )
    frame = frame.with_columns(catalogue.ids.alias("item_id"))
    found = catalogue.ids.filter(conditions.holds(asked, frame, {}, "the model's items"))
    if not len(found):
        raise SettingsError(f"where: no item has {text!r}. {_values(asked, frame)}")
    return found


def _has(series: pl.Series, separator: str) -> bool:
    return bool(series.str.contains(separator, literal=True).any())


def _values(asked: Sequence[conditions.Condition], frame: pl.DataFrame) -> str:
    """Some values of the first attribute that is asked for."""
    series = frame[asked[0].column]
    values = series.explode() if isinstance(series.dtype, pl.List) else series
    common = values.drop_nulls().value_counts(sort=True)[values.name].head(8)
    return f"Values of {asked[0].column} are {some_of([repr(v) for v in common.to_list()], 8)}."
