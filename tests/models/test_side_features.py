"""Models with a feature schema: what they must learn from attributes, and that everything else stays as it
is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from seqrec import models
from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import SeqrecError, SettingsError, TrainingError
from seqrec.evaluation import metrics, ranking
from seqrec.features.schema import FeatureSchema
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Queries, Split
from seqrec.testing import awkward_query, sequences_of, small_log
from seqrec.training import state
from seqrec.training.negatives import Sampler
from seqrec.training.objective import Objective

SMALL = {
    "hrm": {"width": 16, "recent": 1},
    "gru4rec": {"width": 16, "hidden": 24, "steps": 8},
    "sasrec": {"width": 16, "length": 8, "blocks": 1, "dropout": 0.0},
}
EVERYTHING = {
    "user": ["user_id", "group"],
    "sequence": ["item_id", "tags"],
    "item": ["item_id", "kind", "kind#tags"],
}


def make(name: str, features=None, epochs: int = 3, batch_positions: int = 128, **settings):
    train = {
        "epochs": epochs,
        "batch_positions": batch_positions,
        "learning_rate": 0.02,
        "patience": epochs,
        "average": 0.9,
    }
    return models.get(name)(**{**SMALL[name], "train": train, "features": features, **settings})


def with_attributes(s: Sequences, items: dict | None = None, users: dict | None = None) -> Sequences:
    def catalogue(old: Catalogue, attributes: dict | None) -> Catalogue:
        return Catalogue(old.ids, None if attributes is None else pl.DataFrame(attributes))

    return replace(
        s,
        item_catalogue=catalogue(s.item_catalogue, items),
        user_catalogue=catalogue(s.user_catalogue, users),
    )


def recall(model, split: Split, k: int) -> float:
    model.fit(split, progress=False)
    return float(metrics.recall(ranking.rank(model, split, split.test, lists=False).unfiltered, k).mean())


# -- what must be learnt


def test_new_users_are_known_by_their_attributes():
    """Two items of noise, and then one of ten that the user's group takes. Of those who are asked only the
    noise is known."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 500)
    lists = [np.array([rng.integers(40, 60), rng.integers(60, 80), 10 * g + rng.integers(10)]) for g in group]
    s = with_attributes(sequences_of(lists, 80), users={"group": [f"g{g}" for g in group]})
    starts, stops, asked = s.offsets[:-1], s.offsets[1:].copy(), np.arange(500) >= 300
    stops[asked] -= 1
    split = Split(
        s, starts, stops, Queries.at(s, stops[300:350]), Queries.at(s, stops[350:]), {"name": "by hand"}
    )
    for name in SMALL:
        plain, informed = (recall(make(name, f, 6, 32), split, 10) for f in (None, {"user": ["group"]}))
        assert plain < 0.4, name  # chance is .25
        assert informed > 0.6, name


def test_rare_items_are_known_by_their_attributes():
    """The next item is any of the genre that follows the genre of the last one. With 400 items of about 5
    events, ids tell little."""
    rng = np.random.default_rng(0)
    genre = rng.integers(0, 8, 400)
    of_genre = [np.flatnonzero(genre == g) for g in range(8)]
    lists = []
    for _ in range(300):
        start = rng.integers(0, 8)
        lists.append(np.array([rng.choice(of_genre[(start + step) % 8]) for step in range(7)]))
    split = leave_one_out(
        with_attributes(sequences_of(lists, 400), items={"genre": [f"g{g}" for g in genre]})
    )
    features = {"sequence": ["item_id", "genre"], "item": ["item_id", "genre"]}
    for name in SMALL:
        plain, informed = (recall(make(name, f, 12), split, 60) for f in (None, features))
        assert plain < 0.65, name  # chance is .15
        assert informed > max(0.7, plain + 0.3), name


# -- what must stay as it is


@pytest.mark.parametrize("name", SMALL)
def test_a_schema_of_ids_is_the_plain_model(name):
    split = leave_one_out(small_log())
    schema = {"user": ["user_id"] if name == "hrm" else []}
    plain, schemed = make(name).fit(split, progress=False), make(name, schema).fit(split, progress=False)
    a, b = plain.network.state_dict(), schemed.network.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert "features" not in plain.configuration()


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bpr_max", "bce"])
@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_every_path_of_the_loss(loss, optimizer):
    """Items looked up once or each for itself, sparse gradients or dense, one table or two: the same loss and
    gradients."""
    split = leave_one_out(small_log())
    for schema in (
        {"item": ["item_id", "tags"], "sequence": ["item_id", "tags"], "user": ["group"]},
        EVERYTHING,
    ):
        losses, gradients = [], []
        for form in ("fast", "plain"):
            train = {"optimizer": optimizer if form == "fast" else "adamw", "batch_positions": 32}
            m = make("gru4rec", schema, loss=loss, train=train, negatives={"count": 6, "in_batch": True})
            m.feature_values = None
            with pytest.raises(SeqrecError, match="does not have the attributes"):
                m.build(31, 60)
            m.fit(split, progress=False, stop_after=1)
            torch.manual_seed(0)
            network = m.build(31, 60)
            batch = next(iter(network.batches(split, 32, np.random.default_rng(0))))
            sampler = Sampler(m.negatives, torch.from_numpy(split.item_counts), 0, torch.device("cpu"))
            objective = (
                m.objective(network, sampler) if form == "fast" else Objective(network, m.loss, sampler)
            )
            value = objective.loss(*next(objective.drawn([batch])))
            value.backward()
            losses.append(value.item())
            gradients.append({n: p.grad.to_dense() for n, p in network.named_parameters()})
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for n, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, gradients[1][n], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("lanes", "steps"), [(3, 1), (3, 3), (1, 50)])
def test_gru4rec_knows_the_user_of_each_position(lanes, steps):
    """Whatever the lanes, a state is that of reading the sequence from its beginning, as its user."""
    split = leave_one_out(small_log())
    m = make("gru4rec", {"user": ["user_id", "group"]}, steps=steps)
    m.fit(split, progress=False, stop_after=1)
    network = m.network.double()
    found = 0
    for batch in network.batches(split, lanes * steps, np.random.default_rng(0)):
        states = network.encode(batch.inputs)
        users = batch.inputs.users.flatten()[batch.inputs.at]
        for each, user, target in zip(states, users.tolist(), batch.targets.items.tolist()):
            own = split.sequences.items[split.train_starts[user] : split.train_stops[user]]
            prefixes = [own[:n] for n in range(1, len(own)) if own[n] == target]
            expected = m.states(Query.from_lists(prefixes, np.full(len(prefixes), user, dtype=np.int32)))
            assert torch.isclose(expected, each, rtol=0, atol=1e-9).all(1).any()
            found += 1
    assert found == split.train_positions


