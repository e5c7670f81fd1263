"""Runs on a small log of one's own: whole result files, resumed, and refused where they must be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from warm_seqrec import warm_seqrec

from seqrec import benchmark, models, report
from seqrec.benchmark import leaderboard, provenance, results, runner, worker
from seqrec.errors import DataError, SettingsError, TrainingError
from seqrec.evaluation import lists, metrics, ranking
from seqrec.experiment.protocol import read_protocol, read_sequences
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.storage import lock
from seqrec.testing import sequences_of

PROTOCOL = """
name: own-v1
title: A log of one's own
data: {name: log.csv, revision: today}
split: {name: leave_one_out}
headline: [recall@5]
"""
IN_TIME = """
name: own-time-v1
title: A log of one's own, cut in time
data: {name: log.csv, revision: today}
split: {name: global_temporal, validation_cut: 0.7, test_cut: 0.85, targets: last}
variants: {successive: {split: {targets: successive}}}
filter_seen: false
retrain: true
"""


@pytest.fixture(scope="module", autouse=True)
def workers(tmp_path_factory):
    """The workers start at once, but for those of tests that end what they started themselves."""
    with warm_seqrec(tmp_path_factory.mktemp("bin")) as place, pytest.MonkeyPatch.context() as patch:
        parent = int((Path(place) / "pid").read_text())

        def run(command, *, input, **more):
            assert command == [sys.executable, "-m", "seqrec.benchmark.worker"]
            request = json.dumps(json.loads(input) | {"parent": parent})
            return subprocess.run([f"{place}/seqrec", "worker"], input=request, **more)

        patch.setattr(runner, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log in which the next item is mostly the last one plus one, two protocols, settings, and their
    results."""
    folder = tmp_path_factory.mktemp("benchmark")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        start, when = rng.integers(0, 40), rng.uniform(0, 500)
        rows += [
            (f"u{user}", int(start + step) % 40, int(1e9 + when * 10 + 100 * step)) for step in range(12)
        ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")
    (folder / "own.yaml").write_text(PROTOCOL)
    (folder / "time.yaml").write_text(IN_TIME)
    for name in ("own-v1", "own-time-v1"):
        (folder / "configs" / name).mkdir(parents=True)
        (folder / "configs" / name / "gru4rec-small.yaml").write_text(
            "model: {name: gru4rec, width: 8, hidden: 8}\nloss: softmax\ntrain: {epochs: 2, "
            "batch_positions: 64}\n"
        )
        (folder / "configs" / name / "popularity.yaml").write_text("model: popularity\n")
    arguments = {
        "results_dir": folder / "results",
        "data_dir": folder,
        "configs": folder / "configs",
        "progress": False,
        "threads": 1,
    }
    benchmark.run(folder / "own.yaml", seeds=1, **arguments)
    benchmark.run(folder / "time.yaml", ["gru4rec-small"], seeds=[5], **arguments)
    return folder


def run(folder, **changes):
    arguments = {
        "results_dir": folder / "results",
        "data_dir": folder,
        "configs": folder / "configs",
        "progress": False,
        **changes,
    }
    return benchmark.run(arguments.pop("protocol", folder / "own.yaml"), **arguments)


def result(folder, protocol="own-v1", label="gru4rec-small", seed=0) -> results.Result:
    return results.Result.read(folder / "results" / protocol / label / f"seed-{seed}.json")


def test_a_result_file_has_every_key_and_no_seed_path_or_date_in_its_settings(folder):
    r = result(folder)
    assert set(results.REQUIRED) <= set(r.content)
    assert (r["protocol"], r["model"], r["seed"], r["filter_seen"]) == ("own-v1", "gru4rec-small", 0, True)
    assert (r["users"], r["items"], r["queries"]) == (60, 40, 60)
    assert set(r["metrics"]["ndcg@10"]) == {"mean", "low", "high"}
    assert (
        {f"{m}@{k}" for m in metrics.BY_NAME for k in (1, 5, 10, 20)}
        == set(r["metrics"])
        == set(r["metrics_unfiltered"])
        == set(r["validation_metrics"])
    )
    assert r["settings"]["model"] == "gru4rec"
    assert r["settings"]["train"]["epochs"] == 2
    assert "seed" not in json.dumps(r["settings"])
    assert str(folder) not in json.dumps(r.content)
    assert {"ties", "ties_unfiltered"} <= set(r.content)
    assert len(r["curve"]) == 2
    assert r["train_seconds"] > 0
    assert r["positions_per_second"] > 0
    assert 50 < r["peak_memory_mb"] < 4000
    assert sum(b["queries"] for b in r["by_history_length"]) == 60
    assert len(r["examples"][0]["recommended"]) == 5
    assert not list((folder / "results").rglob("*.safetensors")), "the checkpoint of a finished run stays"


def test_it_says_what_evaluation_says(folder):
    protocol = read_protocol(folder / "own.yaml")
    split = protocol.apply(read_sequences(protocol.data, protocol.ties, str(folder))[0])
    ranks = ranking.rank(models.get("popularity")().fit(split), split, split.test)
    r = result(folder, label="popularity")
    assert np.array_equal(r.ranks(True), ranks.filtered)
    assert np.array_equal(r.ranks(False), ranks.unfiltered)
    assert r["split_hash"] == split.hash
    assert r["metrics"]["recall@5"]["mean"] == pytest.approx(metrics.recall(ranks.filtered, 5).mean())
    assert r["positions_per_second"] is None


def test_lists_of_people_who_have_seen_everything_are_not_described():
    split = leave_one_out(sequences_of([np.array([0, 1, 0, 1])] * 2, 2))
    model = models.get("popularity")().fit(split)
    ranks = ranking.rank(model, split, split.test)
    assert worker.describe_lists(ranks, split, filter_seen=True) == {}
    assert worker.describe_lists(ranks, split, filter_seen=False)["coverage@10"] == 1


def test_variants_are_measured_and_the_model_is_trained_again(folder):
    r = result(folder, "own-time-v1", seed=5)
    assert not r["filter_seen"]
    for key, filtered in (("metrics", False), ("metrics_filtered", True)):
        assert r[key]["recall@5"]["mean"] == pytest.approx(metrics.recall(r.ranks(filtered), 5).mean())
    assert r["metrics"] != r["metrics_filtered"]
    assert {"metrics", "metrics_filtered", "metrics_successive", "metrics_filtered_successive"} <= set(
        r.content
    )
    assert r["queries_successive"] > r["queries"]
    assert r["retrained"]
    assert r["retrain_seconds"] > 0
    assert len(r.ranks(False, "successive")) == r["queries_successive"]
    assert r["split_hash_successive"] != r["split_hash"]


def test_a_row_that_is_trained_again_where_others_are_not(folder, tmp_path):
    """Popularity then counts the validation events, too."""
    again = tmp_path / "again.yaml"
    again.write_text("model: {name: popularity}\nretrain: true\n")
    arguments = {"results_dir": tmp_path / "results", "seeds": 1}
    own = {"popularity-retrained": again}
    run(folder, models=["popularity", "popularity-retrained"], own=own, **arguments)
    path = tmp_path / "results" / "own-v1" / "popularity-retrained" / "seed-0.json"
    r = results.Result.read(path)
    assert r["retrained"]
    assert r["settings"]["retrain"] is True
    before = path.read_bytes()
    run(folder, models=["popularity-retrained"], own=own, **arguments)
    assert path.read_bytes() == before, "run again though it was done"
    protocol = read_protocol(folder / "own.yaml")
    split = protocol.apply(read_sequences(protocol.data, protocol.ties, str(folder))[0])
    counted = models.get("popularity")().fit(split.retrain())
    ranks = ranking.rank(counted, split.retrain(), split.test)
    assert np.array_equal(r.ranks(True), ranks.filtered)
    assert not np.array_equal(r.ranks(True), result(folder, label="popularity").ranks(True))
    leaderboard.write(tmp_path / "results", tmp_path / "L.md")
    text = (tmp_path / "L.md").read_text()
    assert "After selection only popularity-retrained was trained again" in text


def test_what_is_done_is_not_run_again(folder, monkeypatch):
    monkeypatch.setattr(runner.subprocess, "run", lambda *a, **k: pytest.fail("ran again"))
    before = (folder / "results" / "own-v1" / "popularity" / "seed-0.json").read_bytes()
    paths = run(folder, seeds=1)
    assert [path.split("results/")[1] for path in paths] == [
        "own-v1/popularity/seed-0.json",
        "own-v1/gru4rec-small/seed-0.json",
    ]
    assert (folder / "results" / "own-v1" / "popularity" / "seed-0.json").read_bytes() == before


def test_what_an_older_result_does_not_know_was_not_set(folder, monkeypatch):
    """A setting that came later is None where it is not set; results written before it are done all the
    same."""
    monkeypatch.setattr(runner.subprocess, "run", lambda *a, **k: pytest.fail("ran again"))
    path = folder / "results" / "own-v1" / "gru4rec-small" / "seed-0.json"
    content = json.loads(path.read_text())
    kept = path.read_bytes()
    del content["digest"]  # which those results did not have
    try:
        assert content["settings"]["train"].pop("tables", "absent") is None
        path.write_text(json.dumps(content))
        run(folder, models=["gru4rec-small"], seeds=1)
        content["settings"]["train"]["tables"] = {"l1": 1.0}
        path.write_text(json.dumps(content))
        with pytest.raises(pytest.fail.Exception, match="ran again"):
            run(folder, models=["gru4rec-small"], seeds=1)
    finally:
        path.write_bytes(kept)


def test_other_settings_another_split_or_another_seed_run(folder, monkeypatch, tmp_path):
    started = []

    class Done:
        returncode = 0
        stderr = ""

    monkeypatch.setattr(
        runner.subprocess, "run", lambda command, input, **k: started.append(json.loads(input)) or Done()
    )
    run(folder, models=["gru4rec-small"], seeds=[0, 1])
    assert [s["seed"] for s in started] == [1]
    (tmp_path / "own-v1").mkdir()
    (tmp_path / "own-v1" / "gru4rec-small.yaml").write_text("model: {name: gru4rec, width: 16}\n")
    run(folder, models=["gru4rec-small"], seeds=1, configs=tmp_path)
    assert started[-1]["config"]["model"]["width"] == 16
    pinned = tmp_path / "pinned.yaml"
    pinned.write_text(PROTOCOL + "split_hash: '0123456789abcdef'\n")
    run(folder, protocol=pinned, models=["popularity"], seeds=1)
    assert len(started) == 3
    run(folder, models=["popularity"], seeds=1, again=True)
    assert len(started) == 4


def test_a_failing_run_is_named_and_the_others_are_done(folder, tmp_path):
    pinned = tmp_path / "pinned.yaml"
    pinned.write_text(PROTOCOL + "split_hash: '0123456789abcdef'\n")
    with pytest.raises(
        TrainingError,
        match=r"1 of 1 runs failed: popularity, seed 0 \(error: own-v1: expected data that gives the split "
        "0123456789abcdef",
    ):
        run(folder, protocol=pinned, models=["popularity"], seeds=1, results_dir=tmp_path / "results")


def test_settings_are_checked_before_anything_runs(folder, tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'popularity'"):
        run(folder, models=["populrity"])
    (tmp_path / "own-v1").mkdir()
    config = tmp_path / "own-v1" / "gru4rec.yaml"
    config.write_text("model: {name: gru4rec, widht: 3}\n")
    with pytest.raises(SettingsError, match="widht"):
        run(folder, models=["gru4rec"], configs=tmp_path)
    for section, key in (("fit", "seed"), ("train", "filter_seen")):
        config.write_text(f"model: gru4rec\n{section}: {{{key}: 3}}\n")
        with pytest.raises(SettingsError, match=f"{section}.{key}: set by the protocol or the run"):
            run(folder, models=["gru4rec"], configs=tmp_path)
    config.write_text("model: popularity\nloss: softmax\n")
    with pytest.raises(SettingsError, match="not trained by gradient"):
        run(folder, models=["gru4rec"], configs=tmp_path)
    with pytest.raises(SettingsError, match="has no settings files"):
        run(folder, configs=tmp_path / "none")


@pytest.mark.parametrize("protocol", benchmark.names())
def test_every_shipped_settings_file_makes_a_model(protocol):
    declared = read_protocol(protocol)
    labels = runner.labels(protocol)
    assert labels[0] == "popularity"
    assert len(labels) >= 4
    for label in labels:
        config = runner.read_config(protocol, label)
        assert runner.settings_of(runner.recipe_of(declared, label, config).make(), config)["model"]


def test_provenance():
    assert "cores" in provenance.hardware()
    assert {"python", "torch", "numpy"} <= set(provenance.libraries())
    assert provenance.peak_memory_mb() > 50
    assert provenance.commit()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{folder}", "data"),
        ("{folder}, unpacked in {folder}/cache", "data"),
        (
            "the copy in a wheel (wheel==1.2.1, wheel/ml-100k/)",
            "the copy in a wheel (wheel==1.2.1, wheel/ml-100k/)",
        ),
        (
            "the cache {folder}, from the copy in a wheel (wheel/ml-100k/)",
            "the copy in a wheel (wheel/ml-100k/)",
        ),
        (
            "the cache {folder}, from https://publisher.example/ml-100k.zip",
            "https://publisher.example/ml-100k.zip",
        ),
        ("s3://bucket/data", "s3://bucket/data"),
    ],
)
def test_results_say_where_data_came_from_without_folders_of_the_machine(source, expected, tmp_path):
    (tmp_path / "data").mkdir()
    assert worker.source_of(source.format(folder=tmp_path / "data")) == expected


