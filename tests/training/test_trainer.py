from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ring_sequences

import seqrec
from seqrec.data.catalogue import Catalogue
from seqrec.errors import SettingsError, TrainingError
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.sasrec import SASRec
from seqrec.splitting import leave_one_out
from seqrec.training import losses, settings, state, streams, trainer
from seqrec.training.negatives import Sampler
from seqrec.training.options import FitOptions
from seqrec.training.settings import TrainSettings

SMALL = {
    "hrm": (HRM, {"width": 8, "recent": 3}),
    "gru4rec": (GRU4Rec, {"width": 8, "hidden": 8, "steps": 4}),
    "sasrec": (SASRec, {"width": 8, "blocks": 1, "length": 8}),
}

OPTIMIZERS = {
    "adamw": {},
    "adagrad": {"optimizer": "adagrad", "momentum": 0.5},
    "adamw, ftrl": {"tables": {"learning_rate": 0.1, "l1": 1e-4, "l2": 1e-3}},
    "adamw, adagrad": {"tables": {"optimizer": "adagrad"}},
    "adagrad, ftrl, clipped": {"optimizer": "adagrad", "tables": {"learning_rate": 0.1}, "clip": 1.0},
}


def make(name, **train):
    cls, settings = SMALL[name]
    options = {"epochs": 4, "batch_positions": 64, "average": 0.9, "patience": 10, "learning_rate": 2e-3}
    options |= train
    return cls(**settings, train=options)


