"""Several streams in one process and in several: the same weights, metrics and lists, bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import cycle_log, ring_sequences
from typer.testing import CliRunner

from seqrec import processes
from seqrec.cli import app
from seqrec.errors import SettingsError
from seqrec.evaluation import ranking
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.train import train
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.sasrec import SASRec
from seqrec.splitting import leave_one_out
from seqrec.training import streams
from seqrec.training.options import FitOptions
from seqrec.training.settings import TrainSettings
from seqrec.training.streams import Streams

TRAIN = {"epochs": 2, "batch_positions": 96, "streams": 4}
SAMPLED = {"loss": "sampled_softmax", "negatives": {"count": 8}}
ROWS = {"tables": {"optimizer": "adagrad"}}
MODELS = {
    "gru4rec": lambda **train: GRU4Rec(
        width=8, hidden=12, steps=4, dropout_hidden=0.2, **SAMPLED, train=TRAIN | {"average": 0.9} | train
    ),
    # a single pass, whose gradient of the table is rows, and batches that weigh less at the end of the lanes
    "session-parallel": lambda **train: GRU4Rec(
        width=8, hidden=8, steps=1, **SAMPLED, train=TRAIN | {"optimizer": "adagrad"} | train
    ),
    "sasrec": lambda **train: SASRec(width=8, blocks=1, length=8, train=TRAIN | {"clip": 1.0} | train),
    "sasrec by rows": lambda **train: SASRec(
        width=8, blocks=1, length=8, **SAMPLED, train=TRAIN | ROWS | train
    ),
    "hrm": lambda **train: HRM(
        width=8, recent=3, loss="bce", negatives={"count": 4, "shared": False}, train=TRAIN | ROWS | train
    ),
}


def uneven():
    """Users of 3 to 14 events, so that streams and lanes end at different times."""
    ring = ring_sequences(users=90, items=30, length=14)
    lengths = np.random.default_rng(1).integers(3, 15, ring.users)
    events = np.concatenate([np.arange(n) + 14 * u for u, n in enumerate(lengths)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return replace(ring, items=ring.items[events], times=ring.times[events], offsets=offsets)


def digest(model) -> str:
    found = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def results() -> dict[str, object]:
    """What every model ends with; all processes compute it."""
    split, found = leave_one_out(uneven()), {}
    for name, make in MODELS.items():
        model = make().fit(split, progress=False, threads=1)
        tested = model.evaluate(split)
        in_pieces = ranking.rank(model, split, split.test, rows=16)  # which the processes share
        lists = [ranks.lists.tolist()[::9] for ranks in (tested.ranks, in_pieces)]
        lists += [ranks.unfiltered.tolist() for ranks in (tested.ranks, in_pieces)]
        curve = [{k: v for k, v in point.items() if "second" not in k} for point in model.fit_report.curve]
        found[name] = [digest(model), tested["ndcg@10"], lists, curve, model.fit_report.validation]
    return found


def torchrun(count: int, *command: str, **more) -> subprocess.Popen:
    """Processes of this Python, started together."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        [*run, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    )


@pytest.fixture(scope="module")
def of_one():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield json.loads(json.dumps(results()))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_end_with_the_numbers_of_one(count, of_one):
    run = torchrun(count, __file__)
    printed, errors = run.communicate(timeout=280)
    assert run.returncode == 0, errors[-3000:]
    assert json.loads(printed) == of_one


def test_one_stream_is_what_there_was_before(ring):
    """The very seeds, and one split for all users."""
    split, model = leave_one_out(ring), MODELS["sasrec"](streams=1)
    network = model.build(12, 60)
    plan = model.train.plan(split.train_positions)
    found = Streams(network, split, plan, lambda seed: None, 0)
    assert found.splits == {0: split}
    assert found.positions == split.train_positions
    assert streams.dropout_seed(3, 7) == streams.dropout_seed(3, 7, 0) == 3_000_016
    drawn = streams.order_of_epoch(3, 7).random(4)
    assert (drawn == np.random.default_rng((3, 7)).random(4)).all()
    assert "streams" not in json.dumps(model.fingerprint(split, FitOptions()))


