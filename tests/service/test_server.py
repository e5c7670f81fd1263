"""The process: tokens, limits, reloads under load, signals, and what a kill leaves."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import threading
import time

import httpx
import polars as pl
import pytest
from conftest import cycle_log
from running_service import save_models, serving
from typer.testing import CliRunner

import seqrec
from seqrec.cli import app
from seqrec.errors import SeqrecError
from seqrec.models.markov import Markov
from seqrec.service.events import EventLog


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


ASKED = {"sequences": [["i1"]], "k": 1}


def refused(*arguments) -> str:
    """What a service says that does not start."""
    found = CliRunner().invoke(app, ["serve", "--port", "0", *map(str, arguments)])
    assert isinstance(found.exception, SeqrecError), found.output
    return str(found.exception)


def test_a_token_is_asked_for(folders, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    with serving(folders["markov"], "--token-file", tmp_path / "token") as service:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
            found = httpx.post(service.address + "/v1/recommend", json=ASKED, headers=headers)
            assert found.status_code == 401
            assert found.headers["www-authenticate"] == "Bearer"
            assert httpx.get(service.address + "/metrics", headers=headers).status_code == 401
        service.post("/v1/recommend", ASKED, authorization="Bearer secret")
        assert service.get("/healthz") == {"status": "ok"}
        assert not any("secret" in json.dumps(line) for line in service.lines)


def test_a_new_state_is_loaded_without_losing_a_request(folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folders["markov"], folder)
    backwards = cycle_log().with_columns(timestamp=-pl.col("timestamp") + 10_000)
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                found = client.post(service.address + "/v1/recommend", json=ASKED)
                assert found.status_code == 200, found.text
                answers.append(found.json()["results"][0]["items"][0])

    with (
        serving(f"model={folder}", "--set", "reload_seconds=0.1") as service,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for log, expected in ((backwards, "i0"), (cycle_log(), "i2"), (backwards, "i0")):
                Markov().fit(log, progress=False).save(folder)
                until = time.monotonic() + 30
                while answers[-1:] != [expected] and time.monotonic() < until:
                    time.sleep(0.02)
                assert answers[-1] == expected
            (folder / "model.json").write_text("{")  # not a model: the old one goes on
            until = time.monotonic() + 30
            while not any("was not loaded" in x["message"] for x in service.lines):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert service.post("/v1/recommend", ASKED)["results"][0]["items"] == ["i0"]
            metrics = httpx.get(service.address + "/metrics").text
            assert 'seqrec_reloads_total{loaded="false",model="model"} 1.0' in metrics
            assert 'seqrec_reloads_total{loaded="true",model="model"} 3.0' in metrics
        finally:
            stop.set()
        for one in asking:
            one.result()


def test_too_many_at_once_are_told_so(folders):
    slow = {"sequences": [[f"i{i % 12}" for i in range(5_000)]] * 200, "k": 10, "model": "hrm"}
    with serving(folders["hrm"], "--set", "max_waiting=1", "--set", "max_body=100000000") as service:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            found = list(
                pool.map(
                    lambda _: httpx.post(service.address + "/v1/recommend", json=slow, timeout=60), range(6)
                )
            )
        assert {one.status_code for one in found} == {200, 429}
        busy = next(one for one in found if one.status_code == 429)
        assert busy.headers["retry-after"] == "1"
        assert "Try again soon" in busy.json()["error"]
        service.post("/v1/recommend", ASKED)


def test_it_stops_after_the_requests_that_it_has(folders):
    many = {"sequences": [[f"i{i % 12}" for i in range(3_000)]] * 300, "k": 10}
    limits = [f"--set={x}" for x in ("drain_seconds=0.5", "max_body=10000000")]
    with serving(folders["hrm"], *limits) as service, concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, service.address + "/v1/recommend", json=many, timeout=60)
        while "seqrec_requests_in_progress 1.0" not in httpx.get(service.address + "/metrics").text:
            assert not asked.done()
        service.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(httpx.TransportError):  # it may have stopped already
            assert httpx.get(service.address + "/readyz").status_code == 503
        assert asked.result().status_code == 200
        assert service.process.wait(20) == 0
        assert not any("traceback" in line for line in service.lines)


def test_a_kill_loses_no_acknowledged_event(folders, tmp_path):
    acknowledged: list[str] = []
    for _ in range(2):
        with serving(folders["markov"], "--events", tmp_path / "events") as service:

            def send(worker: int, service=service) -> None:
                with contextlib.suppress(httpx.TransportError), httpx.Client() as client:
                    for number in range(10_000):
                        item = f"{service.process.pid}-{worker}-{number}"
                        body = {"events": [{"user_id": "ann", "item_id": item}]}
                        if client.post(service.address + "/v1/events", json=body).status_code == 200:
                            acknowledged.append(item)

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                sending = [pool.submit(send, worker) for worker in range(4)]
                before = len(acknowledged)
                while len(acknowledged) < before + 50:
                    time.sleep(0.005)
                service.process.kill()
                for one in sending:
                    one.result()
    log = EventLog(tmp_path / "events")
    kept = set(log.live.after("ann", 0.0))
    log.close()
    assert len(acknowledged) >= 100
    assert not set(acknowledged) - kept
    assert not list((tmp_path / "events").glob("journal-*"))


def test_what_cannot_be_served_is_said_in_a_line(folders, tmp_path):
    assert "expected the folder of a trained model" in refused(tmp_path)
    assert "each with a name of its own" in refused(folders["hrm"], folders["hrm"])
    assert "sum to 1" in refused(folders["hrm"], "--share", "hrm=0.5")
    assert "unknown setting. Did you mean 'max_k'" in refused(folders["hrm"], "--set", "max_kk=3")
    assert "Got an empty file" in refused(folders["hrm"], "--token-file", "/dev/null")
    log = EventLog(tmp_path / "events")
    assert "events" in refused(folders["markov"], "--events", tmp_path / "events")
    log.close()


def test_an_exported_model_is_served_without_torch(folders, tmp_path):
    expected = seqrec.load(folders["hrm"])
    expected.export_onnx(tmp_path / "onnx")
    (tmp_path / "no" / "torch").mkdir(parents=True)
    (tmp_path / "no" / "torch" / "__init__.py").write_text("raise ImportError('torch is not here')")
    path = os.pathsep.join([str(tmp_path / "no"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with serving(tmp_path / "onnx", PYTHONPATH=path) as service:
        assert service.get("/v1/models")["models"][0]["runs_on"] == "onnx"
        for asked in ({"sequences": [["i1", "i2"], []]}, {"users": ["u3", "nobody"]}):
            frame = expected.recommend(**asked, on_unknown="ignore")
            found = service.post("/v1/recommend", asked)["results"]
            assert [x for one in found for x in one["items"]] == frame["item_id"].to_list()
            scores = [x for one in found for x in one["scores"]]
            assert scores == pytest.approx(frame["score"].to_list(), abs=1e-5)
        similar = service.post("/v1/similar-items", {"items": ["i1", "zzz"], "k": 3})["results"]
        assert similar[0]["items"] == expected.similar_items(["i1"], k=3)["similar_id"].to_list()
        assert not similar[1]["known"]
