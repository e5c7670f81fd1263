"""The catalogue of models. Each is one file, imported when it is asked for; so are models from outside the
package (``seqrec.settings.names``)."""

from __future__ import annotations

from pathlib import Path

from seqrec.errors import SettingsError
from seqrec.models.model import Model
from seqrec.serving import artifact
from seqrec.settings import names

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
    """The class of a model by its name: ``get("gru4rec")(width=64)`` makes one. One from outside the package
    is named ``package.module:Name``, and imported; or as an installed package offers it (entry points of the
    group ``seqrec.models``).

    Raises:
        SettingsError: there is no model of that name; says which is nearest.
    """
    found = names.resolve("model", name, MODELS)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise SettingsError(f"model {name}: expected a subclass of seqrec.Model. Got {found!r}.")
    return found


def load(folder: str | Path, device: str = "auto") -> Model:
    """A model that was saved with ``model.save(folder)``, of whichever kind.

    One from outside the package is saved as ``package.module:Name``, and that module is imported, which runs
    it: load only what you trust. Of shipped models nothing in the folder is ever run.

    Args:
        device: where it computes scores: "cpu", "cuda", "mps", or the best there is.

    Raises:
        DataError: the folder holds no whole model, or one whose class cannot be had here.
        SettingsError: this machine has no such device.
    """
    from seqrec.training.device import choose_device

    where = choose_device(device)
    return artifact.load(folder, lambda found: get(found.name).of(found, where))
