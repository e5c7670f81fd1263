"""Models as they are by default: they follow the log, learn a small one, and say how they stand beside the
baselines."""

import logging

import numpy as np
import pytest
import torch

from seqrec.errors import TrainingError
from seqrec.evaluation import metrics, ranking
from seqrec.experiment import fitting
from seqrec.experiment.recipe import Recipe
from seqrec.models.fpmc import FPMC
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.models.popularity import Popularity
from seqrec.models.sasrec import SASRec
from seqrec.splitting import leave_one_out
from seqrec.testing import markov_chain
from seqrec.training import state
from seqrec.training.options import FitOptions

QUIET = FitOptions(progress=False, device="cpu")
BRIEF = {"epochs": 1, "filter_seen": False}


def weights(model):
    return {name: array.tobytes() for name, array in model.state().items()}


@pytest.mark.parametrize("cls", [GRU4Rec, SASRec])
def test_a_small_log_is_learnt(cls):
    """200 users x 6 events, each item followed by the same one: 12 of each transition to learn from."""
    split = leave_one_out(markov_chain(200, 6, 50, noise=0))
    ranks = ranking.rank(cls().fit(split, QUIET), split, split.test, lists=False)
    assert metrics.recall(ranks.filtered, 1).mean() >= 0.95


def test_a_log_of_few_users_is_learnt():
    """Without validation all epochs are trained, and the last weights are kept."""
    split = leave_one_out(markov_chain(100, 7, 20, noise=0))
    whole = GRU4Rec().fit(split.sequences, QUIET)
    assert whole.fit_report.validation is None
    last = split.query(split.test)
    target = torch.from_numpy(split.targets(split.test).astype(np.int64))
    assert (whole.score(last).argmax(1) == target).float().mean() >= 0.95


@pytest.mark.parametrize("cls", [GRU4Rec, SASRec, HRM, FPMC])
def test_the_report_says_what_followed_the_log(ring, cls):
    split = leave_one_out(ring)
    report = cls(width=4, train={"epochs": 2}).fit(split, QUIET).fit_report
    rate = {} if "learning_rate" in cls.default_train else {"learning_rate": 0.01}
    assert report.plan == {"batch_positions": 32, "patience": 3} | rate
    assert report.updates >= 2 * split.train_positions // 32
    assert type(report).from_json(report.to_json()) == report
    given = {"epochs": 1, "batch_positions": 64, "patience": 1, "learning_rate": 0.002}
    assert cls(width=4, train=given).fit(split, QUIET).fit_report.plan is None


def test_a_resumed_default_run_equals_an_uninterrupted_one(ring, tmp_path, monkeypatch):
    split, path = leave_one_out(ring), tmp_path / "checkpoint.safetensors"
    on = QUIET.model_copy(update={"checkpoint": path})
    whole = HRM(width=4, train={"filter_seen": False}).fit(split, QUIET)
    save = state.TrainingState.save

    def save_then_stop(self, *more):
        save(self, *more)
        if self.epoch == 2:
            raise KeyboardInterrupt

    stopped = HRM(width=4, train={"filter_seen": False})
    with monkeypatch.context() as patch:
        patch.setattr(state.TrainingState, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(split, on)
    resumed = HRM(width=4, train={"filter_seen": False}).fit(split, on)
    assert weights(resumed) == weights(whole)
    assert (
        resumed.fit_report.plan
        == whole.fit_report.plan
        == {
            "epochs": 44,
            "batch_positions": 32,
            "patience": 7,
            "learning_rate": 0.01,
        }
    )


def test_a_checkpoint_of_another_plan_is_refused(ring, tmp_path):
    """The same values, given or from the log, are one run; others are not."""
    split, on = leave_one_out(ring), QUIET.model_copy(update={"checkpoint": tmp_path / "c.safetensors"})
    left = HRM(width=4).fit(split, on)
    said = HRM(width=4, train=left.fit_report.plan).fit(split, on)
    assert weights(said) == weights(left)
    with pytest.raises(TrainingError, match="another run"):
        HRM(width=4, train={**left.fit_report.plan, "batch_positions": 64}).fit(split, on)


def test_fitting_again_keeps_what_followed_the_first_log():
    """With the validation events there are 40,000 positions more, which by themselves would double the
    batch."""
    split = leave_one_out(markov_chain(600, 152, 20))
    recipe = Recipe({"name": "hrm", "width": 2}, train={"epochs": 1})
    chosen = recipe.make().fit(split, QUIET)
    assert chosen.fit_report.plan["batch_positions"] == 64 < recipe.make().train.plan(90_000).batch_positions
    again = fitting.fit_again(recipe, split, chosen.fit_report, QUIET, None)
    assert again.train.batch_positions == 64
    assert weights(again) == weights(chosen)


def test_training_ends_beside_the_baselines(ring, caplog):
    caplog.set_level(logging.INFO, "seqrec")
    split = leave_one_out(ring)
    below = HRM(width=2, train={**BRIEF, "learning_rate": 1e-9}).fit(split, QUIET)
    line = caplog.records[-1]
    assert line.levelno == logging.WARNING
    assert "markov 1.0000: still below " in line.message
    assert line.message.endswith("Train longer, or take markov.")
    found = below.fit_report.validation
    asked = {
        model.name: metrics.ndcg(
            ranking.rank(model.fit(split), split, split.validation, lists=False).unfiltered, 10
        ).mean()
        for model in (Popularity(), Markov())
    }
    value = below.fit_report.curve[0]["ndcg@10"]
    assert found == {"metric": "ndcg@10", "filter_seen": False, "model": value, **asked}

    caplog.clear()
    learnt = SASRec(width=16, train={"filter_seen": False, "epochs": 12}).fit(split, QUIET)
    assert learnt.fit_report.validation["model"] == pytest.approx(1)
    assert "below" not in caplog.records[-1].message
    assert "validation ndcg@10 1.0000; popularity" in caplog.records[-1].message


def test_the_baselines_are_left_out_where_nobody_asks(ring, caplog):
    caplog.set_level(logging.INFO, "seqrec")
    split = leave_one_out(ring)
    off = HRM(width=2, train=BRIEF).fit(split, QUIET, baselines=False)
    again = HRM(width=2, train=BRIEF).fit(split, QUIET, stop_after=1)
    alone = HRM(width=2, train=BRIEF).fit(ring, QUIET)
    assert off.fit_report.validation is again.fit_report.validation is alone.fit_report.validation is None
    assert "markov" not in caplog.text
