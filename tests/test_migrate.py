"""Run files of MetaSpore's sequential demo and of RecBole become runs that this project accepts, and
trains."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from seqrec import migrate
from seqrec.cli import app
from seqrec.errors import SettingsError
from seqrec.experiment.settings import RunSettings
from seqrec.migrate import recbole
from seqrec.settings import yaml_file

# In the form of the demo's files: repeated and misspelt keys, class paths, and variables are as users have
# them.
HRM = """
app_name: HRM
worker_count: 2
train_path: {bucket}/num_negs_4/train.parquet
test_path: {bucket}/num_negs_4/test.parquet
item_path: {bucket}/num_negs_4/item.parquet
two_tower_module_class: metaspore.TwoTowerRetrievalModule
two_tower_estimator_class: metaspore.TwoTowerRetrievalEstimator
user_column_name: {bucket}/schema/column_schema
user_combine_schema: {bucket}/schema/user_combine_schema
seq_combine_schema: {bucket}/schema/seq_combine_schema
item_column_name: {bucket}/schema/column_schema
item_combine_schema: {bucket}/schema/item_combine_schema
model_in_path: null
model_out_path: {bucket}/model_out/
experiment_name: two_towers
input_label_column_index: 0
retrieval_item_count: 5
milvus_nlist: 1024
input_label_column_index: 0
pooling_type_layer_1: sum
pooling_type_layer_2: mean
tau: 0.05
sparse_init_var: 0.01
net_dropout: 0.1
batch_size: 64
vector_embedding_size: 8
item_embedding_size: 8
adam_learning_rate: 0.0002
ftrl_learning_rate: 0.5
ftrl_smothing_rate: 0.5
ftrl_l1_regularization: 0.0
ftrl_l2_regularization: 0.0
training_epoches: 2
shuffle_training_dataset: True
"""
GRU4REC = HRM.replace(
    "pooling_type_layer_1: sum\npooling_type_layer_2: mean\n", "gru_hidden_dim: 16\ngru_num_layers: 2\n"
).replace("metaspore.TwoTowerRetrievalModule", "python.algos.sequential.GRU4RecBatchNegativeSamplingModule")
IDS = {"user": "user_id\n", "seq": "recent_movie_ids\n", "item": "movie_id\n"}


def write(folder, text, bucket="${MY_S3_BUCKET}"):
    path = folder / "run.yaml"
    path.write_text(text.format(bucket=bucket))
    return path


def write_schemas(folder, **schemas):
    (folder / "schema").mkdir(exist_ok=True)
    columns = [
        "label",
        "user_id",
        "gender",
        "age",
        "movie_id",
        "recent_movie_ids",
        "genre",
        "last_movie",
        "last_genre",
    ]
    (folder / "schema" / "column_schema").write_text(
        "".join(f"{n} {name}\n" for n, name in enumerate(columns))
    )
    for name, text in (IDS | schemas).items():
        (folder / "schema" / f"{name}_combine_schema").write_text(text)


def became(migration):
    return {row["key"]: row["became"] for row in migration.rows}


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder in the place of a bucket, with the demo's tables of a ring of items and its schemas."""
    log = "user_id,item_id,timestamp\n" + "".join(
        f"{u},{1 + (u + t) % 12},{t}\n" for u in range(1, 31) for t in range(9)
    )
    (tmp_path / "log.csv").write_text(log)
    (tmp_path / "items.csv").write_text("item_id,genres\n" + "".join(f"{i},g{i % 3}\n" for i in range(1, 13)))
    conf = tmp_path / "prepare.yaml"
    conf.write_text(
        f"data: {{path: {tmp_path}/log.csv, items: {tmp_path}/items.csv}}\nsplit: {{name: last_n, n: 3}}\n"
        f"samples: {{folder: {tmp_path}/num_negs_4, negatives: 4}}\n"
    )
    assert (
        CliRunner()
        .invoke(app, ["prepare", "--conf", str(conf), str(tmp_path / "prepared")], catch_exceptions=False)
        .exit_code
        == 0
    )
    write_schemas(tmp_path)
    monkeypatch.setenv("MY_S3_BUCKET", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("text", "model"), [(HRM, "hrm"), (GRU4REC, "gru4rec")])
