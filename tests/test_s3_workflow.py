"""Everything from the log to the page on S3, as on local files, and nothing on the local disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from conftest import cycle_log
from made_up_results import write_results
from typer.testing import CliRunner

import seqrec
from seqrec import benchmark, read_log, sources, storage
from seqrec.benchmark import leaderboard, runner, worker
from seqrec.cli import app
from seqrec.errors import DataError, SettingsError, StorageError
from seqrec.training.state import TrainingState

RUN = """
data: {path: "${FOLDER}/prepared"}
split: {name: last_n, n: 2}
model: {name: hrm, width: 8, recent: 2}
train: {epochs: 4, batch_positions: 64, patience: 9}
evaluate: {metrics: [recall@1, ndcg@20], filter_seen: false, topk: "${FOLDER}/lists.parquet"}
output: {folder: "${FOLDER}/out"}
"""
TITLES = pl.DataFrame({"item_id": [f"i{i}" for i in range(12)], "title": [f"Film {i}" for i in range(12)]})


@pytest.fixture
def empty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder and a folder of temporary files which hold nothing; and must hold nothing when the
    test ends."""
    folder = tmp_path / "disk"
    for name in ("work", "tmp", "home"):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder / "work")
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert list((folder / "work").iterdir()) == list((folder / "home").iterdir()) == []
    # torch makes itself an empty folder there
    assert [path for path in (folder / "tmp").rglob("*") if path.is_file()] == []


