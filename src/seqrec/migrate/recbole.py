"""Run files of RecBole, for the models that this project has too.

(Zhao et al., CIKM 2021 and 2022; keys and defaults as of version 1.2.1.) Missing keys have RecBole's
defaults, not this project's. What its files do not show:

- sequential models never filter seen items; the others do unless ``repeatable``;
- a batch counts single targets, each with at most MAX_ITEM_LIST_LENGTH events before it;
- ``CE`` is the softmax over all items; ``BPR`` has ``sample_num`` negatives a target, drawn for it alone;
- minimum counts are applied until nothing changes;
- training ends after ``stopping_step`` validations without a better value, one more than counted here;
- weight decay is added to the gradient (L2), not to the weights.
"""

from __future__ import annotations

import math
import re
from typing import Any

from seqrec import sources, storage
from seqrec.errors import SettingsError, did_you_mean
from seqrec.migrate.draft import Draft

MODELS = {
    "Pop": "popularity",
    "ItemKNN": "item_knn",
    "FPMC": "fpmc",
    "HRM": "hrm",
    "GRU4Rec": "gru4rec",
    "SASRec": "sasrec",
}
SEQUENTIAL = ("FPMC", "HRM", "GRU4Rec", "SASRec")

OWN: dict[str, dict[str, tuple[str, Any]]] = {
    "Pop": {},
    "ItemKNN": {"k": ("model.neighbours", 100), "shrink": ("model.shrinkage", 0.0)},
    "FPMC": {"embedding_size": ("model.width", 64)},
    "HRM": {
        "embedding_size": ("model.width", 64),
        "high_order": ("model.recent", 2),
        "pooling_type_layer_1": ("model.pool_items", "max"),
        "pooling_type_layer_2": ("model.pool_user", "max"),
        "dropout_prob": ("model.dropout", 0.2),
    },
    "GRU4Rec": {
        "embedding_size": ("model.width", 64),
        "hidden_size": ("model.hidden", 128),
        "num_layers": ("model.layers", 1),
        "dropout_prob": ("model.dropout_embedding", 0.3),
        "MAX_ITEM_LIST_LENGTH": ("model.steps", 50),
    },
    "SASRec": {
        "hidden_size": ("model.width", 64),
        "n_layers": ("model.blocks", 2),
        "n_heads": ("model.heads", 2),
        "hidden_dropout_prob": ("model.dropout", 0.5),
        "MAX_ITEM_LIST_LENGTH": ("model.length", 50),
    },
}
"""Model -> its keys, each with the setting here and RecBole's default."""
FIXED: dict[str, dict[str, Any]] = {
    "ItemKNN": {"decay": 1.0},
    "HRM": {"shared": True},
    "GRU4Rec": {"embedding": "shared", "item_bias": False},
}
"""Model -> settings here that RecBole does not let one choose."""
LOSSES = {"CE": "softmax", "BPR": "bpr"}
DEFAULT_LOSS = {"FPMC": "BPR", "HRM": "CE", "GRU4Rec": "CE", "SASRec": "CE"}
LEARNERS = {"adam": "adamw", "adamw": "adamw", "adagrad": "adagrad"}
METRICS = {
    "recall": "recall",
    "mrr": "mrr",
    "ndcg": "ndcg",
    "hit": "hit_rate",
    "precision": "precision",
    "map": "map",
}
FIELDS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "RATING_FIELD": "rating",
    "TIME_FIELD": "timestamp",
}

