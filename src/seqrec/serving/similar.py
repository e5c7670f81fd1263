"""Items and users as vectors, and the items nearest to an item: raw ids in and out.

cosine      v_i . v_j / (|v_i| |v_j|)       how much two items point the same way, however popular
dot         v_i . v_j                       as states are compared with items, without an item's bias
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from seqrec.errors import SettingsError
from seqrec.serving import recommender
from seqrec.serving.embeds import Embeds
from seqrec.topk import BestSoFar, TopK

MEASURES = ("cosine", "dot")
ROWS = 512
"""Items asked about at once."""
CELLS = 1 << 20
"""Similarities alive at once, about: 4 MB."""


def nearest(
    vectors: np.ndarray, items: np.ndarray, k: int, by: str, unlearned: np.ndarray | None = None
) -> TopK:
    """The items nearest to some of them, themselves left out, in blocks of the catalogue.

    Args:
        vectors: (items, width) float32.
        items: (n,) indices.
        by: one of ``MEASURES``. The cosine with a vector of zeros is 0.
        unlearned: (n,) items whose vectors mean nothing: they are nobody's neighbours. None: there are none.

    Raises:
        SettingsError: an unknown measure.
    """
    if by not in MEASURES:
        raise SettingsError(f"by: expected one of {', '.join(MEASURES)}. Got {by!r}.")
    asked = _unit(vectors[items]) if by == "cosine" else vectors[items]
    best = BestSoFar(len(items), min(k, max(0, len(vectors) - 1)))
    width = max(1, CELLS // max(1, len(items)))
    for begin in range(0, len(vectors), width):
        block = vectors[begin : begin + width]
        similar = asked @ (_unit(block) if by == "cosine" else block).T
        own = np.flatnonzero((items >= begin) & (items < begin + width))
        similar[own, items[own] - begin] = -np.inf
        if unlearned is not None:
            inside = unlearned[(unlearned >= begin) & (unlearned < begin + width)]
            similar[:, inside - begin] = -np.inf
        best.add(similar, begin)
    return best.found()


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    unit: np.ndarray = vectors / np.where(lengths > 0, lengths, 1)
    return unit


def similar_items(
    model: Embeds, items: Iterable[Any], k: int = 10, *, by: str = "cosine", on_unknown: str = "raise"
) -> pl.DataFrame:
    """The k items most like each of some, by what the model has learned of them.

    Args:
        items: raw item ids: a list, array or Series.
        by: of item vectors: "cosine", or "dot" for their product. Models with neighbours of their own have
            one measure, and leave this out.
        on_unknown: what to do with items that the model never saw: "raise" an error, "warn" and go on without
            them, or "ignore" them.

    Returns:
        a long frame, nearest first: ``item_id`` as asked, ``similar_id``, ``score``, ``rank`` (from 1). Fewer
            than k rows an item where there are no more.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: k is no whole number from 1 on, an unknown measure, or a model that does not know what
            is alike.
        SeqrecError: the model is not trained.
    """
    catalogue = recommender.checked(model, k, on_unknown)
    indices = recommender.indices_of(
        catalogue, items, "items", "a list of item ids, [...]", on_unknown
    ).astype(np.int64)
    indices = recommender.learned(model, indices, "items", on_unknown)
    frames = []
    for begin in range(0, max(1, len(indices)), ROWS):
        some = indices[begin : begin + ROWS]
        top = model.nearest(some, int(k), by)
        row, column = np.nonzero(top.items >= 0)
        found = {
            "item_id": catalogue.decode(some[row]),
            "similar_id": catalogue.decode(top.items[row, column]),
            "score": top.scores[row, column],
            "rank": column + 1,
        }
        frames.append(pl.DataFrame(found))
    return pl.concat(frames)


def item_vectors(model: Embeds) -> pl.DataFrame:
    """The vectors that histories' states are compared with.

    Returns:
        ``item_id``, ``vector`` (an array of float32), and ``bias`` where items have one: an item's score is
            state . vector + bias.

    Raises:
        SeqrecError: the model is not trained.
    """
    ids, found = recommender.checked(model, 1, "raise").ids, model.vectors()
    bias = {} if found.bias is None else {"bias": found.bias}
    return pl.DataFrame({"item_id": ids, "vector": _column(found.vectors), **bias})


def user_vectors(
    model: Embeds,
    sequences: Iterable[Iterable[Any]] | Mapping[Any, Iterable[Any]] | None = None,
    *,
    users: Iterable[Any] | None = None,
    on_unknown: str = "raise",
    at: Any = None,
    times: Any = None,
) -> pl.DataFrame:
    """The states after some histories, which the item vectors are compared with. Arguments as of
    ``recommend``.

    Returns:
        ``query`` (0, 1, ...) or ``user_id``, and ``vector`` (an array of float32). Nothing is known of an
            empty history without a user that was trained: its vector is null.

    Raises:
        UnknownIdError: an unknown id, with on_unknown="raise".
        SettingsError: neither sequences nor users, or one of another shape.
        SeqrecError: the model is not trained.
    """
    query, keys = recommender.asked(model, sequences, users, on_unknown, at, times)
    frame = pl.DataFrame({keys.name: keys, "vector": _column(model.state_vectors(query))})
    return frame.with_columns(pl.when(pl.Series(model.knows(query))).then("vector"))


def _column(vectors: np.ndarray) -> pl.Series:
    plain = np.ascontiguousarray(vectors, dtype=np.float32)
    return pl.Series(plain, dtype=pl.Array(pl.Float32, plain.shape[1]))
