"""Ranking metrics for one relevant item a query, as pure functions of its rank (1 is best), and measures of
whole lists.

With a single relevant item every ideal list has it first, so the ideal DCG is 1 and there is one NDCG.
``precision`` divides by k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from seqrec.errors import SettingsError
from seqrec.settings import names

CUTOFFS = (1, 5, 10, 20)


def recall(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 if the target is among the first k, else 0. With one relevant item this is the hit rate."""
    return (ranks <= k).astype(np.float64)


def precision(ranks: np.ndarray, k: int) -> np.ndarray:
    """1/k if the target is among the first k, else 0."""
    return (ranks <= k) / k


def mrr(ranks: np.ndarray, k: int) -> np.ndarray:
    """1/rank if the target is among the first k, else 0 (reciprocal rank)."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def average_precision(ranks: np.ndarray, k: int) -> np.ndarray:
    """Average precision at k; with one relevant item it equals the reciprocal rank."""
    return mrr(ranks, k)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(rank + 1) if the target is among the first k, else 0 (Jarvelin and Kekalainen, 2002; gains of
    1)."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


BY_NAME: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "precision": precision,
    "recall": recall,
    "hit_rate": recall,
    "map": average_precision,
    "ndcg": ndcg,
    "mrr": mrr,
}


def parse(name: str) -> tuple[Callable[[np.ndarray, int], np.ndarray], int]:
    """``"ndcg@10"`` -> (function, 10). One from outside the package is named ``package.module:function@10``,
    or as an installed package offers it (entry points of the group ``seqrec.metrics``).

    Raises:
        SettingsError: no such metric, or no cut-off of at least 1.
    """
    metric, _, k = name.partition("@")
    function = names.resolve("metric", metric, BY_NAME)
    if not callable(function):
        raise SettingsError(f"metric {metric}: expected a function (ranks, k). Got {function!r}.")
    if not k.isdigit() or int(k) < 1:
        raise SettingsError(
            f"metric {name!r}: expected a cut-off of at least 1 after '@', as in '{metric}@10'. Got {k!r}."
        )
    return function, int(k)


def from_ranks(
    ranks: np.ndarray, cutoffs: tuple[int, ...] = CUTOFFS, more: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Every metric at every cut-off, and more by name, a value a query: ``{"ndcg@10": (queries,),
    ...}``."""
    values = {f"{name}@{k}": function(ranks, k) for name, function in BY_NAME.items() for k in cutoffs}
    for name in more:
        if name not in values:
            function, k = parse(name)
            values[name] = np.asarray(function(ranks, k), dtype=np.float64)
            if values[name].shape != ranks.shape:
                raise SettingsError(
                    f"metric {name!r}: expected a value a query, {ranks.shape}. Got {values[name].shape}."
                )
    return values


def coverage(lists: np.ndarray, items: int) -> float:
    """Share of the catalogue that appears in at least one list. lists: (queries, k) item indices, -1 where a
    list is short."""
    return len(np.unique(lists[lists >= 0])) / items


def gini(lists: np.ndarray, items: int) -> float:
    """Gini coefficient of how often each item is recommended: 0 all alike, 1 a single item (Adomavicius and
    Kwon, 2012)."""
    counts = np.sort(np.bincount(lists[lists >= 0], minlength=items))
    if not counts.sum():
        return 0.0
    return float(((2 * np.arange(1, items + 1) - items - 1) * counts).sum() / (items * counts.sum()))


def popularity_percentile(lists: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean percentile (0 rarest, 1 most popular; ties share their mean) of the recommended items among all,
    by training events."""
    from_below = np.searchsorted(np.sort(item_counts), item_counts, side="left")
    from_above = np.searchsorted(np.sort(item_counts), item_counts, side="right") - 1
    percentile = (from_below + from_above) / (2 * max(1, len(item_counts) - 1))
    return float(percentile[lists[lists >= 0]].mean())


def novelty(lists: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean self-information ``-log2 p(item)`` of the recommended items in bits, p from training events with
    one added to each (Zhou et al., 2010)."""
    p = (item_counts + 1) / (item_counts.sum() + len(item_counts))
    return float(-np.log2(p[lists[lists >= 0]]).mean())


def _known_metric(name: str) -> str:
    parse(name)
    return name


MetricName = Annotated[str, AfterValidator(_known_metric)]
"""A metric with its cut-off, such as ``ndcg@10``."""
