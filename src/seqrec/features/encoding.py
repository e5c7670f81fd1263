"""Attributes become indices: which values each row of a catalogue has, of all features of a side.

    id    genres            kind                 index               weight
    i0    Action|Comedy     film      ->      [ 1  2  4 ]         [ .5  .5  1 ]
    i1    Drama             film              [ 3  4  0 ]         [  1   1  0 ]
    i2    (none)            series            [ 5  0  0 ]         [  1   0  0 ]

The values of a side are numbered from 1, feature by feature; 0 marks an empty slot. The weights of a
feature's values add up to one, so that the weighted sum of their vectors is the sum over features of the mean
over a cell's values; unknown values add nothing. Values are compared as text. A cell has several values if it
is a list, or text with ``|`` or ``\\x01`` between them; a cross has every combination.

A column of lists of floats is an embedding (of a title, say), and is no index: see
``seqrec.features.embeddings``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import polars as pl

from seqrec.data.catalogue import Catalogue
from seqrec.errors import SettingsError, did_you_mean
from seqrec.features import embeddings
from seqrec.features.schema import CROSS, ITEM_ID, USER_ID, FeatureSchema

MANY_NUMBERS = 1000
"""Distinct numbers in a column beyond which they are measures, not categories."""
OWN_VALUES = 0.9
"""Distinct values a row beyond which a column names its rows (a title) and says no more than an id."""
FEW_ROWS = 100
"""Up to this many rows, ``OWN_VALUES`` is not applied."""
SEPARATORS = ("\x01", "|")
KINDS = ("users", "items")


@dataclass(frozen=True)
class Codes:
    """By which rows share parts of vectors of their own (``seqrec.nn.jpq``).

    Attributes:
        of_rows: (splits, rows) uint8, below ``each``; 0 in all splits for a row of which nothing is known.
        each: how many codes a split has.
    """

    of_rows: np.ndarray
    each: int


@dataclass(frozen=True)
class Side:
    """What is known of each user, of each item of a history, or of each item that is scored.

    Attributes:
        ids: whether each row has a vector of its own.
        index: (rows, slots) int64, the values of each row; None where the schema names no column.
        weight: (rows, slots) float32, 0 where there is no value.
        values: how many values there are, with 0 for none. The two sides of the items number theirs alike.
        embeddings: (rows, numbers) float32 by column, of length 1 or zeros where nothing is known.
        drop_ids: share of looked up rows of which training leaves the vector of their own out.
        codes: which parts of these vectors rows share; None: each row has its vector to itself.
    """

    ids: bool
    index: np.ndarray | None = None
    weight: np.ndarray | None = None
    values: int = 1
    embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)
    drop_ids: float = 0.0
    codes: Codes | None = None

    def __bool__(self) -> bool:
        return self.ids or self.has_attributes

    @property
    def has_attributes(self) -> bool:
        """Whether it has more than ids."""
        return self.index is not None or bool(self.embeddings)

    def tells_of(self, rows: int) -> np.ndarray:
        """(rows,) bool, True for those of which an attribute says something."""
        known = np.zeros(rows, dtype=bool)
        for array in (self.weight, *self.embeddings.values()):
            if array is not None:
                known |= (array != 0).any(1)
        return known

    @property
    def digest(self) -> int:
        """A number that tells these values from others."""
        content = hashlib.sha256()
        for array in (self.index, self.weight, *self.embeddings.values()):
            content.update(
                b"" if array is None else str(array.shape).encode() + np.ascontiguousarray(array).tobytes()
            )
        return int.from_bytes(content.digest()[:7], "little")


@dataclass(frozen=True)
class Features:
    """The three sides of a schema over the catalogues of a log.

    Attributes:
        user, sequence, item: the sides: users, items of a history, items that are scored.
        item_is_sequence: items of the history have the same features as those that are scored.
    """

    user: Side
    sequence: Side
    item: Side
    item_is_sequence: bool

    @classmethod
    def of(cls, schema: FeatureSchema, users: Catalogue, items: Catalogue) -> Features:
        """The features that a schema names, from the catalogues' attributes.

        Raises:
            SettingsError: a column that the attributes do not have, or one that holds neither categories nor
                embeddings; names the side.
        """
        found = _embeddings(schema, users, items)
        of_user, of_item = (
            {
                name: _cells(catalogue, name, side)
                for name, side in _named(schema, kind).items()
                if (kind, name) not in found
            }
            for kind, catalogue in (("users", users), ("items", items))
        )
        user_first, item_first = _numbered(of_user), _numbered(of_item)
        return cls._from_tables(
            schema,
            {
                "user": _table(of_user, schema.user, user_first, len(users)),
                "sequence": _table(of_item, schema.sequence, item_first, len(items)),
                "item": _table(of_item, schema.item, item_first, len(items)),
            },
            found,
        )

    @classmethod
    def from_arrays(cls, schema: FeatureSchema, arrays: dict[str, np.ndarray]) -> Features:
        """The inverse of ``arrays``, from its (rows, ...) arrays by name."""
        sides = ("user", "sequence", "item")
        tables = {
            side: (arrays[f"{side}.index"], arrays[f"{side}.weight"]) if f"{side}.index" in arrays else None
            for side in sides
        }
        found = {
            (kind, name): arrays[key]
            for kind in KINDS
            for name in _named(schema, kind)
            if (key := f"{kind}.embeddings.{name}") in arrays
        }
        return cls._from_tables(schema, tables, found)

    @classmethod
    def _from_tables(
        cls,
        schema: FeatureSchema,
        tables: dict[str, tuple[np.ndarray, np.ndarray] | None],
        found: dict[tuple[str, str], np.ndarray],
    ) -> Features:
        def values(*sides: str) -> int:
            return 1 + max(
                (int(table[0].max(initial=0)) for side in sides if (table := tables[side]) is not None),
                default=0,
            )

        def side(name: str, id_name: str, count: int) -> Side:
            index, weight = tables[name] or (None, None)
            kind = "users" if name == "user" else "items"
            own = {column: found[kind, column] for column in getattr(schema, name) if (kind, column) in found}
            return Side(id_name in getattr(schema, name), index, weight, count, own, schema.drop_ids)

        items = values("sequence", "item")
        alike = set(schema.item) == set(schema.sequence)
        return cls(
            side("user", USER_ID, values("user")),
            side("sequence", ITEM_ID, items),
            side("item", ITEM_ID, items),
            alike,
        )

    @classmethod
    def ids_only(cls, users: bool) -> Features:
        """No attributes: a vector an item and, if asked, a vector a user."""
        return cls(Side(users), Side(True), Side(True), item_is_sequence=True)

    def coded(self, codes: Codes) -> Features:
        """The same, with parts of the items' own vectors shared."""
        sequence, item = (replace(side, codes=codes) for side in (self.sequence, self.item))
        return replace(self, sequence=sequence, item=item)

    def arrays(self) -> dict[str, np.ndarray]:
        """The values and weights of every side, and the embeddings of users and items, (rows, ...) arrays by
        name."""
        found: dict[str, np.ndarray] = {}
        for name in ("user", "sequence", "item"):
            side: Side = getattr(self, name)
            if side.index is not None and side.weight is not None:
                found |= {f"{name}.index": side.index, f"{name}.weight": side.weight}
            kind = "users" if name == "user" else "items"  # the same on both sides of the items: once
            found |= {f"{kind}.embeddings.{column}": array for column, array in side.embeddings.items()}
        return found


