"""Recommending by an index: nearly the exact best, and exactly what is filtered."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

pytest.importorskip("faiss")

from seqrec.cli import app
from seqrec.data.query import Query
from seqrec.errors import DataError, SeqrecError, SettingsError
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.serving import index
from seqrec.testing import sequences_of
from seqrec.topk import Filter

ITEMS = 3_000


def log_of_neighbours():
    """The next item is near the last one, whatever the numbers say: 300 users of 20 events."""
    rng = np.random.default_rng(0)
    place = rng.permutation(ITEMS)
    walks = (rng.integers(0, ITEMS, (300, 1)) + rng.integers(-5, 6, (300, 20)).cumsum(1)) % ITEMS
    return sequences_of(list(place[walks].astype(np.int32)), ITEMS)


@pytest.fixture(scope="module", params=["hrm", "gru4rec"])
def built(request):
    """Of HRM, and of GRU4Rec, whose items have biases."""
    model = {
        "hrm": lambda: HRM(width=16, recent=2, train={"epochs": 3}),
        "gru4rec": lambda: GRU4Rec(width=16, hidden=16, train={"epochs": 1}),
    }[request.param]()
    return index.build(model.fit(log_of_neighbours(), progress=False, baselines=False), 0.95)


def histories(model, users, **more):
    return [pl.Series(model.item_catalogue.decode(model.sequences.of(u))).to_list() for u in users]


def share_found(found: pl.DataFrame, exact: pl.DataFrame) -> float:
    return found.join(exact, on=["query", "item_id"]).height / len(exact)


def test_most_of_the_best_are_found_with_their_exact_scores(built):
    assert built.recall >= 0.95
    asked = histories(built, range(60))
    found, exact = (model.recommend(asked, k=20) for model in (built, built.model))
    assert found.columns == exact.columns
    assert found["rank"].equals(exact["rank"])
    assert share_found(found, exact) > 0.9
    both = found.join(exact, on=["query", "item_id"])
    np.testing.assert_allclose(both["score"], both["score_right"], rtol=1e-4, atol=1e-5)
    one = built.recommend(asked[:1], k=20)
    assert one["item_id"].equals(found["item_id"].head(20))


def test_filters_hold(built):
    asked = histories(built, range(30))
    ids = built.item_catalogue.ids.to_list()
    best = built.model.recommend(asked, k=5)["item_id"].to_list()
    cases = [{"deny": best}, {"allow": ids[::2]}, {"allow": ids[::2], "deny": best}, {"allow": ids[:7]}]
    for more in cases:
        found, exact = (model.recommend(asked, k=10, **more) for model in (built, built.model))
        assert found["rank"].equals(exact["rank"]), more
        assert share_found(found, exact) > 0.9
        assert not set(found["item_id"]) & set(more.get("deny", ()))
        assert set(found["item_id"]) <= set(more.get("allow", ids))
        for query, rows in found.group_by("query"):
            assert not set(rows["item_id"]) & set(asked[query[0]])


def test_what_the_index_cannot_answer_is_answered_exactly(built):
    ids = built.item_catalogue.ids.to_list()
    asked = [[], ids[:600], ids[600:602]]  # nothing known; a long history; another one
    found, exact = (model.recommend(asked, k=10) for model in (built, built.model))
    assert found.filter(pl.col("query") < 2).equals(exact.filter(pl.col("query") < 2))
    assert found.filter(query=0)["source"].to_list() == ["popularity"] * 10
    assert len(found) == 30
    everything = built.recommend([ids[:1]], k=ITEMS)
    assert len(everything) == ITEMS - len(np.union1d(built.unlearned, [0]))
    assert built.best(Query.from_lists([]), 5, Filter()).items.shape == (0, 5)


def test_it_is_kept_beside_its_model(built, tmp_path):
    built.model.save(tmp_path)
    built.save(tmp_path)
    model = type(built.model).load(tmp_path, "cpu")
    loaded = index.load(model, tmp_path)
    assert loaded.recall == built.recall
    asked = histories(built, range(10))
    assert loaded.recommend(asked, k=9).equals(built.recommend(asked, k=9))
    part = next(tmp_path.glob("index-*.bin"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(DataError, match=r"checksum differs.*Build the index again"):
        index.load(model, tmp_path)
    built.save(tmp_path)
    other = type(model)(**model.configuration()).fit(log_of_neighbours(), seed=1, progress=False)
    with pytest.raises(DataError, match="of other item vectors than the model has now"):
        index.load(other, tmp_path)
    with pytest.raises(DataError, match="expected an index beside the model"):
        index.load(model, tmp_path / "elsewhere")


def test_from_the_command_line(tmp_path, caplog):
    model = HRM(width=16, recent=2, train={"epochs": 2})
    model.fit(log_of_neighbours(), progress=False, baselines=False).save(tmp_path / "model")
    run = CliRunner()
    first = ["recommend", str(tmp_path / "model"), "-s", "i5,i6", "-k", "3"]
    with pytest.raises(SeqrecError, match="expected an index beside the model"):
        run.invoke(app, [*first, "--approximate"], catch_exceptions=False)
    run.invoke(app, ["index", str(tmp_path / "model")], catch_exceptions=False)
    assert "of the exact 20 best it finds" in caplog.text
    exact, found = (run.invoke(app, ["-q", *first, *more]).output for more in ([], ["--approximate"]))
    assert found.split()[:5] == exact.split()[:5]
    assert len(found.splitlines()) == 4


def test_a_model_without_vectors_has_no_index(ring):
    with pytest.raises(SettingsError, match="has no item vectors"):
        index.build(Markov().fit(ring))
    with pytest.raises(SettingsError, match="recall: expected a share"):
        index.build(Markov().fit(ring), 95)