@pytest.mark.parametrize("substituted", [False, True])
def test_the_origins_file_trains(bucket, text, model, substituted):
    """Its variables left or filled in, its tables as `seqrec prepare --samples` writes them: from its YAML to
    metrics in one command."""
    path = write(bucket, text, str(bucket) if substituted else "${MY_S3_BUCKET}")
    result = CliRunner().invoke(
        app, ["-q", "train", "--conf", str(path), "train.epochs=1"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "train.tables.beta" in result.output
    assert "ndcg@5" in result.output
    run = json.loads((bucket / "model_out" / "run.json").read_text())
    assert str(bucket) in json.dumps(run)
    metrics = json.loads((bucket / "model_out" / "metrics.json").read_text())
    assert "ndcg@5" in json.dumps(metrics)


@pytest.mark.parametrize("text", [HRM, GRU4REC])
def test_its_features_train_by_ftrl_too(bucket, text):
    """The genre of the item table, with the optimizer of tables over the tables of values."""
    write_schemas(bucket, seq="recent_movie_ids\nlast_genre\n", item="movie_id\ngenre\n")
    result = CliRunner().invoke(
        app, ["-q", "train", "--conf", str(write(bucket, text)), "train.epochs=1"], catch_exceptions=False
    )
    assert "ndcg@5" in result.output
    assert json.loads((bucket / "model_out" / "run.json").read_text())["features"]["item"] == [
        "item_id",
        "genre",
    ]


def test_the_validation_table_beside_the_training_table_is_read(bucket):
    path = [f"${{MY_S3_BUCKET}}/num_negs_4/{name}.parquet" for name in ("train", "validation", "test")]
    assert migrate.read(write(bucket, HRM)).run["data"]["path"] == path
    (bucket / "num_negs_4" / "validation.parquet").unlink()
    assert migrate.read(write(bucket, HRM)).run["data"]["path"] == [path[0], path[2]]


def test_migrate_writes_a_run_file_that_is_the_same_run(bucket):
    path = write(bucket, HRM)
    out = bucket / "migrated.yaml"
    result = CliRunner().invoke(
        app,
        ["migrate", str(path), "-o", str(out), "--write", str(bucket / "table.md")],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "ftrl_smothing_rate" in (bucket / "table.md").read_text()
    assert "${MY_S3_BUCKET}/num_negs_4/train.parquet" in out.read_text()
    assert yaml_file.read(out) == migrate.read(path).filled()
    assert migrate.recognise(yaml_file.parse(out)[0]) is None
    RunSettings.read(out).check()
    with pytest.raises(SettingsError, match="a file other than the input"):
        CliRunner().invoke(app, ["migrate", str(path), "-o", str(path)], catch_exceptions=False)


def test_hrm_key_by_key(tmp_path):
    write_schemas(tmp_path)
    migration = migrate.read(write(tmp_path, HRM), environment={"MY_S3_BUCKET": str(tmp_path)})
    run = migration.run
    b = "${MY_S3_BUCKET}/num_negs_4"
    assert run["data"] == {
        "path": [f"{b}/train.parquet", f"{b}/test.parquet"],
        "format": "samples",
        "items": f"{b}/item.parquet",
    }
    assert run["split"] == {"name": "last_n", "n": 3, "min_rating": 2}
    model = {
        "name": "hrm",
        "pool_items": "sum",
        "pool_user": "average",
        "shared": False,
        "dropout": 0.1,
        "dropout_at": "towers",
        "initial_std": 0.01,
        "width": 8,
    }
    assert run["model"] == model | {
        "recent": 10,
        "normalise": True,
        "temperature": 0.05,
        "user_vectors": True,
    }
    assert run["loss"] == {"name": "bce"}
    assert run["negatives"] == {
        "count": 4,
        "alpha": 0.75,
        "shared": False,
        "own": "exclude",
        "repeats": False,
    }
    assert run["train"]["tables"] == {
        "optimizer": "ftrl",
        "learning_rate": 0.5,
        "beta": 0.5,
        "l1": 0.0,
        "l2": 0.0,
    }
    assert (run["train"]["epochs"], run["train"]["batch_positions"]) == (2, 64)
    assert became(migration)["adam_learning_rate"].startswith("dropped: HRM has embedding tables only")
    assert run["evaluate"] == {
        "metrics": ["precision@5", "recall@5", "map@5", "ndcg@5"],
        "filter_seen": False,
    }
    assert run["output"] == {"folder": "${MY_S3_BUCKET}/model_out"}
    assert "features" not in run
    # Every key is in the table, once, with something said of it; what is odd about the file is in the notes.
    assert list(became(migration)) == list(yaml.safe_load(HRM.format(bucket="x")))
    assert all(text and text != "unknown" for text in became(migration).values())
    notes = "\n".join(migration.warnings)
    assert "input_label_column_index occurs 2 times with the same value" in notes
    assert "ftrl_smothing_rate: taken as ftrl_smoothing_rate" in notes
    assert "training_epoches: taken as training_epochs" in notes


def test_gru4rec_key_by_key(tmp_path):
    write_schemas(tmp_path)
    run = migrate.read(write(tmp_path, GRU4REC), environment={"MY_S3_BUCKET": str(tmp_path)}).run
    assert run["model"] == {
        "name": "gru4rec",
        "hidden": 16,
        "layers": 2,
        "width": 8,
        "embedding": "separate",
        "item_bias": False,
        "output_layer": True,
        "rows": "prefixes",
        "steps": 10,
        "dropout_embedding": 0.1,
        "dropout_between": 0.1,
        "dropout_item": 0.1,
        "initial_std": 0.01,
        "normalise": True,
        "temperature": 0.05,
    }
    assert run["train"]["learning_rate"] == 0.0002
    assert (run["loss"], run["negatives"]) == ({"name": "bpr"}, {"count": 0, "in_batch": True})
    assert "features" not in run  # its network reads no user_id
    RunSettings.of(run, "").check()


@pytest.mark.parametrize(("text", "user"), [(HRM, ["user_id", "gender#age"]), (GRU4REC, [])])
def test_schemas_become_features(tmp_path, text, user):
    write_schemas(
        tmp_path, user="user_id\ngender#age\n", seq="recent_movie_ids\nlast_genre\n", item="movie_id\ngenre\n"
    )
    migration = migrate.read(write(tmp_path, text), environment={"MY_S3_BUCKET": str(tmp_path)})
    assert migration.run["features"] == {
        "user": user,
        "sequence": ["item_id", "genre"],
        "item": ["item_id", "genre"],
    }
    assert any("GRU4Rec has no user tower" in warning for warning in migration.warnings) == (not user)
    assert became(migration)["item_combine_schema"] == "features"
    RunSettings.of(migration.run, "").check()


@pytest.mark.parametrize("environment", [{}, {"MY_S3_BUCKET": "memory://nothing-there"}])
def test_schemas_that_cannot_be_read_are_reported(tmp_path, environment):
    migration = migrate.read(write(tmp_path, HRM), environment=environment)
    assert "features" not in migration.run
    assert any(warning.startswith("The schema files were not read") for warning in migration.warnings)


def test_repeats_that_differ_and_unknown_keys_are_told(tmp_path):
    migration = migrate.read(write(tmp_path, HRM + "batch_size: 32\nnet_droput: 0.5\n"))
    assert migration.run["train"]["batch_positions"] == 32
    notes = "\n".join(migration.warnings)
    assert "batch_size occurs 2 times with different values (64, 32); the last counts" in notes
    assert "net_droput: unknown, and ignored." in notes
    assert became(migration)["net_droput"] == "unknown"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "metaspore.TwoTowerRetrievalModule",
            "os.system",
            r"two_tower_module_class: the class 'os.system' is unknown \(classes are not",
        ),
        ("metaspore.TwoTowerRetrievalModule", "python.algos.HRMUserModul", "Did you mean 'HRMUserModule'"),
        (
            "tau: 0.05",
            "gru_hidden_dim: 8",
            "expected the run of one model. pooling_type_layer_1 is of HRM, gru_hidden_dim of GRU4Rec",
        ),
        (
            "pooling_type_layer_1: sum",
            "pooling_type_layer_1: median",
            "pooling_type_layer_1: expected a value that model.pool_items can have",
        ),
        ("train_path", "training_path", "train_path: missing"),
        (
            "tau: 0.05",
            "tau: 0",
            "cannot be converted: hrm.temperature: expected greater than 0. Got 0",
        ),
        (
            "batch_size: 64",
            "batch_size: many",
            "cannot be converted: train.batch_positions: expected a valid integer",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused(tmp_path, old, new, message):
    with pytest.raises(SettingsError, match=message):
        migrate.read(write(tmp_path, HRM.replace(old, new)))


def test_no_model_can_be_told(tmp_path):
    text = HRM.replace("pooling_type_layer_1: sum\npooling_type_layer_2: mean\n", "").replace(
        "app_name: HRM\n", ""
    )
    with pytest.raises(SettingsError, match="cannot tell which model it is"):
        migrate.read(write(tmp_path, text))
    assert migrate.read(write(tmp_path, text.replace("two_towers", "my_hrm"))).run["model"]["name"] == "hrm"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"name": "hrm"}, "data": {"path": "x"}}, "needs no migration"),
        ({"fg_dataset_path": "x", "fg_dataset_out_path": "y"}, "seqrec prepare"),
        ({"a": 1}, "Got the keys a"),
    ],
)
def test_files_of_another_kind_are_refused(content, message):
    assert migrate.recognise(content) is None
    with pytest.raises(SettingsError, match=message):
        migrate.migrate(content)