NOTHING_TO_SET = {
    "there is no such setting here": (
        *(
            "worker",
            "state",
            "reproducibility",
            "show_progress",
            "shuffle",
            "loss_decimal_place",
            "metric_decimal_place",
            "require_pow",
        ),
        *(
            "save_dataset",
            "dataset_save_path",
            "save_dataloaders",
            "dataloaders_save_path",
            "log_wandb",
            "wandb_project",
            "eval_batch_size",
        ),
        *(
            "valid_metric_bigger",
            "LABEL_FIELD",
            "NEG_PREFIX",
            "ITEM_LIST_LENGTH_FIELD",
            "LIST_SUFFIX",
            "POSITION_FIELD",
            "seq_separator",
        ),
        *("enable_scaler", "gpu_id", "filter_inter_by_user_or_item", "reg_weight", "seq_len", "config_file"),
    ),
    "columns are chosen by their use": (
        "load_col",
        "unload_col",
        "unused_col",
        "additional_feat_suffix",
        "numerical_features",
    ),
}
NO_COUNTERPART = {
    **dict.fromkeys(
        ("rm_dup_inter", "val_interval", "threshold", "benchmark_filename", "field_separator"), None
    ),
    **dict.fromkeys(
        (
            "alias_of_user_id",
            "alias_of_item_id",
            "preload_weight",
            "normalize_field",
            "discretization",
            "transform",
        ),
        None,
    ),
    "enable_amp": False,
    "normalize_all": False,
    "knn_method": "item",
    "attn_dropout_prob": 0.0,
    "hidden_act": "relu",
    "layer_norm_eps": None,
    "initializer_range": None,
}
"""Key -> the value with which it has no effect (None: it always has one)."""
HANDLED = (
    *("model", "dataset", "data_path", *FIELDS, "user_inter_num_interval", "item_inter_num_interval"),
    *(
        "eval_args",
        "eval_setting",
        "repeatable",
        "metrics",
        "topk",
        "valid_metric",
        "eval_step",
        "stopping_step",
    ),
    *(
        "epochs",
        "train_batch_size",
        "learning_rate",
        "learner",
        "weight_decay",
        "clip_grad_norm",
        "seed",
        "use_gpu",
        "device",
    ),
    *(
        "loss_type",
        "train_neg_sample_args",
        "neg_sampling",
        "inner_size",
        "MAX_ITEM_LIST_LENGTH",
        "checkpoint_dir",
    ),
)
KNOWN = {
    key: key
    for key in (
        *HANDLED,
        *NO_COUNTERPART,
        *(k for keys in NOTHING_TO_SET.values() for k in keys),
        *(k for own in OWN.values() for k in own),
    )
}


def convert(draft: Draft) -> None:
    """Fills the draft.

    Raises:
        SettingsError: no model, or one that this project does not have, no data set, or a value that cannot
            be converted.
    """
    model = _model(draft)
    _data(draft)
    _split(draft)
    for key, (place, default) in OWN[model].items():
        draft.move(key, place, default=default)
    for key, value in FIXED.get(model, {}).items():
        draft.put(f"model.{key}", value)
    if model in SEQUENTIAL:
        _loss(draft, model)
        _training(draft)
    if model == "SASRec":
        inner, width = draft.value("inner_size", 256), draft.value("hidden_size", 64)
        draft.put("model.feedforward", inner / width)
        draft.say("inner_size", f"model.feedforward = {inner / width:g} widths")
    _evaluation(draft, model)
    folder = storage.join(draft.text("checkpoint_dir") or "saved", f"{model}-{draft.text('dataset')}")
    draft.put("output", {"folder": folder})
    draft.say("checkpoint_dir", f"output.folder = {folder}")
    for why, keys in NOTHING_TO_SET.items():
        draft.drop(why, *keys)
    for key, silent in NO_COUNTERPART.items():
        if key in draft and draft.value(key) != silent:
            draft.say(key, "dropped: no counterpart here")
            draft.warn(f"{key}: {draft.value(key)}: no counterpart here; the run does without it.")
        else:
            draft.drop("has no effect", key)
    used = {key for key in draft.spelt if draft.spelt[key] in draft.became}
    draft.drop(f"not a key of {model}", *(key for key in KNOWN if key not in used))
    draft.warn("Missing keys have RecBole's defaults, where this project has the setting.")


def _model(draft: Draft) -> str:
    name = draft.value("model")
    if name is None:
        raise SettingsError(
            f"{draft.source}: model: missing (RecBole takes it on its command line). Add it after the "
            "file: model=GRU4Rec."
        )
    by_lower = {known.lower(): known for known in MODELS}
    if str(name).lower() not in by_lower:
        hint = did_you_mean(str(name), MODELS)
        known = "" if hint.startswith(" Known") else f" Known: {', '.join(MODELS)}."
        raise SettingsError(f"model: this project has no counterpart to RecBole's {name!r}.{hint}{known}")
    model = by_lower[str(name).lower()]
    draft.put("model", {"name": MODELS[model]})
    draft.say("model", f"model.name = {MODELS[model]}")
    return model