def seqrec_(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def put(path: str, content: bytes) -> None:
    with storage.open_write(path) as stream:
        stream.write(content)


def workflow(folder: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Prepare, train, stop between two epochs, go on, evaluate, recommend; what came out."""
    put(storage.join(folder, "events.csv"), cycle_log().write_csv().encode())
    put(storage.join(folder, "run.yaml"), RUN.encode())
    monkeypatch.setenv("FOLDER", folder)
    seqrec_(
        "-q",
        "prepare",
        storage.join(folder, "events.csv"),
        storage.join(folder, "prepared"),
        "--min-item-count",
        2,
    )
    save = TrainingState.save

    def stopped(run: TrainingState, path: str, fingerprint: str) -> None:
        save(run, path, fingerprint)
        if run.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", stopped)
        command = ["-q", "train", "--conf", storage.join(folder, "run.yaml")]
        assert CliRunner().invoke(app, command).exit_code == 130
    assert storage.names(storage.join(folder, "out")) == ["checkpoint.safetensors"]
    epochs = []

    def counted(run: TrainingState, path: str, fingerprint: str) -> None:
        epochs.append(run.epoch)
        save(run, path, fingerprint)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", counted)
        trained = seqrec_(*command)
    out = storage.join(folder, "out")
    tested = seqrec_(
        "-q",
        "evaluate",
        out,
        "--write-topk",
        storage.join(folder, "again.parquet"),
        "--write",
        storage.join(folder, "table.json"),
    )
    seqrec_("-q", "recommend", out, "-u", "u1", "-k", 2, "--write", storage.join(folder, "items.csv"))
    with storage.open_read(storage.join(folder, "items.csv")) as stream:
        recommended = stream.read()
    assert trained == tested
    assert storage.names(out) == ["checkpoint.safetensors", "metrics.json", "model", "run.json"]
    lists = storage.read_parquet(storage.join(folder, "lists.parquet"))
    assert storage.read_parquet(storage.join(folder, "again.parquet")).equals(lists)
    return {
        "epochs": epochs,
        "metrics": storage.read_json(storage.join(out, "metrics.json")),
        "table": storage.read_json(storage.join(folder, "table.json")),
        "lists": lists.to_dicts(),
        "recommended": recommended,
    }


def test_the_whole_workflow_gives_what_local_files_give(s3_bucket, tmp_path, empty_disk, monkeypatch):
    there = workflow(f"{s3_bucket}/some/folder", monkeypatch)
    assert there["epochs"] == [3, 4]
    assert there == workflow(str(tmp_path / "local"), monkeypatch)


def test_a_log_with_its_tables(s3_bucket, tmp_path, empty_disk):
    put(f"{s3_bucket}/events.csv", cycle_log().write_csv().encode())
    storage.write_parquet(TITLES, f"{s3_bucket}/items.parquet")
    storage.write_text("user_id,age\nu1,30\n", f"{s3_bucket}/users.csv")
    log = read_log(
        f"{s3_bucket}/events.csv", items=f"{s3_bucket}/items.parquet", users=f"{s3_bucket}/users.csv"
    )
    assert log.sequences().item_catalogue.attributes["title"].to_list()[:3] == ["Film 0", "Film 1", "Film 10"]
    model = seqrec.Markov().fit(log)
    model.save(f"{s3_bucket}/model")
    assert "Film 3" in seqrec_("-q", "recommend", f"{s3_bucket}/model", "-s", "i1,i2", "-k", 1)
    assert "60" in seqrec_("data", "check", f"{s3_bucket}/events.csv", "--write", f"{s3_bucket}/check.md")
    assert storage.names(s3_bucket) == ["check.md", "events.csv", "items.parquet", "model", "users.csv"]


def test_a_run_with_a_schema(s3_bucket, empty_disk):
    put(f"{s3_bucket}/events.csv", cycle_log().write_csv().encode())
    put(f"{s3_bucket}/items.csv", TITLES.write_csv().encode())
    storage.write_text("item: [item_id, title]\nsequence: [item_id, title]\n", f"{s3_bucket}/schema.yaml")
    run = f"""
    data: {{path: {s3_bucket}/events.csv, items: {s3_bucket}/items.csv}}
    features: {s3_bucket}/schema.yaml
    model: {{name: hrm, width: 8}}
    train: {{epochs: 1}}
    evaluate: {{filter_seen: false}}
    output: {{folder: {s3_bucket}/out}}
    """
    storage.write_text(run, f"{s3_bucket}/run.yaml")
    assert seqrec_("-q", "train", "--conf", f"{s3_bucket}/run.yaml") == seqrec_(
        "-q", "evaluate", f"{s3_bucket}/out"
    )
    assert seqrec.load(f"{s3_bucket}/out/model").configuration()["features"]["item"] == ["item_id", "title"]


def test_tables_of_samples(s3_bucket, tmp_path, empty_disk, monkeypatch):
    """The same as on the local disk; and where writing them again is cut off, no samples.json says that they
    belong together."""
    for folder in (s3_bucket, str(tmp_path)):
        put(storage.join(folder, "events.csv"), cycle_log(items=40).write_csv().encode())
        run = (
            f"data: {{path: {folder}/events.csv}}\nsplit: {{name: last_n, n: 2}}\noutput: {{folder: "
            f"{folder}/prepared}}\nsamples: {{negatives: 2}}\n"
        )
        storage.write_text(run, storage.join(folder, "prepare.yaml"))
        seqrec_(
            "-q",
            "prepare",
            "--conf",
            storage.join(folder, "prepare.yaml"),
            "--samples",
            storage.join(folder, "samples"),
        )
    there, here = f"{s3_bucket}/samples", tmp_path / "samples"
    assert (
        storage.names(there)
        == storage.names(here)
        == ["item.parquet", "samples.json", "test.parquet", "train.parquet", "validation.parquet"]
    )
    for name in storage.names(here):
        with storage.open_read(f"{there}/{name}") as stream:
            assert stream.read() == (here / name).read_bytes()
    tables = ["train.parquet", "validation.parquet", "test.parquet"]
    log = read_log([f"{there}/{name}" for name in tables], format="samples")
    assert log.frame.equals(read_log([here / name for name in tables], format="samples").frame)
    open_write = storage.open_write

    def cut_off(path: str):
        if path.endswith("test.parquet"):
            raise KeyboardInterrupt
        return open_write(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "open_write", cut_off)
        command = [
            "-q",
            "prepare",
            "--conf",
            f"{s3_bucket}/prepare.yaml",
            "--samples",
            there,
            "samples.negatives=3",
        ]
        assert CliRunner().invoke(app, command).exit_code == 130
    assert storage.names(there) == ["item.parquet", "test.parquet", "train.parquet", "validation.parquet"]


def test_folders_of_known_data_sets(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQREC_CACHE", str(tmp_path / "cache"))
    ml_1m = {
        "ratings.dat": "1::10::5::978300760\n1::11::3::978300761\n2::10::4::978300762\n",
        "movies.dat": "10::Amélie (2001)::Comedy\n11::Heat (1995)::Action|Crime\n",
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    }
    for name, text in ml_1m.items():
        put(f"{s3_bucket}/data/ml-1m/{name}", text.encode("latin-1"))
    for where in (f"{s3_bucket}/data", f"{s3_bucket}/data/ml-1m", f"{s3_bucket}/data/"):
        log = sources.load("ml-1m", data_dir=where)
        assert log.items["title"].to_list() == ["Amélie (2001)", "Heat (1995)"]
        assert log.users["zip_code"].to_list() == [48067, 70072]
        assert (len(log.frame), log.source) == (3, f"{s3_bucket}/data/ml-1m")
    assert read_log(f"{s3_bucket}/data/ml-1m").frame.equals(log.frame)
    monkeypatch.setenv("SEQREC_DATA", f"{s3_bucket}/data")
    assert "3 events" in seqrec_("data", "download", "ml-1m")
    assert "3 events of 2 users and 2 items" in seqrec_("prepare", "ml-1m", f"{s3_bucket}/prepared")
    assert not (tmp_path / "cache").exists()
    with zipfile.ZipFile(tmp_path / "ml-latest-small.zip", "w") as made:
        made.writestr("ml-latest-small/ratings.csv", "userId,movieId,rating,timestamp\n1,10,4.5,978300760\n")
    put(f"{s3_bucket}/data/ml-latest-small.zip", (tmp_path / "ml-latest-small.zip").read_bytes())
    assert len(sources.load("ml-latest-small").frame) == 1
    # the cache alone is local
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ml-latest-small"]
    with pytest.raises(DataError, match="data_dir: expected a folder"):
        sources.load("ml-1m", data_dir=f"{s3_bucket}/nowhere")
    with pytest.raises(StorageError, match="there is no bucket"):
        sources.load("ml-1m", data_dir=f"{s3_bucket}-other")
    with pytest.raises(DataError, match="cache: expected a local folder"):
        sources.load("ml-1m", data_dir=f"{s3_bucket}/data", cache=f"{s3_bucket}/cache")


def test_result_files_leaderboard_and_page(s3_bucket, tmp_path, empty_disk):
    write_results(tmp_path / "results")
    for path in storage.files_below(tmp_path / "results"):
        put(f"{s3_bucket}/results/{Path(path).relative_to(tmp_path / 'results')}", Path(path).read_bytes())
    seqrec_(
        "report",
        f"{s3_bucket}/results",
        "-o",
        f"{s3_bucket}/page.html",
        "--leaderboard",
        f"{s3_bucket}/LEADERBOARD.md",
    )
    with storage.open_read(f"{s3_bucket}/LEADERBOARD.md") as stream:
        assert stream.read().decode() == leaderboard.render(tmp_path / "results")
    with storage.open_read(f"{s3_bucket}/page.html") as stream:
        assert b"</html>" in stream.read()


def test_a_benchmark(s3_bucket, empty_disk, monkeypatch):
    """The protocol, its settings, the data, result files, checkpoints and lists: all on S3."""

    # where torch is imported already
    def in_this_process(command: list[str], input: str, **_: object) -> subprocess.CompletedProcess[str]:
        worker.run_one(json.loads(input))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(run=in_this_process, PIPE=None))
    put(f"{s3_bucket}/log.csv", cycle_log(items=40).write_csv().encode())
    storage.write_text(
        "name: own-v1\ntitle: Own\ndata: {name: log.csv, revision: today}\nsplit: {name: leave_one_out}\n",
        f"{s3_bucket}/own.yaml",
    )
    storage.write_text(
        "model: {name: hrm, width: 8}\ntrain: {epochs: 1}\n", f"{s3_bucket}/configs/own-v1/hrm-small.yaml"
    )
    arguments = {
        "results_dir": f"{s3_bucket}/results",
        "data_dir": s3_bucket,
        "configs": f"{s3_bucket}/configs",
        "topk_dir": f"{s3_bucket}/topk",
    }
    (path,) = benchmark.run(f"{s3_bucket}/own.yaml", seeds=1, progress=False, **arguments)
    assert path == f"{s3_bucket}/results/own-v1/hrm-small/seed-0.json"
    assert storage.read_json(path)["queries"] == 60
    assert storage.files_below(f"{s3_bucket}/results") == [path]  # its checkpoint is gone
    assert storage.names(f"{s3_bucket}/topk/own-v1") == ["hrm-small-seed-0.csv"]
    assert benchmark.run(f"{s3_bucket}/own.yaml", seeds=1, progress=False, **arguments) == [path]


def test_a_mistake_is_one_line(s3_bucket, empty_disk):
    command = [
        sys.executable,
        "-m",
        "seqrec",
        "train",
        "--data",
        f"{s3_bucket}-other/log.csv",
        "--model",
        "markov",
    ]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert run.stderr.startswith(f"error: {s3_bucket}-other/log.csv")
    assert "there is no bucket" in run.stderr


def test_a_run_that_is_stopped_while_it_is_written_is_no_run(s3_bucket, monkeypatch):
    """run.json is there only where model and metrics are those of that run."""
    from seqrec.experiment import judge
    from seqrec.experiment.settings import RunSettings
    from seqrec.experiment.train import train

    put(f"{s3_bucket}/events.csv", cycle_log().write_csv().encode())
    settings = {
        "data": {"path": f"{s3_bucket}/events.csv"},
        "model": {"name": "popularity"},
        "output": {"folder": f"{s3_bucket}/out"},
    }
    train(RunSettings.of(settings, ""))
    before = judge.evaluate(f"{s3_bucket}/out")

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seqrec.tables.Table.write", fails)
        with pytest.raises(KeyboardInterrupt):
            train(RunSettings.of(settings | {"model": {"name": "markov"}}, ""), restart=True)
    assert seqrec.load(f"{s3_bucket}/out/model").name == "markov"
    with pytest.raises(SettingsError, match=r"run\.json"):
        judge.evaluate(f"{s3_bucket}/out")
    train(RunSettings.of(settings, ""))
    assert judge.evaluate(f"{s3_bucket}/out").rows == before.rows
