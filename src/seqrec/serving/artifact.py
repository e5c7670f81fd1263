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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
from pydantic import Field

from seqrec import __version__, storage
from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, shown
from seqrec.storage import marker, snapshot, version

FORMAT = 2
"""In format 1 the files had fixed names: ``files`` were their checksums. It is still read."""
PARTS = ("weights.safetensors", "items.parquet", "histories.safetensors", "users.parquet")
ADVICE = "Train the model again"

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
        known_times: (users,) seconds since 1970 of the last event known of each, -inf of one without; None
            where the log has no times, or they are left out.
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
    known_times: np.ndarray | None = None
    fit_report: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seqrec: str = __version__


def write(folder: str | Path, model: Contents) -> None:
    """Writes a trained model. What stood there before stays whole until the new one is."""
    about = {
        **version.stamp(FORMAT),
        "name": model.name,
        "configuration": model.configuration,
        "items": len(model.item_catalogue),
        "users": model.users,
        "fit_report": model.fit_report,
        "provenance": model.provenance,
    }
    with snapshot.write(folder, "model.json", PARTS, about) as files:

        def part(name: str, content: bytes) -> None:
            with files.open(name) as stream:
                stream.write(content)

        part(
            "weights.safetensors",
            safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in model.state.items()}),
        )
        part("items.parquet", model.item_catalogue.to_bytes())
        for name, content in histories(model.sequences, model.known_stops, model.known_times).items():
            part(name, content)


Kept = tuple[Sequences, np.ndarray, np.ndarray | None] | tuple[None, None, None]
"""The users' histories, (users,) where each ends, and (users,) the time of its last event, if times are
known; or nothing."""


def histories(
    sequences: Sequences | None, known_stops: np.ndarray | None, known_times: np.ndarray | None
) -> dict[str, bytes]:
    """The contents of the files with the users' histories and ids, by name; none where they are left out.
    Arguments, (users,) each, as of ``Contents``."""
    if sequences is None or known_stops is None:
        return {}
    arrays = {"items": sequences.items, "offsets": sequences.offsets, "known_stops": known_stops}
    if known_times is not None:
        arrays["known_times"] = known_times
    if sequences.baskets is not None:
        arrays["baskets"] = sequences.baskets
    if sequences.times is not None:
        arrays["times"] = sequences.times
    return {
        "histories.safetensors": safetensors.numpy.save(
            {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        ),
        "users.parquet": sequences.user_catalogue.to_bytes(),
    }


def read_histories(parts: Mapping[str, bytes], catalogue: Catalogue) -> Kept:
    """What is kept of the users.

    Args:
        parts: contents of files as ``histories`` gave them, and perhaps others.

    Raises:
        DataError: they are no such files.
    """
    if "histories.safetensors" not in parts:
        return None, None, None
    arrays = safetensors.numpy.load(parts["histories.safetensors"])
    known_stops, known_times = arrays.pop("known_stops"), arrays.pop("known_times", None)
    sequences = Sequences(
        **arrays, item_catalogue=catalogue, user_catalogue=Catalogue.from_bytes(parts["users.parquet"])
    )
    sequences.check()
    starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
    if known_stops.shape != stops.shape or (known_stops < starts).any() or (known_stops > stops).any():
        raise DataError("what is known of its users is no part of their histories.")
    baskets = sequences.baskets
    if baskets is not None and (baskets.shape != sequences.items.shape or baskets.dtype.kind != "i"):
        raise DataError("the baskets of its users' histories are not one number an event.")
    moments = sequences.times
    if moments is not None and (
        moments.shape != sequences.items.shape
        or moments.dtype.kind not in "if"
        or not np.isfinite(moments).all()
    ):
        raise DataError("the times of its users' histories are not one number an event.")
    if known_times is not None and (known_times.shape != stops.shape or np.isnan(known_times).any()):
        raise DataError("the times of its users' last events are not one number each.")
    return sequences, known_stops, known_times


def floats_of(state: Mapping[str, np.ndarray], name: str, length: int) -> np.ndarray:
    """(length,) floats of a saved state.

    Raises:
        DataError: it has others, or none.
    """
    found = state.get(name)
    if found is None or found.shape != (length,) or found.dtype.kind != "f":
        raise DataError(f"its {name} are not {length:,} numbers.")
    return found


def indices_of(
    state: Mapping[str, np.ndarray], name: str, below: int, length: int | None = None
) -> np.ndarray:
    """(length,) indices of a saved state, each from 0 to ``below`` - 1.

    Args:
        length: None for any.

    Raises:
        DataError: it has others, or none.
    """
    found = state.get(name)
    if found is None or found.ndim != 1 or found.dtype.kind != "i" or length not in (None, len(found)):
        raise DataError(f"its {name} are not {'whole' if length is None else f'{length:,} whole'} numbers.")
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= below):
        raise DataError(f"its {name} are not all from 0 to {below - 1:,}.")
    return found


