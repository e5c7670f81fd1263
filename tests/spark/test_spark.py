"""The engine Spark on this machine (``local[2]``): what one machine writes and recommends, byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import cycle_log, ring_sequences
from typer.testing import CliRunner

import seqrec
from seqrec.cli import app
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError, UnknownIdError
from seqrec.experiment.settings import RunSettings
from seqrec.experiment.train import train
from seqrec.experiment.tune import tune
from seqrec.sources import preparing
from seqrec.spark import session as sessions

pytest.importorskip("pyspark", reason="needs the extra spark: pip install 'seqrec[spark]'")
pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="needs Java 17, which Spark runs on"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def spark():
    with sessions.session("local[2]", partitions=2) as running:
        yield running


def log(rows: int = 2000, **columns: Any) -> pl.DataFrame:
    """Many ties: few seconds, few users, some events twice."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 90, rows), rng.integers(0, 60, rows) ** 2
    frame = pl.DataFrame(
        {"user_id": users * 7, "item_id": items, "timestamp": 1_500_000_000 + rng.integers(0, 50, rows)}
    )
    return frame.with_columns(**columns)


def state(folder: Path) -> dict[str, Any]:
    """The content of a prepared folder: the checksum of each file, and what the manifest says of them."""
    about = json.loads((folder / "sequences.json").read_text())
    return {
        name: about[name] for name in ("sha256", "bytes", "users", "items", "events", "columns", "format")
    }


def parquet(frame: pl.DataFrame, folder: Path) -> str:
    """Parts, as Spark itself writes them."""
    folder.mkdir()
    for part, begin in enumerate(range(0, len(frame), 701)):
        frame[begin : begin + 701].write_parquet(folder / f"part-{part:05d}.parquet")
    return str(folder)


def csv(frame: pl.DataFrame, folder: Path) -> list[str]:
    """Text ids that are numbers, two files."""
    folder.mkdir()
    for number, part in enumerate((frame[:1300], frame[1300:])):
        part.write_csv(folder / f"{number}.csv")
    return [str(folder / "0.csv"), str(folder / "1.csv")]


def lines(frame: pl.DataFrame, folder: Path) -> str:
    folder.mkdir()
    frame.write_ndjson(folder / "log.jsonl")
    return str(folder / "log.jsonl")


TEXT = {"user_id": pl.format("u{}", "user_id"), "item_id": pl.format("é{}", "item_id")}
RATED = {"rating": pl.int_range(pl.len()) % 9 / 2}
BASKETS = {
    "basket_id": pl.format("b{}", pl.int_range(pl.len()) % 40),
    "session_id": pl.int_range(pl.len()) // 5,
}
FRACTIONS = {"timestamp": pl.col("timestamp") + pl.int_range(pl.len()) % 4 / 4}
MILLISECONDS = {"timestamp": pl.col("timestamp") * 1000 + pl.int_range(pl.len()) % 3}
DATES = {"timestamp": pl.from_epoch("timestamp")}
FLOATS = {
    "item_id": pl.when(pl.int_range(pl.len()) % 2 == 0)
    .then(pl.format("{}.0", "item_id"))
    .otherwise("item_id")
}
CASES = {
    "Parquet parts, ties": (parquet, {}, {}, 3),
    "CSV, minima until stable, duplicates": (
        csv,
        RATED,
        {"min_item_count": 24, "min_user_count": 12, "until_stable": True, "duplicates": "drop"},
        7,
    ),
    "JSON Lines, text ids, baskets": (lines, TEXT | BASKETS, {}, 2),
    "CSV, 7 and 7.0, fractions of seconds": (csv, FLOATS | FRACTIONS, {}, 1),
    "Parquet, milliseconds, baskets of a day": (parquet, MILLISECONDS, {"basket": "same_day"}, 2),
    "Parquet, dates, some rows": (parquet, DATES | RATED, {"where": "rating > 1"}, 2),
    "CSV, no times, positions": (
        csv,
        {"position": pl.int_range(pl.len()) % 11, "timestamp": None},
        {"columns": {"timestamp": None}},
        2,
    ),
}


