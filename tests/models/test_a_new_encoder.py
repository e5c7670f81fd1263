"""A model as someone outside the package writes it: ``minimal_gated_unit.py`` beside this file, and here a
variant that reads the times of events. They use nothing but what the package offers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from minimal_gated_unit import MGU, MGUNetwork, MGUSettings
from torch import Tensor, nn
from typer.testing import CliRunner

import seqrec
from seqrec.cli import app
from seqrec.data.interactions import Interactions
from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.nn.batch import Inputs
from seqrec.splitting import SplitSettings
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.testing import ModelContract, markov_chain, small_log
from seqrec.training.options import FitOptions

ON = FitOptions(device="cpu", progress=False)
TRAIN = {"epochs": 8, "batch_positions": 256, "learning_rate": 0.01, "patience": 8}
BUCKETS = 24


class TimedNetwork(MGUNetwork):
    """Adds the vector of how long before each event the one before it was, and to the state that of how long
    ago the last event is."""

    reads = frozenset({"times"})

    def __init__(self, settings: MGUSettings, items: int, users: int):
        super().__init__(settings, items, users)
        self.gaps = nn.Embedding(BUCKETS, settings.width)

    def encode(self, inputs: Inputs) -> Tensor:
        times, memory = inputs.times, inputs.memory
        assert times is not None
        assert inputs.asked_at is not None
        last = memory.states[1][: len(times)] if memory and memory.states else times[:, :1]
        between = times - torch.cat([last, times[:, :-1]], 1)
        if inputs.resets is not None:
            between = between.masked_fill(inputs.resets, 0)
        states = self.read(self.items(inputs.items) + self.of(between), inputs)
        if memory:
            memory.states.append(times[:, -1:])
        return states + self.of(inputs.asked_at - times.flatten()[inputs.at])

    def of(self, seconds: Tensor) -> Tensor:
        """(...) -> (..., width) the vectors of durations: one each time that they double."""
        return self.gaps(torch.log2(1 + seconds.clamp(min=0)).long().clamp(max=BUCKETS - 1))


class TimedMGU(MGU):
    name = "timed_mgu"
    Network = TimedNetwork


class TestMGU(ModelContract):
    """Of the contract nothing is left out."""

    order = 2
    on = ON

    def make_model(self) -> MGU:
        return MGU(width=32, steps=30, train=TRAIN)


def test_scores_are_those_of_the_papers_formula():
    model = MGU(width=3, train={"epochs": 1}).fit(leave_one_out(small_log()), ON)
    network = model.network
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in network.state_dict().items()}
    history, h = np.array([4, 0, 4, 9]), np.zeros(3)
    for x in w["items.weight"][history]:
        f = 1 / (1 + np.exp(-(w["forget.weight"] @ np.concatenate([h, x]) + w["forget.bias"])))
        n = np.tanh(w["new.weight"] @ np.concatenate([f * h, x]) + w["new.bias"])
        h = (1 - f) * h + f * n
    scores = model.score(Query.from_lists([history]))[0]
    np.testing.assert_allclose(scores.numpy(), w["items.weight"] @ h, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "negatives"),
    [
        ("softmax", {}),
        ("sampled_softmax", {"count": 16, "logq": 1.0}),
        ("bpr_max", {"count": 0, "in_batch": True}),
    ],
)
def test_any_loss_trains_it_and_a_folder_keeps_it(loss, negatives, tmp_path):
    split = leave_one_out(markov_chain())
    model = MGU(width=32, loss=loss, negatives=negatives, train=TRAIN).fit(split, ON)
    reached = model.evaluate(split, ["recall@3"])["recall@3"]
    assert reached > 0.6
    model.save(tmp_path / "model")
    loaded = seqrec.load(tmp_path / "model", "cpu")
    assert type(loaded) is MGU
    assert loaded.evaluate(split, ["recall@3"])["recall@3"] == reached


def after_a_while(users: int = 200, length: int = 12, kinds: int = 8) -> pl.DataFrame:
    """A log in which only the time since the last event, about ten seconds or 4, 16, 64 ... times as long,
    tells what comes next. It is drawn anew each time, so the items alone are noise."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, kinds, (users, length))
    gap = np.floor(10 * 4.0**kind * rng.uniform(1, 1.9, kind.shape))
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), length),
            "item_id": rng.permutation(kinds)[kind].ravel(),
            "timestamp": (1_000_000_000 + np.cumsum(gap, 1)).ravel().astype(np.int64),
        }
    )