def weights(model):
    return {k: v.clone() for k, v in model.network.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("train", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_resumed_run_equals_an_uninterrupted_one(ring, tmp_path, monkeypatch, name, train):
    split = leave_one_out(ring)
    whole = make(name, **train)
    whole.fit(split, progress=False)
    checkpoint = tmp_path / "checkpoint.safetensors"
    save = state.TrainingState.save

    def save_then_die(self, path, fingerprint):
        save(self, path, fingerprint)
        if self.epoch == 2:
            raise Killed

    stopped = make(name, **train)
    with monkeypatch.context() as patch:
        patch.setattr(state.TrainingState, "save", save_then_die)
        with pytest.raises(Killed):
            stopped.fit(split, progress=False, checkpoint=checkpoint)
    resumed = make(name, **train)
    resumed.fit(split, progress=False, checkpoint=checkpoint)
    assert equal(weights(whole), weights(resumed))
    assert [p["loss"] for p in whole.fit_report.curve] == [p["loss"] for p in resumed.fit_report.curve]


def test_a_checkpoint_survives_kill_9(tmp_path):
    """A process is killed without warning while it trains; what it left behind is a whole checkpoint, from
    which the run goes on."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    program = textwrap.dedent(
        f"""
        import sys; sys.path[:0] = {[str(here) for here in Path(__file__).parents[:2]]!r}
        from conftest import ring_sequences
        from test_trainer import make
        from seqrec.splitting import leave_one_out
        split = leave_one_out(ring_sequences())
        make("hrm", epochs=100000, patience=100000).fit(split, progress=False, checkpoint={str(checkpoint)!r})
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()

    model = make("hrm", epochs=100000, patience=100000)
    split = leave_one_out(ring_sequences())
    model.network = model.build(12, 60)
    run = state.TrainingState(model.network, model.train.plan(5000), torch.device("cpu"))
    run.load(checkpoint, model.fingerprint(split, FitOptions()))
    assert run.epoch >= 1
    assert len(run.curve) == run.epoch


def test_a_checkpoint_of_another_run_is_refused(ring, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    make("hrm").fit(leave_one_out(ring), progress=False, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="another run"):
        make("hrm", learning_rate=0.5).fit(leave_one_out(ring), progress=False, checkpoint=checkpoint)
    renamed = replace(ring, item_catalogue=Catalogue([f"other{i}" for i in range(12)]))
    for other in (ring_sequences(seed=1), renamed):
        with pytest.raises(TrainingError, match="another run"):
            make("hrm").fit(leave_one_out(other), progress=False, checkpoint=checkpoint)
    checkpoint.write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        make("hrm").fit(leave_one_out(ring), progress=False, checkpoint=checkpoint)


def test_the_best_epoch_is_kept(ring):
    model = make("sasrec", epochs=12, learning_rate=0.02, average=0.0, patience=12, filter_seen=False)
    model.fit(leave_one_out(ring), progress=False)
    curve = model.fit_report.curve
    best = max(curve, key=lambda p: p["ndcg@10"])
    assert model.fit_report.best_epoch == best["epoch"]
    from seqrec.evaluation import metrics, ranking

    split = leave_one_out(ring)
    again = metrics.ndcg(ranking.rank(model, split, split.validation).unfiltered, 10).mean()
    assert again == pytest.approx(best["ndcg@10"], abs=1e-9)


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize(
    "killed_at", [None, 2, 4], ids=["whole", "killed before the best", "killed after it"]
)
def test_it_ends_with_the_weights_of_the_best_validation(ring, tmp_path, average, killed_at):
    """Whatever was trained after it, and also where training was killed and goes on."""
    values, validated = [0.1, 0.9, 0.3, 0.2], []
    split, checkpoint = leave_one_out(ring), tmp_path / "checkpoint.safetensors"
    model = make("hrm", average=average)
    cpu, counts = torch.device("cpu"), torch.from_numpy(split.item_counts)

    def validate(network):
        if len(validated) + 1 == killed_at and not resumed:
            raise Killed
        validated.append({k: v.clone() for k, v in network.state_dict().items()})
        return values[len(validated) - 1]

    def fit():
        torch.manual_seed(0)
        network = model.build(12, 60)

        def objective(seed):
            return model.objective(network, Sampler(model.negatives, counts, seed, cpu))

        options = FitOptions(progress=False, checkpoint=checkpoint)
        of_log = model.train.plan(5000)
        report = trainer.fit(network, split, of_log, objective, validate, "hrm", "this run", options)
        return report, network.state_dict()

    resumed = False
    if killed_at:
        with pytest.raises(Killed):
            fit()
        resumed = True
    report, ends_with = fit()
    assert (report.epochs, report.best_epoch) == (4, 2)
    assert equal(ends_with, validated[1])
    assert not equal(ends_with, validated[3])


@pytest.mark.parametrize("name", SMALL)
def test_every_epoch_has_an_order_and_negatives_of_its_own(ring, name):
    cls, options = SMALL[name]
    orders, negatives = [], []

    class Watched(cls):
        def objective(self, network, sampler, bfloat16=False):
            found = super().objective(network, sampler, bfloat16)
            drawn = found.drawn

            def watched(batches):
                batches = list(batches)
                orders.append(torch.cat([batch.targets.items for batch in batches]))
                return drawn(batches)

            found.drawn = watched
            negatives.append(sampler.draw((100,)))
            return found

    for _ in range(2):
        Watched(**options, train={"epochs": 2, "batch_positions": 64}).fit(
            leave_one_out(ring), progress=False
        )
    for first, second, again, again_second in (orders, negatives):
        assert not torch.equal(first, second)
        assert torch.equal(first, again)
        assert torch.equal(second, again_second)
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
@pytest.mark.parametrize("name", SMALL)
def test_no_gradient_is_longer_than_clip(ring, name, optimizer):
    """Of all weights together, as the last update had it."""
    norms = {}
    for clip in (0.0, 1e-3):
        model = make(name, optimizer=optimizer, clip=clip, epochs=1)
        model.fit(leave_one_out(ring), progress=False)
        gradients = [p.grad.to_dense() for p in model.network.parameters() if p.grad is not None]
        norms[clip] = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert norms[0.0] > 2e-3
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_seconds_are_those_of_the_training(ring, tmp_path):
    """Of its earlier parts, too, and no more than have passed."""
    split, checkpoint, spent = leave_one_out(ring), tmp_path / "checkpoint.safetensors", []
    make("hrm", epochs=1).fit(split, progress=False)  # what is imported by the first takes long
    begin = time.perf_counter()
    for epochs, earlier in ((1, None), (3, 1)):
        model = make("hrm", epochs=epochs)
        model.fit(split, progress=False, checkpoint=checkpoint, earlier_epochs=earlier)
        spent.append(model.fit_report.train_seconds)
    seconds = [point["seconds"] for point in model.fit_report.curve]
    assert 0 < seconds[0] <= spent[0] < seconds[1] < seconds[2] <= spent[1] < time.perf_counter() - begin


def test_more_epochs_for_a_run_are_said(ring, tmp_path, caplog):
    split, checkpoint = leave_one_out(ring), tmp_path / "checkpoint.safetensors"
    make("hrm", epochs=1).fit(split, progress=False, checkpoint=checkpoint)
    make("hrm", epochs=3).fit(split, progress=False, checkpoint=checkpoint, earlier_epochs=1)
    assert "hrm: goes on from epoch 1 to 3. The learning rate, which had fallen" in caplog.text


def test_early_stopping(ring):
    model = make("hrm", epochs=50, patience=2, learning_rate=1e-9, average=0.0, filter_seen=False)
    model.fit(leave_one_out(ring), progress=False)
    report = model.fit_report
    assert report.epochs == report.best_epoch + 2 < 50


def test_validation_that_tells_nothing_chooses_nothing(ring, caplog):
    """Users of the ring come back to what they had, so under the filter every target is a miss."""
    model = make("hrm", epochs=6, patience=2)
    model.fit(leave_one_out(ring), progress=False)
    assert model.fit_report.epochs == model.fit_report.best_epoch == 6
    assert "train.filter_seen: 100% of the validation targets" in caplog.text
    caplog.clear()
    make("hrm", epochs=1, filter_seen=False).fit(leave_one_out(ring), progress=False)
    assert "filter_seen" not in caplog.text


def test_stop_after_validates_nothing_and_trains_as_long(ring):
    model = make("gru4rec")
    model.fit(leave_one_out(ring), progress=False, stop_after=3)
    assert [set(p) for p in model.fit_report.curve] == [
        {"epoch", "loss", "positions", "positions_per_second", "seconds"}
    ] * 3


def test_stop_after_knows_no_time_limit(ring):
    split = leave_one_out(ring)
    limited, free = make("hrm", minutes=1e-9), make("hrm")
    limited.fit(split, progress=False, stop_after=3)
    free.fit(split, progress=False, stop_after=3)
    assert limited.fit_report.epochs == 3
    assert equal(weights(limited), weights(free))


@pytest.mark.parametrize("stop_after", [0, 5])
def test_stop_after_is_within_the_epochs(ring, stop_after):
    with pytest.raises(
        SettingsError, match=rf"stop_after: expected from 1 to train.epochs \(4\). Got {stop_after}"
    ):
        make("hrm").fit(leave_one_out(ring), progress=False, stop_after=stop_after)


def test_training_again_has_the_schedule_of_the_first_time(ring, monkeypatch):
    split, points = leave_one_out(ring), []
    schedule = settings.schedule
    monkeypatch.setattr(trainer, "schedule", lambda s, point: (points.append(point), schedule(s, point))[1])
    limited = make("hrm", epochs=100_000, patience=100_000, minutes=0.01)
    limited.fit(split, progress=False)
    report = limited.fit_report
    points.clear()
    make("hrm", epochs=100_000, minutes=0.01).fit(
        split, progress=False, stop_after=report.epochs, schedule_epochs=report.schedule_epochs
    )
    assert 0.5 < points[-1] < 1  # by train.epochs it would still be at its very beginning
    whole = make("hrm")
    whole.fit(split, progress=False)
    assert whole.fit_report.schedule_epochs == 4


def test_a_time_limit_stops_the_run(ring):
    model = make("hrm", epochs=100_000, patience=100_000, minutes=0.01)
    begin = time.monotonic()
    model.fit(leave_one_out(ring), progress=False)
    assert time.monotonic() - begin < 10


def test_divergence_is_an_error_and_leaves_the_checkpoint(ring, tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.safetensors"
    epochs = []
    softmax = losses.softmax
    monkeypatch.setattr(losses, "softmax", lambda *a, **k: softmax(*a, **k) * (float("nan") if epochs else 1))
    save = state.TrainingState.save
    monkeypatch.setattr(
        state.TrainingState, "save", lambda self, *a: (save(self, *a), epochs.append(self.epoch))
    )
    with pytest.raises(
        TrainingError,
        match=r"epoch 2: the loss is not finite. Lower train.learning_rate .* "
        "holds the last complete epoch and is usable",
    ):
        make("hrm").fit(leave_one_out(ring), progress=False, checkpoint=checkpoint)
    monkeypatch.undo()
    resumed, whole = make("hrm"), make("hrm")
    resumed.fit(leave_one_out(ring), progress=False, checkpoint=checkpoint)
    whole.fit(leave_one_out(ring), progress=False)
    assert equal(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"learning_rate": -1}, {"metric": "ndgc@10"}, {"epoch": 3}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError):
        TrainSettings.of(settings, "train")


def test_a_device_that_is_not_here_is_refused(ring):
    for name in ("warp", "cuda:99"):
        with pytest.raises(
            SettingsError, match=f"device: expected a device that this machine has. Got '{name}'"
        ):
            make("hrm").fit(ring, progress=False, device=name)


def test_unknown_setting_has_a_neighbour():
    with pytest.raises(
        SettingsError, match=r"train.learning_rat: unknown setting. Did you mean 'learning_rate'"
    ):
        TrainSettings.of({"learning_rat": 1}, "train")


def test_learning_rate_rises_and_falls():
    s = TrainSettings(warmup=0.1)
    rates = [settings.schedule(s, p / 100) for p in range(101)]
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert max(rates) <= 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert settings.schedule(TrainSettings(schedule="constant", warmup=0), 0.9) == 1.0


def test_tables_have_an_optimizer_of_their_own():
    """Every embedding table is trained by the one, everything else by the other, and nothing by both."""
    for name, has_more in (("hrm", False), ("gru4rec", True), ("sasrec", True)):
        model = make(name, tables={"learning_rate": 0.5}, learning_rate=0.25)
        network = model.build(12, 60)
        run = state.TrainingState(network, model.train.plan(5000), torch.device("cpu"))
        assert list(run.optimizers) == (["optimizer", "tables"] if has_more else ["tables"])
        trained = {
            key: [p for group in o.param_groups for p in group["params"]] for key, o in run.optimizers.items()
        }
        assert {id(p) for p in trained["tables"]} == {
            id(m.weight) for m in network.modules() if isinstance(m, torch.nn.Embedding)
        }
        assert sorted(id(p) for ps in trained.values() for p in ps) == sorted(
            id(p) for p in network.parameters()
        )
        run.set_rates(0.5)
        assert [g["alpha"] for g in run.optimizers["tables"].param_groups] == [0.5]  # FTRL's falls by itself
        assert {
            g["lr"] for key, o in run.optimizers.items() for g in o.param_groups if key == "optimizer"
        } == ({0.125} if has_more else set())


def test_the_schedule_is_that_of_both_optimizers():
    model = make("gru4rec", tables={"optimizer": "adagrad", "learning_rate": 0.4}, learning_rate=0.2)
    run = state.TrainingState(model.build(12, 60), model.train.plan(5000), torch.device("cpu"))
    run.set_rates(0.5)
    assert {key: {g["lr"] for g in o.param_groups} for key, o in run.optimizers.items()} == {
        "optimizer": {0.1},
        "tables": {0.2},
    }


@pytest.mark.parametrize("name", SMALL)
def test_ftrl_learns_and_l1_empties_tables(ring, name):
    """The ring is learnt; with an l1 above any gradient every number that has been trained is exactly 0."""
    split = leave_one_out(ring)
    tables = {"learning_rate": 1.0, "beta": 0.1}
    model = make(
        name,
        epochs=20,
        learning_rate=0.02,
        tables=tables,
        average=0.0,
        patience=20,
        metric="recall@1",
        filter_seen=False,
    )
    model.fit(split, progress=False)
    assert max(p["recall@1"] for p in model.fit_report.curve) > 0.9
    model = make(name, epochs=1, tables={"l1": 1e6}, average=0.0)
    model.fit(split, progress=False)
    assert not model.network.items.weight.any()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_tables_get_sparse_gradients_unless_they_are_clipped(clip):
    network = make("hrm", tables={}, clip=clip).build(12, 60)
    assert {table.sparse for table in network.modules() if isinstance(table, torch.nn.Embedding)} == {
        clip == 0.0
    }


@pytest.mark.parametrize("name", SMALL)
def test_adagrad_for_all_has_sparse_gradients_in_gru4rec_only(name):
    network = make(name, optimizer="adagrad", momentum=0.5).build(12, 60)
    assert {table.sparse for table in network.modules() if isinstance(table, torch.nn.Embedding)} == {
        name == "gru4rec"
    }


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"optimizer": "ftlr"},
            "train.tables.optimizer: expected 'ftrl', 'adagrad' or 'with_the_rest'. Got 'ftlr'",
        ),
        ({"learn_rate": 1}, "train.tables.learn_rate: unknown setting. Did you mean 'learning_rate'"),
        ({"l1": -1}, "train.tables.l1: expected greater than or equal to 0. Got -1"),
        ({"optimizer": "adagrad", "l2": 1.0}, "train.tables: expected no l1 and no l2 with adagrad"),
    ],
)
def test_table_settings_out_of_range(tables, message):
    with pytest.raises(SettingsError, match=message):
        TrainSettings.of({"tables": tables}, "train")


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_learns_like_float32(ring, name):
    values = []
    for precision in ("float32", "bfloat16"):
        model = make(name, epochs=8, learning_rate=0.02)
        model.fit(leave_one_out(ring), progress=False, precision=precision)
        values.append(model.fit_report.curve[-1]["loss"])
        assert model.fit_report.precision == precision
    assert values[1] == pytest.approx(values[0], rel=0.1)


