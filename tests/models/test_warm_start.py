"""A training that begins with an earlier model's weights, on a log that has grown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import seqrec
from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError, TrainingError
from seqrec.models import warm_start
from seqrec.models.fpmc import FPMC
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.sasrec import SASRec
from seqrec.models.warm_start import Start
from seqrec.splitting import leave_one_out
from seqrec.splitting.everything import everything
from seqrec.testing import markov_chain
from seqrec.training import state
from seqrec.training.options import FitOptions
from seqrec.training.settings import TrainSettings

ON = FitOptions(device="cpu", progress=False, baselines=False)
TRAIN = {"epochs": 2, "batch_positions": 64, "learning_rate": 0.01}
SMALL: dict[str, tuple[Any, dict[str, Any]]] = {
    "fpmc": (FPMC, {"width": 8}),
    "hrm": (HRM, {"width": 8, "recent": 3}),
    "gru4rec": (GRU4Rec, {"width": 8, "hidden": 12, "embedding": "separate"}),
    "gru4rec of one-hot vectors": (GRU4Rec, {"width": 8, "hidden": 12, "embedding": "none"}),
    "sasrec": (SASRec, {"width": 8, "blocks": 1, "length": 8}),
}
FEATURES = {
    "user": ["user_id", "group"],
    "sequence": ["item_id", "kind"],
    "item": ["item_id", "tags", "kind"],
}


def make(name: str, **more: Any) -> Any:
    cls, settings = SMALL[name]
    return cls(**{**settings, "train": TRAIN, **more})


def some_log(users: range, items: list[str], events: int = 6, seed: int = 0) -> Sequences:
    """A log of these users and items, in this order."""
    rng = np.random.default_rng(seed)
    about_items = pl.DataFrame(
        {
            "kind": [f"k{int(i[1:]) % 3}" for i in items],
            "tags": [f"t{int(i[1:]) % 4}|t{int(i[1:]) % 5}" for i in items],
        }
    )
    about_users = pl.DataFrame({"group": [u % 4 for u in users]})
    return Sequences(
        rng.integers(0, len(items), len(users) * events).astype(np.int32),
        np.arange(len(users) + 1, dtype=np.int64) * events,
        Catalogue(items, about_items),
        Catalogue(list(users), about_users),
    )


def before() -> Sequences:
    return some_log(range(20), [f"i{n}" for n in range(10)])


def after() -> Sequences:
    """Other items and users come first, and one item is gone."""
    return some_log(range(30, 5, -1), [f"i{n}" for n in (12, 3, 11, 9, 0, 1, 2, 4, 5, 6, 7, 13)], seed=1)


@pytest.mark.parametrize("features", [None, FEATURES], ids=["ids", "features"])
@pytest.mark.parametrize("name", SMALL)
def test_known_rows_stay_and_new_ones_are_fresh(name: str, features: Any):
    if features is not None and name == "fpmc":
        pytest.skip("it reads no attributes")
    earlier = make(name, features=features).fit(before(), ON)
    started = make(name, features=features).fit(after(), ON, start=earlier, stop_after=0)
    fresh = make(name, features=features)
    fresh.popularity, fresh.trained_users = started.popularity, started.trained_users
    fresh.feature_values = started.feature_values
    torch.manual_seed(ON.seed)
    untrained = fresh.build(12, 25).state_dict()
    then, now = earlier.network.state_dict(), started.network.state_dict()
    ids = {"items": (earlier.item_catalogue, started.item_catalogue)}
    ids["users"] = (earlier.sequences.user_catalogue, started.sequences.user_catalogue)
    seen = set()
    for key, axes in warm_start.axes_of(started, started.feature_values).items():
        kind = next((k for k in axes if k), None)
        seen.add(kind)
        if kind is None:
            assert torch.equal(now[key], then[key]), key
        elif kind in ids:
            place = {raw: row for row, raw in enumerate(ids[kind][0].ids)}
            for row, raw in enumerate(ids[kind][1].ids):
                expected = then[key][place[raw]] if raw in place else untrained[key][row]
                assert torch.equal(now[key][row], expected), (key, raw)
    counts = {"items": {"kept": 9, "new": 3, "gone": 1}, "users": {"kept": 14, "new": 11, "gone": 6}}
    expected = {kind: of for kind, of in counts.items() if kind in seen or f"values of {kind}" in seen}
    assert started.fit_report.start.items() >= expected.items()
    assert "items" in expected


def test_attribute_values_are_matched_by_column_and_value():
    """A value that comes before all others in the grown log moves their numbers, not their vectors."""
    log = some_log(range(20), [f"i{n}" for n in range(10)])
    earlier = make("hrm", features=FEATURES).fit(log, ON)
    about = log.item_catalogue.attributes
    moved = about.with_columns(kind=pl.Series(["a", *about["kind"][1:]]))
    grown = replace(log, item_catalogue=Catalogue(log.item_catalogue.ids, moved))
    started = make("hrm", features=FEATURES).fit(grown, ON, start=earlier, stop_after=0)
    then, now = (model.network.items.values.weight for model in (earlier, started))
    # tags are numbered before kinds, as the schema has them
    tags = about["tags"].str.split("|").explode().n_unique()
    assert torch.equal(now[: 1 + tags], then[: 1 + tags])
    assert torch.equal(now[2 + tags :], then[1 + tags :])
    last = [model.network.items(torch.tensor([9])) for model in (earlier, started)]
    assert torch.equal(*last)


def test_users_of_the_earlier_training_are_trained():
    """A user who has no target any more is still known by the vector that was learned."""
    log = markov_chain(users=30, length=6, items=10)
    earlier = make("fpmc").fit(leave_one_out(log), ON)
    short = replace(leave_one_out(log), train_stops=log.offsets[:-1] + 1 + (np.arange(30) > 4) * 2)
    assert not make("fpmc").fit(short, ON).trained_users[:5].any()
    assert make("fpmc").fit(short, ON, start=earlier).trained_users.all()


@pytest.mark.parametrize("saved", [False, True], ids=["in memory", "saved"])
def test_it_goes_on_from_what_was_learned(saved: bool, tmp_path):
    log = markov_chain(users=200, length=10, items=30, noise=0.0)
    split = leave_one_out(log)
    train = {"epochs": 6, "batch_positions": 64, "learning_rate": 0.01}
    earlier = make("sasrec", train=train).fit(split, ON)
    if saved:
        earlier.save(tmp_path)
    start = str(tmp_path) if saved else earlier
    report = make("sasrec", train={**train, "epochs": 1}).fit(split, ON, start=start).fit_report
    assert report.start["ndcg@10"] == max(p["ndcg@10"] for p in earlier.fit_report.curve)
    cold = make("sasrec", train={**train, "epochs": 1}).fit(split, ON).fit_report
    assert report.curve[0]["loss"] < cold.curve[0]["loss"] / 2


def test_it_never_ends_below_its_start(caplog):
    """With a rate that destroys everything, the start itself is the best epoch."""
    split = leave_one_out(markov_chain(users=200, length=10, items=30, noise=0.0))
    earlier = make("sasrec", train={**TRAIN, "epochs": 6}).fit(split, ON)
    wild = make("sasrec", train={**TRAIN, "learning_rate": 5.0, "patience": 1})
    wild.fit(split, ON, start=earlier, baselines=True)
    assert wild.fit_report.best_epoch == 0
    assert wild.fit_report.epochs == 1
    assert wild.fit_report.validation["model"] == wild.fit_report.start["ndcg@10"]
    weights, expected = wild.network.state_dict(), earlier.network.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert "no epoch was better on validation than the earlier sasrec itself" in caplog.text
    again = make("sasrec").fit(split, ON, start=earlier, stop_after=wild.fit_report.best_epoch)
    assert again.fit_report.epochs == 0
    with pytest.raises(SettingsError, match=r"stop_after: expected from 1 to train\.epochs"):
        make("sasrec").fit(split, ON, stop_after=0)


def test_a_model_may_start_from_itself():
    split = leave_one_out(markov_chain(users=60, length=8, items=20))
    model = make("fpmc").fit(split, ON)
    weights = {k: v.clone() for k, v in model.network.state_dict().items()}
    model.fit(split, ON, start=model, stop_after=0)
    assert all(torch.equal(v, weights[k]) for k, v in model.network.state_dict().items())


def test_a_quarter_of_the_epochs_unless_they_are_given():
    s = TrainSettings()
    assert s.plan(1_000_000).epochs == 20
    assert s.plan(1_000_000, warm=True).epochs == 5
    assert TrainSettings(epochs=9).plan(1_000_000, warm=True).epochs == 9


def test_it_is_resumed_with_the_same_start_only(tmp_path, monkeypatch):
    split = leave_one_out(markov_chain(users=60, length=8, items=20))
    earlier, other = (make("hrm").fit(split, ON, seed=seed) for seed in (0, 1))
    checkpoint = tmp_path / "checkpoint.safetensors"
    whole = make("hrm", train={**TRAIN, "epochs": 4}).fit(split, ON, start=earlier)
    save = state.TrainingState.save

    class Killed(Exception):
        pass

    def save_then_die(self, path, fingerprint):
        save(self, path, fingerprint)
        if self.epoch == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(state.TrainingState, "save", save_then_die)
        with pytest.raises(Killed):
            make("hrm", train={**TRAIN, "epochs": 4}).fit(split, ON, start=earlier, checkpoint=checkpoint)
    for start in (other, None):
        with pytest.raises(TrainingError, match=r"another run \(other settings, data or start\)"):
            make("hrm", train={**TRAIN, "epochs": 4}).fit(split, ON, start=start, checkpoint=checkpoint)
    resumed = make("hrm", train={**TRAIN, "epochs": 4}).fit(split, ON, start=earlier, checkpoint=checkpoint)
    weights, expected = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert resumed.fit_report.start == whole.fit_report.start
    more = make("hrm", train={**TRAIN, "epochs": 6})
    more.fit(split, ON, start=earlier, checkpoint=checkpoint, earlier_epochs=4)
    assert more.fit_report.epochs == 6


def test_the_digest_is_of_what_was_learned(tmp_path):
    log = markov_chain(users=60, length=8, items=20)
    split = leave_one_out(log)
    model = make("hrm").fit(split, ON)
    model.save(tmp_path)
    digest = Start.of(model, HRM).digest
    assert Start.of(tmp_path, HRM).digest == digest
    assert Start.of(make("hrm").fit(split, ON, seed=1), HRM).digest != digest
    renamed = replace(log, item_catalogue=Catalogue([f"x{i}" for i in range(20)]))
    assert Start.of(make("hrm").fit(leave_one_out(renamed), ON), HRM).digest != digest


@pytest.mark.parametrize(
    ("start", "model", "message"),
    [
        ("hrm", {"width": 16}, r"fit\.start: the earlier hrm has model\.width 8\. Got 16\."),
        ("hrm", {"features": {"item": ["item_id", "kind"]}}, r"has features\.user None\. Got \[\]"),
        ("sasrec", {}, r"fit\.start: the earlier sasrec is a sasrec\. Got the model hrm"),
    ],
)
def test_another_network_is_refused(start: str, model: dict[str, Any], message: str):
    earlier = make(start).fit(before(), ON)
    with pytest.raises(SettingsError, match=message):
        make("hrm", **model).fit(after(), ON, start=earlier)


def test_what_is_no_start_is_refused(tmp_path):
    log, hrm = before(), make("hrm")
    with pytest.raises(SettingsError, match=r"fit\.start: expected a trained model, or the folder of one"):
        hrm.fit(log, ON, start=3)
    with pytest.raises(SettingsError, match=r"fit\.start: the hrm is not trained"):
        hrm.fit(log, ON, start=make("hrm"))
    with pytest.raises(
        SettingsError, match=r"fit\.start: the earlier markov is a markov\. Got the model hrm"
    ):
        hrm.fit(log, ON, start=seqrec.Markov().fit(log))
    with pytest.raises(SettingsError, match=r"fit\.start: markov is not trained by gradient"):
        seqrec.Markov().fit(log, start=hrm)
    with pytest.raises(seqrec.errors.DataError, match="expected the folder of a trained model"):
        hrm.fit(log, ON, start=tmp_path)
    make("sasrec").fit(log, ON).save(tmp_path / "other")
    with pytest.raises(seqrec.errors.DataError, match=r"expected a hrm model\. Got 'sasrec'"):
        hrm.fit(log, ON, start=tmp_path / "other")
    make("hrm").fit(log, ON).save(tmp_path / "bare", histories=False)
    with pytest.raises(SettingsError, match=r"fit\.start: .*bare was saved without histories"):
        hrm.fit(log, ON, start=tmp_path / "bare")
    make("sasrec").fit(log, ON).save(tmp_path / "no users", histories=False)
    make("sasrec").fit(log, ON, start=tmp_path / "no users")


def test_ids_of_another_kind_are_refused():
    """Texts never stand for numbers: nothing would be taken over, in silence."""
    log = markov_chain(users=60, length=8, items=20)
    numbers = replace(log, item_catalogue=Catalogue(list(range(20))))
    earlier = make("sasrec").fit(numbers, ON)
    with pytest.raises(
        SettingsError, match=r"none of the items .* is in the log\. It has \[0, 1, 2\] and so"
    ):
        make("sasrec").fit(log, ON, start=earlier)


def test_epochs_are_not_chosen_on_what_the_start_was_trained_on(caplog):
    """A model that was fitted on all events knows the held-out ones of users without new events."""
    log = markov_chain(users=60, length=8, items=20)
    split = leave_one_out(log)
    serving = make("hrm").fit(split.refit(), ON)
    started = Start.of(serving, HRM)
    assert started.known(split, split.test).all()
    longer = np.arange(60) % 2 == 0  # users with two events more than it knew
    stops = serving.known_stops - 2 * longer
    started.model.known_stops = stops
    started.model.provenance = {"train_events": int((stops - log.offsets[:-1]).sum())}
    assert np.array_equal(started.known(split, split.test), ~longer)
    left = started.to_choose_on(split.without_test())
    assert np.array_equal(left.users, np.flatnonzero(longer))
    assert "was trained on what 30 of 60 validation queries ask for" in caplog.text
    tested = Start.of(make("hrm").fit(split.without_test(), ON), HRM)
    assert not tested.known(split, split.test).any()
    assert len(tested.to_choose_on(split.without_test())) == 60


def test_of_two_fits_on_all_events_the_second_chooses_on_what_the_first_did_not_train_on():
    """Each holds out the last event of a tenth of the users: of others the second time."""
    log = markov_chain(users=400, length=8, items=20)
    few = Sequences(
        log.items[: log.offsets[300]],
        log.offsets[:301],
        log.item_catalogue,
        Catalogue(log.user_catalogue.ids[:300]),
    )
    started = Start.of(make("hrm").fit(few, ON), HRM)
    held_out = everything(few).validation.users
    again = everything(log)
    left = started.to_choose_on(again)
    assert set(left.users) == {u for u in again.validation.users if u >= 300 or u in held_out}
    assert 0 < len(left) < len(again.validation)


def test_what_was_known_is_found_in_a_log_that_lost_its_oldest_events():
    log = markov_chain(users=60, length=8, items=20)
    started = Start.of(make("hrm").fit(log, ON), HRM)
    cut = Sequences(
        np.concatenate([log.of(u)[2:] for u in range(60)]),
        np.arange(61, dtype=np.int64) * 6,
        log.item_catalogue,
        log.user_catalogue,
    )
    split = leave_one_out(cut)
    assert started.known(split, split.test).all()
    assert everything(cut).validation is not None


def test_a_weight_of_another_shape_is_refused():
    rows = {"items": (np.arange(3), np.array([2, 0, 1]))}
    fresh = torch.zeros(4, 2)
    found = warm_start.grown(torch.arange(6.0).view(3, 2), fresh, ("items", None), rows, "w")
    assert found.tolist() == [[2, 3], [4, 5], [0, 1], [0, 0]]
    both = warm_start.grown(torch.arange(9.0).view(3, 3), torch.zeros(4, 4), ("items", "items"), rows, "w")
    assert both[2].tolist() == [1, 2, 0, 0]
    for wrong in (None, torch.zeros(3, 3), torch.zeros(3)):
        with pytest.raises(SettingsError, match=r"w: expected a weight of the shape \(4, 2\), but for rows"):
            warm_start.grown(wrong, fresh, ("items", None), rows, "w")
