"""Items without a training event: known by embeddings or attributes, or not recommended at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import seqrec
from seqrec import models, scoring
from seqrec.data.catalogue import Catalogue
from seqrec.data.interactions import Interactions
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError, UnknownIdError
from seqrec.evaluation import metrics, ranking
from seqrec.experiment.recipe import Recipe
from seqrec.models.sasrec import SASRec
from seqrec.serving import batch
from seqrec.splitting.everything import everything
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.testing import small_log
from seqrec.topk import Filter
from seqrec.training.negatives import NegativesSettings, Sampler
from seqrec.training.objective import Objective
from seqrec.training.options import FitOptions

ON = FitOptions(device="cpu", progress=False, baselines=False)
GROUPS, OF_GROUP, COLD = 5, 8, 2
"""Groups of items, items of each, and how many of those have no training event."""
TEXT = {"item": ["item_id", "text"], "sequence": ["item_id", "text"]}
TRAIN = {"epochs": 8, "batch_positions": 64, "learning_rate": 0.02, "patience": 8}
SLOW = {"epochs": 16, "batch_positions": 32, "learning_rate": 0.01, "patience": 16}
SMALL: dict[str, dict[str, Any]] = {
    "hrm": {"width": 16, "recent": 1},
    "gru4rec": {"width": 16, "hidden": 24, "steps": 8},
    "sasrec": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
    "esasrec": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
    "lrurec": {"width": 16, "length": 8, "dropout": 0.0},
    "hstu": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
    "fuxi": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
    "fmlp": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
    "bsarec": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
    "bert4rec": {"width": 16, "length": 3, "blocks": 1, "dropout": 0.0, "hide": 0.4, "train": SLOW},
    "narm": {"width": 16, "hidden": 24, "length": 8, "dropout_hidden": 0.0},
    "caser": {"width": 16, "recent": 2, "dropout": 0.0},
    "dssm": {"width": 16, "hidden": 24, "recent": 1},
}


def groups_in_a_ring(users: int = 240, seed: int = 0) -> Split:
    """Each next item is one of the group that follows that of the last one, as its text tells. The last event
    of all is of an item that nobody has taken before."""
    rng = np.random.default_rng(seed)
    items = GROUPS * OF_GROUP
    group = np.arange(items) % GROUPS
    cold = np.arange(items) >= items - GROUPS * COLD
    text = np.eye(GROUPS)[group] + 0.1 * rng.standard_normal((items, GROUPS))
    lists = []
    for _ in range(users):
        at = rng.integers(GROUPS)
        history = [rng.choice(np.flatnonzero((group == (at + n) % GROUPS) & ~cold)) for n in range(6)]
        lists.append([*history, rng.choice(np.flatnonzero((group == (at + 6) % GROUPS) & cold))])
    s = Sequences(
        np.concatenate(lists).astype(np.int32),
        np.arange(0, 7 * users + 1, 7),
        Catalogue([f"i{n:02d}" for n in range(items)], pl.DataFrame({"text": text.tolist()})),
        Catalogue(list(range(users))),
    )
    return leave_one_out(s)


def make(name: str, features: Any = TEXT, **more: Any) -> Any:
    return models.get(name)(**{"train": TRAIN, **SMALL[name], "features": features, **more})


def recall_of_cold(model: Any, split: Split) -> float:
    """Recall@2 of the cold targets among the cold items, of which two are right: chance is .2, and the best
    .5 or 1."""
    cold = np.flatnonzero(split.item_counts == 0)
    found = ranking.rank(model, split, split.test, lists=False, candidates=Filter(allow=cold))
    return float(metrics.recall(found.filtered, COLD).mean())


@pytest.mark.parametrize("name", SMALL)
def test_cold_items_are_found_by_their_text(name):
    split = groups_in_a_ring()
    model = make(name).fit(split, ON)
    assert recall_of_cold(model, split) > 0.5
    assert model.unlearned.tolist() == []
    best = model.recommend(users=[0, 1, 2], k=40)
    assert set(best["item_id"]) == set(split.sequences.item_catalogue.ids)


@pytest.mark.parametrize(
    ("name", "loss"),
    [("hrm", "softmax"), ("hrm", "gbce"), ("gru4rec", "sampled_softmax"), ("gru4rec", "bpr_max")],
)
def test_by_every_kind_of_loss(name, loss):
    split = groups_in_a_ring()
    for negatives in ({"count": 10}, {"count": 10, "shared": False}):
        model = make(name, {**TEXT, "drop_ids": 0.3}, loss=loss, negatives=negatives).fit(split, ON)
        assert recall_of_cold(model, split) > 0.6
        cold = np.flatnonzero(split.item_counts == 0)
        assert not model.network.items.ids.weight[cold].any()  # nothing was learned of them by themselves


def test_attributes_tell_as_well():
    split = groups_in_a_ring()
    s = split.sequences
    kind = pl.DataFrame({"kind": [f"k{n % GROUPS}" for n in range(len(s.item_catalogue))]})
    split = leave_one_out(replace(s, item_catalogue=Catalogue(s.item_catalogue.ids, kind)))
    both = ["item_id", "kind"]
    model = make("sasrec", {"item": both, "sequence": both}).fit(split, ON)
    assert recall_of_cold(model, split) > 0.6


def test_the_loss_leaves_them_out():
    """Against the formula, over the other items alone."""
    split = groups_in_a_ring(40)
    warm = torch.from_numpy(np.flatnonzero(split.item_counts > 0))
    model = make("sasrec").fit(split, ON, stop_after=1)
    counts = torch.from_numpy(split.item_counts)
    network = model.network.eval()
    batch = next(iter(network.batches(split, 50, np.random.default_rng(0))))
    for seen in ("keep", "mask"):
        m = make("sasrec", loss={"name": "softmax", "seen": seen})
        own = models.neural.OwnItems(split, torch.device("cpu"))
        sampler = Sampler(m.negatives, counts, 0, torch.device("cpu"), own, warm)
        found = Objective(network, m.loss, sampler).loss(batch, None)
        scores = network.encode(batch.inputs) @ network.item_vectors().T
        if seen == "mask":
            events = batch.targets.events
            for row, event in enumerate(events.tolist()):
                user = np.searchsorted(split.sequences.offsets, event, side="right") - 1
                before = split.sequences.items[split.sequences.offsets[user] : event]
                before = before[before != batch.targets.items[row].item()]
                scores[row, before] = -torch.inf
        target = torch.searchsorted(warm, batch.targets.items)
        expected = torch.nn.functional.cross_entropy(scores[:, warm], target)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.75])
def test_they_are_never_drawn(alpha):
    counts, compared = torch.tensor([3, 0, 5, 0, 1]), torch.tensor([0, 2, 4])
    settings = NegativesSettings(count=8, alpha=alpha)
    sampler = Sampler(settings, counts, 0, torch.device("cpu"), None, compared)
    assert set(sampler.draw((5000,)).tolist()) == {0, 2, 4}
    assert sampler.items == 3
    p = sampler.log_p.exp()
    assert p[compared].sum() == pytest.approx(1)


def test_what_is_kept(tmp_path, monkeypatch):
    split = groups_in_a_ring(100)
    model = make("gru4rec").fit(split, ON)
    model.save(tmp_path / "model")
    loaded = seqrec.load(tmp_path / "model", "cpu")
    query = split.query(split.test)
    assert torch.equal(loaded.score(query), model.score(query))
    assert loaded.trained_items.tolist() == (split.item_counts > 0).tolist()
    whole = model.best(query, 5, Filter())
    monkeypatch.setattr(models.neural, "CELLS", 64)  # blocks of a few items, looked up in ranges
    monkeypatch.setattr(scoring, "CELLS", 64)
    blocks = model.best(query, 5, Filter())
    np.testing.assert_array_equal(blocks.items, whole.items)
    assert model.stream()
    np.testing.assert_array_equal(model.best(query, 5, Filter()).items, whole.items)
    found = model.similar_items(["i39"], 3)  # of group 4, as i04, i09 ...
    assert {int(item[1:]) % GROUPS for item in found["similar_id"]} == {4}


def test_exported(tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: export)")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra: export)")
    split = untold(groups_in_a_ring(100))
    model = make("hrm").fit(split, ON, stop_after=2)
    model.export_onnx(tmp_path / "exported")
    exported = seqrec.load(tmp_path / "exported")
    assert exported.unlearned.tolist() == model.unlearned.tolist() == [39]
    query = split.query(split.test)
    expected, found = (one.best(query, 40, Filter()) for one in (model, exported))
    there = expected.items >= 0
    np.testing.assert_array_equal(found.items >= 0, there)
    np.testing.assert_allclose(found.scores[there], expected.scores[there], rtol=1e-4, atol=1e-4)
    assert "i39" not in exported.similar_items(["i38"], 40)["similar_id"]


def test_without_attributes_they_are_not_recommended(caplog, tmp_path):
    split = groups_in_a_ring(100)
    cold = np.flatnonzero(split.item_counts == 0)
    ids = split.sequences.item_catalogue.ids
    caplog.set_level("INFO", logger="seqrec")
    model = make("sasrec", None).fit(split, ON)
    assert "10 of 40 items have no training event: it learns nothing of them, and does not" in caplog.text
    assert model.unlearned.tolist() == cold.tolist()
    found = model.recommend(users=[0, 1], k=40, allow=[ids[0], ids[1], ids[int(cold[0])]], filter_seen=False)
    assert set(found["item_id"]) == {ids[0], ids[1]}
    with pytest.raises(UnknownIdError, match=r"1 item.*of which sasrec has learned nothing: .'i39'"):
        model.similar_items(["i39"])
    assert len(model.similar_items(["i39", "i00"], 40, on_unknown="ignore")) == 29
    with pytest.warns(UserWarning, match="sequence 1 has 2 item.* without a training event"):
        model.recommend([["i00"], ["i39", "i38"]])
    found = model.recommend([["i00", "i39"], ["i00"], ["i39"]], k=3, on_unknown="ignore")
    assert found.filter(query=0)["score"].to_list() == found.filter(query=1)["score"].to_list()
    assert found["source"].to_list() == ["model"] * 6 + ["popularity"] * 3
    source, target = tmp_path / "asked.jsonl", tmp_path / "best.jsonl"
    pl.DataFrame({"items": [["i00", "i39"], ["i39"]]}).write_ndjson(source)
    counts = batch.recommend(model, str(source), str(target), progress=False)
    assert (counts.unknown_items, counts.popular) == (2, 1)
    members = [{"name": name, **SMALL[name], "train": {"epochs": 1}} for name in ("sasrec", "hrm")]
    both = models.get("ensemble")(members=members).fit(split, ON)
    assert both.unlearned.tolist() == cold.tolist()


def untold(split: Split) -> Split:
    """The same without the text of the last item."""
    s = split.sequences
    text = s.item_catalogue.attributes["text"].to_list()
    text[39] = None
    catalogue = Catalogue(s.item_catalogue.ids, pl.DataFrame({"text": text}))
    return leave_one_out(replace(s, item_catalogue=catalogue))


def test_an_item_of_which_nothing_at_all_is_known():
    model = make("sasrec").fit(untold(groups_in_a_ring(100)), ON)
    assert model.unlearned.tolist() == [39]
    assert "i39" not in model.recommend(users=[0], k=40)["item_id"]


@pytest.mark.parametrize(
    "name", [name for name, cls in models.MODELS.items() if "train" not in models.get(name).sections]
)
def test_simple_models_have_them_last(name):
    """Behind everything that somebody has taken."""
    if name == "ensemble":
        return
    split = everything(small_log())
    never = np.flatnonzero(split.item_counts == 0)
    assert len(never) == 1
    model = Recipe({"name": name}).make().fit(split, ON)
    query = split.query(leave_one_out(small_log()).test)
    best = model.best(query, len(split.item_counts), Filter(seen=False)).items
    place = np.argmax(best == never[0], axis=1)
    assert (place[(best == never[0]).any(1)] == len(split.item_counts) - 1).all()


# -- the next log


def grown(split: Split, text: Any = None) -> Sequences:
    """The same log with one item more, of which nothing is known but that it is written as the first one."""
    s = split.sequences
    ids = [*s.item_catalogue.ids, "new"]
    told = s.item_catalogue.attributes["text"].to_list()
    return replace(s, item_catalogue=Catalogue(ids, pl.DataFrame({"text": text or [*told, told[0]]})))


def test_a_warm_start_goes_on_with_text():
    split = groups_in_a_ring(100)
    earlier = make("sasrec").fit(split, ON)
    after = make("sasrec").fit(leave_one_out(grown(split)), ON, start=earlier, stop_after=0)
    assert torch.equal(after.network.items.mapped[0].map, earlier.network.items.mapped[0].map)
    query = split.query(split.test)
    np.testing.assert_allclose(after.score(query)[:, :40], earlier.score(query), rtol=1e-4, atol=1e-4)
    assert after.trained_items.sum() == 30
    assert 40 in after.best(query, 41, Filter()).items


def test_a_warm_start_with_another_encoder_is_refused():
    split = groups_in_a_ring(100)
    earlier = make("sasrec").fit(split, ON, stop_after=1)
    rng = np.random.default_rng(1)
    for width in (GROUPS, GROUPS + 1):
        other = grown(split, rng.standard_normal((41, width)).tolist())
        with pytest.raises(SettingsError, match=r"fit\.start: expected the embeddings .* column 'text'"):
            make("sasrec").fit(leave_one_out(other), ON, start=earlier)
    # one text that was mended changes nothing
    told = [*split.sequences.item_catalogue.attributes["text"].to_list()]
    told = [[9.0, 1.0, 0.0, 0.0, 0.0], *told[1:], told[0]]
    make("sasrec").fit(leave_one_out(grown(split, told)), ON, start=earlier, stop_after=0)


# -- items of the table that are not in the log


def test_items_without_an_event(tmp_path):
    log = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [20, 10, 20]})
    table = pl.DataFrame({"item_id": [30, 10, 5], "text": [[1.0], [2.0], None]})
    whole = Interactions.from_frame(log, items=table)
    assert whole.sequences().item_catalogue.ids.to_list() == [10, 20]
    s = whole.sequences(cold_items=True)
    assert s.item_catalogue.ids.to_list() == [5, 10, 20, 30]
    assert s.item_catalogue.attributes["text"].to_list() == [None, [2.0], None, [1.0]]
    assert s.items.tolist() == [2, 1, 2]
    with pytest.raises(DataError, match="cold_items: expected a table of items"):
        Interactions.from_frame(log).sequences(cold_items=True)


def test_a_loaded_state_of_another_size():
    split = groups_in_a_ring(40)
    model = make("sasrec").fit(split, ON, stop_after=1)
    state = {**model.state(), "trained_items": np.ones(3, dtype=bool)}
    with pytest.raises(DataError, match="its trained items are not 40"):
        SASRec(**model.configuration()).load_state(state, 40, 40)
