from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import seqrec
from seqrec.errors import DataError, SeqrecError, SettingsError, StorageError, TrainingError
from seqrec.experiment import data, judge, prepare, recommend, settings, train
from seqrec.experiment.settings import RunSettings
from seqrec.storage import lock
from seqrec.training import state

CONF = Path(__file__).parents[2] / "conf"
YAML = """
data: {{path: {path}}}
split: {{name: last_n, n: 2}}
model: {{name: hrm, width: 8, recent: 2}}
loss: bpr
negatives: {{count: 4}}
train: {{epochs: 2, batch_positions: 64}}
evaluate: {{metrics: [precision@20, recall@20, map@20, ndcg@20], filter_seen: false, topk: {folder}/topk.csv}}
output: {{folder: {folder}/out}}
"""


def test_a_run_from_yaml_to_artifact(ring_csv, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    settings = RunSettings.read(path, ["train.epochs=1"])
    model, table = train.train(settings, progress=False)
    assert model.train.epochs == 1
    assert model.loss.name == "bpr"
    assert [row["metric"] for row in table.rows] == ["precision@20", "recall@20", "map@20", "ndcg@20"]
    # 12 items, nothing filtered: every target is among the first 20
    assert table.rows[1]["value"]["mean"] == 1.0
    assert pl.read_csv(tmp_path / "topk.csv").columns == ["user_id", "item_id", "rank", "position"]
    again = judge.evaluate(str(tmp_path / "out"), topk_path=str(tmp_path / "again.csv"))
    assert again.rows == table.rows
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "topk.csv").read_text()
    everything = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]
    assert len(everything) == 24
    assert all(row in everything for row in table.rows)
    assert seqrec.load(tmp_path / "out" / "model").recommend([["i1"]], k=2)["rank"].to_list() == [1, 2]


def test_a_run_with_features(ring_csv, tmp_path):
    path, items, schema = tmp_path / "run.yaml", tmp_path / "items.csv", tmp_path / "schema.yaml"
    items.write_text("item_id,kind\n" + "".join(f"i{i},k{i % 3}\n" for i in range(12)))
    schema.write_text("item: [item_id, kind]\n")
    data = f"data: {{path: {ring_csv}, items: {items}}}"
    path.write_text(
        YAML.format(path=ring_csv, folder=tmp_path).replace(f"data: {{path: {ring_csv}}}", data)
        + f"features: {schema}\n"
    )
    model, table = train.train(RunSettings.read(path), progress=False)
    assert model.features.item == ["item_id", "kind"]
    assert judge.evaluate(str(tmp_path / "out")).rows == table.rows
    path.write_text(path.read_text().replace(data, f"data: {{path: {ring_csv}}}"))
    with pytest.raises(
        SettingsError,
        match=r"features\.item: no column 'kind', as the items have no attributes\. "
        r"Give a table of attributes \(data\.items\)",
    ):
        train.train(RunSettings.read(path, [f"output.folder={tmp_path}/other"]), progress=False)


def weights(folder):
    return {name: array.tolist() for name, array in seqrec.load(folder).state().items()}


def test_a_refit_knows_all_events_and_is_what_recommends(ring_csv, tmp_path, caplog):
    path, out = tmp_path / "run.yaml", tmp_path / "out"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    _, before = train.train(RunSettings.read(path), progress=False)
    with caplog.at_level("INFO", logger="seqrec"):
        recommend.recommend(
            recommend.open_or_train(str(out), "", {}), None, ["u1"], recommend.Choice(k=3), "raise"
        )
    assert "end before the held-out test events" in caplog.text
    assert "--refit" in caplog.text
    tested = weights(out / "model")
    _, table = train.train(RunSettings.read(path, ["output.refit=true"]), progress=False)
    assert table.rows == before.rows == judge.evaluate(str(out)).rows
    assert weights(out / "model") == tested
    serving = recommend.open_or_train(str(out), "", {})
    assert serving.known_stops.tolist() == serving.sequences.offsets[1:].tolist()
    assert serving.provenance["train_events"] == len(serving.sequences.items)
    assert serving.fit_report.epochs == seqrec.load(out / "model").fit_report.best_epoch
    caplog.clear()
    with caplog.at_level("INFO", logger="seqrec"):
        recommend.recommend(serving, None, ["u1"], recommend.Choice(k=3), "raise")
    assert not caplog.text
    # the same run again, without a refit, replaces nothing
    train.train(RunSettings.read(path), progress=False)
    assert recommend.open_or_train(str(out), "", {}).provenance == serving.provenance
    # the refit of a model that was replaced is not used any more
    train.train(RunSettings.read(path, ["fit.seed=7"]), progress=False, restart=True)
    assert recommend.open_or_train(str(out), "", {}).provenance == seqrec.load(out / "model").provenance


