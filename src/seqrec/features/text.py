"""Texts as embeddings, with no model to download: what is written alike lies close together.

    text -> character n-grams within words -> TF-IDF -> truncated SVD -> length 1

Latent semantic analysis (Deerwester et al., JASIS 1990) of character n-grams, by scikit-learn (extra
``text``). "Zelda" and "ZELDAS" share most of theirs, and so do a console's games; a synonym shares none:
that takes a trained encoder, whose vectors, a column of float lists, are read in the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from seqrec.errors import DataError, SettingsError

GRAMS = (2, 4)
"""Characters of an n-gram: the fewest and the most."""
LARGEST = 1 << 18
"""N-grams that are counted, the most frequent ones."""


def embed(texts: pl.Series, width: int = 256, fit_on: pl.Series | None = None) -> pl.Series:
    """The embedding of each text.

    Args:
        texts: (n,) texts; numbers are taken as they are written.
        width: numbers of an embedding, at most; fewer, where the texts have fewer n-grams or are fewer.
        fit_on: texts that tell which n-grams there are and how they go together, by default these. Those of
            an earlier table give the embeddings that it had, so that a model which learned from them can go
            on.

    Returns:
        (n,) arrays of ``width`` float32, of length 1; null where there is no text, or nothing in it that is
            in ``fit_on``.
    Raises:
        DataError: the texts to fit on have no n-gram twice.
        SettingsError: a width below 1, or scikit-learn is not installed.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise SettingsError(f"width: expected a whole number, at least 1. Got {width!r}.")
    decomposition, vectorizer = _sklearn()
    known = _plain(texts if fit_on is None else fit_on)
    counted = vectorizer(
        analyzer="char_wb", ngram_range=GRAMS, sublinear_tf=True, min_df=2, max_features=LARGEST
    )
    try:
        weights = counted.fit_transform(text for text in known if text)
    except ValueError as error:
        raise DataError(
            f"column {(texts if fit_on is None else fit_on).name!r}: expected texts that have something in "
            f"common. Got {len(known):,} in which no {GRAMS[0]} characters come twice."
        ) from error
    width = min(width, *weights.shape)
    with np.errstate(divide="ignore", invalid="ignore"):  # shares of no variance, which nobody asks for
        reduced = decomposition(width, random_state=0).fit(weights)
    vectors = reduced.transform(counted.transform(_plain(texts)))
    lengths = np.linalg.norm(vectors, axis=1)
    unit = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    column = pl.Series(texts.name, unit, dtype=pl.Array(pl.Float32, width))
    empty = pl.Series(lengths == 0)
    return pl.select(pl.when(~empty).then(column)).to_series().alias(texts.name)


def _plain(texts: pl.Series) -> list[str]:
    return texts.cast(pl.String).fill_null("").to_list()


def _sklearn() -> tuple[Any, Any]:
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise SettingsError(
            "embed: needs scikit-learn. Install it with: pip install 'seqrec[text]'"
        ) from error
    return TruncatedSVD, TfidfVectorizer