RECBOLE = {
    "model": "SASRec",
    "dataset": "ring",
    "data_path": "dataset",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "USER_ID_FIELD": "user_id",
    "RATING_FIELD": "stars",
    "item_inter_num_interval": "[5,inf)",
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    "metrics": ["Recall", "NDCG"],
    "topk": [5, 10],
    "valid_metric": "NDCG@10",
    "hidden_size": 32,
    "inner_size": 64,
    "n_layers": 1,
    "MAX_ITEM_LIST_LENGTH": 20,
    "train_neg_sample_args": None,
    "loss_type": "CE",
    "train_batch_size": 256,
    "epochs": 3,
    "stopping_step": 2,
    "gpu_id": 0,
}


def test_recbole_key_by_key():
    assert migrate.recognise(RECBOLE) == "RecBole"
    migration = migrate.migrate(RECBOLE)
    run = migration.run
    assert run["data"]["path"].endswith("dataset/ring/ring.inter")
    assert (run["data"]["format"], run["data"]["columns"], run["data"]["min_item_count"]) == (
        "recbole",
        {"rating": "stars"},
        5,
    )
    assert run["split"] == {"name": "leave_one_out"}
    assert run["model"] == {
        "name": "sasrec",
        "width": 32,
        "blocks": 1,
        "heads": 2,
        "dropout": 0.5,
        "length": 20,
        "feedforward": 2.0,
    }
    assert run["loss"] == {"name": "softmax"}
    assert "negatives" not in run
    train = {
        "epochs": 3,
        "batch_positions": 256,
        "learning_rate": 0.001,
        "optimizer": "adamw",
        "patience": 2,
        "metric": "ndcg@10",
    }
    assert train.items() <= run["train"].items()
    assert run["evaluate"] == {
        "metrics": ["recall@5", "ndcg@5", "recall@10", "ndcg@10"],
        "filter_seen": False,
    }
    assert list(became(migration)) == list(RECBOLE)
    assert "unknown" not in became(migration).values()
    RunSettings.of(run, "").check()