def values_of(schema: FeatureSchema, side: str, catalogue: Catalogue) -> list[tuple[str, str]]:
    """The feature and the value that each number from 1 on stands for.

    Args:
        side: "users" or "items", whose catalogue it is.

    Raises:
        SettingsError: as ``Features.of``.
    """
    return [
        (name, value)
        for name, of in _named(schema, side).items()
        if not _is_embedding(catalogue, name, of)
        for value in _cells(catalogue, name, of)["value"].unique().sort()
    ]


def _named(schema: FeatureSchema, kind: str) -> dict[str, str]:
    """The features of the users or of the items, in their order, and the first side that names each."""
    sides, own = (("user",), USER_ID) if kind == "users" else (("item", "sequence"), ITEM_ID)
    found: dict[str, str] = {}
    for side in sides:
        for name in getattr(schema, side):
            if name != own:
                found.setdefault(name, side)
    return found


def _embeddings(
    schema: FeatureSchema, users: Catalogue, items: Catalogue
) -> dict[tuple[str, str], np.ndarray]:
    """Which features are columns of embeddings, ("users" or "items", name), and their vectors."""
    return {
        (kind, name): embeddings.vectors_of(_series(catalogue, name, side), catalogue, f"features.{side}")
        for kind, catalogue in (("users", users), ("items", items))
        for name, side in _named(schema, kind).items()
        if _is_embedding(catalogue, name, side)
    }


def _is_embedding(catalogue: Catalogue, name: str, side: str) -> bool:
    """Whether a feature is a column of embeddings.

    Raises:
        SettingsError: it crosses one with another.
    """
    parts = name.split(CROSS)
    of = [part for part in parts if embeddings.is_embedding(_series(catalogue, part, side))]
    if of and len(parts) > 1:
        raise SettingsError(
            f"features.{side}: {name!r}: expected columns of categories in a cross. Got {of[0]!r}, which "
            "holds embeddings. Name it by itself."
        )
    return bool(of)