def test_a_refit_that_was_killed_goes_on(ring_csv, tmp_path, monkeypatch):
    path, out = tmp_path / "run.yaml", tmp_path / "out"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path) + "\n")
    settings = RunSettings.read(path, ["output.refit=true", "train.epochs=3", "train.learning_rate=0.05"])
    whole = RunSettings.read(
        path,
        [
            "output.refit=true",
            "train.epochs=3",
            "train.learning_rate=0.05",
            f"output.folder={tmp_path}/whole",
        ],
    )
    model, expected = train.train(whole, progress=False)
    assert model.fit_report.best_epoch > 1
    save = state.TrainingState.save

    def killed(self, checkpoint, fingerprint):
        save(self, checkpoint, fingerprint)
        if "refit-" in str(checkpoint):
            raise KeyboardInterrupt

    monkeypatch.setattr(state.TrainingState, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(settings, progress=False)
    assert not (out / "serving").exists()
    assert judge.evaluate(str(out)).rows == expected.rows
    monkeypatch.setattr(state.TrainingState, "save", save)
    _, table = train.train(settings, progress=False)
    assert table.rows == expected.rows
    assert weights(out / "serving") == weights(tmp_path / "whole" / "serving")
    assert len(list(out.glob("refit-*.safetensors"))) == 1


def test_a_refit_of_a_model_without_epochs(ring_csv, tmp_path):
    settings = RunSettings.of(
        {
            "data": {"path": str(ring_csv)},
            "model": {"name": "markov"},
            "output": {"folder": str(tmp_path / "out"), "refit": True},
        },
        "",
    )
    train.train(settings, progress=False)
    assert recommend.open_or_train(str(tmp_path / "out"), "", {}).provenance["split"] == {"name": "refit"}
    with pytest.raises(SettingsError, match=r"output\.refit: expected output\.folder"):
        RunSettings.of(
            {"data": {"path": "x.csv"}, "model": {"name": "markov"}, "output": {"refit": True}}, ""
        ).check()


def test_evaluate_refuses_changed_data(ring_csv, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    train.train(RunSettings.read(path), progress=False)
    ring_csv.write_text(ring_csv.read_text() + "u0,i3,99999\n")
    with pytest.raises(SettingsError, match="data has changed"):
        judge.evaluate(str(tmp_path / "out"))


def test_evaluate_refuses_the_same_log_under_other_ids(ring_csv, tmp_path):
    """Ids renamed: the same events, and the same hash of the split, but other items in the places of the
    old."""
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    train.train(RunSettings.read(path), progress=False)
    log = pl.read_csv(ring_csv)
    log.with_columns(
        item_id=pl.lit("j") + (30 - log["item_id"].str.slice(1).cast(pl.Int64)).cast(pl.String)
    ).write_csv(ring_csv)
    with pytest.raises(DataError, match="item ids: expected those that hrm was trained on"):
        judge.evaluate(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"data": {"path": "log.csv"}}, ("ndcg@10", True)),
        ({"data": {"path": "log.csv"}, "evaluate": {"filter_seen": False}}, ("ndcg@10", False)),
        (
            {"data": {"path": "log.csv"}, "evaluate": {"filter_seen": False}, "train": {"filter_seen": True}},
            ("ndcg@10", True),
        ),
        ({"protocol": "ml-1m-origin-v1"}, ("ndcg@20", False)),
        ({"protocol": "ml-1m-origin-v1", "train": {"metric": "recall@20"}}, ("recall@20", False)),
    ],
)
def test_epochs_are_chosen_as_the_run_tests(changes, chosen):
    model = RunSettings.of({"model": {"name": "gru4rec"}, **changes}, "").check()
    assert (model.train.metric, model.train.filter_seen) == chosen
    RunSettings.of(
        {**{k: v for k, v in changes.items() if k != "train"}, "model": {"name": "markov"}}, ""
    ).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"name": "gru4rek"}}, "gru4rek.*Did you mean 'gru4rec'"),
        ({"model": {}}, "model.name: missing"),
        ({"model": {"name": "hrm", "widht": 3}}, "widht: unknown setting. Did you mean 'width'"),
        ({"model": {"name": "hrm", "width": 0}}, "hrm.width: expected greater than or equal to 1. Got 0"),
        ({"trian": {}}, "trian: unknown setting. Did you mean 'train'"),
        ({"train": {"epochs": "many"}}, "train.epochs: expected .*Got 'many'"),
        ({"loss": "bprmax"}, "loss.name: unknown loss 'bprmax'. Did you mean 'bpr_max'"),
        ({"split": {"name": "last_m"}}, "last_m"),
        ({"evaluate": {"metrics": ["ndgc@10"]}}, "unknown metric 'ndgc'. Did you mean 'ndcg'"),
        ({"protocol": "ml-1m-origin-v1"}, "already gives data and split"),
        ({"data": {}}, "either data.name"),
        ({"data": {"pth": "x"}}, "data.pth: unknown setting. Did you mean 'path'"),
        ({"model": {"name": "popularity"}}, "popularity is not trained by gradient"),
        ({"features": {"itm": ["item_id"]}}, "features.itm: unknown setting. Did you mean 'item'"),
        ({"features": "no-such-schema.yaml"}, "no-such-schema.yaml: no such file"),
        ({"features": {}, "model": {"name": "fpmc"}}, "features: fpmc reads no attributes"),
    ],
)
def test_mistakes_are_named_before_data_is_read(change, message):
    good = {"data": {"path": "does-not-exist.csv"}, "model": {"name": "hrm"}, "train": {"epochs": 1}}
    with pytest.raises(SeqrecError, match=message):
        RunSettings.of(good | change, "").check()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_runs_are_valid(path):
    settings = RunSettings.read(path)
    if path.name.startswith("prepare"):
        settings.check_data()
        assert settings.samples is not None
    else:
        assert settings.check().name in path.name


