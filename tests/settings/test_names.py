"""Names from outside the package: modules on the path, and entry points of an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest
from warm_seqrec import warm_seqrec

import seqrec
from seqrec import benchmark, models
from seqrec.benchmark import leaderboard, results
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation import metrics
from seqrec.experiment.settings import RunSettings
from seqrec.settings import names
from seqrec.splitting import SPLITS, SplitSettings
from seqrec.testing import small_log

MODULE = '''
from dataclasses import replace

import numpy as np
from pydantic import Field

from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.markov import Markov, MarkovSettings
from seqrec.splitting.split import Queries, Split


class ShyMarkovSettings(MarkovSettings):
    weight: float = Field(1.0, gt=0)
    """Of its scores."""


class ShyMarkov(Markov):
    name = "shy_markov"
    Settings = ShyMarkovSettings

    def score(self, histories):
        return super().score(histories) * self.settings.weight


class OwnGRU(GRU4Rec):
    """Like the shipped one, whose name it has."""


class NoModel:
    pass


def halves(sequences, test_share: float = 0.5, least: int = 3):
    """The first events of each user train, one validates, the last ones test."""
    s = sequences
    lengths = s.lengths
    test = np.where(lengths >= least, np.ceil(test_share * (lengths - 2)).astype(int), 0)
    stops = s.offsets[1:] - test
    asked = np.flatnonzero(lengths >= least)
    validation = stops[asked] - 1
    train_stops = stops.copy()
    train_stops[asked] -= 1
    targets = np.flatnonzero(np.arange(s.events) >= np.repeat(stops, lengths))
    return Split(s, s.offsets[:-1], train_stops, Queries.at(s, validation), Queries.at(s, targets), {})


def no_split(sequences):
    return 3


def twice(ranks, k):
    return 2.0 * (ranks <= k)


def one_number(ranks, k):
    return 0.5


class Half:
    def __call__(self, ranks, k):
        return 0.5


NUMBER, half = 3, Half()
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of someone else's, on the path."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "outside_parts.py").write_text(MODULE)
    (folder / "broken_parts.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("outside_parts", None)


@pytest.fixture
def offered(outside: Path) -> Path:
    """The same as an installed package that offers its parts."""
    info = outside / "outside_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[seqrec.models]\nshy = outside_parts:ShyMarkov\ngru4rec = outside_parts:OwnGRU\n"
        "gone = outside_parts:Gone\n"
        "[seqrec.splits]\nhalves = outside_parts:halves\n[seqrec.metrics]\ntwice = outside_parts:twice\n"
        "[seqrec.losses]\nhinge = outside_parts:twice\n"
    )
    return outside


def test_what_is_shipped_comes_first(offered):
    assert names.resolve("model", "gru4rec", models.MODELS) is seqrec.GRU4Rec
    assert names.resolve("split", "last_n", SPLITS) is SPLITS["last_n"]
    assert names.resolve("metric", "mrr", metrics.BY_NAME) is metrics.mrr


def test_a_module_and_a_name_in_it(outside):
    found = names.resolve("model", "outside_parts:ShyMarkov", models.MODELS)
    assert found.__name__ == "ShyMarkov"
    assert models.get("outside_parts:ShyMarkov") is found
    assert names.reference(found) == "outside_parts:ShyMarkov"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gru4re", r"^unknown model 'gru4re'\. Did you mean 'gru4rec'\?$"),
        (
            "zzz",
            r"^unknown model .zzz.\. Known: .* One from outside the package is named package",
        ),
        (
            "not_there:X",
            r"^model not_there:X: the module 'not_there' cannot be imported "
            r"\(ModuleNotFoundError: No module named 'not_there'\)\. Install its package, or put its folder",
        ),
        ("broken_parts:X", r"^model broken_parts:X: .* cannot be imported \(RuntimeError: not today\)"),
        (
            "outside_parts:ShyMarkow",
            r"^model outside_parts:ShyMarkow: outside_parts has no 'ShyMarkow'\. Did you mean 'ShyMarkov'\?$",
        ),
        (
            "outside_parts:NoModel",
            r"^model outside_parts:NoModel: expected a subclass of seqrec\.Model\. Got <",
        ),
        ("outside_parts:NUMBER", r"expected a subclass of seqrec\.Model\. Got 3\.$"),
    ],
)
def test_what_cannot_be_found_says_why(outside, name, message):
    with pytest.raises(SettingsError, match=message):
        models.get(name)


def test_entry_points(offered):
    assert models.get("shy").name == "shy_markov"
    split = SplitSettings(name="halves", test_share=0.3).apply(small_log())
    assert split.settings == {"name": "halves", "test_share": 0.3, "least": 3}
    function, k = metrics.parse("twice@7")
    assert (function.__name__, k) == ("twice", 7)
    assert names.resolve("loss", "hinge", {}).__name__ == "twice"
    with pytest.raises(SettingsError, match=r"unknown model 'shi'\. Did you mean 'shy'\?"):
        models.get("shi")
    with pytest.raises(
        SettingsError, match=r"model gone \(outside_parts:Gone\): outside_parts has no 'Gone'"
    ):
        models.get("gone")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "outside_parts:halvs"}, r"split\.name: split outside_parts:halvs: .*Did you mean 'halves'"),
        ({"name": "outside_parts:NUMBER"}, r"split\.name: split .*: expected a function\. Got 3\."),
        (
            {"name": "outside_parts:halves", "test_shar": 0.3},
            r"split\.test_shar: expected an argument of .*did you mean 'test_share'",
        ),
        ({"name": "outside_parts:halves", "test_share": "x"}, r"split\.test_share: expected a valid number"),
    ],
)
def test_a_split_from_outside_is_checked_like_a_shipped_one(outside, section, message):
    with pytest.raises(SettingsError, match=message):
        SplitSettings.of(section, "split")


def test_parts_that_give_something_else_are_refused(outside):
    with pytest.raises(
        SettingsError, match=r"split outside_parts:no_split: expected a Split from it\. Got int"
    ):
        SplitSettings(name="outside_parts:no_split").apply(small_log())
    split = SplitSettings().apply(small_log())
    model = seqrec.Markov().fit(split)
    with pytest.raises(SettingsError, match=r"metric 'outside_parts:one_number@5': expected a value a query"):
        model.evaluate(split, ["outside_parts:one_number@5"])
    with pytest.raises(SettingsError, match=r"metric 'outside_parts:Half@5': expected a value a query"):
        model.evaluate(split, ["outside_parts:half@5"])
    for name in ("outside_parts:NUMBER@5", "outside_parts:twice"):
        with pytest.raises(
            SettingsError, match=r"evaluate\.metrics\.0: metric .*: expected a (function|cut-off)"
        ):
            RunSettings.of({"evaluate": {"metrics": [name]}}, "")


def test_a_model_from_outside_is_saved_by_its_module_and_name(outside, tmp_path):
    split = SplitSettings().apply(small_log())
    cls = models.get("outside_parts:ShyMarkov")
    model = cls(weight=2.0).fit(split)
    model.save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "model.json").read_text())["name"] == "outside_parts:ShyMarkov"
    again = seqrec.load(tmp_path / "model")
    assert type(again) is cls
    assert again.settings.weight == 2.0
    assert again.recommend(users=[100], k=3).equals(model.recommend(users=[100], k=3))
    assert type(cls.load(tmp_path / "model")) is cls
    with pytest.raises(DataError, match=r"expected a markov model\. Got 'outside_parts:ShyMarkov'"):
        seqrec.Markov.load(tmp_path / "model")
    # a subclass that has the name of the shipped one is not taken for it
    models.get("outside_parts:OwnGRU")(width=4, hidden=4, train={"epochs": 1}).fit(
        split, progress=False
    ).save(tmp_path / "own")
    assert type(seqrec.load(tmp_path / "own")).__name__ == "OwnGRU"
    sys.modules.pop("outside_parts")
    (outside / "outside_parts.py").unlink()
    with pytest.raises(
        DataError,
        match=r"cannot open this .*\(model outside_parts:ShyMarkov: the module .* cannot be imported",
    ):
        seqrec.load(tmp_path / "model")


def test_shipped_models_are_saved_by_their_names():
    for name in models.MODELS:
        assert models.get(name).reference() == name


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A `seqrec` that starts at once."""
    with warm_seqrec(tmp_path_factory.mktemp("bin")) as place:
        yield f"{place}/seqrec"


