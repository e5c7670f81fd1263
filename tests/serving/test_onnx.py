"""Models as ONNX graphs: they recommend what the models do, and nothing of torch is needed for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import seqrec
from seqrec import models, storage
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError
from seqrec.features.encoding import Features
from seqrec.models.neural import NeuralModel
from seqrec.models.popularity import Popularity
from seqrec.models.sasrec import SASRec, SASRecNetwork
from seqrec.topk import Filter

pytest.importorskip("onnxscript", reason="needs onnxscript (extra: export)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra: export)")
from seqrec.serving import onnx_export, onnx_model

FEATURES = {
    "user": ["user_id", "occupation"],
    "sequence": ["item_id", "genres"],
    "item": ["item_id", "genres", "release_date"],
}
OPTIONS = {
    "hrm, users": ("hrm", {"width": 16}),
    "hrm, features, normalised": (
        "hrm",
        {
            "width": 16,
            "recent": 3,
            "pool_items": "average",
            "pool_user": "max",
            "normalise": True,
            "temperature": 0.2,
            "features": FEATURES,
        },
    ),
    "fpmc": ("fpmc", {"width": 16, "recent": 2}),
    "gru4rec, shared, layers": ("gru4rec", {"width": 16, "hidden": 16, "layers": 2, "longest": 30}),
    "gru4rec, separate, projected, features": (
        "gru4rec",
        {
            "width": 16,
            "hidden": 24,
            "embedding": "separate",
            "item_bias": False,
            "features": FEATURES,
            "longest": 30,
        },
    ),
    "gru4rec, one-hot, prefixes": (
        "gru4rec",
        {
            "width": 16,
            "hidden": 16,
            "embedding": "none",
            "layers": 2,
            "output_layer": True,
            "normalise": True,
            "temperature": 0.5,
            "rows": "prefixes",
            "steps": 20,
        },
    ),
    "sasrec, learned positions": ("sasrec", {"width": 16, "length": 20}),
    "sasrec, rotary, gated, features": (
        "sasrec",
        {
            "width": 16,
            "heads": 2,
            "length": 20,
            "positions": "rotary",
            "gated": True,
            "features": FEATURES,
        },
    ),
    "lrurec, features": ("lrurec", {"width": 16, "length": 20, "features": FEATURES}),
}


def untrained(name: str, sequences: Sequences, **settings) -> NeuralModel:
    """A model with random weights, which are as good as any for a comparison."""
    torch.manual_seed(0)
    model = models.get(name)(**settings)
    assert isinstance(model, NeuralModel)
    model.item_catalogue, model.sequences = sequences.item_catalogue, sequences
    model.known_stops = sequences.offsets[1:].copy()
    model.known_times = sequences.last_times(model.known_stops)
    items = len(sequences.item_catalogue)
    model.popularity = np.bincount(sequences.items, minlength=items)
    model.trained_users = np.arange(sequences.users) % 5 > 0
    if model.features is not None:
        model.feature_values = Features.of(model.features, sequences.user_catalogue, sequences.item_catalogue)
    model.network = model.build(items, sequences.users).eval()
    with torch.no_grad():  # what starts as zeros or ones counts, too
        for vectors in model.network.parameters():
            vectors += 0.1 * torch.randn_like(vectors)
    return model


@pytest.fixture(scope="module")
def ml_100k(ml_100k_interactions) -> Sequences:
    return ml_100k_interactions.sequences()


def histories(s: Sequences, n: int, seed: int) -> Query:
    """Users' histories up to a moment of each, some of them without their user."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, s.users, n)
    starts, lengths = s.offsets[users], np.diff(s.offsets)[users]
    whole = Query.from_lists([s.items[a : a + m] for a, m in zip(starts, rng.integers(1, lengths + 1))])
    return Query(
        whole.events, whole.starts, whole.stops, np.where(rng.random(n) < 0.2, -1, users).astype(np.int32)
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_recommendations_as_the_model(options: str, ml_100k: Sequences, tmp_path: Path):
    name, settings = OPTIONS[options]
    model = untrained(name, ml_100k, **settings)
    assert model.export_onnx(tmp_path).same == 1
    exported = onnx_model.load(tmp_path, threads=1)
    query = histories(ml_100k, 1_000, seed=1)
    found = onnx_export.compare(model, exported, query, model.popularity, Filter())
    assert (found.histories, found.same) == (1_000, 1)

    # the graph's own scores: of mixed lengths, of none, as long as is read and longer, of unknown users
    rng = np.random.default_rng(2)
    for lengths in ([0, 1, 2, 7, 20, 21, 30, 31, 90, 0], [0], [1], [31], [20], [5, 5]):
        lists = [rng.integers(0, 100, n).astype(np.int32) for n in lengths]
        users = (np.arange(len(lists), dtype=np.int32) - 1) if len(lists) > 1 else np.array([3], np.int32)
        asked = Query.from_lists(lists, users)
        items = np.full((len(lists), max(1, *lengths, *[1]) + 2), 7)  # any index pads
        for row, history in enumerate(lists):
            items[row, : len(history)] = history
        inputs = {"items": items, "lengths": asked.lengths}
        if "users" in model.network.reads:
            inputs["users"] = users.astype(np.int64)
        states, scores = exported._session.run(["states", "scores"], inputs)
        known = model.knows(asked)
        np.testing.assert_allclose(states[known], model.state_vectors(asked)[known], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scores, model.score(asked).numpy(), rtol=1e-4, atol=1e-4)
        assert np.array_equal(exported.knows(asked), known)


def test_what_is_no_history_is_refused(pair):
    _, folder = pair
    session = onnx_model.load(folder)._session

    def scores(items, lengths):
        return session.run(["scores"], {"items": np.array([items]), "lengths": np.array([lengths])})[0]

    assert np.array_equal(scores([3, 4], 2), scores([3, 4, -1, 99], 2))
    for items, length in (([3, -1], 2), ([3, 99], 2), ([3, 4], 3), ([3, 4], 30)):
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            scores(items, length)


@pytest.fixture(scope="module")
def pair(ring, tmp_path_factory) -> tuple[SASRec, Path]:
    """A small model and the folder of its export."""
    model = untrained("sasrec", ring, width=8, length=10, blocks=1)
    folder = tmp_path_factory.mktemp("exported")
    model.export_onnx(folder, filter_seen=False)
    return model, folder


def test_every_way_of_asking(pair):
    model, folder = pair
    exported = seqrec.load(folder)
    asked = [["i3", "i4"], [], ["i11"] * 30, ["i1", "i2"]]
    for choice in ({}, {"filter_seen": False}, {"allow": ["i1", "i7", "i8"], "deny": ["i7"]}, {"k": 50}):
        found, expected = exported.recommend(asked, **choice), model.recommend(asked, **choice)
        assert found.drop("score").equals(expected.drop("score"))
        np.testing.assert_allclose(found["score"], expected["score"], atol=1e-4)
    users = exported.recommend(users=["u5", "u1"], k=3, filter_seen=False)
    assert users.drop("score").equals(
        model.recommend(users=["u5", "u1"], k=3, filter_seen=False).drop("score")
    )
    assert exported.similar_items(["i3"], k=5)["similar_id"].equals(
        model.similar_items(["i3"], k=5)["similar_id"]
    )
    vectors, of_users = exported.item_vectors(), exported.user_vectors([["i3"], []])
    assert vectors.equals(model.item_vectors())
    assert of_users["vector"].null_count() == 1
    assert len(exported.recommend([])) == 0


def test_no_torch_is_imported(pair, tmp_path):
    _, folder = pair
    program = """
import sys
from seqrec.serving import onnx_model
model = onnx_model.load(sys.argv[1], threads=1)
assert len(model.recommend([["i3", "i4"]], k=2)) == len(model.similar_items(["i3"], k=2)) == 2
assert "torch" not in sys.modules
sys.argv = ["seqrec", "-q", "recommend", sys.argv[1], "-s", "i3,i4", "-k", "2", "--write", sys.argv[2]]
import seqrec.cli
try:
    seqrec.cli.main()
finally:
    assert "torch" not in sys.modules
"""
    arguments = [sys.executable, "-c", program, str(folder), str(tmp_path / "out.csv")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    # as it was exported: items of the history, too
    expected = seqrec.load(folder).recommend([["i3", "i4"]], k=2, filter_seen=False)["item_id"].to_list()
    assert [line.split(",")[1] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == expected


def test_exporting_again_replaces_and_damage_is_noticed(pair, tmp_path):
    _, folder = pair
    shutil.copytree(folder, tmp_path / "copy")
    damaged = tmp_path / "copy"
    names = json.loads((damaged / "onnx.json").read_text())["files"]
    for part in onnx_model.NEEDED[:-1]:
        path = damaged / names[part]
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DataError, match=r"not the file that was written .*Export the model again"):
            onnx_model.load(damaged)
        path.write_bytes(content)
    onnx_model.load(damaged)
    marker = damaged / "onnx.json"
    marker.write_text(marker.read_text().replace('"sasrec"', '"hrm"'))
    with pytest.raises(DataError, match="was changed after it was written"):
        onnx_model.load(damaged)
    with pytest.raises(DataError, match="expected the folder of an exported model"):
        onnx_model.load(tmp_path)


def test_a_folder_on_s3(pair, s3_bucket):
    _, folder = pair
    for path in folder.iterdir():
        with storage.open_write(storage.join(s3_bucket, "exported", path.name)) as stream:
            stream.write(path.read_bytes())
    asked = [["i3", "i4"], []]
    found = seqrec.load(storage.join(s3_bucket, "exported")).recommend(asked)
    assert found.equals(seqrec.load(folder).recommend(asked))


def test_without_histories_and_in_int8(pair, ring, tmp_path):
    model, _ = pair
    found = model.export_onnx(tmp_path, int8=True, histories=False)
    assert 0.5 < found.overlap <= 1
    exported = onnx_model.load(tmp_path)
    assert exported.dtype == "int8"
    assert exported.sequences is None
    with pytest.raises(seqrec.errors.SeqrecError, match="saved without its users' histories"):
        exported.recommend(users=["u1"])
    assert not np.array_equal(
        exported.state_vectors(Query.from_lists([np.array([3])])),
        model.state_vectors(Query.from_lists([np.array([3])])),
    )
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {
        "onnx.json",
        "model",
        "item_vectors",
        "popularity",
        "items",
    }


class Unlike(SASRecNetwork):
    """Its graph forgets the last item."""

    def padded_inputs(self, items, lengths, users):
        return super().padded_inputs(items, (lengths - 1).clamp(min=1), users)


class Forgetful(SASRec):
    name = "forgetful"
    Network = Unlike


def test_refusals(pair, ring, tmp_path):
    model, folder = pair
    fitted = Popularity().fit(ring)
    with pytest.raises(SettingsError, match=r"expected a folder of its own.*Got that of an exported model"):
        fitted.save(folder)
    fitted.save(tmp_path / "model")
    with pytest.raises(SettingsError, match=r"expected a folder of its own.*Got that of a trained model"):
        model.export_onnx(tmp_path / "model")
    with pytest.raises(DataError, match="exported to ONNX, which only recommends"):
        models.load_model(folder)
    with pytest.raises(SettingsError, match="device: expected 'auto' or 'cpu'"):
        seqrec.load(folder, device="cuda")
    network = untrained("sasrec", ring, width=8).network
    network.reads = frozenset({"times"})
    with pytest.raises(
        SettingsError, match=r"expected a network that reads items and users.*reads times too"
    ):
        onnx_export.check(tmp_path, network)


def test_a_graph_that_recommends_otherwise_is_not_written(ring, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "forgetful", f"{__name__}:Forgetful")
    model = untrained("forgetful", ring, width=8, length=10, blocks=1)
    with pytest.raises(SettingsError, match="expected the same recommendations from the graph of Unlike"):
        model.export_onnx(tmp_path)
    assert not list(tmp_path.iterdir())