def test_the_bucket_of_the_shipped_preparation_is_filled_in(monkeypatch):
    monkeypatch.setenv("MY_S3_BUCKET", "s3://mine")
    settings = RunSettings.read(CONF / "prepare_ml_1m.yaml")
    assert settings.samples.folder == "s3://mine/movielens/1m/negsample/num_negs_10"
    assert settings.output.folder == "s3://mine/movielens/1m"


def test_a_prepared_folder_gives_samples(ring_csv, tmp_path):
    """Sequences that are prepared already are split as they are; samples of them are those of the log;
    trained on, tables give the log's split."""
    log = RunSettings.of({"data": {"path": str(ring_csv)}}, "")
    prepare.prepare_run(log, str(tmp_path / "prepared"), str(tmp_path / "one"))
    prepared = RunSettings.of({"data": {"path": str(tmp_path / "prepared")}}, "")
    prepare.prepare_run(prepared, None, str(tmp_path / "two"))
    prepare.prepare_run(prepared, str(tmp_path / "copy"), str(tmp_path / "three"))
    for name in ("train", "validation", "test", "item"):
        first, *others = (
            pl.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("one", "two", "three")
        )
        assert all(first.equals(other) for other in others)
    paths = [str(tmp_path / "one" / f"{name}.parquet") for name in ("test", "train", "validation")]
    split, source, _ = data.read_split(RunSettings.of({"data": {"path": paths}}, ""))
    assert (split.sequences.users, split.sequences.events) == (60, 900)
    assert paths[0] in source


def test_prepare_writes_what_train_opens(ring_csv, tmp_path):
    sequences = prepare.prepare(
        settings.DataSettings(path=str(ring_csv), min_item_count=2), tmp_path / "prepared"
    )
    assert (sequences.users, sequences.events, len(sequences.item_catalogue)) == (60, 900, 12)
    again, _ = data.read_sequences(settings.DataSettings(path=str(tmp_path / "prepared")))
    assert again.events == 900


