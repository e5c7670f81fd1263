"""AUC against scikit-learn's, with ties, filters and misses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ring_sequences
from sklearn.metrics import roc_auc_score

from seqrec.errors import SettingsError
from seqrec.evaluation import metrics, ranking
from seqrec.experiment.settings import EvaluateSettings
from seqrec.models.popularity import Popularity
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.topk import Filter


class Rounded(Popularity):
    """Scores with many ties."""

    def score(self, query):
        generator = torch.Generator().manual_seed(len(query))
        items = len(self.item_catalogue)
        return torch.randint(0, 5, (len(query), items), generator=generator).float()


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("deny", [None, np.array([1, 2])])
def test_as_scikit_learn_has_it(filter_seen, deny):
    split = leave_one_out(ring_sequences(users=40))
    model = Rounded().fit(split)
    query, targets = split.query(split.test), split.targets(split.test)
    ranks = ranking.rank(model, split, split.test, candidates=None if deny is None else Filter(deny=deny))
    found = ranks.auc(filter_seen)
    order = np.argsort(query.lengths, kind="stable")
    scores = np.empty((len(query), len(split.sequences.item_catalogue)))
    scores[order] = model.score(query.select(order)).numpy()
    for row, target in enumerate(targets):
        left = np.ones(scores.shape[1], dtype=bool)
        left[query.at(row) if filter_seen else []] = False
        left[[] if deny is None else deny] = False
        if not left[target]:
            assert found[row] == 0
            continue
        label = np.arange(scores.shape[1]) == target
        assert found[row] == pytest.approx(roc_auc_score(label[left], scores[row, left]))


def test_where_it_is_asked_for():
    split = leave_one_out(ring_sequences(users=40))
    model = Popularity().fit(split)
    tested = model.evaluate(split, ["auc", "ndcg@10"])
    assert list(tested.metrics) == ["auc", "ndcg@10"]
    assert "auc" not in model.evaluate(split).metrics
    assert EvaluateSettings.of({"metrics": ["auc"]}, "evaluate").metrics == ["auc"]
    with pytest.raises(SettingsError, match="auc"):
        metrics.parse("auc")
