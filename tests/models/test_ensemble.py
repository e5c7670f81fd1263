"""An ensemble: its formula, its weights against all others, and that it is fitted again as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ring_sequences

import seqrec
from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.evaluation import metrics, ranking
from seqrec.experiment import fitting
from seqrec.experiment.recipe import Recipe
from seqrec.models.ensemble import Ensemble
from seqrec.splitting.last_basket import last_basket
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.training.options import FitOptions

TRAIN = {"epochs": 2, "batch_positions": 64}
MEMBERS = [
    {"name": "hrm", "width": 8, "train": TRAIN},
    {"name": "gru4rec", "width": 8, "hidden": 8, "train": TRAIN, "prior": "markov"},
]
ON = FitOptions(progress=False)


@pytest.fixture(scope="module")
def split():
    return leave_one_out(ring_sequences(users=120))


@pytest.fixture(scope="module")
def ensemble(split):
    return Ensemble(members=MEMBERS).fit(split, ON)


def value_of(model, split) -> float:
    metric, k = metrics.parse("ndcg@10")
    return float(metric(ranking.rank(model, split, split.validation, lists=False).filtered, k).mean())


def test_scores_are_weighted_log_probabilities(ensemble):
    query = Query.from_lists([np.array([1, 2]), np.array([5]), np.array([3, 4, 5])])
    ensemble.weights, before = [0.3, 0.7], ensemble.weights
    one, two = (torch.log_softmax(m.score(query).double(), 1) for m in ensemble.members)
    torch.testing.assert_close(ensemble.score(query).double(), 0.3 * one + 0.7 * two, atol=1e-5, rtol=1e-5)
    ensemble.weights = before


def test_a_member_that_knows_nothing_has_no_say(ensemble, split):
    """HRM knows a user without a history; nobody knows nobody."""
    users = np.array([3, -1], dtype=np.int32)
    query = Query.from_lists([np.empty(0, np.int32), np.empty(0, np.int32)], users)
    assert ensemble.knows(query).tolist() == [ensemble.weights[0] > 0, False]
    ensemble.weights, before = [0.5, 0.5], ensemble.weights
    scores = ensemble.score(query)
    expected = 0.5 * torch.log_softmax(ensemble.members[0].score(query)[:1], 1)
    torch.testing.assert_close(scores[:1], expected)
    assert scores[1].tolist() == ensemble.members[0].popularity.tolist()
    ensemble.weights = before


def test_no_other_weights_are_better_on_validation(ensemble, split):
    chosen, found = list(ensemble.weights), {}
    for tenth in range(11):
        ensemble.weights = [tenth / 10, 1 - tenth / 10]
        found[tenth] = value_of(ensemble, split)
    ensemble.weights = chosen
    assert value_of(ensemble, split) == pytest.approx(max(found.values()), abs=1e-9)
    assert sum(chosen) == pytest.approx(1)
    members = ensemble.fit_report.members
    assert [one["name"] for one in members] == ["hrm", "gru4rec"]
    assert [one["weight"] for one in members] == chosen


def test_members_are_as_by_themselves(ensemble, split):
    alone = seqrec.HRM(width=8, train=TRAIN).fit(split, ON)
    query = split.query(split.validation)
    assert torch.equal(alone.score(query), ensemble.members[0].score(query))


def test_it_is_saved_with_all_that_was_chosen(ensemble, tmp_path):
    ensemble.save(tmp_path / "model")
    again = seqrec.load(tmp_path / "model")
    assert again.weights == ensemble.weights
    histories = [["i1", "i2"], ["i7"]]
    assert again.recommend(histories, k=5).equals(ensemble.recommend(histories, k=5))
    assert again.fit_report.members == ensemble.fit_report.members


def test_it_is_fitted_again_as_it_was(split, tmp_path):
    recipe = Recipe({"name": "ensemble", "members": MEMBERS})
    fitted = fitting.fit(recipe, split, ON.model_copy(update={"checkpoint": tmp_path / "c.safetensors"}))
    assert not list(tmp_path.iterdir())  # the members' checkpoints are gone
    report = fitted.chosen.fit_report
    whole = fitting.fit_again(recipe, split.refit(), report, ON, None)
    assert whole.weights == pytest.approx(fitted.chosen.weights)
    for member, before in zip(whole.members, fitted.chosen.members):
        assert member.fit_report.epochs == before.fit_report.best_epoch
        assert member.train.batch_positions == 64
    chosen = fitted.chosen.members[1].fit_report.prior["weight"]
    assert whole.members[1].prior.weight == chosen


def test_members_are_validated_as_the_run_is():
    selection = {"metric": "recall@20", "filter_seen": False}
    made = Recipe({"name": "ensemble", "members": MEMBERS}, selection=selection).make()
    assert {(m.train.metric, m.train.filter_seen) for m in made.members} == {("recall@20", False)}


def test_weights_of_sets_are_chosen_by_the_metric_of_sets():
    sequences = ring_sequences(users=60)
    baskets = replace(sequences, baskets=np.arange(sequences.events) // 3)
    whole = last_basket(baskets)
    model = Ensemble(members=MEMBERS).fit(whole, ON)
    found, chosen = {}, list(model.weights)
    for tenth in range(11):
        model.weights = [tenth / 10, 1 - tenth / 10]
        found[tenth] = value_of_sets(model, whole)
    model.weights = chosen
    assert value_of_sets(model, whole) == pytest.approx(max(found.values()), abs=1e-9)
    assert not model.reads_baskets  # no member does
    assert len(model.recommend([["i1", "i2"]], k=2)) == 2


def test_with_a_model_that_counts(tmp_path):
    """Fitted, weighed, saved and fitted again beside networks."""
    sequences = ring_sequences(users=60)
    whole = last_basket(replace(sequences, baskets=np.arange(sequences.events) // 3))
    members = [{"name": "tifu_knn", "neighbours": 5}, {**MEMBERS[0], "baskets": 1}]
    recipe = Recipe({"name": "ensemble", "members": members})
    fitted = fitting.fit(recipe, replace(whole, retrain_stops=whole.train_stops), ON, True)
    model = fitted.final
    query = whole.query(whole.test)
    knn, hrm = model.members
    counted = knn.score(query) / knn.score(query).sum(1, keepdim=True)
    expected = model.weights[0] * torch.log(0.99 * counted + 0.01 / counted.shape[1])
    expected = expected + model.weights[1] * torch.log_softmax(hrm.score(query), 1)
    torch.testing.assert_close(model.score(query), expected)
    model.save(tmp_path)
    torch.testing.assert_close(seqrec.load(tmp_path).score(query), expected)
    assert model.reads_baskets
    assert model.fit_report.members[0]["name"] == "tifu_knn"


def value_of_sets(model, split) -> float:
    metric, k = metrics.parse("ndcg@10")
    ranks = ranking.rank(model, split, split.validation, lists=False)
    return float(metrics.values(metric, ranks.filtered, k, ranks.offsets).mean())


def test_what_cannot_be_a_member_is_refused():
    with pytest.raises(
        SettingsError, match=r"members\.1: expected a model that is trained by gradient.*Got markov"
    ):
        Ensemble(members=[{"name": "hrm"}, {"name": "markov"}])
    with pytest.raises(SettingsError, match=r"expected a network among them.*Got tifu_knn, up_cf"):
        Ensemble(members=[{"name": "tifu_knn"}, {"name": "up_cf"}])
    with pytest.raises(SettingsError, match=r"members\.0: expected a dictionary with a name"):
        Ensemble(members=[{"width": 8}, {"name": "hrm"}])
    with pytest.raises(SettingsError, match=r"weights: expected one for each of 2 members. Got 3"):
        Ensemble(members=MEMBERS, weights=[1, 1, 1])
    with pytest.raises(SettingsError, match="weights"):
        Ensemble(members=MEMBERS, weights=[0, 0])
    with pytest.raises(SettingsError, match="expected members that differ"):
        Ensemble(members=[MEMBERS[0], MEMBERS[0]])
    other = {**MEMBERS[1], "train": {**TRAIN, "metric": "recall@20"}}
    with pytest.raises(SettingsError, match=r"expected one train\.metric and one train\.filter_seen"):
        Ensemble(members=[MEMBERS[0], other])
    with pytest.raises(SettingsError, match="members"):
        Ensemble(members=MEMBERS[:1])
