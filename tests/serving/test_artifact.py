from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import seqrec
from seqrec import storage
from seqrec.errors import DataError, SeqrecError, SettingsError
from seqrec.models.hrm import HRM
from seqrec.models.popularity import Popularity
from seqrec.serving import artifact
from seqrec.storage import marker
from seqrec.training.options import FitReport


def test_round_trip_keeps_scores_ids_and_histories(ring, tmp_path):
    model = HRM(width=8, train={"epochs": 2}).fit(ring, progress=False)
    model.save(tmp_path / "model")
    again = seqrec.load(tmp_path / "model")
    assert again.configuration() == model.configuration()
    for arguments in ({"sequences": [["i1", "i2"], []]}, {"users": ["u3", "u0"]}):
        assert again.recommend(**arguments).equals(model.recommend(**arguments))
    assert again.fit_report == model.fit_report
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_model_without_histories_can_be_saved_again(ring, tmp_path):
    model = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False)
    model.save(tmp_path / "one", histories=False)
    seqrec.load(tmp_path / "one").save(tmp_path / "two")
    again = seqrec.load(tmp_path / "two")
    assert again.recommend([["i1"]]).equals(model.recommend([["i1"]]))


def test_a_loaded_model_goes_where_it_is_told(ring, tmp_path):
    model = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False, device="cpu")
    model.save(tmp_path / "model")
    for again in (seqrec.load(tmp_path / "model", device="cpu"), HRM.load(tmp_path / "model", "cpu")):
        assert again.network.items.weight.device.type == "cpu"
        assert again.recommend(users=["u3"]).equals(model.recommend(users=["u3"]))
    for name in ("warp", "cuda:99"):
        with pytest.raises(
            SettingsError, match=f"device: expected a device that this machine has. Got '{name}'"
        ):
            seqrec.load(tmp_path / "model", device=name)


def test_a_model_saved_when_seed_and_device_were_settings_of_training(ring, tmp_path):
    model = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False, seed=3)
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    about = json.loads(path.read_text())
    assert about["fit_report"].pop("seed") == 3
    assert not about["configuration"]["train"].keys() & {"seed", "device", "precision"}
    del about["digest"]  # which those models did not have
    about["configuration"]["train"] |= {"seed": 3, "device": "cuda:99", "precision": "auto"}
    path.write_text(json.dumps(about))
    again = seqrec.load(tmp_path / "model")
    assert again.configuration() == model.configuration()
    assert again.fit_report == model.fit_report
    assert again.recommend(users=["u3"]).equals(model.recommend(users=["u3"]))


def test_the_report_of_a_fit_as_json(ring):
    report = HRM(width=8, train={"epochs": 2}).fit(ring, progress=False, seed=4).fit_report
    assert report.seed == 4
    assert len(report.curve) == 2
    assert FitReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert FitReport.from_json(report.to_json() | {"of a later version": 1}) == report
    plain = Popularity().fit(ring).fit_report
    assert plain.to_json() == {"train_seconds": plain.train_seconds}


def test_saving_again_replaces_the_whole(ring, tmp_path):
    HRM(width=8, train={"epochs": 1}).fit(ring, progress=False).save(tmp_path / "model")
    Popularity().fit(ring).save(tmp_path / "model", histories=False)
    again = seqrec.load(tmp_path / "model")
    assert again.name == "popularity"
    assert sorted(p.name.split("-")[0] for p in (tmp_path / "model").iterdir()) == [
        "items",
        "model.json",
        "weights",
    ]
    with pytest.raises(SeqrecError, match="without its users' histories"):
        again.recommend(users=["u1"])


@pytest.mark.parametrize("file", ["weights.safetensors", "items.parquet"])
def test_a_changed_or_missing_file_is_refused(ring, tmp_path, file):
    Popularity().fit(ring).save(tmp_path / "model")
    path = tmp_path / "model" / json.loads((tmp_path / "model" / "model.json").read_text())["files"][file]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="size differs"):
        seqrec.load(tmp_path / "model")
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        seqrec.load(tmp_path / "model")


