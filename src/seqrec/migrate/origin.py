"""Run files of MetaSpore's sequential demo: HRM and GRU4Rec on tables of samples.

The demo is github meta-soul/MetaSpore, demo/sequential. What its run files do not say, read from its code:

- scripts import class paths that the file names; here the class's name only says which model is meant;
- the tables hold ten recent items a row, and are written in random order, so that a batch is of many users
  whether or not it is shuffled again. GRU4Rec reads each row from a zero state;
- HRM's tables have the set of ``num_negs`` draws for each of a user's events, minus the user's own items;
  GRU4Rec's have no negatives: the other items of the batch serve;
- HRM's loss is the mean over rows of binary cross-entropy, GRU4Rec's is BPR; both normalise their vectors
  and divide by ``tau``;
- FTRL trains all embeddings, Adam everything else. HRM has nothing else, so its Adam trains nothing;
- ``sparse_init_var`` is passed to a function that takes a standard deviation;
- ``item_embedding_size``, ``milvus_*`` and ``experiment_name`` reach no model;
- precision, recall, MAP and NDCG are measured over those of each user's last three events that are rated
  above 2, and seen items are not filtered out.
"""

from __future__ import annotations

import re
from typing import Any

from seqrec import storage
from seqrec.errors import SeqrecError, SettingsError, did_you_mean
from seqrec.migrate.draft import Draft
from seqrec.settings import yaml_file

CLASSES: dict[str, str | None] = {
    "GRU4RecBatchNegativeSamplingModule": "gru4rec",
    "GRU4RecBatchNegativeSamplingAgent": "gru4rec",
    "GRU4RecUserModule": "gru4rec",
    "GRU4RecItemModule": "gru4rec",
    "GRU4RecSimilarityModule": "gru4rec",
    "HRMUserModule": "hrm",
    "HRMItemModule": "hrm",
    "HRMSimilarityModule": "hrm",
    "TwoTowerRetrievalModule": None,
    "TwoTowerRetrievalEstimator": None,
    "PyTorchAgent": None,
}
"""The last part of a class path -> its model; None for classes of any model."""

SCHEMAS = ("column_schema", "user_combine_schema", "seq_combine_schema", "item_combine_schema")
SPARK = (
    "app_name",
    "local",
    "worker_count",
    "server_count",
    "worker_memory",
    "server_memory",
    "coordinator_memory",
)
MILVUS = (
    "milvus_description",
    "milvus_host",
    "milvus_port",
    "milvus_embedding_field",
    "milvus_index_type",
    "milvus_metric_type",
    "milvus_nlist",
    "milvus_nprobe",
    "milvus_collection_name",
    "milvus_index_params",
    "milvus_search_params",
)
COLUMNS = (
    "input_label_column_index",
    "item_ids_column_indices",
    "input_item_id_column_index",
    "input_feature_column_num",
)
OF_HRM = ("pooling_type_layer_1", "pooling_type_layer_2")
OF_GRU4REC = ("gru_hidden_dim", "gru_num_layers", "loss_type")
KEYS = (
    *SPARK,
    *("train_path", "test_path", "item_path"),
    *("two_tower_module_class", "two_tower_agent_class", "two_tower_estimator_class"),
    *("user_column_name", "item_column_name", *SCHEMAS[1:]),
    *("model_in_path", "model_out_path", "model_export_path", "model_version", "experiment_name"),
    *COLUMNS,
    "retrieval_item_count",
    *MILVUS,
    *OF_HRM,
    *OF_GRU4REC,
    *("tau", "sparse_init_var", "net_dropout", "batch_size", "vector_embedding_size", "item_embedding_size"),
    *(
        "adam_learning_rate",
        "ftrl_learning_rate",
        "ftrl_smoothing_rate",
        "ftrl_l1_regularization",
        "ftrl_l2_regularization",
    ),
    *("training_epochs", "shuffle_training_dataset"),
)
OTHER_SPELLINGS = {
    "ftrl_smothing_rate": "ftrl_smoothing_rate",
    "training_epoches": "training_epochs",
    "ftrl_l1_regularisation": "ftrl_l1_regularization",
    "ftrl_l2_regularisation": "ftrl_l2_regularization",
    "user_combine_schema_path": "user_combine_schema",
    "seq_combine_schema_path": "seq_combine_schema",
    "item_combine_schema_path": "item_combine_schema",
}
KNOWN = {key: key for key in KEYS} | OTHER_SPELLINGS
POOLINGS = {"sum": "sum", "mean": "average", "average": "average", "max": "max"}


