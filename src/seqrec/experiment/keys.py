"""Checks the names in a run's sections of a model before the model's file, and with it torch, is imported.

What it lets pass is checked again, and fully, where the model is made. Models and losses from outside the
package are not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from seqrec import models
from seqrec.errors import SettingsError, did_you_mean, shown
from seqrec.features.schema import FeatureSchema
from seqrec.settings import names, outline
from seqrec.training.settings import TrainSettings

LOSSES = "seqrec.training.loss"
NEGATIVES = ("seqrec.training.negatives", "NegativesSettings")
ITEM_TABLE = ("seqrec.models.item_table", "ItemTableSettings")
PRIOR = ("seqrec.models.prior", "PriorSettings")


def check(
    model: Mapping[str, Any],
    loss: Any = None,
    negatives: Any = None,
    train: Any = None,
    features: Any = None,
    prior: Any = None,
    item_table: Any = None,
) -> None:
    """Checks the model's name and the keys of its sections.

    Raises:
        SettingsError: no such model or loss, or an unknown key; says which is nearest.
    """
    name = model.get("name")
    if name is None:
        raise SettingsError(f"model.name: missing. Known: {', '.join(models.MODELS)}.")
    if not isinstance(name, str):
        raise SettingsError(f"model.name: expected the name of a model. Got {shown(name)}.")
    if name not in models.MODELS:
        if ":" not in name:
            names.check("model", name, models.MODELS)
        return
    module, _, cls = models.MODELS[name].partition(":")
    own = outline.attribute(module, cls, "Settings")
    _known(
        [key for key in model if key != "name"], outline.keys(module, ast.unparse(own)) if own else None, name
    )
    if isinstance(train, dict):
        TrainSettings.of(train, "train")
    if isinstance(negatives, dict):
        _known(negatives, outline.keys(*NEGATIVES), "negatives")
    if isinstance(prior, dict):
        _known(prior, outline.keys(*PRIOR), "prior")
    if isinstance(item_table, dict):
        _known(item_table, outline.keys(*ITEM_TABLE), "item_table")
    if isinstance(features, dict):
        FeatureSchema.of(features, "features")
    check_loss(loss, default_loss(name))
    unused = None if negatives is None else loss_without_negatives(model, loss)
    if unused is not None:
        raise SettingsError(
            f"negatives: the loss {unused} compares each target with the whole catalogue, and draws none. "
            f"Got {shown(negatives)}. Leave the section out, or take another loss, as "
            "loss.name=sampled_softmax."
        )


def default_loss(model: str) -> dict[str, Any]:
    """What a shipped model says of its loss."""
    module, _, cls = models.MODELS[model].partition(":")
    found = outline.attribute(module, cls, "default_loss")
    return {} if found is None else dict(ast.literal_eval(found))


def loss_without_negatives(model: Any, loss: Any) -> str | None:
    """The name of the shipped loss, if it compares with the whole catalogue; None if it draws negatives, or
    is none of ours."""
    name = model.get("name") if isinstance(model, Mapping) else None
    own = default_loss(name) if isinstance(name, str) and name in models.MODELS else {}
    options = {"name": loss} if isinstance(loss, str) else {**own, **(loss if isinstance(loss, dict) else {})}
    return "softmax" if options.get("name", "softmax") == "softmax" else None


def check_loss(loss: Any, default: Mapping[str, Any]) -> None:
    """The same of a loss, whose name may be the model's default.

    Raises:
        SettingsError: no such loss, or an unknown option.
    """
    if not (loss is None or isinstance(loss, str | dict)):
        return  # refused where the model is made
    options = {"name": loss} if isinstance(loss, str) else {**default, **(loss or {})}
    name, known = options.get("name", "softmax"), losses()
    if not isinstance(name, str):
        return
    if name not in known:
        if ":" not in name:
            try:
                names.check("loss", name, known)
            except SettingsError as error:
                raise SettingsError(f"loss.name: {error}") from error
        return
    for option in options:
        if option not in known[name] and not any(option in of for of in known.values()):
            _known([option], known[name], "loss")


def losses() -> dict[str, list[str]]:
    """Name -> options of the shipped losses."""
    found: dict[str, list[str]] = {}
    for cls in outline.classes(LOSSES):
        value = outline.attribute(LOSSES, cls, "name")
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
            found[value.value] = list(dict.fromkeys(outline.keys(LOSSES, cls) or ()))
    return found


def _known(given: Iterable[Any], known: Iterable[str] | None, section: str) -> None:
    if known is None:
        return
    known = list(known)
    for key in given:
        if key not in known:
            raise SettingsError(f"{section}.{key}: unknown setting.{did_you_mean(str(key), known)}")