def test_a_run_of_parts_from_outside(warm, outside, ring_csv, tmp_path):
    """Train, recommend and evaluate, each a process of its own."""
    (tmp_path / "run.yaml").write_text(
        textwrap.dedent(
            f"""
            data: {{path: {ring_csv}}}
            split: {{name: "outside_parts:halves", test_share: 0.2}}
            model: {{name: "outside_parts:ShyMarkov", weight: 3}}
            evaluate: {{metrics: ["outside_parts:twice@3", recall@3], filter_seen: false}}
            output: {{folder: {tmp_path}/out, refit: true}}
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def seqrec_says(*arguments: str, **changes: str) -> str:
        done = subprocess.run(
            [warm, "-q", *arguments],
            env=environment | changes,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert not done.returncode or changes, done.stderr
        return done.stdout + done.stderr

    trained = seqrec_says("train", "--conf", "run.yaml")
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]
    value = {row["metric"]: row["value"]["mean"] for row in rows}
    assert value["outside_parts:twice@3"] == pytest.approx(2 * value["recall@3"])
    assert value["recall@3"] > 0.5
    assert "outside_parts:twice@3" in trained
    assert "recall@20" in value
    assert seqrec_says("evaluate", "out") == trained
    assert "i3" in seqrec_says("recommend", "out", "-s", "i1,i2", "-k", "3", "--seen")
    refused = seqrec_says("recommend", "out", "-s", "i1,i2", PYTHONPATH=str(Path(seqrec.__file__).parents[1]))
    assert refused.count("\n") == 1
    assert "model outside_parts:ShyMarkov: the module 'outside_parts' cannot be imported" in refused


def test_a_protocol_and_a_benchmark_of_parts_from_outside(offered, ring_csv, tmp_path):
    (tmp_path / "own.yaml").write_text(
        f"name: own-v1\ntitle: own\ndata: {{name: {ring_csv.name}, revision: today}}\n"
        "split: {name: halves, test_share: 0.2}\nheadline: [twice@3, recall@3]\nfilter_seen: false\n"
    )
    rows = ["outside_parts:ShyMarkov", "shy", "popularity"]
    arguments = {"results_dir": tmp_path / "results", "data_dir": ring_csv.parent, "progress": False}
    paths = benchmark.run(tmp_path / "own.yaml", rows, 1, **arguments)
    first = results.Result.read(paths[0])
    assert first["settings"]["model"] == "outside_parts:ShyMarkov"
    assert first["settings"]["weight"] == 1.0
    assert Path(paths[0]).parent.name == "outside_parts.ShyMarkov"
    assert first["metrics"]["twice@3"]["mean"] == pytest.approx(2 * first["metrics"]["recall@3"]["mean"])
    assert results.Result.read(paths[1])["metrics"] == first["metrics"]
    table = leaderboard.table(tmp_path / "results", str(tmp_path / "own.yaml"))
    assert "twice@3" in table.columns
    assert table.rows[-1]["model"] == "popularity"
    before = [Path(path).stat().st_mtime_ns for path in paths]
    assert benchmark.run(tmp_path / "own.yaml", rows, 1, **arguments) == paths
    assert [Path(path).stat().st_mtime_ns for path in paths] == before
    with pytest.raises(SettingsError, match=r"model outside_parts:Shy: outside_parts has no 'Shy'"):
        benchmark.run(tmp_path / "own.yaml", ["outside_parts:Shy"], 1, **arguments)


def test_a_log_is_trained_by_a_model_from_outside(outside, ring_csv):
    from seqrec.experiment.recommend import open_or_train

    model = open_or_train(str(ring_csv), "outside_parts:ShyMarkov", {"path": str(ring_csv)})
    assert isinstance(model.recommend([["i1"]], k=2), pl.DataFrame)


def test_a_long_name_is_not_repeated_at_length():
    with pytest.raises(SettingsError) as refused:
        names.check("split", "leave_one_out" + "[" * 3000, SPLITS)
    assert str(refused.value).startswith("unknown split 'leave_one_out[[")
    assert len(str(refused.value)) < 500