@pytest.mark.parametrize("retrain", [True, False])
def test_lists_are_judged_by_what_the_protocol_trains_on(retrain, tmp_path):
    """Item c comes first in the validation window: a model that trains again knows it, and so it is no
    certain miss for other libraries' lists."""
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,11\nv,a,3\nv,b,4\nv,c,21\n"
    )
    (tmp_path / "own.yaml").write_text(
        "name: own-v1\ntitle: A log of one's own\ndata: {name: log.csv, revision: today}\n"
        f"split: {{name: global_temporal, validation_cut: 10, test_cut: 20}}\nretrain: "
        f"{str(retrain).lower()}\n"
    )
    (tmp_path / "lists.csv").write_text("user_id,item_id,rank\nv,c,1\n")
    table = judge.judge(str(tmp_path / "lists.csv"), str(tmp_path / "own.yaml"), str(tmp_path))
    recall = next(row["value"]["mean"] for row in table.rows if row["metric"] == "recall@1")
    assert recall == (1 if retrain else 0)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "ndgc@10",
            r"unknown metric 'ndgc'\. Did you mean 'ndcg'\?",
        ),
        (
            "recall",
            r"metric 'recall': expected a cut-off of at least 1 after '@', as in 'recall@10'\. Got ''\.$",
        ),
    ],
)
def test_a_wrong_metric_is_named_once(metric, message):
    for section, content in (
        ("evaluate.metrics.0", {"evaluate": {"metrics": [metric]}}),
        ("train.metric", {"train": {"metric": metric}}),
    ):
        with pytest.raises(SettingsError, match=f"^{section}: {message}"):
            RunSettings.of({"data": {"path": "x.csv"}, "model": {"name": "gru4rec"}, **content}, "").check()


