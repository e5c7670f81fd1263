"""Ranking metrics as pure functions of the ranks of right answers (1 is best); measures of whole lists.

A query has one right answer or, with offsets, several: the ranks of query i are
``ranks[offsets[i] : offsets[i + 1]]``. With one, every ideal list has it first, so the ideal DCG is 1.

    hits@k       how many of the n right answers are among the first k
    recall       hits / n                                  precision    hits / k
    hit_rate     1 if there is a hit, else 0               mrr          1 / the best rank within k, else 0
    map          sum over hits of (hits up to its rank / its rank) / min(n, k)
    ndcg         sum over hits of 1 / log2(rank + 1), over that of the ideal list, min(n, k) hits at its top
    ndcg_whole   the same over n hits at its top (several codes for baskets): with n > k none reaches 1
    auc          share of the other ranked items that are below the right answer; it has no k
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from seqrec.errors import SettingsError, shown
from seqrec.settings import names

CUTOFFS = (1, 5, 10, 20)


def rank_of_miss(items: int) -> int:
    """The rank of a target that no list has: beyond the catalogue and every usual cut-off, so that it is no
    hit in a small catalogue either."""
    return max(items + 1, 65_535)


Metric = Callable[..., np.ndarray]
"""``metric(ranks, k)`` gives (queries,) values; ``metric(ranks, k, offsets)`` those of queries with several
right answers."""


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(queries,) sums of the (targets,) values of each query."""
    return np.add.reduceat(values, offsets[:-1]) if len(values) else np.zeros(0)


def recall(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) share of the right answers that are among the first k. With one it is the hit rate."""
    hits = (ranks <= k).astype(np.float64)
    return hits if offsets is None else _sums(hits, offsets) / np.diff(offsets)


def precision(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) share of the first k that are right answers."""
    hits = ranks <= k
    return hits / k if offsets is None else _sums(hits.astype(np.float64), offsets) / k


def hit_rate(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) 1 if a right answer is among the first k, else 0."""
    hits = (ranks <= k).astype(np.float64)
    return hits if offsets is None else (_sums(hits, offsets) > 0).astype(np.float64)


def mrr(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) 1 / rank of the first right answer, 0 if it is not among the first k (reciprocal rank)."""
    first = ranks if offsets is None or not len(ranks) else np.minimum.reduceat(ranks, offsets[:-1])
    return np.where(first <= k, 1.0 / first, 0.0)


def average_precision(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) average precision at k. With one right answer it is the reciprocal rank."""
    if offsets is None:
        return mrr(ranks, k)
    n = np.diff(offsets)
    query = np.repeat(np.arange(len(n)), n)
    order = np.lexsort((ranks, query))
    number = np.arange(len(ranks)) - np.repeat(offsets[:-1], n) + 1  # of hits up to it
    of_hits = np.where(ranks[order] <= k, number / ranks[order], 0.0)
    return _sums(of_hits, offsets) / np.minimum(n, k)


def ndcg(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) discounted cumulative gain at k over that of an ideal list (Jarvelin and Kekalainen, 2002;
    gains of 1)."""
    gains = np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)
    if offsets is None:
        return gains
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    found: np.ndarray = _sums(gains, offsets) / ideal[np.minimum(np.diff(offsets), k) - 1]
    return found