@pytest.mark.parametrize("name", SMALL)
def test_users_known_and_unknown(name):
    split = leave_one_out(small_log())
    m = make(name, {"user": ["group"], "item": ["item_id", "kind"]}).fit(split, progress=False)
    history = Query.from_lists(
        [np.array([2, 3])] * 4 + [np.empty(0, np.int32)] * 4, np.array([0, 4, 1, -1] * 2, dtype=np.int32)
    )
    scores = m.score(history)
    assert torch.equal(scores[0], scores[1])  # of one group
    assert not torch.equal(scores[0], scores[2])
    torch.testing.assert_close(m.score(replace(history, users=None))[0], scores[3])  # nobody is nobody
    assert torch.equal(scores[4], scores[5])
    assert not torch.equal(scores[4], scores[6])
    assert scores[7].tolist() == split.item_counts.tolist()


def test_items_without_ids_are_what_their_attributes_are():
    split = leave_one_out(small_log())
    for name in SMALL:
        m = make(name, {"sequence": ["tags"], "item": ["kind", "tags"]}).fit(split, progress=False)
        scores = m.score(awkward_query(split))[2:3]
        assert torch.equal(scores[:, 0], scores[:, 30])  # both are k0 and t0
        assert not torch.equal(scores[:, 0], scores[:, 1])


@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
def test_the_tables_of_gru4rec(embedding):
    m = make("gru4rec", EVERYTHING, embedding=embedding).fit(leave_one_out(small_log()), progress=False)
    network = m.network
    assert network.input_items is not None
    assert (network.input_items.ids is network.items.ids) == (embedding == "shared")
    assert network.input_items.weight.shape == (31, {"shared": 17, "separate": 16, "none": 72}[embedding])
    assert network.items.weight.shape == (31, 17)
    same = {"item": ["item_id", "tags"], "sequence": ["tags", "item_id"]}
    m = make("gru4rec", same, embedding=embedding).fit(leave_one_out(small_log()), progress=False)
    assert (m.network.input_items is None) == m.network.one_table == (embedding == "shared")


# -- saving, resuming, refusing


@pytest.mark.parametrize("name", SMALL)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    split = leave_one_out(small_log())
    whole = make(name, EVERYTHING).fit(split, progress=False)
    save = state.TrainingState.save

    def save_then_stop(self, path, fingerprint):
        save(self, path, fingerprint)
        if self.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state.TrainingState, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            make(name, EVERYTHING).fit(split, progress=False, checkpoint=tmp_path / "c.safetensors")
    resumed = make(name, EVERYTHING).fit(split, progress=False, checkpoint=tmp_path / "c.safetensors")
    a, b = whole.state(), resumed.state()
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    # The same log with other attributes is other data.
    s = split.sequences
    backwards = Catalogue(s.item_catalogue.ids, s.item_catalogue.attributes.reverse())
    other = replace(split, sequences=replace(s, item_catalogue=backwards))
    with pytest.raises(TrainingError, match="other attributes"):
        make(name, EVERYTHING).fit(other, progress=False, checkpoint=tmp_path / "c.safetensors")


def test_a_saved_model_needs_no_attributes(tmp_path):
    split = leave_one_out(small_log())
    model = make("hrm", EVERYTHING).fit(split, progress=False)
    model.save(tmp_path / "model", histories=False)
    loaded = HRM.load(tmp_path / "model")
    assert loaded.features == FeatureSchema.of(EVERYTHING, "")
    histories = replace(awkward_query(split), users=None)
    assert torch.equal(loaded.score(histories), model.score(histories))


def test_where_a_schema_may_come_from(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text("user: [group]\n")
    for features in ({"user": ["group"]}, FeatureSchema(user=["group"]), path, str(path)):
        model = GRU4Rec(features=features)
        assert model.features == FeatureSchema(user=["group"])
        assert GRU4Rec(**model.configuration()).features == model.features
    with pytest.raises(SettingsError, match=r"features\.usr: unknown setting\. Did you mean 'user'"):
        GRU4Rec(features={"usr": []})
    with pytest.raises(
        SettingsError,
        match=r"features: fpmc reads no attributes\. Leave the section out, or take another model",
    ):
        models.get("fpmc")(features={})
    with pytest.raises(
        SettingsError,
        match=r"features\.user: the user attributes have no column 'grop'\. Did you mean 'group'",
    ):
        GRU4Rec(features={"user": ["grop"]}).fit(leave_one_out(small_log()))