def offsets_of(state: Mapping[str, np.ndarray], name: str, rows: int | None, entries: int) -> np.ndarray:
    """(rows + 1,) offsets of a saved state, rising from 0 to the number of entries.

    Args:
        rows: None for any.

    Raises:
        DataError: it has others, or none.
    """
    found = indices_of(state, name, entries + 1, None if rows is None else rows + 1)
    if not len(found) or found[0] != 0 or found[-1] != entries or (np.diff(found) < 0).any():
        raise DataError(f"its {name} do not rise from 0 to {entries:,}.")
    return found


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
    # settings or weights that the model does not have, or has in another shape or of another type
    except Exception as error:
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
    path, about = storage.join(folder, "model.json"), about_of(folder)
    present = set(about.files)
    if present not in (set(PARTS), set(PARTS[:2])) or set(about.sha256) != present:
        raise DataError(
            f"{path}: expected the files {', '.join(PARTS)}. Got {shown(sorted(present))}. {ADVICE}."
        )
    parts = {part: snapshot.read(folder, part, about, ADVICE) for part in about.files}
    try:
        return _contents(about, parts)
    except DataError as error:
        raise DataError(f"{folder}: {error} {ADVICE}.") from error
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise DataError(f"{folder}: its files cannot be read ({shown(error, str)}). {ADVICE}.") from error


def about_of(folder: str | Path) -> About:
    """What the model.json of a folder says.

    Raises:
        DataError: there is none, or not such a file.
    """
    path = storage.join(folder, "model.json")
    if not storage.exists(path):
        raise DataError(
            f"{folder}: expected the folder of a trained model (with a model.json). Train and save one first."
        )
    content = marker.read(path, ADVICE, (1, FORMAT))
    if content["format"] == 1:
        checksums = content.get("files")
        names = {name: name for name in checksums} if isinstance(checksums, dict) else checksums
        content |= {"sha256": checksums, "files": names}
    return marker.parse(content, About, path, ADVICE)


def tested(folder: str | Path) -> str:
    """Where the model of a folder is that was tested, not the one fitted on all events: in the folder itself,
    or, of the output folder of a run, in ``model``."""
    places = (str(folder), storage.join(folder, "model"))
    return next((one for one in places if storage.exists(storage.join(one, "model.json"))), str(folder))


def _contents(about: About, parts: dict[str, bytes]) -> Contents:
    catalogue = Catalogue.from_bytes(parts["items.parquet"])
    if len(catalogue) != about.items:
        raise DataError(f"expected a catalogue of {about.items:,} items. Got {len(catalogue):,}.")
    sequences, known_stops, known_times = read_histories(parts, catalogue)
    state = safetensors.numpy.load(parts["weights.safetensors"])
    for name, array in state.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise DataError(f"the weights {shown(name)} are not all numbers (NaN).")
    return Contents(
        about.name,
        about.configuration,
        state,
        catalogue,
        about.users,
        sequences,
        known_stops,
        known_times,
        about.fit_report,
        about.provenance,
        about.seqrec,
    )


class About(snapshot.Parts):
    """What a model.json says.

    Attributes:
        name, configuration, items, users, fit_report, provenance, seqrec: as of ``Contents``.
    """

    name: str
    configuration: dict[str, Any]
    items: int = Field(ge=0)
    users: int = Field(ge=0)
    fit_report: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    seqrec: str = "of an unknown version"
