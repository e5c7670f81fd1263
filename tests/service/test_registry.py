"""Who answers whom, and which state of a model."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from seqrec.errors import DataError, SettingsError
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.service.registry import Registry, Source, open_model
from seqrec.serving.settings import ServiceSettings
from seqrec.testing import sequences_of

NOW = ServiceSettings(reload_seconds=0)


@pytest.fixture
def saved(ring, tmp_path):
    Markov().fit(ring, progress=False).save(tmp_path / "a")
    Markov().fit(ring, progress=False).save(tmp_path / "b")
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_users_are_shared_out_as_asked_and_stay(saved):
    registry = Registry([Source("a", saved[0], 0.8), Source("b", saved[1], 0.2)], NOW)
    first = [registry.of(f"user {n}").source.name for n in range(5_000)]
    assert first == [registry.of(f"user {n}").source.name for n in range(5_000)]
    assert 0.77 < np.mean([name == "a" for name in first]) < 0.83
    # a larger share of a takes users from b, and none the other way
    more = Registry([Source("a", saved[0], 0.9), Source("b", saved[1], 0.1)], NOW)
    moved = [(x, more.of(f"user {n}").source.name) for n, x in enumerate(first)]
    assert ("a", "b") not in moved
    registry.close()
    more.close()


def test_names_shares_and_ids_must_fit(saved, tmp_path):
    with pytest.raises(SettingsError, match="each with a name of its own"):
        Registry([Source("a", saved[0], 0.5), Source("a", saved[1], 0.5)], NOW)
    with pytest.raises(SettingsError, match="sum to 1"):
        Registry([Source("a", saved[0], 0.5)], NOW)
    numbers = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [5, 6, 5, 6]})
    Markov().fit(numbers, progress=False).save(tmp_path / "numbers")
    with pytest.raises(SettingsError, match="item ids of one type"):
        Registry([Source("a", saved[0], 0.5), Source("n", str(tmp_path / "numbers"), 0.5)], NOW)
    with pytest.raises(DataError, match="expected the folder of a trained model"):
        open_model(str(tmp_path), NOW)


def test_a_state_that_cannot_be_loaded_is_tried_once(saved, tmp_path, caplog):
    registry = Registry([Source("a", saved[0], 1.0)], NOW)
    before = registry.named("a")
    (tmp_path / "a" / "model.json").write_text("{}")
    assert registry.reload() == []
    assert "was not loaded" in caplog.text
    assert registry.named("a") is before
    assert registry.changed() == []
    registry.close()


def test_an_index_is_searched_where_asked_for(tmp_path):
    pytest.importorskip("faiss")
    from seqrec.serving import index

    rng = np.random.default_rng(0)
    log = sequences_of([rng.integers(0, 2_000, 20).astype(np.int32) for _ in range(200)], 2_000)
    HRM(width=8, train={"epochs": 1}).fit(log, progress=False, baselines=False).save(tmp_path / "m")
    settings = ServiceSettings(approximate=True)
    with pytest.raises(DataError, match="seqrec index"):
        open_model(str(tmp_path / "m"), settings)
    index.build(HRM.load(tmp_path / "m")).save(tmp_path / "m")
    registry = Registry([Source("m", str(tmp_path / "m"), 1.0)], settings)
    assert isinstance(registry.named("m").model, index.Approximate)
    assert registry.named("m").knows_alike
    assert registry.named("m").vectors.shape == (2_000, 8)
    # a new state of the model has no index until it is built again: the old one goes on
    HRM(width=8, train={"epochs": 2}).fit(log, progress=False, baselines=False).save(tmp_path / "m")
    assert registry.reload() == []
    index.build(HRM.load(tmp_path / "m")).save(tmp_path / "m")
    assert registry.reload() == ["m"]
    registry.close()
