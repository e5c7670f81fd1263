"""Texts as embeddings."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from seqrec.errors import DataError, SettingsError

pytest.importorskip("sklearn", reason="needs scikit-learn (extra: text)")
from seqrec.experiment import embed as embed_table
from seqrec.features.text import embed

TITLES = ["Zelda: a link", "ZELDA links", "Mario kart 8", "mario karts", "Halo 3", "halo three"]


def test_alike_texts_are_close():
    found = embed(pl.Series("title", TITLES), 4)
    assert found.dtype == pl.Array(pl.Float32, 4)
    vectors = found.to_numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosine = vectors @ vectors.T - 2 * np.eye(6)
    assert cosine.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]
    assert embed(pl.Series("title", TITLES), 4).equals(found)


def test_what_says_nothing_is_missing():
    found = embed(pl.Series("title", [*TITLES, None, "", "  ", "qqq"]), 4)
    assert found.is_null().to_list() == [False] * 6 + [True] * 4


def test_a_width_that_the_texts_do_not_have():
    assert embed(pl.Series("title", ["ab", "ab"]), 50).dtype.shape == (2,)


def test_new_texts_by_an_earlier_table():
    before = embed(pl.Series("title", TITLES), 4)
    grown = pl.Series("title", ["Mario party", *TITLES, "Halo wars"])
    after = embed(grown, 4, pl.Series("title", TITLES))
    np.testing.assert_allclose(after[1:7].to_numpy(), before.to_numpy(), atol=1e-6)
    assert not np.allclose(embed(grown, 4)[1:7].to_numpy(), before.to_numpy(), atol=0.1)


def test_refusals():
    with pytest.raises(DataError, match="column 'title': expected texts that have something in common"):
        embed(pl.Series("title", ["ab", "cd"]))
    for width in (0, 1.5, True):
        with pytest.raises(SettingsError, match="width: expected a whole number"):
            embed(pl.Series("title", TITLES), width)


def test_a_table_on_disk(tmp_path):
    pl.DataFrame({"item_id": [7, 8, 9], "title": TITLES[:3], "code": ["01", "02", "03"]}).write_csv(
        tmp_path / "items.csv"
    )
    source, target = str(tmp_path / "items.csv"), str(tmp_path / "items.parquet")
    assert "3 rows, 2 numbers each in title_embedding" in embed_table.embed(source, target, width=2)
    found = pl.read_parquet(target)
    assert found["item_id"].dtype == pl.Int64
    assert found["code"].to_list() == ["01", "02", "03"]
    assert found["title_embedding"].dtype == pl.Array(pl.Float32, 2)
    again = str(tmp_path / "again.parquet")
    embed_table.embed(source, again, ("title", "code"), "text", 2, target)
    assert pl.read_parquet(again)["text"].dtype == pl.Array(pl.Float32, 2)
    with pytest.raises(DataError, match=r"no column 'titel'\. Did you mean 'title'"):
        embed_table.embed(source, again, ("titel",))
    with pytest.raises(SettingsError, match="has 'title_embedding' already"):
        embed_table.embed(target, again)
    with pytest.raises(SettingsError, match=r"\.parquet"):
        embed_table.embed(source, str(tmp_path / "items2.csv"))
    with pytest.raises(DataError, match="no such file"):
        embed_table.embed(str(tmp_path / "none.csv"), again)