@pytest.mark.parametrize(("write", "columns", "options", "shards"), CASES.values(), ids=CASES)
def test_prepared_as_on_one_machine(spark, write, columns, options, shards, tmp_path):
    from seqrec.spark import prepare

    path = write(log(**columns), tmp_path / "log")
    preparing.prepare(path, tmp_path / "local", **options)
    found = prepare.prepare(spark, path, tmp_path / "spark", shards=shards, **options)
    assert state(tmp_path / "spark") == state(tmp_path / "local")
    assert found.events == Sequences.load(tmp_path / "local").events
    assert not [path for path in (tmp_path / "spark").iterdir() if path.name.startswith("piece")]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"tie_order": "random"}, "data.tie_order: expected file with the engine spark"),
        ({}, {"basket": "same_week"}, "basket: expected 'same_time' or 'same_day'"),
        ({}, {"min_item_count": 10_000}, "no event of .* is left"),
        ({"timestamp": 20200101 + pl.int_range(pl.len()) % 28}, {}, "may be dates"),
        ({"position": pl.int_range(pl.len())}, {}, "expected times or positions"),
        (
            {"item_id": pl.when(pl.int_range(pl.len()) != 1500).then("item_id")},
            {},
            "row 99, column 'item_id': missing id",
        ),
    ],
)
def test_what_the_cluster_cannot_prepare_is_refused(spark, columns, options, message, tmp_path):
    from seqrec.spark import prepare

    path = parquet(log(**columns), tmp_path / "log")
    with pytest.raises((SettingsError, DataError), match=message):
        prepare.prepare(spark, path, tmp_path / "spark", **options)
    assert not (tmp_path / "spark" / "sequences.json").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "model"
    seqrec.Markov().fit(ring_sequences(users=80, items=30)).save(folder)
    return str(folder)


def histories(users: int = 50) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    lists = [[f"i{x}" for x in rng.integers(0, 33, rng.integers(0, 9))] for _ in range(users)]
    return pl.DataFrame({"user_id": [f"p{u}" for u in range(users)], "history": lists})


@pytest.mark.parametrize("rows", ["lists", "items"])
def test_recommended_as_on_one_machine(spark, model, rows, tmp_path):
    from seqrec.experiment.recommend import Choice
    from seqrec.serving import batch
    from seqrec.spark import recommend

    histories()[:20].write_parquet(tmp_path / "a.parquet")
    source, local, target = tmp_path / "all.parquet", tmp_path / "local.parquet", tmp_path / "spark.parquet"
    histories().write_parquet(source)
    batch.recommend(
        seqrec.load(model), str(source), str(local), k=5, rows=rows, on_unknown="ignore", progress=False
    )
    count = recommend.recommend_file(spark, model, str(source), str(target), Choice(k=5), rows=rows)
    assert count == 50
    expected, found = pl.read_parquet(local), pl.read_parquet(target / "*.parquet")
    keys = ["user_id"] if rows == "lists" else ["user_id", "rank"]
    assert found.sort(keys).select(expected.columns).equals(expected.sort(keys))
    with pytest.raises(SettingsError, match="a folder that is not there"):
        recommend.recommend_file(spark, model, str(source), str(target), Choice())


def test_what_a_worker_refuses_is_said_here(spark, model, tmp_path):
    from seqrec.experiment.recommend import Choice
    from seqrec.spark import recommend

    histories().write_parquet(tmp_path / "all.parquet")
    files = str(tmp_path / "all.parquet"), str(tmp_path / "out.parquet")
    with pytest.raises(UnknownIdError, match="the model does not know the item 'i3"):
        recommend.recommend_file(spark, model, *files, Choice(), on_unknown="raise")
    with pytest.raises(DataError, match="no such file"):
        recommend.recommend_file(spark, model, "nowhere.parquet", files[1], Choice())
    with pytest.raises(SettingsError, match=r"a name that ends in .parquet"):
        recommend.recommend_file(spark, model, files[0], "out.csv", Choice())


def test_a_table_of_users_and_what_is_no_table(spark, model):
    from seqrec.spark import recommend

    users = spark.createDataFrame([(f"u{u}",) for u in range(0, 80, 9)], "user_id string")
    found = recommend.recommend(users, model, k=3, rows="items").toPandas().sort_values(["user_id", "rank"])
    expected = (
        seqrec.load(model).recommend(users=[f"u{u}" for u in range(0, 80, 9)], k=3).sort("user_id", "rank")
    )
    assert found["item_id"].tolist() == expected["item_id"].to_list()
    rows = spark.createDataFrame([("u1", "i1")], "user_id string, item_id string")
    with pytest.raises(DataError, match=r"a row a history. Got a row an event"):
        recommend.recommend(rows, model)
    with pytest.raises(DataError, match="expected the folder of a trained model"):
        recommend.recommend(users, "nowhere")


