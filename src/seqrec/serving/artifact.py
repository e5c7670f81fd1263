"""A trained model as a folder, on any storage:

    model.json               name, settings, report of the training, provenance, and the name and checksum
                             of every other file
    weights-*.safetensors    everything learned
    items-*.parquet          raw item ids and their attributes
    histories-*.safetensors  the users' histories (left out with ``histories=False``)
    users-*.parquet          the users' raw ids (left out with them)

Nothing in it is executed on loading: no pickle. But a model from outside the package is named
``package.module:Name``, and ``seqrec.load`` imports that module. A folder that was not written whole is
refused. Saving again gives the files other names (``seqrec.storage.snapshot``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy

from seqrec import __version__, storage
from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.storage import snapshot, version

FORMAT = 2
"""In format 1 the files had fixed names: ``files`` were their checksums. It is still read."""
PARTS = ("weights.safetensors", "items.parquet", "histories.safetensors", "users.parquet")

Made = TypeVar("Made")


@dataclass(frozen=True)
class Contents:
    """A trained model, taken apart.

    Attributes:
        name: of the model, or ``package.module:Name`` of one from outside.
        configuration: the arguments that make it again, untrained.
        state: everything learned, as named arrays of any shape, (...).
        item_catalogue: its items.
        users: how many users it was trained on.
        sequences, known_stops: the users' histories, and (users,) where each ends; None where they are left
            out.
        fit_report, provenance: what the fit did, and on which data, as JSON values.
        seqrec: the version that wrote it.
    """

    name: str
    configuration: dict[str, Any]
    state: dict[str, np.ndarray]
    item_catalogue: Catalogue
    users: int
    sequences: Sequences | None = None
    known_stops: np.ndarray | None = None
    fit_report: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seqrec: str = __version__


def write(folder: str | Path, model: Contents) -> None:
    """Writes a trained model. What stood there before stays whole until the new one is."""
    checksums: dict[str, str] = {}
    about = {
        **version.stamp(FORMAT),
        "name": model.name,
        "configuration": model.configuration,
        "items": len(model.item_catalogue),
        "users": model.users,
        "fit_report": model.fit_report,
        "provenance": model.provenance,
        "sha256": checksums,
    }
    with snapshot.write(folder, "model.json", PARTS, about) as files:

        def part(name: str, content: bytes) -> None:
            checksums[name] = hashlib.sha256(content).hexdigest()
            with storage.open_write(files.path(name)) as stream:
                stream.write(content)

        part(
            "weights.safetensors",
            safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in model.state.items()}),
        )
        part("items.parquet", model.item_catalogue.to_bytes())
        if model.sequences is not None and model.known_stops is not None:
            s = model.sequences
            arrays = {"items": s.items, "offsets": s.offsets, "known_stops": model.known_stops}
            part(
                "histories.safetensors",
                safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}),
            )
            part("users.parquet", s.user_catalogue.to_bytes())


def load(folder: str | Path, make: Callable[[Contents], Made]) -> Made:
    """What ``make`` makes of the folder's contents.

    Raises:
        DataError: as ``read``; or ``make`` cannot take them, since another version of its model wrote them.
    """
    found = read(folder)
    try:
        return make(found)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    # settings or weights that the model does not have, or has in another shape
    except (ValueError, KeyError, RuntimeError) as error:
        why = str(error).splitlines()[0].rstrip(" .:") if str(error) else type(error).__name__
        raise DataError(
            f"{folder}: this version, seqrec {__version__}, cannot open this {found.name} ({why}). "
            f"It was written by seqrec {found.seqrec}. Use that version, or train the model again "
            "with this one."
        ) from error


def read(folder: str | Path) -> Contents:
    """Opens a folder that ``write`` wrote.

    Raises:
        DataError: no model there, or a file of it missing or changed.
    """
    marker = storage.join(folder, "model.json")
    if not storage.exists(marker):
        raise DataError(
            f"{folder}: expected the folder of a trained model (with a model.json). Train and save one first."
        )
    about = storage.read_json(marker)
    version.check(about, (1, FORMAT), marker, "train the model again with this one")
    if about["format"] == 1:
        about |= {"sha256": about["files"], "files": {name: name for name in about["files"]}}
    content: dict[str, bytes] = {}
    for part, name in about["files"].items():
        with storage.open_read(storage.join(folder, name)) as stream:
            content[part] = stream.read()
        if hashlib.sha256(content[part]).hexdigest() != about["sha256"][part]:
            raise DataError(
                f"{storage.join(folder, name)}: not the file that belongs to this model.json (its "
                "checksum differs). Save the model again."
            )
    catalogue = Catalogue.from_bytes(content["items.parquet"])
    sequences, known_stops = None, None
    if "histories.safetensors" in content:
        arrays = safetensors.numpy.load(content["histories.safetensors"])
        known_stops = arrays.pop("known_stops")
        sequences = Sequences(
            **arrays, item_catalogue=catalogue, user_catalogue=Catalogue.from_bytes(content["users.parquet"])
        )
    state = safetensors.numpy.load(content["weights.safetensors"])
    return Contents(
        about["name"],
        about["configuration"],
        state,
        catalogue,
        about["users"],
        sequences,
        known_stops,
        about["fit_report"],
        about["provenance"],
        about.get("seqrec", "of an unknown version"),
    )
