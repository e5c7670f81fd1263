"""Metrics against an independent library, against the definitions of Spark's RankingMetrics, and by hand."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest

from seqrec.errors import SettingsError
from seqrec.evaluation import metrics

ITEMS = 60
RANKS = np.concatenate([np.arange(1, 25), np.random.default_rng(0).integers(1, ITEMS + 1, 300), [ITEMS]])


@pytest.fixture(scope="module")
def independent() -> dict[str, dict[int, float]]:
    """ir-measures' values for queries whose only relevant document has these ranks."""
    qrels = [ir_measures.Qrel(str(q), "target", 1) for q in range(len(RANKS))]
    run = []
    for q, rank in enumerate(RANKS):
        documents = [f"d{i}" for i in range(ITEMS - 1)]
        documents.insert(rank - 1, "target")
        run += [
            ir_measures.ScoredDoc(str(q), document, float(ITEMS - i)) for i, document in enumerate(documents)
        ]
    names = {"precision": "P", "recall": "R", "hit_rate": "Success", "map": "AP", "ndcg": "nDCG", "mrr": "RR"}
    wanted = {
        ir_measures.parse_measure(f"{theirs}@{k}"): f"{ours}@{k}"
        for ours, theirs in names.items()
        for k in metrics.CUTOFFS
    }
    values: dict[str, dict[int, float]] = {}
    for metric in ir_measures.iter_calc(list(wanted), qrels, run):
        values.setdefault(wanted[metric.measure], {})[int(metric.query_id)] = metric.value
    return values


@pytest.mark.parametrize("k", metrics.CUTOFFS)
@pytest.mark.parametrize("name", metrics.BY_NAME)
def test_agrees_with_ir_measures(name: str, k: int, independent: dict[str, dict[int, float]]):
    theirs = independent[f"{name}@{k}"]
    assert len(theirs) == len(RANKS)
    np.testing.assert_allclose(
        metrics.from_ranks(RANKS)[f"{name}@{k}"], [theirs[q] for q in range(len(RANKS))], atol=1e-12
    )


def spark_precision_at(predicted: list[int], relevant: set[int], k: int) -> float:
    """Relevant items among the first k, over k, even where fewer than k are predicted."""
    return sum(item in relevant for item in predicted[:k]) / k


def spark_recall_at(predicted: list[int], relevant: set[int], k: int) -> float:
    return sum(item in relevant for item in predicted[:k]) / len(relevant)


def spark_mean_average_precision_at(predicted: list[int], relevant: set[int], k: int) -> float:
    """Precision at the place of every relevant item among the first k, over the most there can be of them."""
    total = sum(
        spark_precision_at(predicted, relevant, place + 1)
        for place, item in enumerate(predicted[:k])
        if item in relevant
    )
    return total / min(len(relevant), k)


def spark_ndcg_at(predicted: list[int], relevant: set[int], k: int) -> float:
    gain = sum(1 / math.log(place + 2) for place, item in enumerate(predicted[:k]) if item in relevant)
    return gain / sum(1 / math.log(place + 2) for place in range(min(len(relevant), k)))


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("precision", spark_precision_at),
        ("recall", spark_recall_at),
        ("map", spark_mean_average_precision_at),
        ("ndcg", spark_ndcg_at),
    ],
)
def test_agrees_with_sparks_definitions(name: str, definition):
    expected = []
    for rank in RANKS:
        predicted = list(range(1, ITEMS))
        predicted.insert(rank - 1, 0)
        expected.append(definition(predicted, {0}, 20))
    np.testing.assert_allclose(metrics.from_ranks(RANKS)[f"{name}@20"], expected, atol=1e-12)


SETS = [
    sorted(
        np.random.default_rng(q).choice(ITEMS, np.random.default_rng(q).integers(1, 25), replace=False) + 1
    )
    for q in range(60)
]
"""Ranks of the right answers of queries that have several."""
OFFSETS = np.concatenate([[0], np.cumsum([len(ranks) for ranks in SETS])])


def of_sets(name: str, k: int) -> np.ndarray:
    shuffled = [np.random.default_rng(q).permutation(ranks) for q, ranks in enumerate(SETS)]
    return metrics.from_ranks(np.concatenate(shuffled), (k,), offsets=OFFSETS)[f"{name}@{k}"]


@pytest.mark.parametrize("k", metrics.CUTOFFS)
def test_several_right_answers_agree_with_ir_measures(k: int):
    """But for average precision, which is divided by min(n, k) here and by n there."""
    qrels, run = [], []
    for q, ranks in enumerate(SETS):
        qrels += [ir_measures.Qrel(str(q), f"d{rank}", 1) for rank in ranks]
        run += [ir_measures.ScoredDoc(str(q), f"d{i}", float(ITEMS - i)) for i in range(1, ITEMS + 1)]
    for ours, theirs in {
        "precision": "P",
        "recall": "R",
        "hit_rate": "Success",
        "ndcg": "nDCG",
        "mrr": "RR",
    }.items():
        measure = ir_measures.parse_measure(f"{theirs}@{k}")
        expected = {int(m.query_id): m.value for m in ir_measures.iter_calc([measure], qrels, run)}
        np.testing.assert_allclose(of_sets(ours, k), [expected[q] for q in range(len(SETS))], atol=1e-12)