def run_of(folder: Path, data: Path, **more: Any) -> dict[str, Any]:
    model = {"name": "sasrec", "width": 8, "blocks": 1, "length": 8}
    content = {
        "data": {"path": str(data)},
        "model": model,
        "output": {"folder": str(folder)},
        "fit": {"threads": 1},
    }
    return content | {"train": {"epochs": 2, "streams": 2, "batch_positions": 128}} | more


def test_trained_as_on_one_machine(spark, tmp_path):
    from seqrec.spark import train as on_spark

    log = tmp_path / "log.csv"
    cycle_log().write_csv(log)
    engine = {"name": "spark", "master": "local[2]", "processes": 2}
    run = RunSettings.of(run_of(tmp_path / "spark", log, engine=engine), "")
    with pytest.raises(SettingsError, match=r"engine.name: expected local here"):
        train(run)
    table = on_spark.train(spark, run, 2)
    _, expected = train(RunSettings.of(run_of(tmp_path / "local", log), ""), progress=False)
    assert (table.columns, table.rows) == (expected.columns, expected.rows)
    files = [
        sorted(p.read_bytes() for p in (tmp_path / n / "model").glob("*.safetensors"))
        for n in ("spark", "local")
    ]
    assert files[0] == files[1]
    assert "engine" not in json.loads((tmp_path / "spark" / "run.json").read_text())
    assert on_spark.evaluate(spark, str(tmp_path / "local"), 2).rows == expected.rows
    wrong = RunSettings.of(run_of(tmp_path / "other", tmp_path / "missing.csv"), "")
    with pytest.raises(DataError, match=r"missing.csv"):
        on_spark.train(spark, wrong, 2)
    with pytest.raises(SettingsError, match="a multiple of the 3 processes"):
        on_spark.train(spark, run, 3)


def test_on_the_command_line(spark, model, tmp_path):
    """With the session that runs here."""
    frame = tmp_path / "log.csv"
    log().write_csv(frame)
    histories().write_parquet(tmp_path / "histories.parquet")
    out, spark_options = tmp_path / "out", ["--engine", "spark", "--master", "local[2]"]
    found = CliRunner().invoke(app, ["prepare", str(frame), str(out), *spark_options, "--shards", "2"])
    assert "2,000 events of 90 users" in found.output
    preparing.prepare(str(frame), tmp_path / "local")
    assert state(out) == state(tmp_path / "local")
    files = ["--input", str(tmp_path / "histories.parquet"), "--output", str(tmp_path / "recs.parquet")]
    found = CliRunner().invoke(app, ["recommend", model, *files, *spark_options])
    assert "50 histories" in found.output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["prepare", "LOG", "out", "--master", "local"], "--master: cannot be given without --engine spark"),
        (
            ["train", "--data", "LOG", "--processes", "2"],
            "--processes: cannot be given without --engine spark",
        ),
        (["recommend", "LOG", "--engine", "spark"], "--engine: expected a trained model, --input"),
        (
            ["evaluate", "LOG", "--protocol", "ml-1m-leave-one-out-v1", "--engine", "spark"],
            "--engine: a file of lists",
        ),
        (["prepare", "LOG", "out", "--engine", "sparc"], "engine.name"),
    ],
)
def test_options_that_say_nothing_are_refused(command, message, ring_csv):
    found = CliRunner().invoke(app, [str(ring_csv) if part == "LOG" else part for part in command])
    assert isinstance(found.exception, SettingsError)
    assert message in str(found.exception)


def test_a_search_runs_on_one_machine(ring_csv, tmp_path):
    content = {"data": {"path": str(ring_csv)}, "model": {"name": "markov"}, "engine": {"name": "spark"}}
    with pytest.raises(SettingsError, match=r"engine.name: expected local here. Got spark"):
        tune(RunSettings.of(content, ""), [], 1.0, str(tmp_path / "out"))


def test_without_java_or_spark_it_is_said(monkeypatch):
    monkeypatch.setattr(sessions.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SettingsError, match=r"Spark needs Java 17 or later.* Got none"):
        sessions.check_java()
    monkeypatch.setitem(__import__("sys").modules, "pyspark.sql", None)
    with pytest.raises(SettingsError, match=r'pip install "seqrec\[spark\]"'), sessions.session("local"):
        pass
