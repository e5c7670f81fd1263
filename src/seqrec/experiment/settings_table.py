"""The settings of a section, a model, a loss or a split as a table: keys, types, defaults, choices, meaning.

Everything is read from the settings classes, so that it says what the program does.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from seqrec import models
from seqrec.errors import SettingsError, did_you_mean
from seqrec.experiment import protocol as protocols
from seqrec.experiment.protocol import Protocol, Selection
from seqrec.experiment.settings import (
    DataSettings,
    EngineSettings,
    EvaluateSettings,
    OutputSettings,
    RunSettings,
)
from seqrec.features.schema import FeatureSchema
from seqrec.samples.tables import SampleSettings
from seqrec.serving.settings import ServiceSettings
from seqrec.splitting import SPLITS
from seqrec.splitting.arguments import arguments_of
from seqrec.tables import Table
from seqrec.training.options import FitSettings
from seqrec.training.settings import TableSettings, TrainSettings

COLUMNS = ("key", "type", "default", "choices", "meaning")
LISTS = ("model", "loss", "split")
OF_TORCH = ("negatives", "prior", "item_table")
"""Sections whose classes are in files that import torch."""
SECTIONS: dict[str, type[BaseModel]] = {
    "run": RunSettings,
    "data": DataSettings,
    "train": TrainSettings,
    "train.tables": TableSettings,
    "fit": FitSettings,
    "features": FeatureSchema,
    "evaluate": EvaluateSettings,
    "output": OutputSettings,
    "engine": EngineSettings,
    "samples": SampleSettings,
    "serve": ServiceSettings,
    "protocol": Protocol,
    "protocol.data": protocols.DataSettings,
    "protocol.select": Selection,
}
"""Sections of a run file or a protocol; ``negatives`` beside them."""


def names() -> list[str]:
    """All that ``table`` can be asked for."""
    from seqrec.training.loss import LOSSES

    return list(dict.fromkeys([*LISTS, *SECTIONS, *OF_TORCH, *models.MODELS, *LOSSES, *SPLITS]))


def table(name: str = "") -> Table:
    """The settings of one section, model, loss or split; of "model", "loss" or "split" which there are;
    without a name everything that can be asked for.

    Raises:
        SettingsError: there is nothing of that name.
    """
    from seqrec.models.item_table import ItemTableSettings
    from seqrec.models.prior import PriorSettings
    from seqrec.training.loss import LOSSES
    from seqrec.training.negatives import NegativesSettings

    if not name:
        return _overview(LOSSES)
    if name in LISTS:
        found = {"model": _of_models, "loss": lambda: _of_losses(LOSSES), "split": _of_splits}[name]()
        return Table(f"{name}.name is one of", ("name", "meaning"), found)
    if name in models.MODELS:
        return _of_model(models.get(name))
    if name in LOSSES:
        return Table(f"loss: {name}", COLUMNS, rows(LOSSES[name]))
    if name in SPLITS:
        own = [_row("name", str, name, "The split.")]
        return Table(f"split: {name}", COLUMNS, own + _of_split(SPLITS[name]), [_first(SPLITS[name])])
    sections: dict[str, type[BaseModel]] = {
        **SECTIONS,
        "negatives": NegativesSettings,
        "prior": PriorSettings,
        "item_table": ItemTableSettings,
    }
    if name not in sections:
        raise SettingsError(
            f"settings: no section, model, loss or split {name!r}.{did_you_mean(name, names())}"
        )
    return Table(name, COLUMNS, rows(sections[name]))


def rows(cls: type[BaseModel], defaults: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A row for each field.

    Args:
        defaults: that replace those of the class.
    """
    found = []
    for key, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True) if not field.is_required() else "(required)"
        default = (defaults or {}).get(key, default)
        found.append(_row(key, field.annotation, default, field.description or "", field))
    return found


def _row(
    key: str, annotation: Any, default: Any, meaning: str, field: FieldInfo | None = None
) -> dict[str, Any]:
    choices, kind = choices_of(annotation), kind_of(annotation)
    limits = _limits(field) if field is not None else ""
    return {
        "key": key,
        "type": f"{kind} {limits}".strip(),
        "default": shown(default),
        "choices": ", ".join(choices),
        "meaning": " ".join(meaning.split()),
    }


def kind_of(annotation: Any) -> str:
    """A type in words: ``number``, ``list of text`` ..."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(arguments[0])
    if origin is Literal:
        return "text"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if one is type(None) else kind_of(one) for one in arguments))
    if origin is list:
        return f"list of {kind_of(arguments[0])}"
    if origin is dict or annotation is dict:
        return "mapping"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any"}
    if annotation in plain:
        return plain[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return getattr(annotation, "__name__", str(annotation))


def choices_of(annotation: Any) -> list[str]:
    """The values that a setting may have, where these are named."""
    if typing.get_origin(annotation) is Literal:
        return [shown(value) for value in typing.get_args(annotation)]
    return [choice for one in typing.get_args(annotation) for choice in choices_of(one)]


def shown(value: Any) -> str:
    """A default as YAML would have it."""
    if isinstance(value, BaseModel):
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)


def _limits(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {f'{limit:,}' if isinstance(limit, int) else f'{limit:g}'}"
        for one in field.metadata
        for name, sign in signs.items()
        if isinstance(limit := getattr(one, name, None), int | float)
    ]
    return f"({', '.join(found)})" if found else ""


def _first(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")


def _of_split(function: Any) -> list[dict[str, Any]]:
    """The arguments of a split, their meaning from its docstring."""
    said: dict[str, str] = {}
    last: list[str] = []
    for line in (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0].splitlines():
        if match := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line):
            last = match[1].split(", ")
            said |= dict.fromkeys(last, match[2])
        else:
            said |= {key: f"{said[key]} {line.strip()}" for key in last}
    found = rows(arguments_of(function))
    return [{**row, "meaning": row["meaning"] or said.get(row["key"], "")} for row in found]


def _of_model(cls: Any) -> Table:
    found = rows(cls.Settings)
    notes = []
    if cls.sections:
        notes = [f"It takes the sections {', '.join(cls.sections)} too: seqrec settings train, and so on."]
        for section in ("loss", "negatives", "train"):
            changed = getattr(cls, f"default_{section}")
            if changed:
                said = ", ".join(f"{key}: {shown(value)}" for key, value in changed.items())
                notes.append(f"Its own defaults of {section}: {said}.")
    return Table(f"model: {cls.name}", COLUMNS, [_row("name", str, cls.name, "The model."), *found], notes)


def _of_models() -> list[dict[str, Any]]:
    return [{"name": name, "meaning": _first(models.get(name))} for name in models.MODELS]


def _of_losses(losses: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "meaning": cls.model_fields["name"].description or ""} for name, cls in losses.items()
    ]


def _of_splits() -> list[dict[str, Any]]:
    return [{"name": name, "meaning": _first(function)} for name, function in SPLITS.items()]


def _overview(losses: Iterable[str]) -> Table:
    parts: dict[str, Iterable[str]] = {
        "which there are": LISTS,
        "sections": [*SECTIONS, *OF_TORCH],
        "models": models.MODELS,
        "losses": losses,
        "splits": SPLITS,
    }
    shown_parts = [{"kind": kind, "names": ", ".join(of)} for kind, of in parts.items()]
    return Table("seqrec settings NAME, with one of", ("kind", "names"), shown_parts)