def split_of(log: pl.DataFrame) -> Split:
    return SplitSettings(name="leave_one_out").apply(Interactions.from_frame(log).sequences())


LEARNS = {**TRAIN, "filter_seen": False}


def test_times_tell_what_items_do_not(tmp_path):
    split = split_of(after_a_while())
    metric, chance = "recall@1", 1 / 8
    timed = TimedMGU(width=16, train=LEARNS).fit(split, ON)
    reached = timed.evaluate(split, [metric], filter_seen=False)[metric]
    assert reached > 0.9
    validated = [epoch[timed.train.metric] for epoch in timed.fit_report.curve]
    assert max(validated) > 0.9
    without = MGU(width=16, train=LEARNS).fit(split, ON).evaluate(split, [metric], filter_seen=False)
    assert without[metric] < chance + 4 * (chance * (1 - chance) / 200) ** 0.5
    timed.save(tmp_path / "model")
    loaded = seqrec.load(tmp_path / "model", "cpu")
    assert type(loaded) is TimedMGU
    assert loaded.evaluate(split, [metric], filter_seen=False)[metric] == reached


def test_training_reads_what_scoring_reads():
    """Lanes, carried on from batch to batch, give each position the state that its history has by itself."""
    split = split_of(after_a_while(users=9, length=11))
    s = split.sequences
    model = TimedMGU(width=4, steps=4)
    network = model.build(len(s.item_catalogue), s.users)
    found: dict[tuple[int, int], Tensor] = {}
    with torch.no_grad():
        for batch in network.batches(split, 12, np.random.default_rng(0)):
            states = network.encode(batch.inputs)
            for state, item, time in zip(states, batch.targets.items, batch.inputs.asked_at, strict=True):
                found[int(item), int(time)] = state
        assert len(found) == split.train_positions
        for user in range(s.users):
            for event in range(split.train_starts[user] + 1, split.train_stops[user]):
                query = Query(
                    split.query(split.test).events,
                    np.array([split.train_starts[user]]),
                    np.array([event]),
                    asked_at=s.times[[event]],
                )
                alone = network.encode(network.query_inputs(query))[0]
                torch.testing.assert_close(found[int(s.items[event]), int(s.times[event])], alone)


def test_recommending_without_a_moment_is_refused():
    model = TimedMGU(width=4, train={**LEARNS, "epochs": 1}).fit(split_of(after_a_while(users=20)), ON)
    with pytest.raises(SettingsError, match="at: expected the moment that is asked about"):
        model.recommend(users=[3])
    with pytest.raises(SettingsError, match="times: expected a list of lists, a time an item"):
        model.recommend([[1, 2]])


@pytest.mark.parametrize("name", ["minimal_gated_unit:MGU", f"{__name__}:TimedMGU"])
def test_a_run_file_names_it(name, tmp_path):
    after_a_while(users=60).write_csv(tmp_path / "log.csv")
    run = {
        "data": {"path": str(tmp_path / "log.csv")},
        "model": {"name": name, "width": 8},
        "loss": {"name": "bpr"},
        "train": {"epochs": 1},
        "fit": {"device": "cpu"},
        "evaluate": {"filter_seen": False},
        "output": {"folder": str(tmp_path / "run"), "refit": True},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    for command in (["train", "--conf", tmp_path / "run.yaml"], ["evaluate", tmp_path / "run"]):
        done = CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "ndcg@10" in done.output
    assert seqrec.load(tmp_path / "run" / "serving", "cpu").reference() == name