def ndcg_whole(ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) discounted cumulative gain at k over that of all right answers, however many there are. With
    one it is ``ndcg``."""
    if offsets is None or not len(ranks):
        return ndcg(ranks, k)
    n = np.diff(offsets)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, n.max() + 2)))
    found: np.ndarray = _sums(ndcg(ranks, k), offsets) / ideal[n - 1]
    return found


AUC = "auc"
"""The metric without a cut-off, by name."""


def auc(ranks: np.ndarray, ties: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """(queries,) area under the ROC curve of one right answer a query, which is the share of the other items
    that are below it (Hanley and McNeil, 1982); of equal scores half. 0 for a miss.

    Args:
        ranks: (queries,) of the right answers, the worst among equal scores.
        ties: (queries,) how many other items have the same score.
        ranked: (queries,) how many items are ranked, the right answer included.
    """
    below = ranked - ranks + ties / 2
    found: np.ndarray = np.where(ranks > ranked, 0.0, below / np.maximum(ranked - 1, 1))
    return found


BY_NAME: dict[str, Metric] = {
    "precision": precision,
    "recall": recall,
    "hit_rate": hit_rate,
    "map": average_precision,
    "ndcg": ndcg,
    "mrr": mrr,
}
OF_SETS: dict[str, Metric] = {"ndcg_whole": ndcg_whole}
"""Metrics that say something of their own only of queries with several right answers."""


def values(metric: Metric, ranks: np.ndarray, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """(queries,) a metric of (targets,) ranks.

    Raises:
        SettingsError: a metric from outside the package gives something else.
    """
    found = np.asarray(metric(ranks, k) if offsets is None else metric(ranks, k, offsets), dtype=np.float64)
    queries = len(ranks) if offsets is None else len(offsets) - 1
    if found.shape != (queries,):
        raise SettingsError(
            f"metric '{names.reference(metric)}@{k}': expected a value a query, ({queries},). "
            f"Got {found.shape}."
        )
    return found


def parse(name: str) -> tuple[Metric, int]:
    """``"ndcg@10"`` -> (function, 10). One from outside the package is named ``package.module:function@10``,
    or as an installed package offers it (entry points of the group ``seqrec.metrics``).

    Raises:
        SettingsError: no such metric, or no cut-off of at least 1.
    """
    metric, _, k = name.partition("@")
    function = names.resolve("metric", metric, BY_NAME | OF_SETS)
    if not callable(function):
        raise SettingsError(f"metric {metric}: expected a function (ranks, k). Got {function!r}.")
    if not re.fullmatch("[0-9]{1,9}", k) or int(k) < 1:
        raise SettingsError(
            f"metric {shown(name)}: expected a cut-off of at least 1 after '@', as in "
            f"'{shown(metric, str)}@10'. Got {shown(k)}."
        )
    return function, int(k)


def from_ranks(
    ranks: np.ndarray,
    cutoffs: tuple[int, ...] = CUTOFFS,
    more: Iterable[str] = (),
    offsets: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Every metric of (targets,) ranks at every cut-off, and more by name: ``{"ndcg@10": (queries,) values,
    ...}``. Of queries with several right answers those ``OF_SETS`` too."""
    usual = BY_NAME if offsets is None else BY_NAME | OF_SETS
    wanted = {f"{name}@{k}": (metric, k) for name, metric in usual.items() for k in cutoffs}
    wanted |= {name: parse(name) for name in more if name not in wanted}
    return {name: values(metric, ranks, k, offsets) for name, (metric, k) in wanted.items()}


def coverage(lists: np.ndarray, items: int) -> float:
    """Share of the catalogue that appears in at least one list. lists: (queries, k) item indices, -1 where a
    list is short."""
    return len(np.unique(lists[lists >= 0])) / items


def gini(lists: np.ndarray, items: int) -> float:
    """Gini coefficient of how often each item is recommended: 0 all alike, 1 a single item (Adomavicius and
    Kwon, 2012).

    Args:
        lists: (queries, k) item indices, -1 where a list is short.
        items: how many the catalogue has.
    """
    counts = np.sort(np.bincount(lists[lists >= 0], minlength=items))
    if not counts.sum():
        return 0.0
    return float(((2 * np.arange(1, items + 1) - items - 1) * counts).sum() / (items * counts.sum()))


def popularity_percentile(lists: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean percentile (0 rarest, 1 most popular; ties share their mean) of the recommended items among all,
    by training events.

    Args:
        lists: (queries, k) item indices, -1 where a list is short.
        item_counts: (items,) training events of each item.
    """
    from_below = np.searchsorted(np.sort(item_counts), item_counts, side="left")
    from_above = np.searchsorted(np.sort(item_counts), item_counts, side="right") - 1
    percentile = (from_below + from_above) / (2 * max(1, len(item_counts) - 1))
    return float(percentile[lists[lists >= 0]].mean())


def novelty(lists: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean self-information ``-log2 p(item)`` of the recommended items in bits, p from training events with
    one added to each (Zhou et al., 2010).

    Args:
        lists: (queries, k) item indices, -1 where a list is short.
        item_counts: (items,) training events of each item.
    """
    p = (item_counts + 1) / (item_counts.sum() + len(item_counts))
    return float(-np.log2(p[lists[lists >= 0]]).mean())


def _known_metric(name: str) -> str:
    parse(name)
    return name


def _known_measure(name: str) -> str:
    return name if name == AUC else _known_metric(name)


MetricName = Annotated[str, AfterValidator(_known_metric)]
"""A metric with its cut-off, such as ``ndcg@10``."""

Measured = Annotated[str, AfterValidator(_known_measure)]
"""A metric with its cut-off, or ``auc``: what a test may be asked for."""
