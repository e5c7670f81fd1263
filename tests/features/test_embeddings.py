"""Columns of embeddings: what is taken, at which length, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from seqrec.data.catalogue import Catalogue
from seqrec.errors import SettingsError
from seqrec.features.embeddings import vectors_of
from seqrec.features.encoding import Features, values_of
from seqrec.features.schema import FeatureSchema

IDS = ["a", "b", "c", "d"]


def vectors(cells, dtype=None) -> np.ndarray:
    series = pl.Series("text", cells, dtype=dtype, strict=False)
    return vectors_of(series, Catalogue(IDS[: len(series)]), "features.item")


@pytest.mark.parametrize(
    "dtype", [pl.List(pl.Float64), pl.List(pl.Float32), pl.Array(pl.Float32, 2), pl.Array(pl.Float64, 2)]
)
def test_vectors_have_length_one(dtype):
    found = vectors([[3.0, 4.0], None, [0.0, 0.0], [0.0, -0.5]], dtype)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0, 0], [0, -1]], atol=1e-7)
    assert found.dtype == np.float32


def test_huge_and_tiny_numbers():
    found = vectors([[3e300, 4e300], [3e-300, 4e-300]])
    np.testing.assert_allclose(found, [[0.6, 0.8]] * 2, atol=1e-7)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[1.0, 2.0], [1.0], [1.0, 2.0]], r"most have 2 numbers\. Got 1 for 'b'\. Embed all"),
        ([[1.0, 2.0], [1.0], [1.0, 2.0], []], r"Got 1 for 'b' \(and 1 more\)"),
        ([[1.0, 2.0], [1.0, float("nan")]], r"column 'text': expected finite numbers\. Got nan for 'b'"),
        ([[1.0, 2.0], None, [float("inf"), 0.0]], r"Got inf for 'c'"),
        ([[1.0, 2.0], [1.0, None]], r"Got nan for 'b'"),
        ([None, None], "nothing but empty cells. Leave it out"),
        ([[], []], "nothing but empty cells. Leave it out"),
        ([[0.0, 0.0], None], "numbers other than 0"),
    ],
)
def test_what_is_refused(cells, message):
    with pytest.raises(SettingsError, match=message):
        vectors(cells, pl.List(pl.Float64))


def catalogue(**more) -> Catalogue:
    table = {"kind": ["x", "y", "x", None], "text": [[1.0, 0.0], None, [0.0, 2.0], [1.0, 1.0]]}
    return Catalogue(IDS, pl.DataFrame({**table, **more}))


def test_beside_categories_and_on_both_sides():
    items = catalogue(picture=[[1.0], [1.0], None, [-1.0]])
    schema = FeatureSchema(item=["item_id", "kind", "text"], sequence=["text", "picture"])
    found = Features.of(schema, Catalogue([0]), items)
    assert list(found.item.embeddings) == ["text"]
    assert list(found.sequence.embeddings) == ["text", "picture"]
    assert found.sequence.embeddings["text"] is found.item.embeddings["text"]
    assert found.sequence.index is None
    assert found.item.values == 3
    assert found.sequence.has_attributes
    assert not found.sequence.ids
    assert found.item.tells_of(4).tolist() == [True, True, True, True]
    assert found.sequence.tells_of(4).tolist() == [True, True, True, True]
    only = Features.of(FeatureSchema(item=["item_id", "text"]), Catalogue([0]), items)
    assert only.item.tells_of(4).tolist() == [True, False, True, True]
    assert values_of(schema, "items", items) == [("kind", "x"), ("kind", "y")]
    again = Features.from_arrays(schema, found.arrays())
    assert sorted(found.arrays()) == [
        *("item.index", "item.weight", "items.embeddings.picture", "items.embeddings.text")
    ]
    for side in ("user", "sequence", "item"):
        assert getattr(again, side).digest == getattr(found, side).digest
    other = Features.of(schema, Catalogue([0]), catalogue(picture=[[1.0], [-1.0], None, [-1.0]]))
    assert other.item.digest == found.item.digest
    assert other.sequence.digest != found.sequence.digest


def test_of_users():
    found = Features.of(FeatureSchema(user=["text"]), catalogue(), Catalogue([0]))
    assert list(found.user.embeddings) == ["text"]
    assert list(found.arrays()) == ["users.embeddings.text"]


def test_in_a_cross_they_are_refused():
    with pytest.raises(SettingsError, match="'kind#text': expected columns of categories in a cross"):
        Features.of(FeatureSchema(item=["kind#text"]), Catalogue([0]), catalogue())


def test_lists_of_whole_numbers_are_categories():
    found = Features.of(FeatureSchema(item=["text"]), Catalogue([0]), catalogue(text=[[1, 2], [2], [], [1]]))
    assert not found.item.embeddings
    assert found.item.values == 3