def test_seed_and_device_are_of_the_fit(ring_csv, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    first, _ = train.train(RunSettings.read(path, ["fit.seed=1", "fit.device=cpu"]), progress=False)
    assert (first.fit_report.seed, first.fit_report.device) == (1, "cpu")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["fit"]["seed"] == 1
    # another device goes on with the run, another seed is another run
    train.train(RunSettings.read(path, ["fit.seed=1"]), progress=False)
    with pytest.raises(SettingsError, match=r"another section fit: .*Name another folder"):
        train.train(RunSettings.read(path), progress=False)
    for key, value in (("seed", 1), ("device", "cpu"), ("precision", "auto")):
        with pytest.raises(SettingsError, match=rf"^train\.{key}: .* but fit\.{key}; .* Got {value!r}\.$"):
            RunSettings.read(path, [f"train.{key}={value}"]).check()
        with pytest.raises(SettingsError, match=rf"^train\.{key}: .* but fit\.{key}; "):
            seqrec.GRU4Rec(train={key: value})
    with pytest.raises(SettingsError, match=r"fit\.sede: unknown setting\. Did you mean 'seed'\?"):
        RunSettings.read(path, ["fit.sede=1"])


def test_a_run_with_an_option_of_another_loss_at_its_default_goes_on(ring_csv, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    run = RunSettings.read(path, ["loss={name: bpr, t: 0.75}"])
    train.train(run, progress=False)
    train.train(run, progress=False)


def test_a_run_of_a_version_in_which_the_seed_was_a_setting_of_training(ring_csv, tmp_path):
    path, out = tmp_path / "run.yaml", tmp_path / "out"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    settings = RunSettings.read(path, ["fit.seed=3", "fit.precision=float32"])
    _, table = train.train(settings, progress=False)
    record = json.loads((out / "run.json").read_text())
    record["train"] |= record.pop("fit")
    assert record["train"]["seed"] == 3
    (out / "run.json").write_text(json.dumps(record))
    assert judge.evaluate(str(out)).rows == table.rows
    assert train.train(settings, progress=False)[1].rows == table.rows  # it is the same run
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(SettingsError, match="another section fit"):
        train.train(RunSettings.read(path, ["fit.seed=4", "fit.precision=float32"]), progress=False)


def test_a_model_without_epochs_takes_any_fit(ring_csv, tmp_path):
    content = {"data": {"path": str(ring_csv)}, "model": {"name": "markov"}, "fit": {"seed": 5}}
    model, _ = train.train(RunSettings.of(content, ""), progress=False)
    assert model.fit_report.seed is None
    with pytest.raises(SettingsError, match=r"train: markov is not trained by gradient"):
        RunSettings.of(content | {"train": {"epochs": 1}}, "").check()


def test_a_run_under_a_protocol_that_trains_again(ring_csv, tmp_path):
    (tmp_path / "own.yaml").write_text(
        f"name: own-v1\ntitle: own\ndata: {{name: {ring_csv.name}, revision: today}}\nretrain: true\n"
        "split: {name: user_holdout, validation_users: 20, test_users: 10}\nheadline: [recall@3]\n"
    )
    content = {
        "protocol": str(tmp_path / "own.yaml"),
        "data": {"folder": str(ring_csv.parent)},
        "model": {"name": "markov"},
        "output": {"folder": str(tmp_path / "out")},
    }
    run = RunSettings.of(content, "")
    model, table = train.train(run, progress=False)
    split, _, filter_seen = data.read_split(run)
    assert model.provenance["split_hash"] == split.retrain().hash
    assert model.provenance["train_events"] == split.retrain().train_events.sum()
    expected = seqrec.Markov().fit(split.retrain()).evaluate(split.retrain(), filter_seen=filter_seen)
    assert table.rows == expected.table([row["metric"] for row in table.rows]).rows
    assert judge.evaluate(str(tmp_path / "out")).rows == table.rows
    # one that an older version trained, once only
    once = seqrec.Markov().fit(split)
    once.save(tmp_path / "out" / "model")
    names = [row["metric"] for row in table.rows]
    assert judge.evaluate(str(tmp_path / "out")).rows == once.evaluate(split).table(names).rows


def test_a_run_whose_folder_is_written_by_another_is_refused(ring_csv, tmp_path):
    path, out = tmp_path / "run.yaml", tmp_path / "out"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    with lock.held(out), pytest.raises(StorageError, match="is being written by process"):
        train.train(RunSettings.read(path), progress=False)
    train.train(RunSettings.read(path), progress=False)
    assert not (out / lock.NAME).exists()


def test_a_run_again_that_fails_leaves_the_run_that_is_there(ring_csv, tmp_path):
    path, out = tmp_path / "run.yaml", tmp_path / "out"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    train.train(RunSettings.read(path), progress=False)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    ring_csv.write_text("user_id,item_id,timestamp\n")
    with pytest.raises(SeqrecError):
        train.train(RunSettings.read(path), progress=False)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "content", ["[]", '{"model": 3}', '{"train": 3}', '{"fit": []}', '{"data": {"path": {}}}']
)
def test_a_run_json_that_is_none_is_refused(ring_csv, tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(SeqrecError):
        judge.evaluate(str(tmp_path))


def test_credentials_in_addresses_are_not_stored(tmp_path):
    run = RunSettings.of(
        {"data": {"path": "https://me:s3cr3t@host/log.csv?token=t0k3n"}, "model": {"name": "markov"}}, ""
    )
    text = json.dumps(train._described(run))
    assert "s3cr3t" not in text
    assert "t0k3n" not in text
    assert "https://***@host/log.csv?token=***" in text


INTERRUPTED = """
import os, signal, sys
from seqrec.training import state
save = state.TrainingState.save
def then_stop(self, *a):
    save(self, *a)
    os.kill(os.getpid(), signal.SIGINT)
state.TrainingState.save = then_stop
from seqrec import cli
cli.main()
"""


def test_ctrl_c_says_that_the_same_command_goes_on(ring_csv, tmp_path):
    arguments = ["train", "--data", str(ring_csv), "--model", "hrm", "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *arguments], capture_output=True, text=True)
    assert done.returncode != 0
    assert "The same command goes on from the last complete epoch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / lock.NAME).exists()


def grown_csv(path: Path) -> Path:
    """The log of ``ring_csv`` with ten users, an item and two events a user more."""
    log = pl.read_csv(path)
    later = log["timestamp"].max() + 1
    more = log.group_by("user_id").tail(2).with_columns(pl.col("timestamp") + later)
    users = (
        log.head(100)
        .with_columns(
            user_id=9000 + pl.int_range(100) // 10,
            item_id=pl.when(pl.int_range(100) % 10 == 0).then(pl.lit("i99")).otherwise("item_id"),
            timestamp=later + pl.int_range(100),
        )
        .cast({"user_id": log["user_id"].dtype})
    )
    grown = path.with_name("grown.csv")
    pl.concat([log, more, users.select(log.columns)]).write_csv(grown)
    return grown


def test_a_run_that_starts_from_another(ring_csv, tmp_path, caplog):
    path, earlier, out = tmp_path / "run.yaml", tmp_path / "out", tmp_path / "next"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    train.train(RunSettings.read(path), progress=False)
    changes = [f"data.path={grown_csv(ring_csv)}", f"output.folder={out}", f"fit.start={earlier}"]
    with caplog.at_level("INFO", logger="seqrec"):
        model, table = train.train(RunSettings.read(path, [*changes, "output.refit=true"]), progress=False)
    assert f"hrm begins with {earlier}: " in caplog.text
    assert "12 items keep their vectors, 1 are new" in caplog.text
    assert model.fit_report.start["users"]["new"] == 10
    record = json.loads((out / "run.json").read_text())
    assert record["fit"]["start"] == str(earlier)
    assert record["trained"]["start"]["digest"] == model.fit_report.start["digest"]
    assert seqrec.load(out / "serving").fit_report.start["digest"] == model.fit_report.start["digest"]
    assert judge.evaluate(str(out)).rows == table.rows
    # the same again; with more epochs; from another model, which is another run
    assert train.train(RunSettings.read(path, changes), progress=False)[1].rows == table.rows
    more, _ = train.train(RunSettings.read(path, [*changes, "train.epochs=3"]), progress=False)
    assert more.fit_report.epochs == 3
    with pytest.raises(SettingsError, match=r"another section fit: .*Name another folder"):
        train.train(RunSettings.read(path, [*changes[:2], "train.epochs=3"]), progress=False)
    # the folder is the same, and what is in it another
    train.train(RunSettings.read(path, ["fit.seed=1"]), progress=False, restart=True)
    with pytest.raises(TrainingError, match=r"another run \(other settings, data or start\)"):
        train.train(RunSettings.read(path, [*changes, "train.epochs=3"]), progress=False)


def test_a_start_that_knows_the_test_is_told(ring_csv, tmp_path, caplog):
    path, out = tmp_path / "run.yaml", tmp_path / "next"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    train.train(RunSettings.read(path, ["output.refit=true"]), progress=False)
    changes = [f"output.folder={out}", f"fit.start={tmp_path}/out/serving"]
    train.train(RunSettings.read(path, changes), progress=False)
    assert "serving knew the answers of 120 of 120 test queries: the figures are too good" in caplog.text
    caplog.clear()
    changes[1] = f"fit.start={tmp_path}/out"
    train.train(RunSettings.read(path, changes), progress=False, restart=True)
    assert "too good" not in caplog.text


def test_a_start_gives_the_settings_that_a_run_does_not_say(ring_csv, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    changes = ["train.weight_decay=0.1", "train.learning_rate=0.01"]
    earlier, _ = train.train(RunSettings.read(path, changes), progress=False)
    content = {"data": {"path": str(ring_csv)}, "fit": {"start": str(tmp_path / "out")}}
    run = RunSettings.of(settings.as_its_start(content | {"train": {"average": 0.5}}), "")
    model = run.check()
    assert model.settings == earlier.settings
    assert model.loss.described() == earlier.loss.described()
    assert model.negatives == earlier.negatives
    assert (model.train.weight_decay, model.train.batch_positions) == (0.1, 64)
    assert model.train.average == 0.5
    assert model.train.epochs is None  # these are of one training
    assert model.train.learning_rate is None
    assert settings.as_its_start({**content, "model": {"name": "hrm"}})["model"] == {"name": "hrm"}
    other = RunSettings.of({**content, "model": {"name": "hrm", "width": 16}}, "")
    with pytest.raises(SettingsError, match=r"fit\.start: .*out has model\.width 8\. Got 16\."):
        train.train(other, progress=False)
    softmax = seqrec.GRU4Rec(width=4, hidden=4, train={"epochs": 1}).fit(
        pl.read_csv(ring_csv), progress=False
    )
    softmax.save(tmp_path / "softmax")
    content["fit"]["start"] = str(tmp_path / "softmax")
    assert (
        RunSettings.of(settings.as_its_start(content), "").check().configuration()["loss"]
        == (softmax.configuration()["loss"])
    )


def test_a_start_in_the_output_folder_is_refused(ring_csv, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML.format(path=ring_csv, folder=tmp_path))
    for start in ("out", "out/model"):
        with pytest.raises(SettingsError, match=r"fit\.start: expected a model of another run"):
            RunSettings.read(path, [f"fit.start={tmp_path}/{start}"]).check()
    with pytest.raises(DataError, match="nowhere: expected the folder of a trained model"):
        RunSettings.read(path, [f"fit.start={tmp_path}/nowhere"]).check_sources()