@pytest.mark.parametrize("k", metrics.CUTOFFS)
@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("precision", spark_precision_at),
        ("recall", spark_recall_at),
        ("map", spark_mean_average_precision_at),
        ("ndcg", spark_ndcg_at),
    ],
)
def test_several_right_answers_agree_with_sparks_definitions(name: str, k: int, definition):
    predicted = list(range(1, ITEMS + 1))
    expected = [definition(predicted, set(map(int, ranks)), k) for ranks in SETS]
    np.testing.assert_allclose(of_sets(name, k), expected, atol=1e-12)


@pytest.mark.parametrize("k", metrics.CUTOFFS)
def test_ndcg_over_the_whole_set_is_what_codes_for_baskets_compute(k: int):
    """The gains of the hits among the first k, over those of as many hits as there are right answers."""
    expected = [
        sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
        / sum(1 / math.log2(place + 2) for place in range(len(ranks)))
        for ranks in SETS
    ]
    np.testing.assert_allclose(of_sets("ndcg_whole", k), expected, atol=1e-12)
    metric, cutoff = metrics.parse(f"ndcg_whole@{k}")
    assert metric(RANKS, cutoff).tolist() == metrics.ndcg(RANKS, k).tolist()
    assert f"ndcg_whole@{k}" not in metrics.from_ranks(RANKS)


def test_one_right_answer_is_the_special_case_of_several():
    several = metrics.from_ranks(RANKS, offsets=np.arange(len(RANKS) + 1))
    for name, values in metrics.from_ranks(RANKS).items():
        assert several[name].tolist() == values.tolist()


def test_no_query_has_no_values():
    assert (
        metrics.from_ranks(np.zeros(0, np.int64), (10,), offsets=np.zeros(1, np.int64))["ndcg@10"].tolist()
        == []
    )


def test_by_hand():
    ranks = np.array([1, 3, 11])
    assert metrics.recall(ranks, 10).tolist() == [1, 1, 0]
    assert metrics.precision(ranks, 10).tolist() == [0.1, 0.1, 0]
    assert metrics.mrr(ranks, 10).tolist() == [1, 1 / 3, 0]
    assert metrics.average_precision(ranks, 10).tolist() == [1, 1 / 3, 0]
    assert metrics.ndcg(ranks, 10).tolist() == [1, 0.5, 0]


def test_parse():
    function, k = metrics.parse("ndcg@10")
    assert function is metrics.ndcg
    assert k == 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", "Did you mean 'ndcg'"),
        ("ndcg", "cut-off"),
        ("ndcg@0", "at least 1"),
        ("ndcg@ten", "'ten'"),
        ("recall@-1", "'-1'"),
        ("recall@²", "'²'"),
    ],
)
def test_names_that_are_none(name: str, message: str):
    with pytest.raises(SettingsError, match=message):
        metrics.parse(name)


LISTS = np.array([[0, 1], [0, 2], [0, -1]])  # the last list is short


def test_coverage():
    assert metrics.coverage(LISTS, 6) == 0.5


def test_gini():
    assert metrics.gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    # one item has it all: 1 - 1/n
    assert metrics.gini(np.zeros((5, 1), dtype=int), 4) == pytest.approx(1 - 1 / 4)
    counts = [3, 1, 1, 0, 0, 0]  # half the mean absolute difference over the mean
    mean_difference = np.mean([abs(a - b) for a in counts for b in counts])
    assert metrics.gini(LISTS, 6) == pytest.approx(mean_difference / (2 * np.mean(counts)))


def test_popularity_percentile():
    counts = np.array([9, 5, 5, 1])  # percentiles 1, 1/2, 1/2, 0
    assert metrics.popularity_percentile(np.array([[0, 3]]), counts) == pytest.approx(0.5)
    assert metrics.popularity_percentile(np.array([[1, -1]]), counts) == pytest.approx(0.5)
    assert metrics.popularity_percentile(np.array([[0]]), counts) == pytest.approx(1)


def test_novelty():
    counts = np.array([7, 3, 1, 1])  # with one added: shares 8/16, 4/16, 2/16, 2/16
    assert metrics.novelty(np.array([[0, 1], [2, -1]]), counts) == pytest.approx((1 + 2 + 3) / 3)


def test_metrics_that_are_named_come_beside_those_at_the_cutoffs():
    found = metrics.from_ranks(RANKS, (5,), ["ndcg@7", "recall@5"])
    assert found.keys() == {f"{name}@5" for name in metrics.BY_NAME} | {"ndcg@7"}
    assert found["ndcg@7"].tolist() == metrics.ndcg(RANKS, 7).tolist()
