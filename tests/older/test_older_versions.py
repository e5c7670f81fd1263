"""What older versions wrote is read, or refused in one line that names the versions; see ``make.py``, which
made the samples and recorded what the older code made of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch

import seqrec
from seqrec.benchmark import leaderboard
from seqrec.benchmark.results import Result
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SeqrecError, TrainingError
from seqrec.evaluation import metrics
from seqrec.experiment import judge
from seqrec.experiment.settings import RunSettings, upgraded
from seqrec.experiment.train import train
from seqrec.settings import yaml_file
from seqrec.splitting import SplitSettings

SAMPLES = sorted(path for path in Path(__file__).parent.iterdir() if path.name[0].isdigit())
pytestmark = pytest.mark.parametrize("sample", SAMPLES, ids=[path.name for path in SAMPLES])

USERS, LISTS = [100, 103], [["i1", "i2"], ["i5"]]


def check_recommended(model, recorded: Path, atol: float = 1e-5) -> None:
    """The same items in the same order as recorded, with the same scores."""
    expected = json.loads(recorded.read_text())
    for given, name in (({"users": USERS}, "users"), ({"sequences": LISTS}, "lists")):
        found, wanted = model.recommend(**given, k=4), pl.DataFrame(expected[name])
        columns = [name for name in wanted.columns if name != "score"]  # later versions have more
        assert found.select(columns).rows() == wanted.select(columns).rows()
        np.testing.assert_allclose(found["score"], wanted["score"], atol=atol)


def one_line(error: SeqrecError, *parts: str) -> None:
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error), str(error)


def changed(folder: Path, there: Path, **values) -> Path:
    """A copy of the folder of a model, with other values in its model.json."""
    shutil.copytree(folder, there)
    about = json.loads((there / "model.json").read_text())
    (there / "model.json").write_text(json.dumps(about | values))
    return there


# --- read as they were


@pytest.mark.parametrize("name", ["run/model", "sasrec", "item_knn"])
def test_models_recommend_what_they_did(sample, name):
    model = seqrec.load(sample / name)
    check_recommended(model, sample / name / "recommended.json")
    assert type(model).load(sample / name).name == model.name


def test_a_model_is_written_anew_in_the_format_of_now(sample, tmp_path):
    seqrec.load(sample / "sasrec").save(tmp_path)
    check_recommended(seqrec.load(tmp_path), sample / "sasrec" / "recommended.json")


def test_a_run_is_evaluated_as_it_was(sample):
    """But for cut-offs beyond the catalogue, at which that version counted a filtered target as a hit."""
    items = len(seqrec.load(sample / "run").item_catalogue)
    table = judge.evaluate(str(sample / "run"), data_path=str(sample / "log.csv"))
    recorded = {
        row["metric"]: row["value"] for row in json.loads((sample / "run/metrics.json").read_text())["rows"]
    }
    compared = [row for row in table.rows if int(row["metric"].partition("@")[2]) <= items]
    assert compared
    for row in compared:
        assert row["value"] == pytest.approx(recorded[row["metric"]])


def test_prepared_sequences_are_those_of_their_log(sample):
    prepared, recorded = (
        Sequences.load(sample / "prepared"),
        json.loads((sample / "prepared.json").read_text()),
    )
    for name in ("items", "offsets", "times"):
        assert getattr(prepared, name).tolist() == recorded[name]
    assert prepared.item_catalogue.ids.to_list() == recorded["item_ids"]
    assert prepared.user_catalogue.ids.to_list() == recorded["user_ids"]
    assert prepared.item_catalogue.attributes.to_dict(as_series=False) == recorded["attributes"]
    log = seqrec.read_log(sample / "log.csv", items=sample / "items.csv")
    assert SplitSettings().apply(prepared).hash == SplitSettings().apply(log.sequences()).hash


def test_a_result_stands_in_a_table(sample):
    results = sample / "results"
    result = Result.read(results / "older-v1" / "popularity" / "seed-0.json")
    ranks = result.ranks(filter_seen=True)
    assert len(ranks) == 30
    assert metrics.recall(ranks, 10).mean() == pytest.approx(result["metrics"]["recall@10"]["mean"])
    assert "popularity" in leaderboard.table(str(results), str(sample / "own.yaml")).markdown()


# --- an interrupted training


def resume(sample: Path, folder: Path, *more: str):
    """Trains the run that was interrupted, in a copy of its folder."""
    folder.mkdir()
    shutil.copy(sample / "interrupted" / "checkpoint.safetensors", folder)
    settings = [
        "train.epochs=12",
        "train.patience=12",
        f"output.folder={folder}",
        f"data.path={sample}/log.csv",
    ]
    content = upgraded(yaml_file.read(sample / "run.yaml", [*settings, *more]))
    return train(RunSettings.of(content, ""), progress=False)[0]


def test_an_interrupted_training_goes_on_or_says_why_not(sample, tmp_path):
    try:
        model = resume(sample, tmp_path / "run")
    except TrainingError as error:  # settings have come or gone since
        one_line(error, "written" if "written" in str(error) else "wrote", seqrec.__version__, "--restart")
    else:
        content = (sample / "interrupted" / "checkpoint.safetensors").read_bytes()
        curve = json.loads(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["run"]
        )["curve"]
        assert 0 < len(curve) < 12
        assert list(model.fit_report.curve)[: len(curve)] == curve  # seconds and all: not trained again
        check_recommended(model, sample / "interrupted" / "recommended.json", atol=1e-3)


def test_an_interrupted_training_of_other_settings_is_refused(sample, tmp_path):
    with pytest.raises(TrainingError) as refused:
        resume(sample, tmp_path / "run", "train.learning_rate=0.5")
    one_line(
        refused.value,
        "a checkpoint of another run",
        "an older version of seqrec wrote it",
        seqrec.__version__,
    )


# --- what this version cannot read


@pytest.mark.parametrize("part", ["prepared/sequences.json", "sasrec/model.json"])
@pytest.mark.parametrize("writer", ["9.8.7", None])
def test_formats_to_come_are_refused(sample, tmp_path, part, writer):
    folder = tmp_path / "copy"
    shutil.copytree((sample / part).parent, folder)
    marker = folder / Path(part).name
    about = json.loads(marker.read_text()) | {"format": 99, "seqrec": writer}
    marker.write_text(json.dumps({key: value for key, value in about.items() if value is not None}))
    with pytest.raises(DataError) as refused:
        (Sequences.load if "prepared" in part else seqrec.load)(folder)
    one_line(
        refused.value, str(marker), "99", writer or "of an unknown version", f"seqrec {seqrec.__version__}"
    )
    marker.write_text("[]")
    with pytest.raises(DataError, match="expected format 1 or 2"):
        (Sequences.load if "prepared" in part else seqrec.load)(folder)


def test_checkpoints_to_come_are_refused(sample, tmp_path):
    folder = tmp_path / "copy"
    (folder / "interrupted").mkdir(parents=True)
    for name in ("run.yaml", "log.csv"):
        shutil.copy(sample / name, folder)
    content = (sample / "interrupted" / "checkpoint.safetensors").read_bytes()
    about = {"format": 99, "seqrec": "9.8.7", "epochs_done": 5}
    written = safetensors.torch.save(safetensors.torch.load(content), {"run": json.dumps(about)})
    (folder / "interrupted" / "checkpoint.safetensors").write_bytes(written)
    with pytest.raises(TrainingError) as refused:
        resume(folder, tmp_path / "run")
    one_line(
        refused.value, "checkpoint.safetensors", "99", "9.8.7", f"seqrec {seqrec.__version__}", "--restart"
    )


def test_settings_that_a_model_has_no_more_are_refused(sample, tmp_path):
    about = json.loads((sample / "sasrec" / "model.json").read_text())
    settings = about["configuration"] | {"gone": 1}
    folder = changed(sample / "sasrec", tmp_path / "copy", configuration=settings, seqrec="0.0.9")
    with pytest.raises(DataError) as refused:
        seqrec.load(folder)
    one_line(refused.value, str(folder), "gone", "seqrec 0.0.9", f"seqrec {seqrec.__version__}")


def test_weights_of_another_shape_are_refused(sample, tmp_path):
    about = json.loads((sample / "sasrec" / "model.json").read_text())
    settings = about["configuration"] | {"blocks": 2}
    folder = changed(sample / "sasrec", tmp_path / "copy", configuration=settings, seqrec="0.0.9")
    with pytest.raises(DataError) as refused:
        seqrec.load(folder)
    one_line(refused.value, str(folder), "sasrec", "seqrec 0.0.9", f"seqrec {seqrec.__version__}")


def test_a_model_that_is_no_more_is_refused(sample, tmp_path):
    folder = changed(sample / "item_knn", tmp_path / "copy", name="items_knn", seqrec="0.0.9")
    with pytest.raises(DataError) as refused:
        seqrec.load(folder)
    one_line(refused.value, str(folder), "Did you mean 'item_knn'?", "seqrec 0.0.9")