def test_top_k_lists_of_each_run(folder, tmp_path):
    run(folder, models=["gru4rec-small"], seeds=[0], again=True, topk_dir=tmp_path)
    protocol = read_protocol(folder / "own.yaml")
    split = protocol.apply(read_sequences(protocol.data, protocol.ties, str(folder))[0])
    scored = lists.score(tmp_path / "own-v1" / "gru4rec-small-seed-0.csv", split)
    assert scored.without_list == 0
    assert scored.metrics()["ndcg@10"].mean() == pytest.approx(result(folder)["metrics"]["ndcg@10"]["mean"])


def test_results_of_another_split_are_never_passed_off_as_done(folder, tmp_path):
    """A protocol without a pinned hash: its data is read, and where it has changed the results are refused or
    replaced."""
    (tmp_path / "log.csv").write_text((folder / "log.csv").read_text())
    own = tmp_path / "own.yaml"
    own.write_text(PROTOCOL)
    changed = {"protocol": own, "results_dir": tmp_path / "results", "models": ["popularity"], "seeds": 1}
    (path,) = run(folder, **changed)
    old = results.Result.read(path)["split_hash"]
    (tmp_path / "log.csv").write_text((folder / "log.csv").read_text() + "u0,7,1999999999\n")
    now = read_protocol(own).apply(read_sequences(read_protocol(own).data, "file", None)[0]).hash
    assert now != old
    with pytest.raises(
        DataError, match=rf"seed-0.json: expected .* {now}. Got one of {old}.*--again .*--results"
    ):
        run(folder, **changed)
    with pytest.raises(DataError, match=f"Got one of {old}"):  # other seeds would stand beside it
        run(folder, **changed | {"seeds": [1]}, again=True)
    run(folder, **changed, again=True)
    assert results.Result.read(path)["split_hash"] == now
    with_old = [
        results.Result({**results.Result.read(path).content, "seed": 1, "split_hash": old}, "seed-1.json")
    ]
    for make in (leaderboard.render, report.render):
        with pytest.raises(
            DataError, match=r"split_hash: expected '\w+' as in the other results of own-v1. Got"
        ):
            make([path, *with_old])


