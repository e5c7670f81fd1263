"""Histories of baskets over HTTP: the answers of Python, and refusals that say where."""

from __future__ import annotations

import asyncio

import polars as pl
import pytest

import seqrec
from seqrec import Interactions
from seqrec.models.markov import Markov
from seqrec.models.personal_top import PersonalTop
from seqrec.service.app import Refused, Service
from seqrec.service.messages import RecommendRequest
from seqrec.service.registry import Registry, Source
from seqrec.service.telemetry import Telemetry
from seqrec.serving.settings import ServiceSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    frame = pl.DataFrame(
        {
            "user_id": ["u", "u", "u", "u", "v", "v"],
            "item_id": ["a", "b", "b", "c", "d", "a"],
            "basket_id": [1, 1, 2, 2, 3, 3],
        }
    )
    folder = tmp_path_factory.mktemp("models")
    log = Interactions.from_frame(frame).sequences()
    PersonalTop().fit(log).save(folder / "top")
    Markov().fit(log, stop_after=1).save(folder / "markov")
    return folder


@pytest.fixture
def service(folder):
    settings = ServiceSettings(reload_seconds=0, max_length=4)
    sources = [Source("top", str(folder / "top"), 1.0), Source("markov", str(folder / "markov"), 0.0)]
    registry = Registry(sources, settings)
    yield Service(registry, None, Telemetry())
    registry.close()


def ask(service: Service, **body) -> list[dict]:
    request = RecommendRequest.model_validate({"model": "top", "filter_seen": False, **body})
    return asyncio.run(service.recommend(request))["results"]


@pytest.mark.parametrize(
    "asked",
    [
        {"sequences": [[["c", "d"], ["d"]], [], [["a"]]]},
        {"users": ["u", "v"], "sequences": [[["c"], ["c"]], []]},
        {"users": ["u", "nobody"]},
    ],
)
def test_answers_are_those_of_python(service, folder, asked):
    frame = seqrec.load(folder / "top").recommend(**asked, k=3, filter_seen=False, on_unknown="ignore")
    found = ask(service, **asked, k=3)
    assert [item for one in found for item in one["items"]] == frame["item_id"].to_list()
    assert [score for one in found for score in one["scores"]] == pytest.approx(frame["score"].to_list())


def test_refusals_say_where(service):
    for body, message, where in [
        ({"sequences": [[], ["a"]]}, "since personal_top was trained on baskets", "sequences.1"),
        ({"sequences": [[["a"]]], "model": "markov"}, "since markov reads no baskets", "sequences.0"),
        ({"sequences": [[["a"], "b"]]}, "Got 1 baskets and 1 items", "sequences.0"),
        ({"sequences": [[["a", "b", "c"], ["a", "b"]]]}, "4 items", "sequences.0"),
        ({"sequences": [[["z"]]], "on_unknown": "raise"}, "no item 'z'", "sequences.0"),
    ]:
        with pytest.raises(Refused, match=message) as refused:
            ask(service, **body)
        assert (refused.value.status, refused.value.where) == (422, where)
