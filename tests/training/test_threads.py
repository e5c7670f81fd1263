from __future__ import annotations

import pytest
import torch

from seqrec.models.gru4rec import GRU4Rec
from seqrec.splitting import leave_one_out
from seqrec.training import threads


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class Machine:
    """Updates take so many seconds with so many threads of torch, by a clock of its own."""

    def __init__(self, seconds, monkeypatch):
        self.seconds, self.now, self.asked = seconds, 0.0, []
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.now)

    def update(self):
        self.asked.append(torch.get_num_threads())
        self.now += self.seconds[torch.get_num_threads()]


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({4: 0.010, 2: 0.018, 1: 0.035}, 4),  # a quiet machine
        ({4: 0.090, 2: 0.020, 1: 0.035}, 2),
        ({4: 0.300, 2: 0.150, 1: 0.035}, 1),  # all cores but one are busy
        ({4: 0.035, 2: 0.034, 1: 0.033}, 4),  # not clearly faster
    ],
)
def test_takes_the_fastest_and_in_doubt_all(seconds, chosen, monkeypatch):
    machine = Machine(seconds, monkeypatch)
    assert threads.choose(machine.update, updates=10_000, most=4) == chosen
    assert torch.get_num_threads() == 4


def test_a_short_training_is_not_tried(monkeypatch):
    machine = Machine({4: 0.01, 1: 0.001}, monkeypatch)
    assert threads.choose(machine.update, updates=100, most=4) == 4
    assert machine.asked == [4, 4]


def test_fit_takes_the_number_said_and_gives_torch_its_own_back(ring):
    model = GRU4Rec(width=8, hidden=8, train={"epochs": 1}).fit(ring, progress=False, threads=2)
    assert model.fit_report.threads == 2
    assert torch.get_num_threads() == 4


def test_what_was_chosen_holds_for_a_resumed_training(ring, tmp_path, monkeypatch):
    """A number chosen at the start is in the checkpoint, and what is tried leaves no trace in the weights."""
    split, file = leave_one_out(ring), tmp_path / "checkpoint.safetensors"
    plain = GRU4Rec(width=8, hidden=8, train={"epochs": 2, "batch_positions": 64})
    plain.fit(split, progress=False, threads=1)

    def tried(update, updates, most):
        for _ in range(3):
            update()
        return 1

    monkeypatch.setattr(threads, "choose", tried)
    model = GRU4Rec(width=8, hidden=8, train={"epochs": 2, "batch_positions": 64})
    model.fit(split, progress=False, checkpoint=file)
    assert model.fit_report.threads == 1
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[name])

    monkeypatch.setattr(threads, "choose", lambda *_: pytest.fail("it was chosen before"))
    again = GRU4Rec(width=8, hidden=8, train={"epochs": 2, "batch_positions": 64})
    again.fit(split, progress=False, checkpoint=file)
    assert again.fit_report.threads == 1
