"""A trained model as a folder, on any storage:

    model.json               name, settings, report of the training, provenance, and the name and checksum of every other file
    weights-*.safetensors    everything learned
    items-*.parquet          raw item ids and their attributes
    histories-*.safetensors  the users' histories, and users-*.parquet their ids (left out with ``histories=False``)

Nothing in it is executed on loading: no pickle, no class path. A folder that was not written whole is refused. Saving again gives the files other
names (``seqrec.snapshot``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from seqrec import snapshot, storage
from seqrec.catalogue import Catalogue
from seqrec.errors import DataError
from seqrec.sequences import Sequences

if TYPE_CHECKING:
    from seqrec.models.model import Model

FORMAT = 2
"""In format 1 the files had fixed names: ``files`` were their checksums. It is still read."""
PARTS = ("weights.safetensors", "items.parquet", "histories.safetensors", "users.parquet")


def save(model: Model, folder: str | Path, histories: bool = True) -> None:
    """Writes a trained model. What stood there before stays whole until the new one is.

    Args:
        histories: also write the users' histories, so that ``recommend(users=...)`` works after loading.
    """
    from seqrec import __version__

    if model.item_catalogue is None:
        raise DataError(f"{model.name} is not trained. Call fit before save.")
    checksums: dict[str, str] = {}
    about = {
        "format": FORMAT,
        "seqrec": __version__,
        "name": model.name,
        "configuration": model.configuration(),
        "items": len(model.item_catalogue),
        "users": model.sequences.users if model.sequences is not None else 0,
        "fit_report": model.fit_report,
        "provenance": model.provenance,
        "sha256": checksums,
    }
    with snapshot.write(folder, "model.json", PARTS, about) as files:

        def write(part: str, content: bytes) -> None:
            checksums[part] = hashlib.sha256(content).hexdigest()
            with storage.open_write(files.path(part)) as stream:
                stream.write(content)

        write("weights.safetensors", safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in model.state().items()}))
        write("items.parquet", model.item_catalogue.to_bytes())
        if histories and model.sequences is not None and model.known_stops is not None:
            s = model.sequences
            arrays = {"items": s.items, "offsets": s.offsets, "known_stops": model.known_stops}
            write("histories.safetensors", safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
            write("users.parquet", s.user_catalogue.to_bytes())


def load(folder: str | Path, expected: type[Model] | None = None) -> Model:
    """Opens a folder that ``save`` wrote.

    Raises:
        DataError: no model there, a file of it missing or changed, or a model of another class than expected.
    """
    from seqrec import models

    marker = storage.join(folder, "model.json")
    if not storage.exists(marker):
        raise DataError(f"{folder}: expected the folder of a trained model (with a model.json). Train and save one first.")
    about = storage.read_json(marker)
    if about.get("format") == 1:
        about |= {"sha256": about["files"], "files": {name: name for name in about["files"]}}
    elif about.get("format") != FORMAT:
        raise DataError(
            f"{marker}: expected format {FORMAT}. Got {about.get('format')!r}: it was written by seqrec {about.get('seqrec', 'unknown')}."
        )
    content: dict[str, bytes] = {}
    for part, name in about["files"].items():
        with storage.open_read(storage.join(folder, name)) as stream:
            content[part] = stream.read()
        if hashlib.sha256(content[part]).hexdigest() != about["sha256"][part]:
            raise DataError(
                f"{storage.join(folder, name)}: not the file that belongs to this model.json (its checksum differs). Save the model again."
            )
    if expected is not None and expected.name != about["name"]:
        raise DataError(f"{folder}: expected a {expected.name} model. Got {about['name']!r}.")
    cls = expected or models.get(about["name"])  # a model outside the catalogue is loaded through its own class
    configuration: dict[str, Any] = about["configuration"]
    model = cls(**configuration)
    model.item_catalogue = Catalogue.from_bytes(content["items.parquet"])
    model.load_state(safetensors.numpy.load(content["weights.safetensors"]), about["items"], about["users"])
    if "histories.safetensors" in content:
        arrays = safetensors.numpy.load(content["histories.safetensors"])
        model.known_stops = arrays.pop("known_stops")
        model.sequences = Sequences(**arrays, item_catalogue=model.item_catalogue, user_catalogue=Catalogue.from_bytes(content["users.parquet"]))
    model.fit_report, model.provenance = about["fit_report"], about["provenance"]
    return model
