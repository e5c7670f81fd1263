"""What TensorBoard and MLflow, read back with their own readers, know of a training."""

import logging

import pytest

import seqrec
from seqrec import testing
from seqrec.errors import SettingsError, TrainingError
from seqrec.splitting.leave_one_out import leave_one_out

SETTINGS = {"width": 8, "train": {"epochs": 3, "batch_positions": 64}}


@pytest.fixture(scope="module")
def split():
    return leave_one_out(testing.markov_chain(60, 8, items=20, seed=0))


def events_in(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(found, name):
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_has_every_epoch(split, tmp_path):
    pytest.importorskip("tensorboard")
    model = seqrec.GRU4Rec(**SETTINGS).fit(
        split, track="tensorboard", checkpoint=tmp_path / "model.safetensors", progress=False
    )
    found = events_in(tmp_path / "tensorboard" / "model")
    curve = model.fit_report.curve
    steps = model.fit_report.updates // 3
    expected = [(steps * point["epoch"], pytest.approx(point["ndcg@10"])) for point in curve]
    assert scalars(found, "validation/ndcg@10") == expected
    assert [loss for _, loss in scalars(found, "loss")] == [pytest.approx(p["loss"]) for p in curve]
    assert '"epochs": 3' in found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_it_changes_no_number(split, tmp_path):
    pytest.importorskip("tensorboard")
    models = [
        seqrec.GRU4Rec(**SETTINGS).fit(split, track=track, checkpoint=tmp_path / f"{track}.safetensors")
        for track in (None, "tensorboard")
    ]
    one, other = ([point["ndcg@10"] for point in model.fit_report.curve] for model in models)
    assert one == other


def test_a_resumed_training_goes_on_in_the_same_tensorboard(split, tmp_path):
    pytest.importorskip("tensorboard")
    options = {"track": "tensorboard", "checkpoint": tmp_path / "model.safetensors", "progress": False}

    def stop(epoch, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seqrec.GRU4Rec(**SETTINGS).fit(
            split, watch=lambda epoch, value: epoch < 2 or stop(epoch, value), **options
        )
    model = seqrec.GRU4Rec(**SETTINGS).fit(split, **options)
    epochs = scalars(events_in(tmp_path / "tensorboard" / "model"), "positions_per_second")
    per_epoch = model.fit_report.updates // 3
    assert [step for step, _ in epochs] == [per_epoch, 2 * per_epoch, 3 * per_epoch]


def test_a_finished_training_adds_nothing(split, tmp_path):
    pytest.importorskip("tensorboard")
    options = {"track": "tensorboard", "checkpoint": tmp_path / "model.safetensors", "progress": False}
    for _ in range(2):
        seqrec.GRU4Rec(**SETTINGS).fit(split, **options)
    assert len(list((tmp_path / "tensorboard" / "model").iterdir())) == 1


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def runs_of(client):
    experiment = client.get_experiment_by_name("seqrec")
    return client.search_runs([experiment.experiment_id])


def test_mlflow_has_a_run(split, mlflow_store):
    model = seqrec.GRU4Rec(**SETTINGS).fit(split, track="mlflow", progress=False)
    (run,) = runs_of(mlflow_store)
    assert (run.info.run_name, run.info.status) == ("gru4rec", "FINISHED")
    assert run.data.params["train.epochs"] == "3"
    history = mlflow_store.get_metric_history(run.info.run_id, "validation/ndcg_10")
    assert [m.value for m in sorted(history, key=lambda m: m.step)] == pytest.approx(
        [point["ndcg@10"] for point in model.fit_report.curve]
    )


def test_mlflow_knows_how_a_training_ended_and_goes_on_in_its_run(split, mlflow_store, tmp_path):
    options = {"track": "mlflow", "checkpoint": tmp_path / "model.safetensors", "progress": False}

    def interrupted(epoch, value):
        raise KeyboardInterrupt

    def broken(epoch, value):
        raise RuntimeError("broken")

    # the checkpoint of an epoch is written after it was looked at
    for second in (interrupted, broken):
        with pytest.raises((KeyboardInterrupt, RuntimeError)):
            seqrec.GRU4Rec(**SETTINGS).fit(
                split, watch=lambda epoch, value, second=second: epoch < 2 or second(epoch, value), **options
            )
    assert [run.info.status for run in runs_of(mlflow_store)] == ["FAILED"]
    seqrec.GRU4Rec(**SETTINGS).fit(split, **options)
    assert [run.info.status for run in runs_of(mlflow_store)] == ["FINISHED"]


def test_a_server_that_is_lost_ends_no_training(split, mlflow_store, monkeypatch, caplog):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    def lost(self, *args, metrics=(), **kwargs):
        if metrics:
            raise MlflowException("the server is gone")

    monkeypatch.setattr(MlflowClient, "log_batch", lost)
    with caplog.at_level(logging.WARNING, "seqrec"):
        model = seqrec.GRU4Rec(**SETTINGS).fit(split, track="mlflow", progress=False)
    assert model.fit_report.epochs == 3
    assert caplog.text.count("the server is gone") == 1


def test_a_store_that_cannot_be_used_is_said_before_training(split, mlflow_store, monkeypatch):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    def refuses(self, name):
        raise MlflowException("no such server")

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", refuses)
    with pytest.raises(TrainingError, match=r"no such server.*MLFLOW_TRACKING_URI"):
        seqrec.GRU4Rec(**SETTINGS).fit(split, track="mlflow", progress=False)


def test_a_remote_folder_is_refused(split):
    pytest.importorskip("tensorboard")
    with pytest.raises(SettingsError, match="expects a local one"):
        seqrec.GRU4Rec(**SETTINGS).fit(split, track="tensorboard", checkpoint="s3://bucket/model.safetensors")


def test_a_tool_that_is_missing_is_said(split, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "seqrec.training.tracking.tensorboard", None)
    with pytest.raises(SettingsError, match=r"seqrec\[track\]"):
        seqrec.GRU4Rec(**SETTINGS).fit(split, track="tensorboard")