def test_an_own_protocol_reads_columns_and_titles_and_rows_have_own_settings(tmp_path, caplog):
    rows = [(f"c{u}", f"s{(u + t) % 9}", 1_000_000_000 + t // 2) for u in range(40) for t in range(8)]
    pl.DataFrame(rows, schema=["customer", "sku", "bought"], orient="row").write_csv(tmp_path / "log.csv")
    titles = [(f"s{i}", f"Thing {i}") for i in range(9)]
    pl.DataFrame(titles, schema=["item_id", "title"], orient="row").write_csv(tmp_path / "titles.csv")
    (tmp_path / "own.yaml").write_text(
        "name: mine-v1\ntitle: Mine\nsplit: {name: leave_one_out}\n"
        "data: "
        "{name: log.csv, revision: today, min_user_count: 2, until_stable: true, read: {items: titles.csv, "
        "columns: {user_id: customer, item_id: sku, timestamp: bought}}}\n"
    )
    (tmp_path / "k.yaml").write_text("model: {name: item_knn}\n")
    arguments = {
        "results_dir": tmp_path / "results",
        "own": {"item_knn-mine": tmp_path / "k.yaml"},
        "overrides": {"markov": ["model.name=markov"], "item_knn-mine": ["model.neighbours=5"]},
        "progress": False,
    }
    first = benchmark.run(tmp_path / "own.yaml", ["popularity"], 1, **arguments)
    assert [p.split("/")[-2] for p in first] == ["popularity", "item_knn-mine", "markov"]
    assert "of the events share their second" in caplog.text
    mine = results.Result.read(first[1])
    assert mine["settings"]["neighbours"] == 5
    assert mine.examples[0]["recommended"][0].startswith("Thing")
    # lists of finished runs: they are run again, once
    lists = tmp_path / "lists"
    benchmark.run(tmp_path / "own.yaml", ["popularity"], 1, **arguments, topk_dir=lists)
    written = sorted(lists.rglob("*.csv"))
    assert len(written) == 3
    before = [path.stat().st_mtime_ns for path in written]
    benchmark.run(tmp_path / "own.yaml", ["popularity"], 1, **arguments, topk_dir=lists)
    assert [path.stat().st_mtime_ns for path in written] == before
    with pytest.raises(SettingsError, match="neighbour"):
        benchmark.run(tmp_path / "own.yaml", [], 1, overrides={"item_knn": ["model.neighbour=5"]})


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
def test_ending_a_benchmark_ends_its_worker_and_says_how_to_go_on(folder, tmp_path, ended_by):
    (tmp_path / "configs" / "own-v1").mkdir(parents=True)
    (tmp_path / "configs" / "own-v1" / "hrm.yaml").write_text(
        "model: hrm\ntrain: {epochs: 100000, patience: 100000}\n"
    )
    program = (
        "import sys; from seqrec import benchmark; sys.tracebacklimit = 0; "
        f"benchmark.run({str(folder / 'own.yaml')!r}, ['hrm'], 1, {str(tmp_path / 'results')!r}, "
        f"configs={str(tmp_path / 'configs')!r}, progress=False)"
    )
    place = tmp_path / "results" / "own-v1" / "hrm"
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        begin = time.monotonic()
        while not list(place.glob("*.safetensors")) and time.monotonic() - begin < 100:
            time.sleep(0.1)
        # Ctrl-C reaches all processes of a terminal
        os.killpg(process.pid, ended_by) if ended_by == signal.SIGINT else process.send_signal(ended_by)
        _, said = process.communicate(timeout=30)
    assert "Stopped. The same command goes on from the last complete epoch." in said
    assert "worker" not in said
    assert process.returncode in (143, -signal.SIGINT, 130)
    with lock.held(place, ".seed-0.lock"):  # nobody trains there any more
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_worker_whose_parent_was_killed_before_it_began_does_nothing(folder, tmp_path):
    program = (
        "from seqrec import benchmark; "
        f"benchmark.run({str(folder / 'own.yaml')!r}, ['popularity'], 1, {str(tmp_path / 'results')!r}, "
        "progress=False)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        begin = time.monotonic()
        while not (workers := children.read_text().split()) and time.monotonic() - begin < 100:
            time.sleep(0.01)
        process.kill()
    while Path(f"/proc/{workers[0]}/cmdline").exists() and time.monotonic() - begin < 200:
        time.sleep(0.1)
    assert not (tmp_path / "results").exists()