def convert(draft: Draft) -> None:
    """Fills the draft.

    Raises:
        SettingsError: an unknown class, a missing path, or no way to tell which model is meant.
    """
    model = which_model(draft)
    _data(draft)
    draft.put("model.name", model)
    if model == "hrm":
        _hrm(draft)
    else:
        _gru4rec(draft)
    draft.move("vector_embedding_size", "model.width")
    if draft.value("item_embedding_size", draft.value("vector_embedding_size")) != draft.value(
        "vector_embedding_size"
    ):
        draft.warn(
            "item_embedding_size differs from vector_embedding_size, which is the width of both towers; "
            "it is not used."
        )
    draft.drop("vector_embedding_size is the width of both towers", "item_embedding_size")
    draft.put("model.normalise", True)
    draft.move("tau", "model.temperature")
    _schema(draft, model)
    _training(draft, model)
    k = draft.value("retrieval_item_count", 20)
    metrics = [f"{name}@{k}" for name in ("precision", "recall", "map", "ndcg")]
    draft.put("train.metric", f"ndcg@{k}")
    draft.put("train.filter_seen", False)
    draft.put("evaluate", {"metrics": metrics, "filter_seen": False})
    draft.say("retrieval_item_count", f"evaluate.metrics = {', '.join(metrics)}")
    _output(draft)
    draft.drop("of Spark; there is no cluster here", *SPARK)
    draft.drop("of Milvus; `seqrec recommend` searches the item vectors itself", *MILVUS)


def which_model(draft: Draft) -> str:
    """The model of a run, "hrm" or "gru4rec".

    Told by its classes, else by the keys that only one of them has, else by the names of the run.

    Raises:
        SettingsError: an unknown class, or signs of neither model or of both.
    """
    named: dict[str, str] = {}  # model -> what says so
    for key in ("two_tower_module_class", "two_tower_agent_class", "two_tower_estimator_class"):
        path = draft.value(key)
        if path is None:
            draft.drop("no class", key)
            continue
        name = str(path).rpartition(".")[2]
        if name not in CLASSES:
            raise SettingsError(
                f"{key}: the class {path!r} is unknown (classes are not imported).{_classes(name)}"
            )
        model = CLASSES[name]
        draft.say(
            key,
            f"model.name = {model}; the class is not imported"
            if model
            else "dropped: serves any model; the class is not imported",
        )
        if model:
            named[model] = f"{key}: {path}"
    for model, keys in (("hrm", OF_HRM), ("gru4rec", OF_GRU4REC)):
        for key in keys:
            if key in draft:
                named.setdefault(model, key)
    if not named:
        for key in ("experiment_name", "app_name", "model_out_path", "user_column_name"):
            for model in ("hrm", "gru4rec"):
                if model in (draft.text(key) or "").lower():
                    named.setdefault(model, f"{key}: {draft.text(key)}")
    if len(named) == 1:
        return next(iter(named))
    if named:
        raise SettingsError(
            f"{draft.source}: expected the run of one model. {named['hrm']} is of HRM, "
            f"{named['gru4rec']} of GRU4Rec."
        )
    raise SettingsError(
        f"{draft.source}: cannot tell which model it is. Expected HRM (with pooling_type_layer_1) or "
        "GRU4Rec (with gru_hidden_dim), or experiment_name: hrm or gru4rec."
    )


def _classes(name: str) -> str:
    hint = did_you_mean(name, CLASSES)
    return hint if not hint.startswith(" Did") else f"{hint} Known: {', '.join(sorted(CLASSES))}."