def test_the_last_update_is_checked_though_no_loss_comes_after_it(ring, tmp_path):
    """The weights of a batch's update show in the loss of the next: of the last one there is none."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    model = make("hrm", epochs=1, batch_positions=10**6, learning_rate=1e300)
    with pytest.raises(TrainingError, match="a weight is not finite"):
        model.fit(leave_one_out(ring), progress=False, checkpoint=checkpoint)
    assert not checkpoint.exists()


PAIRS = [(seed, epoch) for seed in range(20) for epoch in range(1, 50)]


def test_an_epochs_seeds_are_no_other_epochs():
    for seed_of in (streams.dropout_seed, streams.negatives_seed):
        # torch takes the low 32 bits
        assert len({seed_of(*pair) % 2**32 for pair in PAIRS}) == len(PAIRS)
    assert len({streams.dropout_seed(s, e) % 2**32 for s in (4292, 4293) for e in (1, 2, 1_000_000)}) == 6
    assert not {streams.negatives_seed(*pair) % 2**32 for pair in PAIRS} & {
        streams.dropout_seed(*pair) % 2**32 for pair in PAIRS
    }


def test_published_rows_keep_their_dropout():
    assert streams.dropout_seed(2, 5) == 2_000_011


def test_negatives_are_independent_of_dropout():
    for seed, epoch in [(0, 1), (0, 2), (1, 1), (7, 30)]:
        dropout, negatives, later = (
            torch.rand(100_000, generator=torch.Generator().manual_seed(start))
            for start in (
                streams.dropout_seed(seed, epoch),
                streams.negatives_seed(seed, epoch),
                streams.negatives_seed(seed, epoch + 1),
            )
        )
        correlations = torch.corrcoef(torch.stack([dropout, negatives, later])).fill_diagonal_(0)
        assert correlations.abs().max() < 0.015  # 4.7 standard deviations


def test_every_epoch_draws_its_negatives_with_its_own_seed(ring, monkeypatch):
    seeds = []
    model = make("hrm", epochs=2)
    plain = model.objective
    monkeypatch.setattr(
        model,
        "objective",
        lambda network, sampler, bfloat16: (
            seeds.append(sampler.generator.initial_seed()) or plain(network, sampler, bfloat16)
        ),
    )
    model.fit(ring, seed=3, progress=False)
    assert seeds == [streams.negatives_seed(3, 1), streams.negatives_seed(3, 2)]


def test_the_optimizer_of_large_tables_is_chosen_by_size():
    """By rows where an update through a whole table is slow and only some of its rows are needed."""
    rows, plain = settings.LARGE, TrainSettings(learning_rate=1e-3)
    chosen = settings.by_size(plain, rows, draws=True)
    assert chosen.tables == settings.TableSettings(optimizer="adagrad", learning_rate=15e-3)
    assert settings.by_size(plain, rows - 1, draws=True) is plain
    assert settings.by_size(plain, rows, draws=False) is plain
    for others in ({"optimizer": "adagrad"}, {"weight_decay": 0.1}, {"clip": 1.0}, {"tables": {"l1": 0.1}}):
        told = TrainSettings.of(others, "train")
        assert settings.by_size(told, rows, draws=True) is told
    off = TrainSettings.of({"tables": {"optimizer": "with_the_rest"}}, "train")
    assert settings.by_size(off, rows, draws=True) == TrainSettings()


@pytest.mark.parametrize("tables", [None, {"optimizer": "with_the_rest"}])
def test_what_trained_large_tables_is_said_and_kept_apart(tables, ring, tmp_path, monkeypatch, caplog):
    """In the log, the report and the fingerprint: a checkpoint of the one way is not gone on from in the
    other."""

    def sasrec(tables):
        train = {"epochs": 1, "tables": tables}
        return SASRec(width=8, blocks=1, length=8, loss="sampled_softmax", train=train)

    monkeypatch.setattr(settings, "LARGE", 10)
    split, by_rows = leave_one_out(ring), tables is None
    model, path = sasrec(tables), tmp_path / "run.safetensors"
    with caplog.at_level("INFO", logger="seqrec"):
        model.fit(split, checkpoint=path, progress=False)
    assert ("adagrad trains the embedding tables" in caplog.text) == by_rows
    assert model.fit_report.tables == ("adagrad" if by_rows else None)
    assert {m.sparse for m in model.network.modules() if isinstance(m, torch.nn.Embedding)} == {by_rows}
    model.save(tmp_path / "model")
    again = seqrec.load(tmp_path / "model")
    assert (again.train, again.fit_report.tables) == (model.train, model.fit_report.tables)
    with pytest.raises(TrainingError, match="of another run"):
        sasrec({"optimizer": "with_the_rest"} if by_rows else None).fit(
            split, checkpoint=path, progress=False
        )


def test_prefixes_from_a_point_on(ring, monkeypatch):
    """Of two epochs the first asks at every position of a window, the second has a row a target: as many
    targets, each after all that came before it."""
    split = leave_one_out(ring)
    model = SASRec(width=4, length=6, train={"epochs": 2, "objective": "prefixes", "prefixes_from": 0.5})
    network = model.build(len(ring.item_catalogue), ring.users)
    plan = model.train.plan(split.train_positions)
    of_epochs = []
    for point in (0.0, 0.5):
        batches = streams.batches_of(network, split, plan, point, np.random.default_rng(0))
        rows = [(len(batch.inputs.items), batch.positions, batch.inputs.items.shape[1]) for batch in batches]
        assert batches.positions == sum(positions for _, positions, _ in rows) == split.train_positions
        assert max(steps for *_, steps in rows) == 6
        of_epochs.append(sum(rows for rows, *_ in rows))
    assert of_epochs[0] < split.train_positions == of_epochs[1]
    model.fit(split, progress=False)
    assert model.fit_report.epochs == 2
    # a limit of minutes that ends the training early counts, too
    asked: list[float] = []
    with monkeypatch.context() as patch:
        real = streams.batches_of
        patch.setattr(streams, "batches_of", lambda *a: asked.append(a[3]) or real(*a))
        long = {
            "epochs": 1000,
            "objective": "prefixes",
            "prefixes_from": 0.5,
            "minutes": 0.02,
            "patience": 1000,
        }
        SASRec(width=4, length=6, train=long).fit(split, progress=False)
    assert asked[-1] > 0.5
    with pytest.raises(SettingsError, match="'positions' for a model that does not train on windows, as HRM"):
        HRM(width=4, train={"objective": "prefixes"}).fit(split, progress=False)
