from __future__ import annotations

import pytest

from seqrec.errors import DataError, SettingsError
from seqrec.settings import yaml_file


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_variables_are_filled_and_typed(tmp_path):
    path = write(tmp_path, "a: ${BUCKET}/x\nb: ${EPOCHS:-3}\nc: [1, '${BUCKET}']\nd: ${EMPTY:-}\n")
    assert yaml_file.read(path, environment={"BUCKET": "s3://b"}) == {
        "a": "s3://b/x",
        "b": 3,
        "c": [1, "s3://b"],
        "d": None,
    }


def test_missing_variable_names_itself_and_its_neighbour(tmp_path):
    path = write(tmp_path, "data: {path: '${MY_S3_BUKET}/log'}\n")
    with pytest.raises(SettingsError, match=r"MY_S3_BUKET.*not set.*Did you mean 'MY_S3_BUCKET'"):
        yaml_file.read(path, environment={"MY_S3_BUCKET": "x"})


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"line 3.*'epochs' occurs twice"):
        yaml_file.read(write(tmp_path, "train:\n  epochs: 1\n  epochs: 2\n"))


def test_overrides(tmp_path):
    path = write(tmp_path, "train: {epochs: 1}\nmodel: {name: hrm}\n")
    content = yaml_file.read(path, ["train.epochs=3", "loss.name=bpr", "evaluate.metrics=[ndcg@5]"])
    assert content == {
        "train": {"epochs": 3},
        "model": {"name": "hrm"},
        "loss": {"name": "bpr"},
        "evaluate": {"metrics": ["ndcg@5"]},
    }


@pytest.mark.parametrize("override", ["epochs", "=3", "train..epochs=3", "model.name.x=1"])
def test_bad_overrides(tmp_path, override):
    with pytest.raises(SettingsError, match="override"):
        yaml_file.read(write(tmp_path, "model: {name: hrm}\n"), [override])


def test_not_yaml_no_mapping_no_file(tmp_path):
    with pytest.raises(SettingsError, match="not valid YAML"):
        yaml_file.read(write(tmp_path, "a: [1"))
    with pytest.raises(SettingsError, match="expected sections"):
        yaml_file.read(write(tmp_path, "- 1\n"))
    with pytest.raises(DataError, match="no such file"):
        yaml_file.read(tmp_path / "absent.yaml")