def _data(draft: Draft) -> None:
    name, folder = draft.text("dataset"), draft.text("data_path")
    if name is None:
        raise SettingsError(
            f"{draft.source}: dataset: missing (RecBole takes it on its command line). Add it after the "
            "file: dataset=ml-100k."
        )
    if folder is None and name in sources.DATASETS:
        draft.put("data", {"name": name})
        draft.say("dataset", f"data.name = {name}")
    else:
        path = storage.join(folder or "dataset", name, f"{name}.inter")
        draft.put("data", {"path": path, "format": "recbole"})
        draft.say("dataset", f"data.path = {path}")
    draft.say("data_path", "data.path")
    columns = {
        meaning: draft.value(key)
        for key, meaning in FIELDS.items()
        if key in draft and draft.value(key) != meaning
    }
    if columns and "path" in draft.run["data"]:
        draft.put("data.columns", columns)
    for key, meaning in FIELDS.items():
        draft.say(
            key,
            f"data.columns.{meaning} = {draft.value(key)}" if meaning in columns else "the same name here",
        )
    for key, place in (
        ("item_inter_num_interval", "data.min_item_count"),
        ("user_inter_num_interval", "data.min_user_count"),
    ):
        if key in draft:
            least, most = interval(draft.value(key), key)
            if least > 1:
                draft.put(place, least)
            draft.say(key, f"{place} = {least}" if least > 1 else "dropped: excludes nothing")
            if most is not None:
                draft.warn(f"{key}: there is no upper bound here; only the lower one counts.")
    if "data" in draft.run and {"min_item_count", "min_user_count"} <= draft.run["data"].keys():
        draft.warn(
            "Minimum counts are applied once here, items first; RecBole applies them until nothing changes."
        )


def interval(text: Any, key: str) -> tuple[int, int | None]:
    """``"[5,inf)"`` -> (5, None): the least and the largest whole number of an interval, None without end.

    Raises:
        SettingsError: the text is not an interval.
    """
    found = re.fullmatch(r"\s*([\[(])\s*([\d.]+|-?inf)\s*,\s*([\d.]+|inf)\s*([\])])\s*", str(text))
    if found is None:
        raise SettingsError(f"{key}: expected an interval such as '[5,inf)'. Got {text!r}.")
    opening, low, high, closing = found.groups()
    least = 0 if low == "-inf" else math.floor(float(low)) + 1 if opening == "(" else math.ceil(float(low))
    most = (
        None if high == "inf" else math.ceil(float(high)) - 1 if closing == ")" else math.floor(float(high))
    )
    return least, most


def _split(draft: Draft) -> None:
    arguments = draft.value("eval_args", {})
    if not isinstance(arguments, dict):
        raise SettingsError(
            f"eval_args: expected a mapping with split, order, group_by and mode. Got {arguments!r}."
        )
    if "eval_setting" in draft:  # RecBole before 1.0: "TO_LS,full"
        order_and_split, _, mode = str(draft.value("eval_setting")).partition(",")
        arguments = {
            "order": order_and_split[:2],
            "split": {order_and_split[3:5]: "valid_and_test"},
            "mode": mode.strip() or "full",
        } | arguments
    order, how = arguments.get("order", "TO"), arguments.get("split", {"LS": "valid_and_test"})
    ratios = how.get("RS") if isinstance(how, dict) else None
    if order == "TO" and isinstance(how, dict) and "LS" in how:
        split: dict[str, Any] = {"name": "leave_one_out"}
    elif (
        order == "TO"
        and isinstance(ratios, list)
        and len(ratios) == 3
        and str(arguments.get("group_by", "user")).lower() == "none"
    ):
        train, validation = ratios[0] / sum(ratios), (ratios[0] + ratios[1]) / sum(ratios)
        split = {
            "name": "global_temporal",
            "validation_cut": round(train, 6),
            "test_cut": round(validation, 6),
            "targets": "successive",
        }
        draft.warn(
            "The log is cut at two moments in time, so that no training event is later than a test event; "
            "RecBole cuts by the number of events."
        )
    else:
        split = {"name": "leave_one_out"}
        draft.warn(
            f"eval_args: no split here corresponds to {how} in the order {order}; each user's last event "
            "tests, the one before validates."
        )
    draft.put("split", split)
    modes = arguments.get("mode", "full")
    for mode in set(modes.values()) if isinstance(modes, dict) else {modes}:
        if mode != "full":
            draft.warn(
                f"eval_args: mode {mode} ranks a few sampled items; here every item is ranked, so "
                "metrics are lower."
            )
    for key in ("eval_args", "eval_setting"):
        draft.say(key, f"split.name = {split['name']}")


