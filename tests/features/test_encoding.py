"""Attributes as indices, against the plainest way to count them."""

from __future__ import annotations

from datetime import date
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec import sources
from seqrec.data.catalogue import Catalogue
from seqrec.errors import SettingsError
from seqrec.features.encoding import Features, Side
from seqrec.features.schema import FeatureSchema


def side(table: dict, *names: str, where: str = "item") -> Side:
    catalogue = Catalogue(list(range(len(next(iter(table.values()))))), pl.DataFrame(table))
    nothing = Catalogue([0])
    users, items = (catalogue, nothing) if where == "user" else (nothing, catalogue)
    return getattr(Features.of(FeatureSchema.of({where: list(names)}, "features"), users, items), where)


def meaning(side: Side) -> list[dict[int, float]]:
    """Each row as value -> weight."""
    return [
        {int(v): float(w) for v, w in zip(index, weight) if w}
        for index, weight in zip(side.index, side.weight)
    ]


def test_the_drawing_of_the_docstring():
    s = side(
        {"genres": ["Action|Comedy", "Drama", None], "kind": ["film", "film", "series"]}, "genres", "kind"
    )
    assert not s.ids
    assert s.index.tolist() == [[1, 2, 4], [3, 4, 0], [5, 0, 0]]
    assert s.weight.tolist() == [[0.5, 0.5, 1], [1, 1, 0], [1, 0, 0]]
    assert s.values == 6


@pytest.mark.parametrize(
    "column",
    [
        ["a|b", " b ", "", "b|a|b|"],
        ["a\x01b", "b", None, "b\x01a"],
        [["a", "b"], ["b"], [], ["b", None, "a"]],
        pl.Series([[1, 2], [2, 2], [0, 0], [2, 1]], dtype=pl.Array(pl.Int64, 2)),
    ],
    ids=["bar", "x01", "list", "array"],
)
def test_cells_with_several_values(column):
    a, b, empty, again = meaning(side({"x": column}, "x"))
    assert sorted(a.values()) == [0.5, 0.5]
    assert again == a
    assert len(b) == 1
    assert set(b) < set(a)
    assert not set(empty) & set(a)  # nothing, or a value of its own in the array, which cannot be ragged


@pytest.mark.parametrize(
    "column",
    [
        [3, 1, 3, None],
        [0.5, 1.0, 0.5, float("nan")],
        [True, False, True, None],
        [date(2020, 1, 1), date(2021, 1, 1), date(2020, 1, 1), None],
    ],
    ids=["integers", "floats", "booleans", "dates"],
)
def test_values_of_any_type(column):
    for dtype in (None, pl.Categorical):
        series = pl.Series(column, strict=False)
        a, b, again, empty = meaning(
            side({"x": series if dtype is None else series.cast(pl.String).cast(dtype)}, "x")
        )
        assert a == again
        assert a.keys().isdisjoint(b)
        assert not empty or isinstance(column[3], float)  # as text, "NaN" is a word


words = st.lists(st.sampled_from("abc"), max_size=3)


@given(
    st.lists(st.tuples(words, words, st.sampled_from(["x", "y", None])), min_size=1, max_size=8).filter(
        lambda rows: all(map(any, zip(*rows)))
    )
)
def test_against_the_plain_way(rows):
    """Features one beside the other, and crossed, are what counting them by hand says, up to the
    numbering."""
    one, two, kind = zip(*rows)
    table = {
        "one": ["|".join(w) for w in one],
        "two": pl.Series(two, dtype=pl.List(pl.String)),
        "kind": list(kind),
    }
    crossed = [{"#".join(p) for p in product(set(a), set(b))} for a, b, _ in rows]
    names = ["one", "kind", "one#two"] if any(crossed) else ["one", "kind"]
    expected = []
    for (a, _, k), c in zip(rows, crossed):
        cells = [("one", set(a)), ("kind", {k} - {None})] + ([("one#two", c)] if any(crossed) else [])
        expected.append({(name, value): 1 / len(values) for name, values in cells for value in values})
    got = side(table, *names)
    numbers: dict = {}
    for row, (mine, theirs) in enumerate(zip(meaning(got), expected)):
        assert sorted(mine.values()) == pytest.approx(sorted(theirs.values())), f"row {row}"
        numbers[row] = set(mine), set(theirs)
    # Two rows share as many values in one as in the other, and there are as many in all.
    for i in numbers:
        for j in numbers:
            assert len(numbers[i][0] & numbers[j][0]) == len(numbers[i][1] & numbers[j][1])
    assert got.values == 1 + len({value for _, theirs in numbers.values() for value in theirs})
    assert (got.index[got.weight == 0] == 0).all()


