"""The transition prior: against the logarithm of the chain's own scores, and what a model does with it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import seqrec
from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.evaluation import metrics, ranking
from seqrec.experiment import fitting
from seqrec.experiment.recipe import Recipe
from seqrec.models import prior
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.models.prior import Prior, PriorSettings
from seqrec.serving import index
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.testing import sequences_of
from seqrec.training.options import FitOptions

ITEMS = 40
SMALL = {"width": 4, "train": {"epochs": 1, "learning_rate": 1e-4}}  # it learns next to nothing


@pytest.fixture(scope="module")
def split():
    """Of users who go from an item to the next one, nearly always."""
    rng = np.random.default_rng(0)
    lists = [
        (rng.integers(ITEMS) + np.cumsum(np.where(rng.random(12) < 0.9, 1, 7))) % ITEMS for _ in range(300)
    ]
    return leave_one_out(sequences_of(lists, ITEMS))


@pytest.mark.parametrize("strength", [0.3, 5.0])
def test_it_adds_the_log_probability_up_to_a_constant(split, strength):
    """A block at a time, and for histories of every kind."""
    chain = Markov(strength=strength)
    chain.fit_split(split, FitOptions())
    histories = [np.array([1, 2]), np.array([7]), np.array([3, 3, 39]), np.array([7])]
    query = Query.from_lists(histories)
    expected = 0.7 * chain.score(query).double().log()
    fitted = Prior.fit(PriorSettings(weight=0.7, strength=strength, window=1), split)
    start = torch.randn(len(histories), ITEMS, generator=torch.Generator().manual_seed(0))
    for edges in ([0, ITEMS], [0, 7, 8, 30, ITEMS]):
        got = torch.empty_like(start)
        for begin, end in itertools.pairwise(edges):
            block = start[:, begin:end].clone()
            fitted.add(block, query, begin)
            got[:, begin:end] = block
        difference = (got - start).double() - expected
        torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), atol=3e-6, rtol=0)


def test_after_nothing_it_is_the_popularity(split):
    fitted = Prior.fit(PriorSettings(weight=1.0), split)
    scores = torch.zeros(1, ITEMS)
    fitted.add(scores, Query.from_lists([np.empty(0, np.int32)]), 0)
    torch.testing.assert_close(scores[0].exp(), torch.from_numpy(fitted.chain.popularity))


def test_an_exported_model_has_it_too(split, tmp_path):
    """And gives the popularity where nothing is known, as the model does."""
    pytest.importorskip("onnxscript")
    model = HRM(**SMALL, prior={"weight": 0.5}).fit(split)
    agreement = model.export_onnx(tmp_path / "onnx")
    assert agreement.same == 1
    again = seqrec.load(tmp_path / "onnx")
    assert again.prior is not None
    asked = {"sequences": [["i1", "i2", "i3"], [], ["i9"]], "k": 7}
    ours, theirs = model.recommend(**asked), again.recommend(**asked)
    assert ours["item_id"].equals(theirs["item_id"])
    assert ours["source"].equals(theirs["source"])
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-4)
    with pytest.raises(SettingsError, match="index: expected a model without a prior"):
        index.build(again)


def test_weights_are_tried_until_they_help_no_more():
    tried = prior.choose(lambda weight: -abs(weight - 0.05))
    assert list(tried) == [0.0, 0.025, 0.05, 0.1, 0.15, 0.2]
    assert max(tried, key=tried.__getitem__) == 0.05
    assert list(prior.choose(lambda weight: weight)) == list(prior.WEIGHTS)
    level = prior.choose(lambda weight: 1.0)
    assert max(level, key=level.__getitem__) == 0  # nothing gained: none


def value_of(model, split) -> float:
    metric, k = metrics.parse("ndcg@10")
    ranks = ranking.rank(model, split, split.validation, lists=False).headline(True)
    return float(metric(ranks, k).mean())


def test_its_weight_is_chosen_on_validation(split, tmp_path):
    """Of weights that change nothing of the network; and the choice is kept with the model."""
    plain = HRM(**SMALL).fit(split)
    model = HRM(**SMALL, prior="markov").fit(split)
    for name, weights in plain.network.state_dict().items():
        assert torch.equal(weights, model.network.state_dict()[name])
    found = model.fit_report.prior
    values = {float(weight): value for weight, value in found["ndcg@10"].items()}
    assert values[0.0] == pytest.approx(value_of(plain, split))
    assert found["weight"] == max(values, key=values.__getitem__) > 0
    assert value_of(model, split) == pytest.approx(max(values.values()))
    assert model.fit_report.validation["model"] == pytest.approx(max(values.values()))
    assert value_of(model, split) > value_of(plain, split) + 0.2

    model.save(tmp_path / "model")
    again = seqrec.load(tmp_path / "model")
    assert again.configuration() == model.configuration()
    histories = [["i1", "i2", "i3"], ["i9"]]
    assert again.recommend(histories, k=5).equals(model.recommend(histories, k=5))
    assert model.recommend(histories, k=1)["item_id"].to_list() == ["i4", "i10"]


def test_a_given_weight_is_taken_and_what_was_chosen_goes_on_to_the_refit(split):
    given = HRM(**SMALL, prior={"weight": 0.3}).fit(split)
    assert given.fit_report.prior is None
    assert given.scorer(given.network).prior.weight == 0.3

    recipe = Recipe({"name": "hrm", "width": 4}, train=SMALL["train"], prior="markov")
    fitted = fitting.fit(recipe, split, FitOptions(progress=False))
    chosen = fitted.chosen.fit_report.prior["weight"]
    again = fitting.fit_again(
        recipe, split.refit(), fitted.chosen.fit_report, FitOptions(progress=False), None
    )
    assert again.scorer(again.network).prior.weight == chosen
    assert again.configuration()["prior"]["weight"] == chosen


def test_where_nothing_validates_the_weight_is_the_usual_one(split):
    nobody = replace(split, validation=split.validation.select(np.empty(0, dtype=np.int64)))
    model = HRM(**SMALL, prior="markov").fit(nobody)
    assert model.scorer(model.network).prior.weight == prior.UNVALIDATED


def test_what_knows_the_network_alone_refuses_it(split, tmp_path):
    model = HRM(**SMALL, prior={"weight": 0.3}).fit(split)
    with pytest.raises(SettingsError, match="index: expected a model without a prior"):
        index.build(model)
    with pytest.raises(SettingsError, match="prior: expected none where the model reads baskets"):
        HRM(baskets=1, prior="markov")
    with pytest.raises(SettingsError, match=r"prior\.wieght: unknown setting. Did you mean 'weight'"):
        HRM(prior={"wieght": 1})
