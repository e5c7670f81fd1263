"""Tables of items that share parts of their vectors: codes from who took what, and models with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import seqrec
from seqrec import models
from seqrec.errors import DataError, SettingsError
from seqrec.models.item_table import ItemTableSettings, codes_of
from seqrec.nn.jpq import JPQEmbedding
from seqrec.splitting import leave_one_out
from seqrec.testing import ModelContract, sequences_of, small_log
from seqrec.training import state, threads
from seqrec.training.negatives import Sampler
from seqrec.training.options import FitOptions

FAST = {"train": {"epochs": 8, "batch_positions": 256, "learning_rate": 0.01, "patience": 8}}
SMALL: dict[str, dict[str, Any]] = {
    "sasrec": {"width": 16, "blocks": 1, "length": 12, "dropout": 0.0},
    "gru4rec": {"width": 16, "hidden": 24},
    "bert4rec": {"width": 16, "blocks": 1, "length": 12},
    "lrurec": {"width": 16, "blocks": 1, "length": 12},
    "fmlp": {"width": 16, "blocks": 1, "length": 12},
    "narm": {"width": 16, "hidden": 24, "length": 12},
    "caser": {"width": 16, "recent": 3},
    "hrm": {"width": 16, "recent": 1},
    "dssm": {"width": 16, "hidden": 24},
    "hstu": {"width": 16, "blocks": 1, "length": 12},
}
ON = FitOptions(device="cpu", progress=False)


class TestSASRecContract(ModelContract):
    on = ON
    order = 1

    def make_model(self):
        return models.get("sasrec")(**SMALL["sasrec"], item_table={"splits": 4}, **FAST)

    def test_begins_with_the_earlier_model(self) -> None:
        """Codes come from one log: a model with them is refused, and none begins with another."""
        earlier, split = self._fitted()
        plain = models.get("sasrec")(**SMALL["sasrec"])
        for model in (self.make_model(), plain):
            with pytest.raises(SettingsError, match=r"fit\.start: expected a model without item_table"):
                model.fit(split, self.on, start=earlier)


def clusters(users: int = 200) -> list[np.ndarray]:
    """Users of even number take items below 20, others the next 20; nobody takes the last two."""
    rng = np.random.default_rng(0)
    return [rng.choice(20, 10, replace=False) + 20 * (user % 2) for user in range(users)]


def test_items_that_the_same_people_take_have_codes_alike():
    split = leave_one_out(sequences_of(clusters(), 42))
    codes = codes_of(ItemTableSettings(splits=2, codes=3), split, 0)
    assert codes.of_rows.shape == (2, 42)
    assert codes.of_rows.dtype == np.uint8
    # one of the first two directions tells the two halves apart; bins are equally large
    assert any(len({*row[:20]}) == len({*row[20:40]}) == 1 and row[0] != row[20] for row in codes.of_rows)
    for row in codes.of_rows:
        assert np.bincount(row).tolist() == [2, 20, 20]
    assert not codes.of_rows[:, 40:].any()


def test_codes_know_nothing_of_other_events_and_of_threads():
    split = leave_one_out(small_log())
    s = ItemTableSettings(splits=4, codes=8)
    expected = codes_of(s, split, 3).of_rows
    items = split.sequences.items.copy()
    items[~split.train_events] = 0
    before = torch.random.get_rng_state()
    with threads.use(2):
        found = codes_of(s, replace(split, sequences=replace(split.sequences, items=items)), 3)
    assert np.array_equal(found.of_rows, expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_splits_than_the_data_has_directions():
    split = leave_one_out(sequences_of([np.array([0, 1, 2, 0, 1]), np.array([1, 2, 0, 1])], 4))
    codes = codes_of(ItemTableSettings(splits=8, codes=256), split, 0).of_rows
    assert (codes[:, :3] > 0).all()
    assert (codes[:, 3] == 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_every_encoder(name, tmp_path):
    """Fits, is saved and loaded, and gives one history the scores that it has among many."""
    model = models.get(name)(**SMALL[name], item_table={"splits": 4, "codes": 9}, train={"epochs": 1})
    split = leave_one_out(small_log())
    model.fit(split, ON)
    tables = [m for m in model.network.modules() if isinstance(m, JPQEmbedding)]
    assert tables
    model.save(tmp_path)
    again = seqrec.load(tmp_path, "cpu")
    query = split.query(split.test)
    scores = model.score(query)
    assert torch.equal(again.score(query), scores)
    alone = torch.cat([model.score(query.select(np.array([row]))) for row in range(5)])
    torch.testing.assert_close(alone, scores[:5], rtol=1e-5, atol=1e-5)
    # the table is the one of the codes
    vectors = tables[0].weight.detach()
    codes = codes_of(model.item_table, split, model.fit_report.seed).of_rows
    same = (codes[:, :, None] == codes[:, None]).all(0)
    width = tables[0].width
    assert torch.equal((vectors[:, None, :width] == vectors[None, :, :width]).all(2), torch.from_numpy(same))


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bce"])
def test_learns_as_the_dense_table_of_its_parts_would(loss):
    """The gradient beside that of a plain table, summed by code (in float64: tests/nn/test_jpq.py)."""
    split = leave_one_out(small_log())
    model = models.get("sasrec")(
        **SMALL["sasrec"],
        item_table={"splits": 4, "codes": 5},
        loss=loss,
        negatives={"count": 6},
        train={"epochs": 1},
    )
    model.fit(split, ON, stop_after=1)

    found = []
    for dense in (False, True):
        network = model.network.train()
        table = network.items
        if dense:
            plain = torch.nn.Embedding(table.rows, table.width)
            plain.weight = torch.nn.Parameter(table.weight.detach().clone())
            network.items = plain
        sampler = Sampler(model.negatives, torch.from_numpy(split.item_counts), 0, torch.device("cpu"))
        objective = model.objective(network, sampler)
        batches = network.batches(split, 64, np.random.default_rng(0))
        batch, drawn = next(iter(objective.drawn(batches)))
        network.zero_grad()
        objective.loss(batch, drawn).backward()
        network.items = table
        if dense:
            of_parts = torch.zeros_like(table.parts.weight)
            gradient = plain.weight.grad.view(table.rows, table.splits, -1)
            for split_, of_split in enumerate(table.codes):
                of_parts.index_add_(0, of_split.long() + 5 * split_, gradient[:, split_])
            found.append(of_parts)
        else:
            found.append(table.parts.weight.grad.clone())
    assert found[0].abs().max() > 1e-4
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


class Killed(Exception):
    pass


def test_a_resumed_training_has_the_same_digits(tmp_path, monkeypatch):
    split, checkpoint = leave_one_out(small_log()), str(tmp_path / "checkpoint.safetensors")
    small = {**SMALL["gru4rec"], "item_table": "jpq", "train": {"epochs": 3}}
    whole = models.get("gru4rec")(**small).fit(split, ON)
    save = state.TrainingState.save

    def save_then_die(self, path, fingerprint):
        save(self, path, fingerprint)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(state.TrainingState, "save", save_then_die)
        with pytest.raises(Killed):
            models.get("gru4rec")(**small).fit(split, ON, checkpoint=checkpoint)
    resumed = models.get("gru4rec")(**small).fit(split, ON, checkpoint=checkpoint)
    for name, values in whole.state().items():
        assert np.array_equal(values, resumed.state()[name]), name


def test_with_attributes_what_nobody_took_is_known_by_these_alone():
    features = {"sequence": ["item_id", "kind"], "item": ["item_id", "kind"]}
    model = models.get("sasrec")(**SMALL["sasrec"], item_table="jpq", features=features, train={"epochs": 1})
    model.fit(leave_one_out(small_log()), ON)
    table = model.network.items
    assert isinstance(table.ids, JPQEmbedding)
    assert not table.ids.weight[30].any()
    assert table.weight[30].any()


def test_the_default_is_a_vector_an_item():
    assert "item_table" not in models.get("sasrec")().configuration()
    described = models.get("sasrec")(item_table="jpq").configuration()["item_table"]
    assert described == {"name": "jpq", "splits": 8, "codes": 256}


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("fpmc", {"item_table": "jpq"}, "item_table: fpmc has a table of its own"),
        ("sasrec", {"item_table": "pq"}, r"item_table.name: expected 'jpq'. Got 'pq'"),
        ("sasrec", {"item_table": {"split": 4}}, "item_table.split: unknown setting. Did you mean 'splits'"),
        ("sasrec", {"item_table": {"codes": 257}}, "item_table.codes: expected .*256"),
        (
            "sasrec",
            {"item_table": "jpq", "width": 20},
            "item_table.splits: expected a divisor of model.width",
        ),
        (
            "sasrec",
            {"item_table": "jpq", "features": {"item": ["kind"], "sequence": ["kind"]}},
            "item_table: expected item_id in features.item",
        ),
    ],
)
def test_what_cannot_be(name, more, message):
    with pytest.raises(SettingsError, match=message):
        models.get(name)(**more)


def test_a_file_with_codes_of_no_part():
    model = models.get("sasrec")(**SMALL["sasrec"], item_table={"codes": 9}, train={"epochs": 1})
    model.fit(leave_one_out(small_log()), ON)
    state = model.state()
    state["network.items.codes"] = state["network.items.codes"] + np.uint8(9)
    with pytest.raises(DataError, match="item codes are not below 9"):
        models.get("sasrec")(**SMALL["sasrec"], item_table={"codes": 9}).load_state(state, 31, 60)