def test_the_two_sides_of_the_items_number_alike():
    items = Catalogue([0, 1, 2], pl.DataFrame({"a": ["x", "y", "x"], "b": ["p", "p", "q"]}))
    schema = FeatureSchema(item=["item_id", "b", "a"], sequence=["a"])
    features = Features.of(schema, Catalogue([0]), items)
    assert not features.item_is_sequence
    assert (features.item.ids, features.sequence.ids, bool(features.user)) == (True, False, False)
    assert features.item.values == features.sequence.values == 5
    for whole, part in zip(meaning(features.item), meaning(features.sequence)):
        assert set(part) < set(whole)
    again = Features.from_arrays(schema, features.arrays())
    assert again.item.digest == features.item.digest != features.sequence.digest
    assert (again.item.values, again.sequence.values, again.item_is_sequence) == (5, 5, False)
    reordered = FeatureSchema(item=["a", "item_id"], sequence=["item_id", "a"])
    assert Features.of(reordered, Catalogue([0]), items).item_is_sequence


def test_mistakes_are_named():
    table = {"genres": ["a", "b"], "title": ["x", "y"]}
    with pytest.raises(
        SettingsError,
        match=r"features\.item: .* have no column 'genre'\. Did you mean 'genres'\? Known: genres, title",
    ):
        side(table, "genre")
    with pytest.raises(
        SettingsError, match=r"features.user: the user attributes have no column 'zzz'\. Known: genres, title"
    ):
        side(table, "genres#zzz", where="user")
    with pytest.raises(
        SettingsError,
        match=r"features.sequence: no column 'genres', as the items have no attributes.*data\.items",
    ):
        Features.of(FeatureSchema(sequence=["genres"]), Catalogue([0]), Catalogue([0]))
    with pytest.raises(SettingsError, match="column 'x' is empty"):
        side({"x": [None, ""]}, "x")
    with pytest.raises(SettingsError, match=r"expected texts, numbers or lists of them\. Got Struct"):
        side({"x": [{"a": 1}]}, "x")
    with pytest.raises(
        SettingsError, match=r"'price' has 1,500 different numbers; expected at most 1,000.*Bin it"
    ):
        side({"price": np.arange(3000) // 2}, "price")
    with pytest.raises(
        SettingsError,
        match=r"'title' has 199 different values in 200 items, so it says little more than item_id does",
    ):
        side({"title": [f"film {max(1, i)}" for i in range(200)]}, "title")
    side({"zip": [f"{i // 2:05}" for i in range(4000)]}, "zip")  # many, but shared


def test_movielens(shared_data):
    for name, ages in (("ml-100k", 61), ("ml-1m", 7)):
        s = sources.load(name, data_dir=shared_data).sequences()
        schema = FeatureSchema(
            user=["gender", "age", "occupation", "zip_code", "gender#age"], item=["genres"]
        )
        features = Features.of(schema, s.user_catalogue, s.item_catalogue)
        assert features.item.values == 1 + (19 if name == "ml-100k" else 18)
        assert features.user.values > 1 + 2 + ages + 21
        assert (features.user.weight == 1).all()  # every user has all five
        with pytest.raises(SettingsError, match="title"):
            Features.of(FeatureSchema(item=["title"]), s.user_catalogue, s.item_catalogue)
