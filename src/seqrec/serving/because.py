"""Why an item: which items of the history are nearest to it."""

from __future__ import annotations

import numpy as np


def because(vectors: np.ndarray, items: np.ndarray, history: np.ndarray, most: int = 3) -> list[list[int]]:
    """The items of a history nearest to each of some items, by the cosine of their vectors.

    Args:
        vectors: (all items, width).
        items: (n,) item indices.
        history: (length,) item indices.
        most: how many an item.

    Returns:
        of each of the n at most ``most`` distinct item indices, nearest first.
    """
    distinct = np.unique(history)
    if not len(distinct):
        return [[] for _ in items]
    cosines = _unit(vectors[items]) @ _unit(vectors[distinct]).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    found: list[list[int]] = distinct[order].tolist()
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(norms == 0, 1, norms)
    return unit