def _data(draft: Draft) -> None:
    paths = []
    for key in ("train_path", "test_path"):
        if key not in draft:
            raise SettingsError(
                f"{key}: missing. The tables of training and of test samples are read back into one log."
            )
        paths.append(draft.text(key))
        draft.say(key, f"data.path, its {'first' if key == 'train_path' else 'last'} file")
    validation = _validation_table(draft)
    if validation is not None:
        paths.insert(1, validation)
        draft.warn(f"{validation} is next to the training table and is read as well: its events validate.")
    draft.put("data", {"path": paths, "format": "samples"})
    if "item_path" in draft:
        draft.put("data.items", draft.text("item_path"))
        draft.say("item_path", "data.items")
    draft.put("split", {"name": "last_n", "n": 3, "min_rating": 2})
    draft.warn(
        "The split is that of the tables (each user's last three events test, those rated above 2 are "
        "targets); the fourth-last validates."
    )
    draft.drop("columns of sample tables are found by name", *COLUMNS)


def _validation_table(draft: Draft) -> str | None:
    """The validation table that ``seqrec prepare --samples`` writes next to the training table, if any."""
    folder, slash, name = (draft.text("train_path") or "").rpartition("/")
    path = f"{folder}{slash}validation.parquet"
    if name != "train.parquet":
        return None
    try:
        return path if storage.exists(yaml_file.fill(path, draft.environment, "train_path")) else None
    # as in _schema: what cannot be read now counts as absent; training will say why it cannot read the rest
    except (SeqrecError, OSError):
        return None


def _hrm(draft: Draft) -> None:
    draft.put("model.recent", 10)
    draft.move("pooling_type_layer_1", "model.pool_items", POOLINGS.__getitem__)
    draft.move("pooling_type_layer_2", "model.pool_user", POOLINGS.__getitem__)
    draft.put("model.shared", False)
    draft.move("net_dropout", "model.dropout")
    draft.put("model.dropout_at", "towers")
    draft.move("sparse_init_var", "model.initial_std")
    found = re.search(r"num_negs_(\d+)", draft.text("train_path") or "")
    negatives = int(found[1]) if found else 10
    if not found:
        draft.warn(
            "train_path does not show how many negatives the training table has for each positive "
            "(num_negs_N): 10 is assumed."
        )
    draft.put("loss", {"name": "bce"})
    draft.put(
        "negatives",
        {"count": negatives, "alpha": 0.75, "shared": False, "own": "exclude", "repeats": False},
    )
    draft.warn(
        f"The table's negatives are not used: {negatives} for each positive are drawn anew in every epoch, "
        "by popularity to the power 0.75. As there, what is drawn for a user is a set, less the items of the "
        "user's own training events, so that fewer are left (4.7 of 10 on MovieLens-1M). batch_size counts "
        "positives here, each with its negatives; there it counts all rows."
    )
    draft.warn("A user's first event is no row here, since nothing comes before it; there its history is 0.")
    draft.drop("HRM has no recurrent layers", *OF_GRU4REC)


def _gru4rec(draft: Draft) -> None:
    draft.move("gru_hidden_dim", "model.hidden")
    draft.move("gru_num_layers", "model.layers")
    draft.put("model.embedding", "separate")
    draft.put("model.item_bias", False)
    draft.put("model.output_layer", True)
    draft.put("model.rows", "prefixes")
    draft.put("model.steps", 10)
    draft.move("net_dropout", "model.dropout_embedding")
    if "net_dropout" in draft:
        for place in ("between", "item"):
            draft.put(f"model.dropout_{place}", draft.value("net_dropout"))
        draft.say("net_dropout", "model.dropout_embedding, model.dropout_between, model.dropout_item")
    draft.move("sparse_init_var", "model.initial_std")
    draft.put("loss", {"name": "bpr"})
    draft.move("loss_type", "loss.name", {"bpr": "bpr", "top1": "top1"}.__getitem__)
    draft.put("negatives", {"count": 0, "in_batch": True})
    draft.warn(
        "A row is the ten items before an event, as there. What differs: the recurrent layers have biases; "
        "rows with label 0, which are trained there like all others, are left out; a user's first event is "
        "no row, since nothing comes before it (there its history is 0); an item that occurs twice in a "
        "batch is no negative of itself."
    )
    draft.drop("GRU4Rec pools nothing", *OF_HRM)


