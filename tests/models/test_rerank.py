"""Reranking: its order written out, candidates, validation, resuming; DIN and BST against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ring_sequences

import seqrec
from seqrec import models
from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.experiment import fitting
from seqrec.experiment.recipe import Recipe
from seqrec.models.bst import BSTNetwork, BSTSettings
from seqrec.models.din import DINNetwork, DINSettings
from seqrec.models.rerank import Rerank
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.training.options import FitOptions

SMALL = {"width": 8, "hidden": 8, "recent": 4, "negatives": {"count": 4}}
SCORER = {"name": "din", **SMALL, "train": {"epochs": 2, "batch_positions": 128}}
MODEL = {"retriever": {"name": "markov"}, "scorer": SCORER, "candidates": 5}
ON = FitOptions(progress=False, device="cpu")
HISTORIES = Query.from_lists([np.array(x, np.int32) for x in ([3, 5, 3, 7], [1], [], [2, 4, 6, 8, 0, 1])])


@pytest.fixture(scope="module")
def split():
    return leave_one_out(ring_sequences(users=120))


@pytest.fixture(scope="module")
def rerank(split):
    return Rerank(**MODEL, weight=0.4).fit(split, ON)


def standardised(x):
    x = x.double()
    return (x - x.mean()) / max(float(x.std(unbiased=False)), 1e-3 * float(x.abs().max()))


def candidates(scores, history, count, never=()):
    """The best items until so many of them are new."""
    found, new = [], 0
    for item in torch.argsort(-scores, stable=True).tolist():
        if item not in never and new < count:
            found.append(item)
            new += item not in history
    return found


def test_the_first_are_reordered_and_the_others_stay_below(rerank):
    scores, before = rerank.score(HISTORIES), rerank.retriever.score(HISTORIES)
    items = scores.shape[1]
    every = rerank.scorer.pairs(rerank.scorer.network).of(HISTORIES, torch.arange(items).expand(4, -1))
    for row in (0, 1, 3):
        first = candidates(before[row], HISTORIES.at(row).tolist(), 5)
        mixed = 0.6 * standardised(before[row, first]) + 0.4 * standardised(every[row, first])
        order = [first[i] for i in torch.argsort(-mixed, stable=True)]
        rest = [item for item in torch.argsort(-before[row], stable=True).tolist() if item not in first]
        assert torch.argsort(-scores[row], stable=True).tolist() == [*order, *rest]
    assert torch.equal(scores[2], before[2])  # of an empty history nothing is known


def test_what_may_not_be_recommended_takes_nobodys_place(rerank):
    query = HISTORIES.select(np.array([1]))
    before = rerank.retriever.score(query)[0]
    deny = candidates(before, [1], 3)
    found = rerank.recommend(sequences=[["i1"]], k=5, deny=[f"i{i}" for i in deny])
    first = candidates(before, [1], 5, deny)
    assert set(found["item_id"]) <= {f"i{i}" for i in first}
    assert len(found) == 5


def test_weight_0_is_the_retriever(split):
    plain = Rerank(**MODEL, weight=0.0).fit(split, ON)
    assert torch.equal(plain.score(HISTORIES), plain.retriever.score(HISTORIES))


def test_the_weight_is_the_best_on_validation(split, caplog):
    caplog.set_level("INFO", logger="seqrec")
    chosen = Rerank(**MODEL).fit(split, ON)
    reached = {}
    for weight in (0.0, 0.3, 0.7, 1.0):
        chosen_weight, chosen.weight = chosen.weight, weight
        found = seqrec.models.model.evaluation.evaluate(chosen, split, split.validation, ["ndcg@10"])
        reached[weight] = found["ndcg@10"]
        chosen.weight = chosen_weight
        assert f"{weight:g}: {reached[weight]:.4f}" in caplog.text
    again = fitting.planned(Recipe({"name": "rerank", **MODEL}), chosen.fit_report)
    assert again.model["weight"] == chosen.weight
    assert again.model["scorer"]["name"] == "din"


def test_a_killed_fit_goes_on(split, tmp_path):
    whole = Rerank(**MODEL, weight=0.4).fit(split, ON)

    class Killed(Exception):
        pass

    def watch(epoch, value):
        raise Killed

    at = ON.model_copy(update={"checkpoint": str(tmp_path / "fit.safetensors")})
    scorer = {**SCORER, "train": {**SCORER["train"], "epochs": 2}}
    with pytest.raises(Killed):
        Rerank(**{**MODEL, "scorer": scorer}, weight=0.4).fit(split, at.model_copy(update={"watch": watch}))
    resumed = Rerank(**MODEL, weight=0.4).fit(split, at)
    assert torch.equal(resumed.score(HISTORIES), whole.score(HISTORIES))
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": {"name": "gru4rec"}}, r"rerank\.scorer: expected .* din or bst\. Got gru4rec"),
        ({"scorer": {"width": 3}}, r"rerank\.scorer: expected a dictionary with a name"),
        ({"scorer": {"name": "din", "prior": "markov"}}, r"rerank\.scorer\.prior: expected none"),
        ({"retriever": {"name": "markof"}}, "Did you mean 'markov'"),
    ],
)
def test_what_is_no_rerank(settings, message):
    with pytest.raises(SettingsError, match=message):
        Rerank(**settings)


@pytest.mark.parametrize("name", ["din", "bst"])
def test_what_pairs_cannot_do_is_said(name, tmp_path):
    with pytest.raises(SettingsError, match=r"loss\.name: .* needs a loss that draws"):
        models.get(name)(loss="softmax")
    model = models.get(name)(**SMALL)
    for ask in (model.vectors, lambda: model.export_onnx(tmp_path)):
        with pytest.raises(SettingsError, match=f"{name} has no item vectors: .* scorer of a rerank"):
            ask()
    with pytest.raises(SettingsError, match="rerank: it cannot be exported to ONNX"):
        Rerank().export_onnx(tmp_path)


def test_attention_of_din_by_its_formula():
    network = DINNetwork(DINSettings(width=6, attention=5), 10, 2).double()
    e, c = torch.randn(3, 4, 6, dtype=torch.float64), torch.randn(3, 7, 6, dtype=torch.float64)
    found = network.weights(e, c)
    for row, step, candidate in np.ndindex(3, 4, 7):
        h, x = e[row, step], c[row, candidate]
        wanted = network.second(network.first(torch.cat([h, x, h - x, h * x])))
        torch.testing.assert_close(found[row, step, candidate], wanted[0])


@pytest.mark.parametrize("cls", [(DINNetwork, DINSettings), (BSTNetwork, BSTSettings)])
def test_a_candidate_is_scored_as_if_alone_and_padding_is_nothing(cls):
    network = cls[0](cls[1](width=6, hidden=6, recent=5), 10, 2).eval().double()
    inputs = network.query_inputs(HISTORIES)
    together = network.compare(inputs, torch.arange(10).expand(4, -1))
    for row in range(4):
        alone = network.query_inputs(HISTORIES.select(np.array([row])))
        for item in range(10):
            torch.testing.assert_close(
                network.compare(alone, torch.tensor([[item]]))[0, 0], together[row, item]
            )


def test_ages_of_bst_are_times():
    network = BSTNetwork(BSTSettings(width=6, recent=3, times=True), 10, 2)
    assert network.reads == {"times"}
    one = np.array([1, 2, 3], np.int32)
    query = Query.from_lists([one], times=[np.array([0.0, 84.0, 100.0])])
    query = Query(query.events, query.starts, query.stops, asked_at=np.array([100.0]))
    assert network.ages_of(network.query_inputs(query)).tolist() == [[1, 5, 7]]
