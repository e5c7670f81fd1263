"""A checkpoint: what it says of itself, and what is refused."""

import json
import tracemalloc

import pytest
import safetensors.torch
import torch

import seqrec
from seqrec.errors import TrainingError
from seqrec.models.hrm import HRM
from seqrec.models.sasrec import SASRec
from seqrec.training.state import FORMAT, TrainingState


def run_of(width: int = 4) -> TrainingState:
    """A run that has begun: of ten items and three users."""
    model = HRM(width=width)
    return TrainingState(model.build(10, 3), model.train.plan(5000), torch.device("cpu"))


def test_weight_decay_is_of_matrices_and_tables_only():
    """Without any gradient they shrink, and biases and norms stay as they are."""
    model = SASRec(width=8, blocks=1, length=4, train={"weight_decay": 0.5, "learning_rate": 0.1})
    run = TrainingState(model.build(10, 3), model.train.plan(5000), torch.device("cpu"))
    with torch.no_grad():
        for p in run.network.parameters():
            p.fill_(1.0).grad = torch.zeros_like(p)
    run.optimizers["optimizer"].step()
    assert {p.dim() for p in run.network.parameters()} == {1, 2}
    for p in run.network.parameters():
        torch.testing.assert_close(p.detach(), torch.full_like(p, 0.95 if p.dim() > 1 else 1.0))


def described(path) -> dict:
    content = path.read_bytes()
    return json.loads(
        json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["run"]
    )


def describe(path, about: dict) -> None:
    path.write_bytes(
        safetensors.torch.save(safetensors.torch.load(path.read_bytes()), {"run": json.dumps(about)})
    )


@pytest.fixture
def checkpoint(tmp_path):
    run, path = run_of(), tmp_path / "checkpoint.safetensors"
    run.epoch, run.curve = 3, [{"epoch": 1, "loss": 2.5}]
    run.save(path, "fingerprint")
    return path


def test_writing_copies_no_weights(tmp_path):
    model = HRM(width=64)
    run = TrainingState(model.build(20_000, 3), model.train.plan(5000), torch.device("cpu"))
    path, size = tmp_path / "checkpoint.safetensors", sum(4 * p.numel() for p in run.network.parameters())
    run.best = {name: t.clone() for name, t in run.network.state_dict().items()}
    tracemalloc.start()
    run.save(path, "fingerprint")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4
    written = safetensors.torch.load_file(path)
    for name, weights in run.best.items():
        assert torch.equal(written[f"network.{name}"], weights)
        assert torch.equal(written[f"best.{name}"], weights)


def test_it_says_its_format_and_who_wrote_it(checkpoint):
    about = described(checkpoint)
    assert (about["format"], about["seqrec"]) == (FORMAT, seqrec.__version__)


@pytest.mark.parametrize("stamped", [True, False])
def test_it_is_taken_back_with_and_without_its_format(checkpoint, stamped):
    about = described(checkpoint)
    if not stamped:
        describe(checkpoint, {key: value for key, value in about.items() if key not in ("format", "seqrec")})
    run = run_of()
    run.load(checkpoint, "fingerprint")
    assert (run.epoch, run.curve, run.best_value) == (3, [{"epoch": 1, "loss": 2.5}], float("-inf"))
    saved = safetensors.torch.load(checkpoint.read_bytes())
    for name, weights in run.network.state_dict().items():
        assert torch.equal(weights, saved[f"network.{name}"])


def test_of_another_run_it_is_refused_and_names_the_versions_where_they_differ(checkpoint):
    with pytest.raises(
        TrainingError, match=r"a checkpoint of another run \(other settings, data or start\)\. "
    ):
        run_of().load(checkpoint, "other")
    about = described(checkpoint)
    describe(checkpoint, about | {"seqrec": "0.0.9"})
    message = rf"or of another version: seqrec 0\.0\.9 wrote it, and this is seqrec {seqrec.__version__}\."
    with pytest.raises(TrainingError, match=message):
        run_of().load(checkpoint, "other")


@pytest.mark.parametrize("change", ["width", "number"])
def test_what_does_not_fit_the_model_is_refused_in_one_line(checkpoint, change):
    if change == "number":
        describe(checkpoint, {key: value for key, value in described(checkpoint).items() if key != "curve"})
    with pytest.raises(TrainingError, match=r"^[^\n]*does not fit the model: seqrec [^\n]*--restart[^\n]*$"):
        run_of(width=4 if change == "number" else 6).load(checkpoint, "fingerprint")


def test_what_is_none_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for content in (b"", b"text", safetensors.torch.save({"a": torch.zeros(1)})):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="not a checkpoint of seqrec"):
            run_of().load(path, "fingerprint")
