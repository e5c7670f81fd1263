"""A served model that reads times: by default it is asked about now."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from running_service import serving

from seqrec.models.hstu import HSTU

START = 1_577_836_800  # 2020-01-01


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{n}" for n in range(30)], 5),
            "item_id": [f"i{n}" for n in rng.integers(0, 15, 150)],
            "timestamp": START + np.cumsum(rng.integers(1, 90_000, (30, 5)), 1).ravel(),
        }
    )
    train = {"epochs": 1, "batch_positions": 64, "learning_rate": 0.01}
    found = HSTU(width=8, blocks=1, length=5, times=True, loss="softmax", train=train)
    found.fit(log, device="cpu", progress=False, baselines=False)
    with torch.no_grad():  # so that moments tell
        found.network.units[0].of_time.normal_()
    return found


def test_moments_over_http(model, tmp_path):
    model.save(tmp_path / "hstu")
    with serving(tmp_path / "hstu", "--events", tmp_path / "events") as service:

        def items(**asked):
            (found,) = service.post("/v1/recommend", {"k": 4, **asked})["results"]
            return found["items"], found["scores"]

        def expected(*sequences, **asked):
            found = model.recommend(*sequences, k=4, **asked)
            return found["item_id"].to_list(), pytest.approx(found["score"].to_list(), abs=1e-4)

        assert items(users=["u1"], at="2030-01-01") == expected(users=["u1"], at="2030-01-01")
        history = {"times": [["2020-05-01", START + 10**8]], "at": "2030-01-01"}
        assert items(sequences=[["i1", "i2"]], **history) == expected([["i1", "i2"]], **history)
        assert items(users=["u1"]) == expected(users=["u1"], at="now")
        service.post(
            "/v1/events", {"events": [{"user_id": "u1", "item_id": "i3", "timestamp": START + 10**8}]}
        )
        since = {"users": ["u1"], "times": [[START + 10**8]], "at": "2030-01-01"}
        assert items(users=["u1"], at="2030-01-01") == expected([["i3"]], **since)
        for asked, message in (
            ({"sequences": [["i1"]]}, "hstu reads when items were taken. Give times"),
            ({"sequences": [["i1"]], "times": [[1, 2]]}, "a time for each of its 1 items"),
            ({"sequences": [["i1"]], "times": []}, "a list of times for each sequence"),
            ({"users": ["u1"], "at": "soon"}, "expected a date"),
            ({"users": ["u1"], "at": START}, "times that rise"),
        ):
            answer = service.post("/v1/recommend", asked, 422)
            assert message in answer["error"]