def _training(draft: Draft, model: str) -> None:
    draft.move("training_epochs", "train.epochs")
    draft.move("batch_size", "train.batch_positions")
    draft.put("train.schedule", "constant")
    draft.put("train.warmup", 0)
    ftrl = {
        "ftrl_learning_rate": "learning_rate",
        "ftrl_smoothing_rate": "beta",
        "ftrl_l1_regularization": "l1",
        "ftrl_l2_regularization": "l2",
    }
    if any(key in draft for key in ftrl):
        draft.put("train.tables", {"optimizer": "ftrl"})
        draft.warn(
            "train.tables trains the embeddings with FTRL, as there. Without it AdamW trains everything, "
            "which learnt faster in our comparison."
        )
    for key, name in ftrl.items():
        draft.move(key, f"train.tables.{name}")
    if model == "hrm" and "tables" in draft.run["train"]:
        draft.drop("HRM has embedding tables only, which FTRL trains", "adam_learning_rate")
    else:
        draft.move("adam_learning_rate", "train.learning_rate")
    draft.drop("rows are always shuffled here", "shuffle_training_dataset")
    draft.warn("training_epochs is a maximum: the epoch that validates best is kept.")


def _output(draft: Draft) -> None:
    folder = draft.text("model_out_path")
    if folder is not None:
        draft.put("output", {"folder": folder.rstrip("/")})
        draft.say("model_out_path", "output.folder")
    if "model_in_path" in draft:
        draft.warn("model_in_path: training cannot continue from an older model here; it starts afresh.")
    if "model_export_path" in draft:
        draft.warn("model_export_path: nothing is exported; the model is saved in output.folder, as model/.")
    draft.drop(
        "it has no value",
        *(key for key in ("model_in_path", "model_export_path", "model_out_path") if key not in draft),
    )
    draft.drop("see the notes", *(key for key in ("model_in_path", "model_export_path") if key in draft))
    draft.drop("output.folder tells runs apart", "model_version", "experiment_name")


def _schema(draft: Draft, model: str) -> None:
    """The features that the schema files name, where they can be read."""
    paths = {name: draft.text(key) for name, key in zip(SCHEMAS, ("user_column_name", *SCHEMAS[1:]))}
    keys = ("user_column_name", "item_column_name", *SCHEMAS[1:])
    if draft.text("item_column_name") not in (None, paths["column_schema"]):
        draft.warn("item_column_name differs from user_column_name; the columns of the latter count.")
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        for key in keys:
            draft.say(key, f"dropped: without {missing[0]} there is no schema")
        return
    try:
        files = {name: yaml_file.fill(path, draft.environment, name) for name, path in paths.items()}
        absent = next((path for path in files.values() if not storage.exists(path)), None)
        problem = None if absent is None else f"{absent} does not exist"
    # no credentials, no such bucket, no library for s3: reported, and ids alone are features
    except (SeqrecError, OSError) as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
    if problem is not None:
        draft.warn(
            f"The schema files were not read ({problem}); only ids are features. Name others under features."
        )
        for key in keys:
            draft.say(key, "not read, see the notes")
        return
    from seqrec.features.schema import FeatureSchema

    schema = FeatureSchema.from_origin(*(files[name] for name in SCHEMAS))
    features: dict[str, Any] = {"user": schema.user, "sequence": schema.sequence, "item": schema.item}
    if model == "gru4rec" and features["user"]:
        draft.warn(
            f"user_combine_schema ({', '.join(features['user'])}): not used, as GRU4Rec has no user tower "
            "there."
        )
        features["user"] = []
    if features in (
        {"user": user, "sequence": ["item_id"], "item": ["item_id"]} for user in ([], ["user_id"])
    ):
        if model == "hrm":
            draft.put("model.user_vectors", bool(features["user"]))
    else:
        draft.put("features", features)
    for key in keys:
        draft.say(key, "features" if "features" in draft.run else "only ids, so no features are named")