@pytest.mark.parametrize("model", recbole.MODELS)
def test_every_model_of_recbole_that_is_here_too_becomes_a_valid_run(model):
    """With RecBole's defaults alone."""
    run = migrate.migrate({"model": model, "dataset": "ml-100k", "topk": 10}).run
    assert run["data"] == {"name": "ml-100k"}
    assert RunSettings.of(run, "").check().name == recbole.MODELS[model]


def test_recbole_pairwise_losses():
    run = migrate.migrate(
        RECBOLE
        | {
            "model": "GRU4Rec",
            "loss_type": "BPR",
            "train_neg_sample_args": {"distribution": "popularity", "sample_num": 4},
        }
    ).run
    assert (run["loss"], run["negatives"]) == ({"name": "bpr"}, {"count": 4, "alpha": 1.0, "shared": False})
    RunSettings.of(run, "").check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "BERT4Rec"}, "model: this project has no counterpart to RecBole's 'BERT4Rec'"),
        ({"model": None}, "model: missing .*model=GRU4Rec"),
        ({"dataset": None}, "dataset: missing"),
        (
            {"item_inter_num_interval": "5"},
            r"item_inter_num_interval: expected an interval such as '\[5,inf\)'",
        ),
        ({"eval_args": "LS"}, "eval_args: expected a mapping"),
    ],
)
def test_what_cannot_be_understood_of_recbole_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        migrate.migrate(RECBOLE | change)


