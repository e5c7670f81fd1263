from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from seqrec.data.interactions import Interactions
from seqrec.errors import DataError, SeqrecError, SettingsError
from seqrec.evaluation import comparison, metrics, ranking
from seqrec.models.markov import Markov
from seqrec.splitting.everything import everything
from seqrec.splitting.last_basket import last_basket
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.testing import small_log


def test_a_model_is_evaluated_on_the_test_queries_of_a_split():
    split = leave_one_out(small_log())
    model = Markov().fit(split)
    found = model.evaluate(split, ["ndcg@7", "recall@10"], filter_seen=False)
    ranks = ranking.rank(model, split, split.test)
    assert found["ndcg@7"] == pytest.approx(metrics.ndcg(ranks.unfiltered, 7).mean())
    assert list(found.metrics) == ["ndcg@7", "recall@10"]
    values = metrics.from_ranks(ranks.unfiltered, (7,))
    expected = comparison.intervals(comparison.by_user(values, ranks.users))["ndcg@7"]
    assert found.metrics["ndcg@7"] == expected
    assert found.ranks.users.tolist() == split.test.users.tolist()
    table = found.table()
    assert [row["metric"] for row in table.rows] == ["ndcg@7", "recall@10"]
    assert f"markov: test metrics of {len(split.test)} queries, seen items not filtered" in table.title
    everything_asked = model.evaluate(split)
    assert len(everything_asked.metrics) == len(metrics.BY_NAME) * len(metrics.CUTOFFS)
    assert everything_asked["recall@10"] == pytest.approx(metrics.recall(ranks.filtered, 10).mean())


def test_baskets_are_asked_for_whole_and_apart():
    log = small_log()
    split = last_basket(replace(log, baskets=np.arange(log.events) // 3))
    found = Markov().fit(split).evaluate(split, ["recall@5", "ndcg_whole@5"], filter_seen=False)
    assert set(found.apart) == {"repeat", "explore"}
    hits, repeated, query = found.ranks.unfiltered <= 5, found.ranks.repeated, split.test.offsets[:-1]
    for part, chosen in (("repeat", repeated), ("explore", ~repeated)):
        n, of_hits = np.add.reduceat(chosen, query), np.add.reduceat(hits & chosen, query)
        assert found.apart[part]["recall@5"]["mean"] == pytest.approx((of_hits[n > 0] / n[n > 0]).mean())
    names = ["recall@5", "ndcg_whole@5"]
    assert [row["metric"] for row in found.table().rows] == [
        *names,
        *(f"{name} {part}" for part in ("repeat", "explore") for name in names),
    ]


def test_what_cannot_be_asked():
    split = leave_one_out(small_log())
    model = Markov().fit(split)
    with pytest.raises(DataError, match=r"split 'everything': expected at least one test query\. Got none\."):
        model.evaluate(everything(small_log()))
    with pytest.raises(DataError, match=r"split 'leave_one_out': expected at least one test query"):
        model.evaluate(split.without_test())
    log = pl.DataFrame({"user_id": np.repeat(np.arange(5), 6), "item_id": list("abcdef") * 5})
    other = leave_one_out(Interactions.from_frame(log).sequences())
    with pytest.raises(DataError, match="item ids: expected those that markov was trained on"):
        model.evaluate(other)
    with pytest.raises(SettingsError, match=r"split: expected a split, .* Got DataFrame"):
        model.evaluate(log)
    with pytest.raises(SettingsError, match=r"unknown metric 'ndgc'\. Did you mean 'ndcg'"):
        model.evaluate(split, ["ndgc@10"])
    with pytest.raises(SeqrecError, match=r"markov is not trained\. Call fit"):
        Markov().evaluate(split)
