"""Files that are no settings, or hostile: one plain line each, before any data is read, quickly and in little
memory."""

import time
import tracemalloc
from pathlib import Path

import pytest

from seqrec.errors import SeqrecError, SettingsError
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.train import train
from seqrec.settings import yaml_file

CASES = Path(__file__).parent / "cases"
OPENED = ("pathfile.yaml", "pathhttp.yaml")  # addresses of a file, which only opening it shows to be none
RIGHT = ("hexwidth.yaml",)  # a number as YAML writes it


def use(name):
    run = RunSettings.read(name)
    run.check()
    if name in OPENED:
        train(run, progress=False)


@pytest.mark.parametrize(
    "path", [p for p in sorted(CASES.glob("*.yaml")) if p.name not in RIGHT], ids=lambda path: path.stem
)
def test_a_file_that_is_no_settings_is_refused_in_one_line(path, monkeypatch):
    monkeypatch.chdir(CASES)
    monkeypatch.delenv("EVIL", raising=False)
    monkeypatch.delenv("NOPE", raising=False)
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(SeqrecError) as refused:
        use(path.name)
    seconds, (_, peak) = time.process_time() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 600
    assert "s3cr3t" not in message
    assert peak < 100 << 20
    assert seconds < 5 or path.name in OPENED  # these import what opens them


def test_a_missing_variable_is_named(monkeypatch):
    monkeypatch.delenv("EVIL", raising=False)
    with pytest.raises(SettingsError, match="variable EVIL is not set"):
        RunSettings.read(CASES / "env.yaml")


def test_a_number_in_base_16_is_one(monkeypatch):
    monkeypatch.chdir(CASES)
    assert RunSettings.read(CASES / "hexwidth.yaml").check().settings.width == 16


def test_a_variable_whose_value_is_no_yaml_is_named():
    with pytest.raises(SettingsError, match="the variable A is not a YAML value: '\\[1'"):
        yaml_file.fill("${A}", {"A": "[1"}, "run.yaml")


@pytest.mark.parametrize("value", ["[" * 200, "!!int abc", "2020-99-99", "'a", "!!python/name:os.system"])
def test_an_override_that_is_no_value_is_refused(value):
    with pytest.raises(SettingsError, match="override"):
        yaml_file.apply_override({}, f"train.epochs={value}")


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(SettingsError, match="at most 131,072 bytes"):
        yaml_file.parse(tmp_path / "large.yaml")


def test_a_value_of_several_kinds_says_them_all():
    with pytest.raises(SettingsError, match="loss: expected a valid dictionary or a valid string"):
        RunSettings.of({"loss": 3}, "")
