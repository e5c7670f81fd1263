"""Losses as settings: what each takes, and one from outside the package."""

from __future__ import annotations

import sys

import polars as pl
import pytest
import torch

import seqrec
from seqrec.errors import SettingsError
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.train import train
from seqrec.training import losses
from seqrec.training.loss import GBCE, LOSSES, Softmax, loss_of, upgraded
from seqrec.training.negatives import NegativesSettings

HINGE = """
from pydantic import Field
from seqrec.training.loss import GBCE, Loss

class Hinge(Loss):
    margin: float = Field(1.0, gt=0)
    '''By how much a target is to be above a negative.'''

    def of_draws(self, positive, negative, labels, items):
        return (self.margin - positive[:, None] + negative).clamp(min=0).mean()

class Wide(GBCE):
    extra: float = 1.0

class NoLoss:
    pass

class Nothing(Loss):
    pass
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "outside_loss.py").write_text(HINGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "outside_loss:Hinge"
    sys.modules.pop("outside_loss", None)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_made_from_its_name_and_described_again(name):
    loss = loss_of(name)
    assert type(loss) is LOSSES[name]
    assert loss.name == name
    assert loss_of(loss.described()) == loss
    assert loss.draws == (name != "softmax")


def test_which_losses_score_distinct_items_once():
    shared, own = NegativesSettings(), NegativesSettings(shared=False)
    assert [name for name in LOSSES if loss_of(name).scores_distinct(shared)] == [
        "sampled_softmax",
        "bpr_max",
    ]
    assert not any(loss_of(name).scores_distinct(own) for name in LOSSES)
    assert not loss_of("bpr_max").scores_distinct(NegativesSettings(logq=1))  # its regulariser reads scores


def test_options_reach_the_formula():
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(5, generator=generator), torch.randn(5, 3, generator=generator)
    expected = losses.gbce(positive, negative, 100, 0.2)
    assert torch.equal(GBCE(t=0.2).of_draws(positive, negative, None, 100), expected)
    states, vectors = torch.randn(5, 4, generator=generator), torch.randn(7, 4, generator=generator)
    targets = torch.arange(5)
    got = Softmax(smoothing=0.3).of_catalogue(states, vectors, targets)
    assert torch.equal(got, losses.softmax(states, vectors, targets, 0.3))


def test_what_older_versions_wrote():
    """They list the options of all losses; those of another loss count only where they were changed."""
    older = {"name": "bpr_max", "smoothing": 0.0, "t": 0.75, "regularisation": 0.5, "elu": 0.0}
    assert upgraded(older) == {"name": "bpr_max", "regularisation": 0.5, "elu": 0.0}
    assert loss_of(older).regularisation == 0.5
    with pytest.raises(
        SettingsError, match=r"loss\.t: expected no value with the loss bpr_max, since only gbce"
    ):
        loss_of(older | {"t": 0.5})


def test_a_loss_from_outside_works_like_a_shipped_one(outside, tmp_path):
    log = tmp_path / "log.csv"
    rows = {"user_id": [u for u in range(30) for _ in range(6)], "item_id": [n % 7 for n in range(180)]}
    pl.DataFrame(rows).write_csv(log)
    content = {
        "data": {"path": str(log)},
        "model": {"name": "gru4rec", "width": 8, "hidden": 8},
        "loss": {"name": outside, "margin": 0.5},
        "negatives": {"count": 4},
        "train": {"epochs": 2},
        "evaluate": {"filter_seen": False},
        "output": {"folder": str(tmp_path / "run")},
    }
    model, _ = train(RunSettings.of(content, ""), progress=False)
    assert model.configuration()["loss"] == {"name": outside, "margin": 0.5, "seen": "keep"}
    again = seqrec.load(tmp_path / "run" / "model")
    assert again.loss == model.loss
    assert again.recommend([[1, 2]], k=3).equals(model.recommend([[1, 2]], k=3))
    assert seqrec.GRU4Rec(loss=type(model.loss)()).configuration()["loss"]["name"] == outside


def test_a_subclass_of_a_shipped_loss_is_made_by_its_reference(outside):
    loss = loss_of({"name": "outside_loss:Wide", "t": 0.5, "extra": 2})
    assert loss.described() == {"name": "outside_loss:Wide", "seen": "keep", "t": 0.5, "extra": 2.0}
    assert loss_of(loss.described()) == loss
    with pytest.raises(SettingsError, match="expected a loss that overrides"):
        seqrec.GRU4Rec(loss=sys.modules["outside_loss"].Nothing())


def test_an_unknown_option_without_a_value_is_unknown(outside):
    with pytest.raises(SettingsError, match=r"loss\.foo: unknown setting"):
        loss_of({"name": "softmax", "foo": None})


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("outside_loss:Nothing", "overrides of_catalogue or of_draws. outside_loss:Nothing does neither"),
        ({"name": "outside_loss:Hinge", "margn": 1}, "loss.margn: unknown setting. Did you mean 'margin'"),
        ({"name": "outside_loss:Hinge", "margin": 0}, "loss.margin: expected greater than 0"),
        ("outside_loss:Hing", "loss.name: loss outside_loss:Hing: .*Did you mean 'Hinge'"),
        ("outside_loss:NoLoss", "loss.name: expected a subclass of seqrec.training.loss.Loss"),
        ("bec", "loss.name: unknown loss 'bec'. Did you mean 'bce'"),
    ],
)
def test_losses_that_are_none(outside, loss, message):
    with pytest.raises(SettingsError, match=message):
        loss_of(loss)
