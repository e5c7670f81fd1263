"""Models that read times, asked at a moment."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import seqrec
from seqrec.cli import app
from seqrec.data.interactions import Interactions
from seqrec.errors import SettingsError
from seqrec.models.hstu import HSTU
from seqrec.models.popularity import Popularity
from seqrec.serving import batch
from seqrec.serving.index import Approximate
from seqrec.serving.moments import seconds
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.training.options import FitOptions

ON = FitOptions(device="cpu", progress=False, baselines=False)
START = 1_577_836_800  # 2020-01-01


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{n}" for n in range(40)], 6),
            "item_id": [f"i{n}" for n in rng.integers(0, 20, 240)],
            "timestamp": START + np.cumsum(rng.integers(1, 90_000, (40, 6)), 1).ravel(),
        }
    )
    return leave_one_out(Interactions.from_frame(log).sequences())


@pytest.fixture(scope="module")
def model(split):
    train = {"epochs": 1, "batch_positions": 64, "learning_rate": 0.01}
    torch.manual_seed(0)
    found = HSTU(width=8, blocks=1, length=5, times=True, loss="softmax", train=train).fit(split, ON)
    with torch.no_grad():  # so that moments tell
        found.network.units[0].of_time.normal_()
    return found


def test_by_raw_ids_it_is_what_the_test_asks(split, model, tmp_path):
    s, queries = split.sequences, split.test
    expected = model.best(split.query(queries), 5, seqrec.topk.Filter())
    moment = s.times[queries.targets].tolist()
    users = s.user_catalogue.ids.to_list()
    histories = [s.item_catalogue.decode(split.query(queries).at(n)).to_list() for n in range(len(queries))]
    when = [s.times[s.offsets[n] : queries.targets[n]] for n in range(len(queries))]
    model.save(tmp_path / "model")
    for one in (model, seqrec.load(tmp_path / "model", "cpu")):
        assert one.reads_times
        found = one.recommend(users=users, at=moment, k=5)
        assert found["item_id"].to_list() == s.item_catalogue.decode(expected.items.ravel()).to_list()
        np.testing.assert_allclose(found["score"].to_numpy(), expected.scores.ravel(), rtol=1e-5)
        by_ids = one.recommend(histories, times=when, at=moment, k=5)
        assert by_ids["item_id"].to_list() == found["item_id"].to_list()
    later = model.recommend(users=users, at=[m + 10**7 for m in moment], k=5)
    assert later["score"].to_list() != found["score"].to_list()
    vectors = model.user_vectors(users=users, at=moment)["vector"].to_numpy()
    np.testing.assert_allclose(vectors, model.state_vectors(split.query(queries)), rtol=1e-5, atol=1e-6)


def test_known_users_and_what_they_did_since(model):
    kept = model.sequences.of(0)
    assert len(kept) == 6
    known = model.known_stops[0] - model.sequences.offsets[0]
    items = model.sequences.item_catalogue.decode(kept[:known]).to_list()
    when = model.sequences.times[:known].tolist()
    at = datetime(2030, 1, 1, tzinfo=UTC)
    whole = model.recommend([[*items, "i3"]], times=[[*when, "2025-01-01"]], at=at)
    since = model.recommend([["i3"]], users=["u0"], times=[[date(2025, 1, 1)]], at=at)
    assert since["item_id"].to_list() == whole["item_id"].to_list()
    np.testing.assert_allclose(since["score"], whole["score"], rtol=1e-5)
    nothing = model.recommend([[]], users=["u0"], at=at)
    assert nothing["score"].to_list() == model.recommend(users=["u0"], at=at)["score"].to_list()
    with pytest.raises(SettingsError, match="since to be later than what is known of them"):
        model.recommend([["i3"]], users=["u0"], times=[[START]], at=at)


def test_unknown_items_take_their_times_along(model):
    at = "2030-01-01"
    found = model.recommend(
        [["i1", "no such", "i2"]],
        times=[["2020-01-01", "2020-01-02", "2020-01-03"]],
        at=at,
        on_unknown="ignore",
    )
    expected = model.recommend([["i1", "i2"]], times=[["2020-01-01", "2020-01-03"]], at=at)
    assert found.equals(expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"users": ["u0"]}, r"at: expected the moment .* since hstu reads times: a date such as .*'now'"),
        ({"users": ["u0"], "at": "soon"}, r"at: expected a date such as .* Got 'soon'"),
        ({"users": ["u0"], "at": float("nan")}, "at: expected a date"),
        ({"users": ["u0"], "at": True}, "at: expected a date"),
        ({"users": ["u0"], "at": "12/1/2010"}, r"Got '12/1/2010'"),
        ({"users": ["u0"], "at": START}, r"at: expected a moment after the last event.*history 0"),
        ({"users": ["u0", "u1"], "at": ["2030-01-01"]}, "at: expected one moment, or 2"),
        ({"users": ["u0"], "times": [[1]], "at": "now"}, "times: expected sequences"),
        ({"sequences": [["i1"]], "at": "now"}, r"times: expected a list of lists, a time an item"),
        ({"sequences": [["i1"]], "times": [[1], [2]], "at": "now"}, "for 1 sequences. Got 2"),
        (
            {"sequences": [["i1"]], "times": [[1, 2]], "at": "now"},
            "sequence 0: expected a time for each of its 1",
        ),
        ({"sequences": [["i1", "i2"]], "times": [[START, 7]], "at": "now"}, "expected the oldest first"),
        ({"sequences": [["i1"]], "times": [5], "at": "now"}, "expected a list of times, one an item"),
    ],
)
def test_what_is_refused(model, asked, message):
    with pytest.raises(SettingsError, match=message):
        model.recommend(**asked)


def test_models_without_times_are_told_none(split):
    other = Popularity().fit(split, ON)
    with pytest.raises(SettingsError, match="at: cannot be given, since popularity reads no times"):
        other.recommend(users=["u0"], at="now")
    with pytest.raises(SettingsError, match="times: cannot be given, since popularity reads no times"):
        other.recommend([["i1"]], times=[[1]])


def test_moments_as_they_are_written():
    expected = [START] * 6
    given = [
        START,
        "2020-01-01",
        "2020-01-01T01:00+01:00",
        datetime(2020, 1, 1),
        datetime(2020, 1, 1, tzinfo=UTC),
        str(START),
    ]
    assert seconds(given, "at").tolist() == expected
    assert seconds([1000 * START, 1000 * START + 500], "at").tolist() == [START, START + 0.5]
    assert seconds([20200101], "at").tolist() == [START]
    assert seconds([np.int64(START), np.float64(START)], "at").tolist() == [START] * 2
    assert abs(seconds(["now"], "at")[0] - datetime.now(UTC).timestamp()) < 60
    assert seconds([], "at").shape == (0,)


def test_a_file_of_users(model, tmp_path):
    pl.DataFrame({"user_id": ["u3", "u1"]}).write_csv(tmp_path / "users.csv")
    pl.DataFrame({"items": [["i1"]]}).write_ndjson(tmp_path / "histories.jsonl")
    target = str(tmp_path / "best.jsonl")
    batch.recommend(model, str(tmp_path / "users.csv"), target, at="2030-01-01", k=3, progress=False)
    found = pl.read_ndjson(target)
    expected = model.recommend(users=["u3", "u1"], at="2030-01-01", k=3)
    assert found["item_id"].explode().to_list() == expected["item_id"].to_list()
    with pytest.raises(SettingsError, match="expected a file of users alone, since hstu reads when"):
        batch.recommend(model, str(tmp_path / "histories.jsonl"), target, at="now", progress=False)
    with pytest.raises(SettingsError, match="index: expected a model that reads no times"):
        Approximate(model, None, 1)


def test_the_command(model, tmp_path):
    model.save(tmp_path / "model")
    folder = str(tmp_path / "model")

    def run(*options: str) -> str:
        done = CliRunner().invoke(app, ["-q", "recommend", folder, *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    expected = model.recommend(users=["u1"], at="2030-01-01", k=1)["item_id"][0]
    assert expected in run("--user", "u1", "--at", "2030-01-01", "-k", "1").split()
    expected = model.recommend([["i1", "i2"]], times=[[START, START + 9]], at="2030-01-01", k=1)["item_id"][0]
    times = f"{START},{START + 9}"
    assert expected in run("--sequence", "i1,i2", "--times", times, "--at", "2030-01-01", "-k", "1").split()
    with pytest.raises(SettingsError, match="--times: expected one for each --sequence"):
        run("--user", "u1", "--times", times, "--at", "now")
