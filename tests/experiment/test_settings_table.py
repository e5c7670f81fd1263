"""The tables of settings say what the classes say."""

import pytest

from seqrec import models
from seqrec.errors import SettingsError
from seqrec.experiment import settings_table
from seqrec.experiment.settings_table import SECTIONS, choices_of, kind_of
from seqrec.training.settings import TrainSettings


def by_key(name):
    return {row["key"]: row for row in settings_table.table(name).rows}


@pytest.mark.parametrize("name", settings_table.names())
def test_every_setting_has_a_meaning_and_a_default(name):
    rows = settings_table.table(name).rows
    assert rows
    assert all(row["meaning"] for row in rows)


@pytest.mark.parametrize("name", [*SECTIONS, *models.MODELS])
def test_every_key_is_listed(name):
    cls = SECTIONS[name] if name in SECTIONS else models.get(name).Settings
    assert set(cls.model_fields) <= set(by_key(name))


def test_types_defaults_choices_and_limits():
    train = by_key("train")
    assert train["epochs"]["type"] == "whole number or null (>= 1, <= 1,000,000,000)"
    assert train["epochs"]["default"] == "null"
    assert train["learning_rate"]["default"] == "null"
    assert train["average"]["default"] == str(TrainSettings().average)
    assert train["schedule"]["choices"] == "constant, cosine"
    assert train["minutes"]["type"] == "number or null (> 0)"
    assert by_key("data")["tie_order"]["choices"] == "file, random"
    assert {row["name"] for row in settings_table.table("model").rows} == set(models.MODELS)
    assert "bpr" in [row["name"] for row in settings_table.table("loss").rows]
    assert by_key("last_n")["n"]["type"].startswith("whole number")
    assert kind_of(list[str] | None) == "list of text or null"
    assert choices_of(int) == []


def test_an_unknown_name_has_a_neighbour():
    with pytest.raises(SettingsError, match="Did you mean 'gru4rec'"):
        settings_table.table("gru4rce")
