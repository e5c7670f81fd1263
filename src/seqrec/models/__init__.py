"""The catalogue of models. Each is one file, imported when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from seqrec.errors import SettingsError, did_you_mean
from seqrec.models.model import Model
from seqrec.serving import artifact

MODELS: dict[str, str] = {
    "popularity": "seqrec.models.popularity:Popularity",
    "recent_popularity": "seqrec.models.recent_popularity:RecentPopularity",
    "markov": "seqrec.models.markov:Markov",
    "item_knn": "seqrec.models.item_knn:ItemKNN",
    "vsknn": "seqrec.models.vsknn:VSKNN",
    "fpmc": "seqrec.models.fpmc:FPMC",
    "hrm": "seqrec.models.hrm:HRM",
    "gru4rec": "seqrec.models.gru4rec:GRU4Rec",
    "sasrec": "seqrec.models.sasrec:SASRec",
}


def get(name: str) -> type[Model]:
    """The class of a model by its name: ``get("gru4rec")(width=64)`` makes one.

    Raises:
        SettingsError: there is no model of that name; says which is nearest.
    """
    if name not in MODELS:
        raise SettingsError(f"model: unknown name {name!r}.{did_you_mean(str(name), MODELS)}")
    module, _, cls = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def load(folder: str | Path, device: str = "auto") -> Model:
    """A model that was saved with ``model.save(folder)``, of whichever kind.

    Args:
        device: where it computes scores: "cpu", "cuda", "mps", or the best there is.

    Raises:
        DataError: the folder holds no whole model.
        SettingsError: there is no such model, or this machine has no such device.
    """
    return artifact.load(folder, lambda found: get(found.name).of(found, device))