def _cells(catalogue: Catalogue, name: str, side: str) -> pl.DataFrame:
    """The values of one feature, columns ``row`` (uint32) and ``value`` (text): no row where nothing is
    known, several where a cell has several."""
    columns = [_column(catalogue, part, side) for part in name.split(CROSS)]
    if len(columns) == 1:
        return columns[0]
    pairs = reduce(
        lambda a, b: a.join(b, on="row", suffix="_next").select(
            "row", pl.concat_str("value", "value_next", separator="\x01")
        ),
        columns,
    )
    return pairs.select("row", "value")


def _series(catalogue: Catalogue, column: str, side: str) -> pl.Series:
    """A column of the attributes.

    Raises:
        SettingsError: there is none of that name.
    """
    where, of = f"features.{side}", "user" if side == "user" else "item"
    attributes = catalogue.attributes
    if attributes is None:
        raise SettingsError(
            f"{where}: no column {column!r}, as the {of}s have no attributes. Give a table of attributes "
            f"(data.{of}s), or leave it out."
        )
    if column not in attributes.columns:
        near = did_you_mean(column, attributes.columns)
        known = "" if near.startswith(" Known") else f" Known: {', '.join(sorted(attributes.columns))}."
        raise SettingsError(f"{where}: the {of} attributes have no column {column!r}.{near}{known}")
    return attributes[column]


def _column(catalogue: Catalogue, column: str, side: str) -> pl.DataFrame:
    where, of = f"features.{side}", "user" if side == "user" else "item"
    series = _series(catalogue, column, side)
    frame = pl.DataFrame(
        {"row": pl.int_range(len(series), dtype=pl.UInt32, eager=True), "value": _as_lists(series, where)}
    )
    cells = (
        frame.explode("value")
        .with_columns(pl.col("value").str.strip_chars())
        .filter(pl.col("value") != "")
        .unique(maintain_order=True)
    )
    _refuse_what_is_no_category(series, cells, where, of)
    return cells


def _as_lists(series: pl.Series, where: str) -> pl.Series:
    """Each cell as a list of texts."""
    if isinstance(series.dtype, pl.List | pl.Array) and not series.dtype.inner.is_nested():
        return series.cast(pl.List(series.dtype.inner)).cast(pl.List(pl.String))
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise SettingsError(
            f"{where}: column {series.name!r}: expected texts, numbers or lists of them. Got "
            f"{series.dtype}. Convert it first."
        )
    if series.dtype.is_float():
        series = series.fill_nan(None)
    text = series.cast(pl.String)
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        for separator in SEPARATORS:
            if text.str.contains(separator, literal=True).any():
                return text.str.split(separator)
    return text.to_frame().select(pl.concat_list(pl.first())).to_series()


def _refuse_what_is_no_category(series: pl.Series, cells: pl.DataFrame, where: str, of: str) -> None:
    distinct, rows = cells["value"].n_unique(), cells["row"].n_unique()
    if not distinct:
        raise SettingsError(f"{where}: column {series.name!r} is empty. Leave it out.")
    if series.dtype.is_numeric() and distinct > MANY_NUMBERS:
        raise SettingsError(
            f"{where}: column {series.name!r} has {distinct:,} different numbers; "
            f"expected at most {MANY_NUMBERS:,}, as each has its own vector. "
            "Bin it into a few classes first."
        )
    if rows > FEW_ROWS and distinct > OWN_VALUES * rows:
        raise SettingsError(
            f"{where}: column {series.name!r} has {distinct:,} different values in {rows:,} {of}s, so it "
            f"says little more than {of}_id does; expected values that many share. "
            "Bin it into a few classes, or leave it out."
        )


def _numbered(features: dict[str, pl.DataFrame]) -> dict[str, int]:
    """The number before each feature's first value."""
    first, numbers = 0, {}
    for name, cells in features.items():
        numbers[name] = first
        first += cells["value"].n_unique()
    return numbers


def _table(
    features: dict[str, pl.DataFrame], names: Sequence[str], first: dict[str, int], rows: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """(rows, slots) numbers of the values and their weights, of these features."""
    chosen = [
        features[name].select(
            "row",
            index=pl.col("value").rank("dense").cast(pl.Int64) + first[name],
            weight=(1 / pl.len().over("row")).cast(pl.Float32),
        )
        for name in names
        if name in features
    ]
    if not chosen:
        return None
    cells = pl.concat(chosen).with_columns(slot=pl.int_range(pl.len()).over("row"))
    at = cells["row"].to_numpy(), cells["slot"].to_numpy()
    shape = rows, 1 + int(at[1].max(initial=0))
    index, weight = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    index[at], weight[at] = cells["index"].to_numpy(), cells["weight"].to_numpy()
    return index, weight