def test_streams_draw_with_seeds_of_their_own():
    of_all = [(seed, epoch, v) for seed in (0, 1, 7) for epoch in (1, 2, 30) for v in range(8)]
    for of in (streams.dropout_seed, streams.negatives_seed):
        assert len({of(*one) % 2**32 for one in of_all}) == len(of_all)
    assert len({streams.order_of_epoch(*one).random() for one in of_all}) == len(of_all)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 83, 84])
def test_streams_share_the_users(count):
    split = leave_one_out(uneven())
    cuts = streams._cuts(split, count)
    parts = [split.of_users(*cuts[v : v + 2]) for v in range(count)]
    positions = [part.train_positions for part in parts]
    assert sum(positions) == split.train_positions
    assert min(positions) > 0
    if count <= 7:
        assert max(positions) < 1.3 * split.train_positions / count + 12
    assert sum(part.train_events.astype(int) for part in parts).tolist() == split.train_events.tolist()


def test_one_user_with_nearly_all_events_leaves_some_to_every_stream():
    ring = ring_sequences(users=3, length=4)
    events = np.concatenate([np.tile(np.arange(4), 50), np.arange(4, 12)])
    long = replace(ring, items=ring.items[events], times=None, offsets=np.array([0, 200, 204, 208]))
    cuts = streams._cuts(leave_one_out(long), 3)
    assert cuts == [0, 1, 2, 3]


def test_an_update_is_that_of_all_its_positions_at_once(ring):
    """The weighted sum of the streams' gradients is the gradient of the mean over all positions."""
    split = leave_one_out(uneven())
    model = SASRec(width=8, blocks=1, length=8, dropout=0.0, train=TRAIN)
    torch.manual_seed(0)
    network = model.build(30, 90)
    sizes, sums = [], []

    class Noting:
        def __init__(self, inner):
            self.inner = inner

        def drawn(self, batches):
            return self.inner.drawn(batches)

        def loss(self, batch, drawn):
            loss = self.inner.loss(batch, drawn)
            sizes.append(batch.positions)
            sums.append(
                torch.autograd.grad(loss * batch.positions, network.items.weight, retain_graph=True)[0]
            )
            return loss

    from seqrec.training.negatives import Sampler
    from seqrec.training.objective import Objective

    def objective(seed):
        counts = torch.from_numpy(split.item_counts)
        return Noting(
            Objective(network, model.loss, Sampler(model.negatives, counts, seed, torch.device("cpu")))
        )

    plan = model.train.plan(split.train_positions)
    for _, positions in Streams(network, split, plan, objective, 0).updates(1):
        assert positions == sum(sizes)
        torch.testing.assert_close(network.items.weight.grad, sum(sums) / sum(sizes), rtol=1e-4, atol=1e-7)
        sizes.clear()
        sums.clear()


def test_an_epoch_reads_every_target_once_and_ended_streams_add_nothing():
    """The streams have like shares, but not the same number of batches."""
    split, read = leave_one_out(uneven()), 0
    model = MODELS["hrm"](streams=3, batch_positions=12)
    network = model.build(30, 90)
    from seqrec.training.negatives import Sampler
    from seqrec.training.objective import Objective

    def objective(seed):
        counts = torch.from_numpy(split.item_counts)
        return Objective(network, model.loss, Sampler(model.negatives, counts, seed, torch.device("cpu")))

    each = []
    for loss, positions in Streams(network, split, model.train.plan(1), objective, 0).updates(1):
        assert torch.isfinite(loss)
        each.append(positions)
        read += positions
    assert read == split.train_positions
    assert each[0] == 12
    assert each[-1] < 12


@pytest.mark.parametrize(
    ("train", "started", "message"),
    [
        ({}, 2, r"train.streams: expected a multiple of the 2 processes .* train.streams=2. Got 1"),
        ({"streams": 3}, 2, "Got 3"),
        ({"streams": 4, "minutes": 1.0}, 2, "train.minutes: expected no limit with several processes"),
    ],
)
def test_what_processes_cannot_share_is_refused(train, started, message):
    with pytest.raises(SettingsError, match=message):
        streams.check(TrainSettings(**train), started)
    streams.check(TrainSettings(**train), 1)