def _loss(draft: Draft, model: str) -> None:
    draft.move("loss_type", "loss.name", LOSSES.__getitem__, LOSSES[DEFAULT_LOSS[model]])
    sampling = draft.value("train_neg_sample_args")
    old = draft.value("neg_sampling")
    if sampling is None and isinstance(old, dict) and old:  # RecBole 1.0: {uniform: 1}
        sampling = {"distribution": next(iter(old)), "sample_num": next(iter(old.values()))}
    draft.drop("softmax compares with every item", "train_neg_sample_args", "neg_sampling")
    if draft.run["loss"]["name"] == "softmax":
        return
    if sampling is not None and not isinstance(sampling, dict):
        raise SettingsError(
            f"train_neg_sample_args: expected a mapping with distribution and sample_num. Got {sampling!r}."
        )
    sampling = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0} | (sampling or {})
    alpha = sampling["alpha"] if sampling["distribution"] == "popularity" else 0.0
    negatives = {"count": sampling["sample_num"], "alpha": alpha, "shared": False}
    draft.put("negatives", negatives)
    for key in ("train_neg_sample_args", "neg_sampling"):
        draft.say(key, f"negatives.count = {negatives['count']}, negatives.alpha = {alpha:g}")
    if sampling.get("dynamic"):
        draft.warn(
            "train_neg_sample_args: there is no dynamic sampling here; negatives are drawn by their "
            "probability alone."
        )


def _training(draft: Draft) -> None:
    draft.move("epochs", "train.epochs", default=300)
    draft.move("train_batch_size", "train.batch_positions", default=2048)
    draft.move("learning_rate", "train.learning_rate", default=0.001)
    learner = str(draft.value("learner", "adam")).lower()
    if learner not in LEARNERS:
        draft.warn(f"learner: there is no {learner} here; adamw is used instead.")
    draft.put("train.optimizer", LEARNERS.get(learner, "adamw"))
    draft.say("learner", f"train.optimizer = {draft.run['train']['optimizer']}")
    draft.move("weight_decay", "train.weight_decay", default=0.0)
    draft.put("train.schedule", "constant")
    draft.put("train.warmup", 0)
    clip = draft.value("clip_grad_norm")
    if clip:
        draft.put("train.clip", clip["max_norm"] if isinstance(clip, dict) and "max_norm" in clip else clip)
    draft.say(
        "clip_grad_norm", f"train.clip = {draft.run['train']['clip']}" if clip else "dropped: clips nothing"
    )
    draft.move("stopping_step", "train.patience", lambda steps: max(1, int(steps)), default=10)
    draft.move("eval_step", "train.validate_every", default=1)
    draft.move("seed", "fit.seed", default=2020)
    device = "auto" if draft.value("use_gpu", True) else "cpu"
    draft.put("fit.device", device)
    for key in ("use_gpu", "device"):
        draft.say(key, f"fit.device = {device}")


def _evaluation(draft: Draft, model: str) -> None:
    filter_seen = model not in SEQUENTIAL and not draft.value("repeatable", False)
    cutoffs = draft.value("topk", [10])
    cutoffs = cutoffs if isinstance(cutoffs, list) else [cutoffs]
    asked = draft.value("metrics", ["Recall", "MRR", "NDCG", "Hit", "Precision"])
    asked = asked if isinstance(asked, list) else [asked]
    unknown = [name for name in asked if str(name).lower() not in METRICS]
    if unknown:
        draft.warn(f"metrics: {', '.join(map(str, unknown))}: not measured here.")
    names = [METRICS[str(name).lower()] for name in asked if name not in unknown] or ["ndcg"]
    draft.put(
        "evaluate",
        {"metrics": [f"{name}@{k}" for k in cutoffs for name in names], "filter_seen": filter_seen},
    )
    draft.say("metrics", f"evaluate.metrics: {', '.join(names)}")
    draft.say("topk", f"evaluate.metrics: @{', @'.join(map(str, cutoffs))}")
    draft.say("repeatable", f"evaluate.filter_seen = {str(filter_seen).lower()}")
    if model not in SEQUENTIAL:
        return
    name, _, k = str(draft.value("valid_metric", "MRR@10")).partition("@")
    if name.lower() in METRICS and k:
        draft.put("train.metric", f"{METRICS[name.lower()]}@{k}")
        draft.say("valid_metric", f"train.metric = {METRICS[name.lower()]}@{k}")
    else:
        draft.put("train.metric", f"mrr@{cutoffs[0]}")
        draft.say("valid_metric", f"train.metric = mrr@{cutoffs[0]}")
        draft.warn(f"valid_metric: {draft.value('valid_metric')} is not measured here; mrr@{cutoffs[0]} is.")
    draft.put("train.filter_seen", filter_seen)
