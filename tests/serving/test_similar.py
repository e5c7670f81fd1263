"""Vectors with raw ids, and the items nearest to an item."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from seqrec.errors import SettingsError, UnknownIdError
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.item_knn import ItemKNN
from seqrec.models.markov import Markov
from seqrec.serving import similar


@pytest.fixture(scope="module")
def model(ring):
    settings = {"width": 8, "hidden": 12, "train": {"epochs": 1}}
    return GRU4Rec(**settings).fit(ring, progress=False)


@pytest.mark.parametrize("by", similar.MEASURES)
def test_the_nearest_in_blocks_are_those_of_the_whole_matrix(by, monkeypatch):
    vectors = np.random.default_rng(0).integers(-2, 3, (40, 3)).astype(np.float32)  # with ties, and zeros
    vectors[7] = 0
    lengths = np.linalg.norm(vectors, axis=1)[:, None]
    unit = vectors / np.where(lengths > 0, lengths, 1) if by == "cosine" else vectors
    items = np.array([3, 7, 39, 3])
    expected = []
    for item in items:
        scores = unit @ unit[item]
        order = [j for j in sorted(range(40), key=lambda j: (-scores[j], j)) if j != item]
        expected.append(order[:9])
    monkeypatch.setattr(similar, "CELLS", 4 * 11)
    found = similar.nearest(vectors, items, 9, by)
    scores = (unit[items] @ unit.T).astype(np.float64)
    rows = np.arange(4)[:, None]
    np.testing.assert_allclose(found.scores, scores[rows, expected], atol=1e-6)
    assert np.array_equal(found.items[0], found.items[3])
    assert not (found.items == items[:, None]).any()
    assert similar.nearest(vectors, items, 100, by).items.shape == (4, 39)


def test_vectors_times_states_are_scores(model, ring):
    vectors, users = model.item_vectors(), model.user_vectors(users=["u5", "u2"])
    assert vectors["item_id"].equals(ring.item_catalogue.ids.alias("item_id"))
    assert vectors.schema["vector"] == pl.Array(pl.Float32, 8)
    assert users["user_id"].to_list() == ["u5", "u2"]
    scores = users["vector"].to_numpy() @ vectors["vector"].to_numpy().T + vectors["bias"].to_numpy()
    best = model.recommend(users=["u5", "u2"], k=1, filter_seen=False)
    assert vectors["item_id"].gather(scores.argmax(1)).to_list() == best["item_id"].to_list()
    np.testing.assert_allclose(scores.max(1), best["score"].to_numpy(), rtol=1e-5)


def test_vectors_of_histories(model):
    found = model.user_vectors([["i3", "i4"], [], ["i5"]])
    assert found["query"].to_list() == [0, 1, 2]
    assert found["vector"].is_null().to_list() == [False, True, False]  # nothing is known of nobody
    alone = model.user_vectors({"ann": ["i3", "i4"]})["vector"]
    np.testing.assert_allclose(alone[0], found["vector"][0], atol=1e-6)
    assert len(model.user_vectors([])) == 0


def test_an_items_own_users_say_what_is_near(ring):
    table = HRM(width=8, train={"epochs": 1}).fit(ring, progress=False)
    assert "bias" not in table.item_vectors().columns
    found = table.similar_items(["i3", "i5"], k=4)
    assert found.columns == ["item_id", "similar_id", "score", "rank"]
    assert found["item_id"].to_list() == ["i3"] * 4 + ["i5"] * 4
    assert found["rank"].to_list() == [1, 2, 3, 4] * 2
    assert found["score"].is_between(-1.0001, 1.0001).all()
    assert not (found["item_id"] == found["similar_id"]).any()
    assert len(table.similar_items(["i3"], k=50)) == 11
    vectors = table.item_vectors()["vector"].to_numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    assert found["score"][0] == pytest.approx(np.sort(unit @ unit[3])[-2], abs=1e-5)
    dot = table.similar_items(["i3"], k=1, by="dot")["score"][0]
    assert dot == pytest.approx(np.delete(vectors @ vectors[3], 3).max(), abs=1e-5)


def test_item_knn_has_neighbours_of_its_own():
    log = pl.DataFrame({"user_id": [1, 1, 2, 2, 2, 3], "item_id": ["a", "b", "a", "b", "c", "d"]})
    model = ItemKNN(shrinkage=0).fit(log)
    found = model.similar_items(["a", "d", "c"], k=2)
    assert found["item_id"].to_list() == ["a", "a", "c", "c"]  # nobody had d and another
    assert found["similar_id"].to_list() == ["b", "c", "a", "b"]
    assert found["score"].to_list() == pytest.approx([1, 0.5**0.5, 0.5**0.5, 0.5**0.5])
    with pytest.raises(SettingsError, match="expected 'cosine', the only measure that item_knn has"):
        model.similar_items(["a"], by="dot")


def test_refusals(model, ring):
    with pytest.raises(UnknownIdError, match=r"items has 1 item\(s\) that the model does not know: \['x'\]"):
        model.similar_items(["i3", "x"])
    assert len(model.similar_items(["i3", "x"], k=2, on_unknown="ignore")) == 2
    assert model.similar_items(["x"], on_unknown="ignore").is_empty()
    for arguments, message in (
        ({"by": "euclid"}, "by: expected one of cosine, dot. Got 'euclid'"),
        ({"k": 0}, "k: expected a whole number"),
        ({"on_unknown": "panic"}, "on_unknown: expected"),
    ):
        with pytest.raises(SettingsError, match=message):
            model.similar_items(["i3"], **arguments)
    plain = Markov().fit(ring)
    for ask in (
        plain.item_vectors,
        lambda: plain.similar_items(["i3"]),
        lambda: plain.user_vectors([["i3"]]),
    ):
        with pytest.raises(
            SettingsError, match=r"markov has no .*vectors.*Take a model that learns some: hrm"
        ):
            ask()
