"""The running service: its answers are those of Python, its refusals say what to do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import re

import httpx
import pytest
from conftest import cycle_log
from running_service import save_models, serving

import seqrec
from seqrec.errors import StorageError
from seqrec.service.app import Direct


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def service(folders, tmp_path_factory):
    limits = [f"--set={limit}" for limit in ("max_k=50", "max_queries=20", "max_length=30", "max_body=20000")]
    events = tmp_path_factory.mktemp("events")
    with serving(folders["hrm"], folders["markov"], "--events", events, *limits) as running:
        yield running


ASKED = [
    {"sequences": [["i1", "i2"], ["i5"], []], "k": 4},
    {"sequences": [["i1", "i2", "i1"]], "k": 20, "filter_seen": False},
    {"users": ["u3", "u7"], "k": 3},
    {"users": ["u3", "u7"], "sequences": [["i9"], []], "k": 3},
    {"users": ["nobody", "u1"], "k": 3},
    {"sequences": [["i1"]], "allow": ["i3", "i4", "i5"], "deny": ["i4"]},
    {"sequences": [["i1"]], "allow": []},
]


@pytest.mark.parametrize("name", ["hrm", "markov"])
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_answers_are_those_of_python(service, folders, name, asked):
    found = service.post("/v1/recommend", asked | {"model": name})["results"]
    frame = seqrec.load(folders[name]).recommend(**asked, on_unknown="ignore")
    column = "user_id" if "users" in asked else "query"
    keys = asked.get("users") or range(len(asked["sequences"]))
    assert len(found) == len(keys)
    for number, (result, key) in enumerate(zip(found, keys)):
        expected = frame.filter(frame[column] == key)
        assert result["items"] == expected["item_id"].to_list()
        assert result["scores"] == pytest.approx(expected["score"].to_list(), abs=1e-5)
        assert result["query"] == number
        assert result["user"] == (key if "users" in asked else None)
        if len(expected):
            assert result["source"] == expected["source"][0]
        assert result["model"] == name


def test_requests_that_come_together_get_their_own_answers(service, folders):
    model = seqrec.load(folders["hrm"])

    def ask(number: int) -> None:
        asked = {"sequences": [[f"i{number % 12}"]], "k": 1 + number % 5, "filter_seen": number % 3 == 0}
        with httpx.Client() as client:
            for _ in range(5):
                found = client.post(service.address + "/v1/recommend", json=asked | {"model": "hrm"}).json()
                expected = model.recommend(**asked)
                assert found["results"][0]["items"] == expected["item_id"].to_list()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))


def test_a_user_always_gets_the_same_model_and_shares_are_kept(service, folders):
    users = [f"u{i}" for i in range(20)]
    first, again = (service.post("/v1/recommend", {"users": users})["results"] for _ in range(2))
    assert [r["model"] for r in first] == [r["model"] for r in again]
    assert {r["model"] for r in first} == {"hrm", "markov"}
    one = service.post("/v1/recommend", {"users": [users[4]], "sequences": [["i1"]]})["results"][0]
    assert one["model"] == first[4]["model"]
    # a history that grows stays with its model
    grown = [["i5", *[f"i{i}" for i in range(n)]] for n in range(10)]
    assert len({r["model"] for r in service.post("/v1/recommend", {"sequences": grown})["results"]}) == 1


def test_events_count_at_once_and_are_seen(service, folders):
    before = service.post("/v1/recommend", {"users": ["ann"], "model": "markov"})["results"][0]
    assert before["source"] == "popularity"
    events = [{"user_id": "ann", "item_id": "i4"}, {"user_id": "ann", "item_id": "new", "timestamp": 5}]
    assert service.post("/v1/events", {"events": events}) == {"accepted": 2}
    after = service.post("/v1/recommend", {"users": ["ann"], "k": 1, "model": "markov"})["results"][0]
    assert (after["source"], after["items"], after["unknown"]) == ("model", ["i5"], ["new"])
    model = seqrec.load(folders["markov"])
    # of a known user only what came after the events of the training data
    last = cycle_log().filter(user_id="u3")["timestamp"].max()
    stale = {"user_id": "u3", "item_id": "i0", "timestamp": last}
    for timestamp, sequence in ((last, []), (last + 1, ["i0"])):
        service.post("/v1/events", {"events": [stale | {"timestamp": timestamp}]})
        found = service.post("/v1/recommend", {"users": ["u3"], "model": "markov"})["results"][0]
        expected = model.recommend(users=["u3"], sequences=[sequence])
        assert found["items"] == expected["item_id"].to_list()


def test_an_explanation_has_the_history_that_was_read(service):
    asked = {"users": ["u5", "nobody"], "sequences": [["i2", "zzz"], []], "explain": True, "model": "hrm"}
    known, unknown = service.post("/v1/recommend", asked)["results"]
    events = cycle_log().filter(user_id="u5")["item_id"].to_list()
    assert known["history"] == [*events, "i2"]
    assert unknown["history"] == []
    assert service.post("/v1/recommend", asked | {"explain": False})["results"][0]["history"] is None


def test_unknown_items_are_named(service):
    asked = {"sequences": [["i1", "zzz", 7]], "model": "markov", "k": 1}
    found = service.post("/v1/recommend", asked)["results"][0]
    assert (found["items"], found["unknown"]) == (["i2"], ["zzz", 7])
    refused = service.post("/v1/recommend", asked | {"on_unknown": "raise"}, 422)
    assert refused == {
        "error": "no item 'zzz'. on_unknown=ignore leaves it out.",
        "where": "sequences.0",
    }
    assert (
        "Ids here are as 'i"
        in service.post("/v1/recommend", {"sequences": [[7]], "on_unknown": "raise"}, 422)["error"]
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "error", "where"),
    [
        ("recommend", {}, 422, "expected sequences or users, or both. Got neither", None),
        ("recommend", {"sequences": [["i1"]], "k": 51}, 422, "at most 50 items. Got 51", "k"),
        ("recommend", {"sequences": [["i1"]], "k": 0}, 422, "greater than or equal to 1. Got 0", "k"),
        ("recommend", {"sequences": [["i1"]], "k": True}, 422, "valid integer. Got True", "k"),
        ("recommend", {"sequences": [["i1"]] * 21}, 422, "at most 20 histories. Got 21", "sequences"),
        ("recommend", {"sequences": [["i1"] * 31]}, 422, "at most 30 items. Got 31", "sequences.0"),
        ("recommend", {"sequences": [["i1", 1.5]]}, 422, "Got 1.5", "sequences.0.1"),
        ("recommend", {"sequences": ["i1"]}, 422, "valid array. Got 'i1'", "sequences.0"),
        ("recommend", {"users": ["u1"], "sequences": []}, 422, "as many sequences as users", "sequences"),
        ("recommend", {"sequences": [[]], "model": "hrn"}, 404, "Did you mean 'hrm'?", "model"),
        ("recommend", {"sequence": [[]]}, 422, "not permitted", "sequence"),
        ("recommend", ["i1"], 422, "should be an object", "body"),
        ("recommend", {"sequences": [["i1"]], "deny": ["x" * 30_000]}, 413, "at most 20,000 bytes", None),
        ("events", {"events": []}, 422, "at least 1 item", "events"),
        ("events", {"events": [{"user_id": 1, "item_id": "i1"}]}, 422, "a text", "events.0.user_id"),
        ("events", {"events": [{"user_id": "u", "item_id": "i"}] * 31}, 422, "at most 30 events", "events"),
        (
            "events",
            {"events": [{"user_id": "u", "item_id": "i", "timestamp": -1}]},
            422,
            "greater than or equal to 0",
            "events.0.timestamp",
        ),
    ],
)
def test_refusals_say_what_to_do(service, path, body, status, error, where):
    found = service.post(f"/v1/{path}", body, status)
    assert error in found["error"]
    assert found["where"] == where


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"sequences": [["\\ud800"]]}',
        b'{"sequences": [[1e999]]}',
        b'{"sequences": [[NaN]]}',
        b"[" * 15_000,
        b'{"k": ' + b"9" * 10_000 + b"}",
        b'{"sequences": [[' + b"9" * 30 + b"]]}",
        b'{"events": [{"user_id": "\\ud800", "item_id": "x"}]}',
    ],
)
def test_bodies_that_are_none_are_refused(service, body):
    for path in ("/v1/recommend", "/v1/events", "/v1/similar-items"):
        found = httpx.post(service.address + path, content=body, headers={"content-type": "application/json"})
        assert found.status_code in (400, 422), found.text
        assert found.json()["error"]
        assert len(found.text) < 1_000


def test_a_body_that_is_too_large_is_read_far_enough_to_say_so(service):
    for content in (b" " * 150_000, iter([b" " * 50_000] * 3)):
        found = httpx.post(service.address + "/v1/recommend", content=content)
        assert (found.status_code, found.headers["connection"]) == (413, "close")


def test_a_body_without_an_end_is_cut(service):
    def endless():
        while True:
            yield b" " * 10_000

    try:
        found = httpx.post(service.address + "/v1/recommend", content=endless())
        assert found.status_code == 413
    except httpx.TransportError:  # the server hung up while the client was sending
        pass
    assert service.get("/healthz") == {"status": "ok"}


def test_paths_that_are_none(service):
    assert "no such path" in service.get("/v1/nothing", 404)["error"]
    assert "another method" in service.get("/v1/recommend", 405)["error"]


def test_models_items_and_health(service):
    found = service.get("/v1/models")
    assert found["events"]
    assert [(m["name"], m["kind"], m["runs_on"], m["share"]) for m in found["models"]] == [
        ("hrm", "hrm", "torch", 0.5),
        ("markov", "markov", "torch", 0.5),
    ]
    assert all(m["items"] == 12 and m["users"] == 60 and m["filter_seen"] for m in found["models"])
    assert all(m["item_ids"] == m["user_ids"] == "string" for m in found["models"])
    assert service.get("/readyz") == {"status": "ok"}
    items = service.get("/v1/items?q=I1&limit=2")["items"]
    assert len(items) == 2
    assert all(item["item_id"].startswith("i1") for item in items)
    # an id of which others are longer forms comes first, however rare it is
    assert service.get("/v1/items?q=%20i1&limit=4")["items"][0]["item_id"] == "i1"
    assert service.get("/v1/items?limit=0", 422)["where"] == "limit"


def test_metrics(service):
    service.post("/v1/recommend", {"sequences": [["i1"]], "model": "hrm"})
    text = httpx.get(service.address + "/metrics").text
    assert re.search(r'seqrec_requests_total\{path="/v1/recommend",status="200"\} [1-9]', text)
    assert re.search(r'seqrec_batch_histories_count\{model="hrm"\} [1-9]', text)
    assert 'path="other"' in text or "/v1/nothing" not in text


def test_the_examples_of_the_openapi_work(service):
    schema = service.get("/openapi.json")
    tried = 0
    for path, methods in schema["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in body.get("examples", {}).values():
            if path == "/v1/similar-items":
                continue
            service.post(path, example["value"])
            tried += 1
    assert tried >= 3


def test_log_lines_are_json(service):
    service.get("/healthz")
    line = next(x for x in reversed(service.lines) if x.get("path") == "/healthz")
    assert line["status"] == 200
    assert line["ms"] > 0
    assert json.dumps(line)


def test_what_cannot_be_done_now_says_when_to_come_back():
    """Past FastAPI as well."""

    class Broken:
        async def recommend(self, asked):
            raise StorageError("the journal: no space left")

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(Direct(None, Broken()))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post("/v1/recommend", json={"sequences": [["i1"]]})

    found = asyncio.run(post())
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert found.json()["error"] == "the journal: no space left"