def test_more_streams_than_users_are_refused(ring):
    model = MODELS["hrm"](streams=61)
    with pytest.raises(
        SettingsError, match=r"at most one for each of the 60 users with two training events. Got 61"
    ):
        model.fit(leave_one_out(ring), progress=False)


def test_small_streams_are_warned_of(ring, caplog):
    MODELS["hrm"](epochs=1).fit(leave_one_out(ring), progress=False, baselines=False)
    assert "4 streams share updates of 96 positions, fewer than 512 each" in caplog.text


def test_alone_processes_tell_themselves():
    assert (processes.count(), processes.rank(), processes.first()) == (1, 0, True)
    values = torch.arange(3)
    assert processes.gathered(values).tolist() == [[0, 1, 2]]
    assert processes.summed(values) is values
    assert processes.from_first(lambda: b"abc") == b"abc"
    with processes.joined():
        assert processes.count() == 1


def run_folder(folder: Path, log: Path) -> dict[str, object]:
    train = {"streams": 4, "batch_positions": 64, "epochs": 12}
    model = {"name": "sasrec", "width": 8, "blocks": 1, "length": 8}
    more = {"fit": {"threads": 1}, "output": {"folder": str(folder)}}
    return {"data": {"path": str(log)}, "model": model, "train": train, **more}


def metrics_of(folder: Path) -> object:
    return json.loads((folder / "metrics.json").read_text())


def weights_of(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (folder / "model").glob("*.safetensors"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_process_ends_all_and_the_same_command_goes_on(tmp_path):
    """Also with another number of processes: two, of which one is killed, and then one."""
    log = tmp_path / "log.csv"
    cycle_log(users=240, items=30, length=15).write_csv(log)
    whole, killed, conf = tmp_path / "whole", tmp_path / "killed", tmp_path / "run.yaml"
    train(RunSettings.of(run_folder(whole, log), ""), progress=False)
    conf.write_text(json.dumps(run_folder(killed, log)))
    run = torchrun(2, "-m", "seqrec", "train", "--conf", str(conf))
    try:
        until, victim = time.monotonic() + 250, None
        while victim is None or not (killed / "checkpoint.safetensors").exists():
            assert run.poll() is None, run.stderr.read()[-3000:]
            assert time.monotonic() < until
            victim = process_of(run.pid, rank=1)
            time.sleep(0.02)
        os.kill(victim, signal.SIGKILL)
        _, errors = run.communicate(timeout=250)
    finally:
        run.kill()
    assert run.returncode != 0
    assert "SIGKILL" in errors or processes.LOST in errors
    assert not (killed / "run.json").exists()
    train(RunSettings.of(run_folder(killed, log), ""), progress=False)
    assert metrics_of(killed) == metrics_of(whole)
    assert weights_of(killed) == weights_of(whole)


def process_of(parent: int, rank: int) -> int | None:
    """The process that torchrun has started for a rank, once it runs seqrec."""
    for task in Path("/proc").glob("[0-9]*"):
        try:
            ours = int((task / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
            if ours and f"RANK={rank}".encode() in (task / "environ").read_bytes().split(b"\0"):
                return int(task.name)
        except (OSError, IndexError):
            continue
    return None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["train", "--data", "LOG", "--model", "sasrec"],
            "train.streams: expected a multiple of the 2 processes",
        ),
        (["train", "--data", "LOG", "--model", "markov"], "model.name: expected a network with 2 processes"),
        (["prepare", "LOG", "out"], "seqrec prepare: expected to be started once"),
        (["tune", "--conf", "LOG"], "seqrec tune: expected to be started once"),
    ],
)
def test_processes_refuse_what_they_cannot_do_together(command, message, ring_csv, monkeypatch):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    found = CliRunner().invoke(app, [str(ring_csv) if part == "LOG" else part for part in command])
    assert isinstance(found.exception, SettingsError)
    assert str(found.exception).startswith(message)


def test_variables_that_say_nothing_are_refused(monkeypatch):
    assert processes.launched() == (0, 1)
    monkeypatch.setenv("RANK", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.launched() == (0, 1)  # another program's
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(SettingsError, match="RANK, WORLD_SIZE: expected whole numbers"):
        processes.launched()


if __name__ == "__main__":  # one of several processes
    with processes.joined():
        of_all = results()
        if processes.first():
            print(json.dumps(of_all))
