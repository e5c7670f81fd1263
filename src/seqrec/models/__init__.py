"""The catalogue of models. Each is one file, imported when it is asked for; so are models from outside the
package (``seqrec.settings.names``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seqrec import storage
from seqrec.errors import DataError, SettingsError
from seqrec.serving import artifact, onnx_model
from seqrec.settings import names

if TYPE_CHECKING:  # it imports torch, and the names alone need none
    from seqrec.models.model import Model
    from seqrec.serving.onnx_model import OnnxModel

MODELS: dict[str, str] = {
    "popularity": "seqrec.models.popularity:Popularity",
    "recent_popularity": "seqrec.models.recent_popularity:RecentPopularity",
    "markov": "seqrec.models.markov:Markov",
    "item_knn": "seqrec.models.item_knn:ItemKNN",
    "vsknn": "seqrec.models.vsknn:VSKNN",
    "personal_top": "seqrec.models.personal_top:PersonalTop",
    "tifu_knn": "seqrec.models.tifu_knn:TIFUKNN",
    "up_cf": "seqrec.models.up_cf:UPCF",
    "taiw": "seqrec.models.taiw:TAIW",
    "fpmc": "seqrec.models.fpmc:FPMC",
    "hrm": "seqrec.models.hrm:HRM",
    "gru4rec": "seqrec.models.gru4rec:GRU4Rec",
    "sasrec": "seqrec.models.sasrec:SASRec",
    "lrurec": "seqrec.models.lrurec:LRURec",
    "esasrec": "seqrec.models.esasrec:ESASRec",
    "hstu": "seqrec.models.hstu:HSTU",
    "fuxi": "seqrec.models.fuxi:FuXi",
    "fmlp": "seqrec.models.fmlp:FMLP",
    "bsarec": "seqrec.models.bsarec:BSARec",
    "bert4rec": "seqrec.models.bert4rec:BERT4Rec",
    "narm": "seqrec.models.narm:NARM",
    "caser": "seqrec.models.caser:Caser",
    "dssm": "seqrec.models.dssm:DSSM",
    "din": "seqrec.models.din:DIN",
    "bst": "seqrec.models.bst:BST",
    "rerank": "seqrec.models.rerank:Rerank",
    "ensemble": "seqrec.models.ensemble:Ensemble",
}


def get(name: str) -> type[Model]:
    """The class of a model by its name: ``get("gru4rec")(width=64)`` makes one. One from outside the package
    is named ``package.module:Name``, and imported; or as an installed package offers it (entry points of the
    group ``seqrec.models``).

    Raises:
        SettingsError: there is no model of that name; says which is nearest.
    """
    from seqrec.models.model import Model

    found = names.resolve("model", name, MODELS)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise SettingsError(f"model {name}: expected a subclass of seqrec.Model. Got {found!r}.")
    return found


def folder_of(folder: str | Path) -> str | None:
    """Where the model of a folder is: in itself; or, of the output folder of a run, in ``serving`` (fitted on
    all events) or else ``model``. None if it has none."""
    if onnx_model.is_folder(folder):
        return str(folder)
    places = (str(folder), storage.join(folder, "serving"), storage.join(folder, "model"))
    return next((one for one in places if storage.exists(storage.join(one, "model.json"))), None)


def load(folder: str | Path, device: str = "auto") -> Model | OnnxModel:
    """A model that was saved with ``model.save(folder)``, of whichever kind; or one that was exported to
    ONNX.

    Of the output folder of ``seqrec train`` it is the one in ``serving`` (fitted on all events, with
    ``--refit``), or else the one that was tested, in ``model``.

    Args:
        device: where it computes scores: "cpu", "cuda", "mps", or the best there is. An exported model runs
            on the CPU.

    Raises:
        DataError: the folder holds no whole model, or one whose class cannot be had here.
        SettingsError: this machine has no such device, or an exported model is asked for on another than the
            CPU.
    """
    if not onnx_model.is_folder(folder):
        return load_model(folder, device)
    if device not in ("auto", "cpu"):
        raise SettingsError(f"device: expected 'auto' or 'cpu' for a model of ONNX. Got {device!r}.")
    return onnx_model.load(folder)


def load_model(folder: str | Path, device: str = "auto") -> Model:
    """As ``load``, of models that were saved, which can be trained, tested and exported.

    One from outside the package is saved as ``package.module:Name``, and that module is imported, which runs
    it: load only what you trust. Of shipped models nothing in the folder is ever run.

    Args:
        device: where it computes scores: "cpu", "cuda", "mps", or the best there is.

    Raises:
        DataError: the folder holds no whole model, or one whose class cannot be had here.
        SettingsError: this machine has no such device.
    """
    from seqrec.training.device import choose_device

    if onnx_model.is_folder(folder):
        raise DataError(
            f"{folder}: expected the folder of a trained model. Got one that was exported to ONNX, which "
            "only recommends. Give the model it was exported from."
        )
    where = choose_device(device)
    return artifact.load(folder_of(folder) or folder, lambda found: get(found.name).of(found, where))
