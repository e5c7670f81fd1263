"""A model that was exported to ONNX, run with onnxruntime and numpy: to recommend with it takes no torch.

    onnx.json                what it is, and the name and checksum of every other file
    model-*.onnx             the network as a graph: histories in, states and scores out
    item_vectors-*.npy       (items, width) what states are compared with; a last column more is the bias
    popularity-*.npy         (items,) float32 scores after nothing that is known
    items-*.parquet          raw item ids and their attributes
    items-*.json             the ids in the order of their indices, and titles if there are any
    trained_users-*.npy      (users,) bool, whose vectors were trained, where the network reads users
    unlearned-*.npy          (n,) int64 items that are never recommended, if there are any
    prior-*.safetensors      what usually comes next, where the model adds it to the graph's scores
                             (``seqrec.serving.transitions``)
    histories-*.safetensors  the users' histories, and
    users-*.parquet          their raw ids (both are left out with ``histories=False``)

Inputs of the graph, all int64: ``items`` (batch, length), whole histories as indices, oldest first, padded on
the right with any index; ``lengths`` (batch,); and, where the network reads users, ``users`` (batch,), -1 for
unknown. Outputs, float32: ``states`` (batch, width) and ``scores`` (batch, items). The graph itself cuts long
histories, and gives the popularity as scores where nothing is known. It is written by
``seqrec.serving.onnx_export``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors.numpy
from pydantic import Field

from seqrec import storage
from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SeqrecError, SettingsError, shown
from seqrec.serving import artifact, similar
from seqrec.serving.by_ids import ByIds
from seqrec.serving.embeds import ItemVectors
from seqrec.serving.transitions import Transitions
from seqrec.storage import marker, snapshot
from seqrec.topk import BestSoFar, Filter, TopK, distinct_seen

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
MARKER = "onnx.json"
PARTS = (
    "model.onnx",
    "item_vectors.npy",
    "popularity.npy",
    "items.parquet",
    "items.json",
    "trained_users.npy",
    "unlearned.npy",
    "prior.safetensors",
    "histories.safetensors",
    "users.parquet",
)
NEEDED = PARTS[:5]
ADVICE = "Export the model again"

ROWS = 512
"""Histories read at once, at most."""
LONGEST_CHUNK = 16_384
"""Events read at once, about: more is no faster, and takes memory."""
CELLS = 1 << 22
"""Scores alive at once, about: 16 MB."""


class OnnxModel(ByIds):
    """A model from a folder of ``seqrec export``. It recommends as the model itself does. See ``load``.

    Attributes:
        name: of the model that was exported.
        item_catalogue, sequences: its items, and its users' histories, if the folder has them.
        known_stops, known_times: (users,) where and when what is known of each user ends, or None.
        dtype: "float32", or "int8" where the weights of the network were rounded to 8 bits.
        popularity: (items,) float32 scores after nothing that is known.
        filter_seen: whether items of the history are left out where nobody says.
        prior: what is added to the graph's scores, or None.
        unlearned: (n,) int64 items of which the model has learned nothing, and which it never recommends.
        provenance: on which data it was trained, as JSON values.
    """

    def __init__(
        self,
        about: About,
        session: onnxruntime.InferenceSession,
        table: np.ndarray,
        popularity: np.ndarray,
        trained_users: np.ndarray | None,
        item_catalogue: Catalogue,
        kept: artifact.Kept = (None, None, None),
        prior: Transitions | None = None,
        unlearned: np.ndarray | None = None,
    ):
        """Args: (items, width or width + 1) table, (items,) popularity, (users,) bool trained_users, (n,)
        int64 unlearned."""
        import onnxruntime

        self.name, self.dtype, self.filter_seen = about.name, about.dtype, about.filter_seen
        self.provenance = about.provenance
        self.item_catalogue: Catalogue | None = item_catalogue
        self.sequences: Sequences | None
        self.known_stops: np.ndarray | None
        self.known_times: np.ndarray | None
        self.sequences, self.known_stops, self.known_times = kept
        self._session, self._longest = session, about.longest
        self._vectors = ItemVectors.of(table, about.width)
        self.popularity, self._trained_users, self.prior = popularity, trained_users, prior
        self.unlearned: np.ndarray = np.empty(0, dtype=np.int64) if unlearned is None else unlearned
        self._only_what_is_asked = onnxruntime.RunOptions()
        self._only_what_is_asked.only_execute_path_to_fetches = True

    def _known_users(self, query: Query) -> np.ndarray:
        """(queries,) int64 users with trained vectors, -1 for others."""
        if query.users is None or self._trained_users is None:
            return np.full(len(query), -1, dtype=np.int64)
        users = query.users.astype(np.int64)
        return np.where((users >= 0) & self._trained_users[users.clip(min=0)], users, -1)

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool, False where nothing is known: an empty history, and a user who says nothing."""
        known: np.ndarray = (query.lengths > 0) | (self._known_users(query) >= 0)
        return known

    def vectors(self) -> ItemVectors:
        """What states are compared with."""
        return self._vectors

    def state_vectors(self, query: Query) -> np.ndarray:
        """(queries, width) float32 state after each history.

        Raises:
            DataError: one is not a number: the model has diverged in training.
        """
        states = np.empty((len(query), self._vectors.vectors.shape[1]), dtype=np.float32)
        for rows, some in self._run(query, "states", ROWS):
            states[rows] = some
        return states

    def _run(self, query: Query, output: str, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows,) which queries, at most so many at a time and those of like length together, and (rows, ...)
        an output of the graph for them, which belongs to the caller."""
        lengths = np.minimum(query.lengths, self._longest)
        order = np.argsort(lengths, kind="stable")
        begin = 0
        while begin < len(order):
            rows = order[begin : begin + most]
            rows = rows[: max(16, LONGEST_CHUNK // max(1, int(lengths[rows[-1]])))]
            some = query.select(rows)
            events, mask = some.padded(self._longest)
            inputs = {"items": some.items(events, mask), "lengths": lengths[rows]}
            if self._trained_users is not None:
                inputs["users"] = self._known_users(some)
            (found,) = self._session.run([output], inputs, self._only_what_is_asked)
            if not np.isfinite(found).all():
                raise DataError(
                    f"{self.name}: scores are not finite. The model has diverged; train it again."
                )
            yield rows, found
            begin += len(rows)

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        """The k best items after each history; fewer, where the catalogue has fewer. Equal scores by
        ascending index.

        Raises:
            DataError: a score is not a number.
        """
        items = len(self.popularity)
        refused = filter.without(self.unlearned).refused(items)
        top = BestSoFar(len(query), min(k, items))
        # The graph multiplies with the item vectors, too, by the threads that it was given; numpy takes all.
        for rows, scores in self._run(query, "scores", max(1, min(ROWS, CELLS // max(1, items)))):
            if self.prior is not None:
                self._add_prior(self.prior, scores, query.select(rows))
            if refused is not None:
                scores[:, refused] = -np.inf
            if filter.seen:
                scores[distinct_seen(query.select(rows))] = -np.inf
            some = BestSoFar(len(rows), min(k, items))
            some.add(scores, 0)
            top.items[rows], top.scores[rows] = some.items, some.scores
        return top.found()

    def _add_prior(self, prior: Transitions, scores: np.ndarray, query: Query) -> None:
        """Adds it where something is known; elsewhere the scores are the popularity."""
        unknown = np.flatnonzero(~self.knows(query))
        kept = scores[unknown]
        prior.add(scores, query)
        scores[unknown] = kept

    def nearest(self, items: np.ndarray, k: int, by: str) -> TopK:
        """The k items nearest to each of (n,) items. See ``seqrec.serving.similar.nearest``."""
        return similar.nearest(self._vectors.vectors, items, k, by, self.unlearned)


class About(snapshot.Parts):
    """What an onnx.json says."""

    name: str
    """Of the model."""
    dtype: Literal["float32", "int8"]
    """Of the network's weights."""
    inputs: list[str]
    """Of the graph."""
    items: int = Field(ge=0)
    """How many items it was trained on."""
    users: int = Field(ge=0)
    """How many users it was trained on."""
    width: int = Field(ge=1)
    """Of states and item vectors, without a bias."""
    longest: int = Field(ge=1)
    """Events of a history that the graph reads, from its end."""
    filter_seen: bool = True
    """Whether items of the history are left out where nobody says."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """On which data it was trained."""


def is_folder(folder: str | Path) -> bool:
    """Whether a folder holds an exported model."""
    return storage.exists(storage.join(folder, MARKER))


def load(folder: str | Path, threads: int | None = None) -> OnnxModel:
    """Opens a folder that ``seqrec export`` wrote.

    Args:
        threads: that one call computes with; None: as many as there are cores.

    Raises:
        DataError: no such folder, or a file of it missing or changed.
        SettingsError: onnxruntime is not installed.
    """
    about = _about(folder)
    path = storage.join(folder, MARKER)
    present = set(about.files)
    if not set(NEEDED) <= present <= set(PARTS) or set(about.sha256) != present:
        raise DataError(
            f"{path}: expected the files {', '.join(NEEDED)}. Got {shown(sorted(present))}. {ADVICE}."
        )
    parts = {part: snapshot.read(folder, part, about, ADVICE) for part in about.files if part != "items.json"}
    try:
        return of(about, parts, threads)
    except SettingsError:
        raise
    except SeqrecError as error:
        raise DataError(f"{folder}: {error} {ADVICE}.") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{folder}: its files cannot be read ({shown(error, str)}). {ADVICE}.") from error


def filters_seen(folder: str | Path) -> bool:
    """Whether items of the history are left out where nobody says.

    Raises:
        DataError: as ``load``.
    """
    return _about(folder).filter_seen


def _about(folder: str | Path) -> About:
    path = storage.join(folder, MARKER)
    if not storage.exists(path):
        raise DataError(
            f"{folder}: expected the folder of an exported model (with an {MARKER}). Export one with "
            "`seqrec export` first."
        )
    return marker.parse(marker.read(path, ADVICE, (FORMAT,)), About, path, ADVICE)


def of(about: About, parts: Mapping[str, bytes], threads: int | None = None) -> OnnxModel:
    """The model that an onnx.json and the contents of its files describe.

    Raises:
        DataError: they do not belong together.
        SettingsError: onnxruntime is not installed.
    """
    catalogue = Catalogue.from_bytes(parts["items.parquet"])
    if len(catalogue) != about.items:
        raise DataError(f"expected a catalogue of {about.items:,} items. Got {len(catalogue):,}.")
    table = _array(parts["item_vectors.npy"])
    if table.ndim != 2 or len(table) != about.items or table.shape[1] not in (about.width, about.width + 1):
        raise DataError(f"its item vectors are not {about.items:,} x {about.width} numbers.")
    popularity = artifact.floats_of(
        {"popularity": _array(parts["popularity.npy"])}, "popularity", about.items
    )
    trained = _array(parts["trained_users.npy"]) if "trained_users.npy" in parts else None
    if (trained is not None) != ("users" in about.inputs) or (
        trained is not None and (trained.shape != (about.users,) or trained.dtype != bool)
    ):
        raise DataError(f"its trained users are not {about.users:,} of yes or no.")
    kept = artifact.read_histories(parts, catalogue)
    prior = None
    if "prior.safetensors" in parts:
        prior = Transitions.of(safetensors.numpy.load(parts["prior.safetensors"]), about.items)
    unlearned = None
    if "unlearned.npy" in parts:
        unlearned = artifact.indices_of(
            {"unlearned": _array(parts["unlearned.npy"])}, "unlearned", about.items
        )
    session = _session(parts["model.onnx"], threads)
    return OnnxModel(about, session, table, popularity, trained, catalogue, kept, prior, unlearned)


def _array(content: bytes) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return found


def _session(content: bytes, threads: int | None) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            "onnx: needs onnxruntime to run. Install it with: pip install 'seqrec[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own errors share no base
        raise DataError(f"its network cannot be opened ({shown(error, str)}).") from error
