"""Every model of the catalogue keeps the contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seqrec import models
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError
from seqrec.models.hrm import HRM, HRMNetwork
from seqrec.models.model import Model, told_of_baskets_once
from seqrec.splitting import SplitSettings, last_basket, leave_one_out
from seqrec.testing import ModelContract, awkward_query, sequences_of, small_log
from seqrec.training.options import FitOptions

FAST = {"train": {"epochs": 8, "batch_positions": 256, "learning_rate": 0.01, "patience": 8}}
SETTINGS: dict[str, dict[str, Any]] = {
    "vsknn": {"length": 6, "recent": 5},
    "fpmc": {"width": 16, "negatives": {"count": 8}, **FAST},
    "hrm": {"width": 16, "recent": 1, **FAST},
    "gru4rec": {"width": 16, "hidden": 48, "steps": 30, **FAST},
    "sasrec": {"width": 16, "length": 12, "dropout": 0.0, **FAST},
    "lrurec": {"width": 16, "length": 12, "dropout": 0.0, **FAST},
    "fmlp": {"width": 16, "blocks": 1, "length": 12, "dropout": 0.0, **FAST},
    "bsarec": {"width": 16, "blocks": 1, "length": 12, "dropout": 0.0, **FAST},
    "bert4rec": {
        "width": 32,
        "blocks": 1,
        "length": 2,
        "dropout": 0.0,
        "hide": 0.4,
        "train": {
            "epochs": 10,
            "batch_positions": 32,
            "learning_rate": 0.01,
            "average": 0.95,
            "patience": 10,
        },
    },
    "narm": {"width": 16, "hidden": 24, "length": 12, "dropout_hidden": 0.0, **FAST},
    "caser": {"width": 16, "recent": 3, "dropout": 0.0, **FAST},
    "dssm": {"width": 16, "hidden": 24, "recent": 1, "negatives": {"count": 20}, **FAST},
    "hstu": {"width": 16, "blocks": 1, "length": 12, "dropout": 0.0, "loss": "softmax", **FAST},
    "fuxi": {"width": 16, "blocks": 1, "length": 12, "dropout": 0.0, "loss": "softmax", **FAST},
    "esasrec": {"width": 16, "blocks": 1, "length": 12, "dropout": 0.0, "negatives": {"count": 20}, **FAST},
}
OF_PAIRS = {"width": 16, "hidden": 32, "recent": 2, "dropout": 0.0, "negatives": {"count": 8}}
SETTINGS |= {name: {**OF_PAIRS, **FAST} for name in ("din", "bst")}
SETTINGS["rerank"] = {
    "retriever": {"name": "hrm", **SETTINGS["hrm"]},
    "scorer": {"name": "din", **SETTINGS["din"]},
    "candidates": 12,
}
SETTINGS["ensemble"] = {"members": [{"name": name, **SETTINGS[name]} for name in ("hrm", "sasrec")]}


WITHOUT_ORDER = ("popularity", "recent_popularity", "personal_top", "tifu_knn", "up_cf", "taiw")
"""Models that cannot learn what follows what."""
FEATURES = {
    "user": ["user_id", "group"],
    "sequence": ["item_id", "kind"],
    "item": ["item_id", "kind#tags", "tags"],
}


def contract_of(name: str, **more: Any) -> type[ModelContract]:
    attributes = {
        "make_model": lambda self: models.get(name)(**{**SETTINGS.get(name, {}), **more}),
        "on": FitOptions(device="cpu", progress=False),
        "sequential": name not in WITHOUT_ORDER,
        # a recurrent network must also find what no shorter context tells
        "order": 2 if name == "gru4rec" else 1,
    }
    return type(f"Test_{name}", (ModelContract,), attributes)


for _name in models.MODELS:
    globals()[f"Test_{_name}"] = contract_of(_name)
for _name in ("hrm", "gru4rec", "sasrec", "lrurec"):
    globals()[f"Test_{_name}_with_features"] = contract_of(_name, features=FEATURES)
Test_gru4rec_of_prefixes = contract_of("gru4rec", rows="prefixes", steps=8)
Test_hrm_without_own_negatives = contract_of(
    "hrm",
    loss="bce",
    negatives={"count": 8, "shared": False, "own": "exclude", "repeats": False},
)


@pytest.mark.parametrize("name", models.MODELS)
def test_names_and_classes_agree(name: str):
    cls = models.get(name)
    assert cls.name == name
    assert cls.__doc__ or cls.Settings.model_fields is not None


def test_an_unknown_name_gets_its_nearest_neighbour():
    with pytest.raises(SettingsError, match="Did you mean 'gru4rec'"):
        models.get("gru4re")
    with pytest.raises(SettingsError, match=r"Known: .*fpmc, fuxi, gru4rec"):
        models.get("zzz")


def test_a_name_that_is_none():
    with pytest.raises(SettingsError, match="unknown model \"\\['gru4rec'\\]\""):
        models.get(["gru4rec"])
    with pytest.raises(SettingsError, match=r"unknown model .*Known: .*fpmc"):
        models.get({"a": 1})


def test_the_base_class_says_what_opens_any_model(tmp_path):
    models.get("popularity")().fit(small_log()).save(tmp_path)
    with pytest.raises(
        SettingsError, match=r"Model.load: expected the class of a model.* seqrec.load\(folder"
    ):
        Model.load(tmp_path)


@pytest.mark.parametrize("name", ["markov", "gru4rec"])
def test_an_unknown_option_of_fit_says_where_it_goes(name: str):
    model = models.get(name)()
    with pytest.raises(
        SettingsError,
        match=r"fit\.epochs: unknown setting\. It is a setting of training, .*: train=\{'epochs': 3\}",
    ):
        model.fit(small_log(), epochs=3)
    with pytest.raises(SettingsError, match=r"fit\.chekpoint: unknown setting\. Did you mean 'checkpoint'\?"):
        model.fit(small_log(), chekpoint="x")


def with_baskets() -> Sequences:
    log = small_log()
    user = np.repeat(np.arange(log.users), log.lengths)
    return replace(log, baskets=np.cumsum(np.diff(np.arange(log.events) // 3 + 100 * user, prepend=0) != 0))


OF_BASKETS = ("personal_top", "tifu_knn", "up_cf", "taiw")
"""Models that read them whatever their settings."""


@pytest.mark.parametrize("name", [name for name in models.MODELS if name not in OF_BASKETS])
def test_baskets_change_nothing_and_that_is_said(name: str, caplog):
    """To models that do not read which items were taken together."""
    fitted = []
    for log in (small_log(), with_baskets()):
        cls, settings = models.get(name), SETTINGS.get(name, {})
        model = cls(**settings | ({"train": {"epochs": 1}} if "train" in cls.sections else {}))
        caplog.clear()
        fitted.append(model.fit(leave_one_out(log), device="cpu", progress=False))
    said = {"ensemble": ["ensemble", "hrm", "sasrec"], "rerank": ["rerank", "hrm", "din"]}.get(name, [name])
    assert [r.message.split(":")[0] for r in caplog.records if "baskets" in r.message] == said
    query = awkward_query(leave_one_out(small_log()))
    assert torch.equal(fitted[0].score(query), fitted[1].score(query))


@pytest.mark.parametrize(("name", "told"), [("popularity", 0), ("recent_popularity", 0), ("markov", 1)])
def test_whole_baskets_are_no_news_to_a_model_without_order(name: str, told: int, caplog):
    for data in (SplitSettings(name="last_basket").apply(with_baskets()), with_baskets()):
        caplog.clear()
        models.get(name)().fit(data)
        assert sum("does not read the log's baskets" in record.message for record in caplog.records) == told


def test_among_many_models_baskets_are_told_of_once(caplog):
    split = SplitSettings(name="last_basket").apply(with_baskets())
    with told_of_baskets_once():
        for name in ("markov", "item_knn"):
            models.get(name)().fit(split)
    models.get("item_knn")().fit(split)
    told = [record.message.partition(" the log's baskets")[0] for record in caplog.records]
    assert told == ["markov is a model that does not read", "item_knn: this model does not read"]


READS_BASKETS: list[tuple[str, dict[str, Any]]] = [
    ("hrm", {"baskets": 1}),
    ("fpmc", {"baskets": 1}),
    *((name, {"pool_baskets": how}) for name in ("gru4rec", "sasrec") for how in ("average", "max")),
]
"""Models that read them by a setting."""


@pytest.mark.parametrize(("name", "setting"), [*((name, {}) for name in OF_BASKETS), *READS_BASKETS])
def test_the_order_within_a_basket_means_nothing(name: str, setting: dict[str, Any], caplog):
    """What is learned by gradient is learned in another order, and so to other last digits; fpmc draws
    negatives for each item."""
    log = with_baskets()
    rng = np.random.default_rng(0)
    mixed = np.lexsort((rng.random(log.events), log.baskets))
    assert (mixed != np.arange(log.events)).any()
    more = {} if name in OF_BASKETS else {**setting, "train": {"epochs": 2}}
    splits = [last_basket(s) for s in (log, replace(log, items=log.items[mixed]))]
    fitted = [models.get(name)(**more).fit(split, device="cpu", progress=False) for split in splits]
    scores = [model.score(split.query(split.test)) for model, split in zip(fitted, splits)]
    if name != "fpmc":
        torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(fitted[0].score(splits[1].query(splits[1].test)), scores[0])
    assert fitted[0].reads_baskets
    assert "baskets" not in caplog.text


@pytest.mark.parametrize(("name", "setting"), READS_BASKETS)
def test_whoever_reads_baskets_needs_some(name: str, setting: dict[str, Any]):
    with pytest.raises(DataError, match="baskets: the model reads the baskets of events"):
        models.get(name)(**setting).fit(small_log(), progress=False)


@pytest.mark.parametrize(("name", "setting"), READS_BASKETS)
@pytest.mark.parametrize("more", [{}, {"loss": "bpr", "negatives": {"count": 4, "shared": False}}])
def test_which_basket_follows_which_is_learned(name: str, setting: dict[str, Any], more: dict[str, Any]):
    """Of eight kinds of baskets each has two items of its own, and a kind that always comes after it."""
    rng = np.random.default_rng(0)
    follows = rng.permutation(8)
    lists = []
    for start in rng.integers(0, 8, 200):
        kinds = [int(start)]
        for _ in range(5):
            kinds.append(int(follows[kinds[-1]]))
        lists.append(np.concatenate([rng.permutation([2 * kind, 2 * kind + 1]) for kind in kinds]))
    log = sequences_of(lists, 16)
    split = last_basket(replace(log, baskets=np.arange(log.events) // 2))
    small = {k: v for k, v in SETTINGS[name].items() if k not in ("recent", "negatives", "train")}
    train = {"epochs": 12, "batch_positions": 64, "learning_rate": 0.02, "filter_seen": False}
    model = models.get(name)(**{**small, **setting, **more, "train": train})
    model.fit(split, device="cpu", progress=False)
    assert model.evaluate(split, filter_seen=False).metrics["recall@5"]["mean"] > 0.9


def test_rows_of_baskets_are_whole_histories():
    with pytest.raises(SettingsError, match="pool_baskets: expected none with rows: prefixes"):
        models.get("gru4rec")(pool_baskets="max", rows="prefixes")


def test_of_baskets_is_warned_only_where_nobody_reads_them(caplog):
    class OfBaskets(HRM):
        class Network(HRMNetwork):
            reads = frozenset({"users", "baskets"})

    split = leave_one_out(with_baskets())
    OfBaskets(train={"epochs": 1}).fit(leave_one_out(small_log()), progress=False)
    assert OfBaskets.reads_baskets
    assert not HRM.reads_baskets
    HRM(train={"epochs": 1}).fit(split, progress=False, stop_after=1)  # it was said when 1 was chosen
    assert "baskets" not in caplog.text