def test_what_differs_from_recbole_is_told():
    notes = "\n".join(
        migrate.migrate(
            RECBOLE | {"hidden_act": "gelu", "learner": "sgd", "metrics": ["AUC", "Hit"]}
        ).warnings
    )
    assert "hidden_act: gelu: no counterpart here" in notes
    assert "learner: there is no sgd here" in notes
    assert "AUC: not measured here" in notes


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("[5,inf)", 5, None), ("(5,inf)", 6, None), ("[1.5, 10)", 2, 9), ("[0,10]", 0, 10), ("(-inf,3]", 0, 3)],
)
def test_intervals(text, least, most):
    assert recbole.interval(text, "x") == (least, most)


def test_a_recbole_file_trains_with_what_its_command_line_said(tmp_path):
    (tmp_path / "ring").mkdir()
    rows = "".join(f"u{u}\ti{(u + t) % 12}\t{t}\n" for u in range(30) for t in range(9))
    (tmp_path / "ring" / "ring.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    path, out = tmp_path / "recbole.yaml", tmp_path / "run.yaml"
    said = {
        "data_path": str(tmp_path),
        "epochs": 1,
        "embedding_size": 8,
        "hidden_size": 8,
        "topk": [5],
        "checkpoint_dir": str(tmp_path / "saved"),
    }
    path.write_text(yaml.safe_dump(said))
    run = CliRunner().invoke(
        app, ["migrate", str(path), "model=GRU4Rec", "dataset=ring", "-o", str(out)], catch_exceptions=False
    )
    assert run.exit_code == 0
    result = CliRunner().invoke(app, ["-q", "train", "--conf", str(out)], catch_exceptions=False)
    assert "ndcg@5" in result.output
    assert (tmp_path / "saved" / "GRU4Rec-ring" / "metrics.json").exists()


def test_seed_and_device_of_recbole_are_of_the_fit():
    migration = migrate.migrate(RECBOLE)
    assert migration.run["fit"] == {"seed": 2020, "device": "auto"}
    given = migrate.migrate(RECBOLE | {"seed": 7, "use_gpu": False})
    assert given.run["fit"] == {"seed": 7, "device": "cpu"}
    assert became(given)["seed"] == "fit.seed = 7"
    assert became(given)["use_gpu"] == "fit.device = cpu"
    assert not given.run["train"].keys() & {"seed", "device"}