def test_an_interrupted_save_leaves_the_old_model(ring, tmp_path, monkeypatch):
    model = Popularity().fit(ring)
    model.save(tmp_path / "model")

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr("seqrec.storage.write_json", fails)
    with pytest.raises(OSError, match="disk full"):
        HRM(width=8, train={"epochs": 1}).fit(ring, progress=False).save(tmp_path / "model")
    assert seqrec.load(tmp_path / "model").name == "popularity"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_what_is_no_model_is_refused(ring, tmp_path):
    with pytest.raises(DataError, match="expected the folder of a trained model"):
        seqrec.load(tmp_path)
    with pytest.raises(DataError, match="not trained"):
        Popularity().save(tmp_path / "model")
    Popularity().fit(ring).save(tmp_path / "model")
    with pytest.raises(DataError, match="expected a hrm model"):
        HRM.load(tmp_path / "model")
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(DataError, match="expected format"):
        seqrec.load(tmp_path / "model")


def test_remote_folders(ring, tmp_path):
    """Any URL of fsspec: its in-memory file system stands for a bucket."""
    Popularity().fit(ring).save("memory://bucket/model")
    again = seqrec.load("memory://bucket/model")
    assert np.array_equal(again.state()["counts"], Popularity().fit(ring).state()["counts"])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/dev/zero", "/etc/passwd", "a/b", ".."])
def test_only_files_of_its_own_folder_are_opened(ring, tmp_path, name):
    Popularity().fit(ring).save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    about["files"]["weights.safetensors"] = name
    storage.write_json(marker.sealed(about), tmp_path / "model.json")
    with pytest.raises(DataError, match="expected the plain name of a file in the same folder"):
        seqrec.load(tmp_path)


def test_weights_that_are_no_numbers_are_refused(ring, tmp_path):
    model = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False)
    with torch.no_grad():
        next(model.network.parameters())[0, 0] = float("nan")
    model.save(tmp_path)
    with pytest.raises(DataError, match=r"weights 'network.* are not all numbers \(NaN\)"):
        seqrec.load(tmp_path)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_saved_indices_are_all_there(kind):
    state = {"items": np.array([2, 0, 1], dtype=kind)}
    assert artifact.indices_of(state, "items", 3, 3).tolist() == [2, 0, 1]
    assert not len(artifact.indices_of({"items": np.empty(0, dtype=kind)}, "items", 0))
    with pytest.raises(DataError, match="its items are not all from 0 to 1"):
        artifact.indices_of(state, "items", 2)
    with pytest.raises(DataError, match="its items are not all from 0 to 2"):
        artifact.indices_of({"items": np.array([2, -1, 1], dtype=kind)}, "items", 3)
    for wrong, length in ((state["items"], 4), (state["items"][None], None), (np.ones(3), 3), (None, 3)):
        with pytest.raises(DataError, match=r"its items are not \w+ whole numbers|its items are not whole"):
            artifact.indices_of({} if wrong is None else {"items": wrong}, "items", 3, length)


def test_saved_offsets_rise_from_0_to_their_entries():
    def of(*offsets: int, rows: int | None = None) -> np.ndarray:
        return artifact.offsets_of({"offsets": np.array(offsets, dtype=np.int64)}, "offsets", rows, 5)

    assert of(0, 2, 2, 5).tolist() == of(0, 2, 2, 5, rows=3).tolist() == [0, 2, 2, 5]
    for offsets in ((1, 2, 5), (0, 2, 4), (0, 3, 2, 5), ()):
        with pytest.raises(DataError, match="its offsets do not rise from 0 to 5"):
            of(*offsets)
    with pytest.raises(DataError, match="its offsets are not all from 0 to 5"):
        of(0, 6, 5)
    with pytest.raises(DataError, match="its offsets are not 3 whole numbers"):
        of(0, 2, 2, 5, rows=2)
