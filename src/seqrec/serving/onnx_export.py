"""An encoder as an ONNX graph in a folder, which runs without torch: see ``seqrec.serving.onnx_model``.

The graph holds tables of vectors where the network has sums of features. Before a folder is written, what it
recommends is compared with what the network itself does, on histories of the training data.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec import storage
from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.errors import SettingsError, shown
from seqrec.nn.embedding import FeatureEmbedding
from seqrec.nn.encoder import Encoder
from seqrec.nn.jpq import JPQEmbedding
from seqrec.serving import artifact, onnx_model
from seqrec.serving.artifact import Contents
from seqrec.serving.embeds import Embeds
from seqrec.serving.transitions import Transitions
from seqrec.storage import snapshot, version
from seqrec.topk import Filter

K = 20
"""Items a history that are compared."""
COMPARED = 1_000
"""Histories that are compared."""
TOLERANCE = 1e-4
"""Scores that differ by less are equal (by that share, where they are above 1)."""
LARGEST = 2_000_000_000
"""Bytes of a graph: a file of its format ends there."""
OPSET = 18
OUTSIDE = 1 << 40
"""An index that no table has."""


@dataclass(frozen=True)
class Agreement:
    """How what was exported recommends, compared with the network.

    Attributes:
        histories: that were compared.
        same: share of them with the same 20 best items in the same order, but for items whose scores differ
            by less than ``TOLERANCE``.
        overlap: mean share of the network's 20 best items that are among the 20 best here.
    """

    histories: int
    same: float
    overlap: float


def compare(
    reference: Embeds, exported: Embeds, query: Query, popularity: np.ndarray, filter: Filter
) -> Agreement:
    """Compares the best items of some histories.

    Args:
        popularity: (items,) scores where nothing is known.
    """
    k = min(K, len(popularity))
    expected, found = (model.best(query, k, filter) for model in (reference, exported))
    missing = found.items < 0
    # what the reference gives to the items that were found in place of its own
    vectors, states, known = reference.vectors(), reference.state_vectors(query), reference.knows(query)
    row, column = np.nonzero(~missing)
    item = found.items[row, column]
    scores = np.einsum("nd,nd->n", states[row], vectors.vectors[item])
    scores += 0 if vectors.bias is None else vectors.bias[item]
    of_found = np.zeros(found.items.shape, dtype=np.float32)
    of_found[row, column] = np.where(known[row], scores, popularity[item])
    best = np.where(expected.items < 0, 0, expected.scores)
    close = (np.abs(of_found - best) <= TOLERANCE * np.maximum(1, np.abs(best))) & ~missing
    same = (expected.items == found.items) | (close & (expected.items >= 0))
    common = [len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in zip(expected.items, found.items)]
    most = np.maximum(1, (expected.items >= 0).sum(1))
    some = expected.items[:, 0] >= 0
    overlap = (np.array(common) / most)[some]
    return Agreement(len(query), float(same.all(1).mean()), float(overlap.mean()) if len(overlap) else 1.0)


class _Graph(nn.Module):
    """What is exported: padded histories in, states and scores out."""

    def __init__(self, network: Encoder, popularity: np.ndarray, trained_users: np.ndarray | None):
        super().__init__()
        self.network = network
        self.popularity: Tensor
        self.register_buffer("popularity", torch.from_numpy(popularity.astype(np.float32)))
        self.trained_users: Tensor | None
        self.register_buffer(
            "trained_users", None if trained_users is None else torch.from_numpy(trained_users)
        )
        vectors = network.item_vectors().detach()
        width = width_of(network)
        # a plain table is in the graph already
        plain = any(
            vectors.data_ptr() == p.data_ptr() and vectors.shape == p.shape == (len(vectors), width)
            for p in network.parameters()
        )
        self.vectors: Tensor | None
        self.register_buffer("vectors", None if plain else vectors[:, :width].contiguous())
        # only with something to add is the table multiplied with as it is, and not turned over first
        bias = vectors[:, width] if vectors.shape[1] > width else vectors.new_zeros(len(vectors))
        self.bias: Tensor
        self.register_buffer("bias", bias.contiguous())

    def forward(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lengths = lengths.clamp(min=0)
        nothing = lengths == 0
        # Any index may pad; else a negative one, which in ONNX counts from a table's end, is to be an error.
        there = torch.arange(items.shape[1]) < lengths[:, None]
        items = torch.where(there, torch.where(items < 0, OUTSIDE, items), 0)
        if users is not None and self.trained_users is not None:
            known = (users >= 0) & self.trained_users[users.clamp(0, len(self.trained_users) - 1)]
            users = torch.where(known, users, -1)
            nothing = nothing & ~known
        states = self.network.encode(self.network.padded_inputs(items, lengths, users))
        vectors = self.network.item_vectors() if self.vectors is None else self.vectors
        scores = F.linear(states, vectors, self.bias)
        return states, torch.where(nothing[:, None], self.popularity, scores)


def _table(vectors: Tensor) -> nn.Embedding:
    table = nn.Embedding(*vectors.shape)
    table.weight = nn.Parameter(vectors)
    return table


def _plain(network: Encoder) -> Encoder:
    """A copy on the CPU, ready to recommend, with a table of vectors wherever the network sums features,
    or joins parts."""
    network = copy.deepcopy(network).cpu().eval()
    made: dict[int, nn.Embedding] = {}
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FeatureEmbedding | JPQEmbedding):
                table = made.setdefault(id(child), _table(child.weight.detach()))
                setattr(module, name, table)
    return network


def longest_read(network: Encoder) -> int:
    """Events of a history that a network reads, from its end."""
    many = 1 << 20
    inputs = network.padded_inputs(
        torch.zeros(1, many, dtype=torch.int64), torch.tensor([many]), torch.tensor([-1])
    )
    return inputs.items.shape[1]


@torch.no_grad()
def width_of(network: Encoder) -> int:
    """Of a state; item vectors may have a column more."""
    one = torch.ones(1, dtype=torch.int64)
    return network.encode(network.padded_inputs(0 * one[:, None], one, -one)).shape[1]


@torch.no_grad()
def graph(network: Encoder, popularity: np.ndarray, trained_users: np.ndarray | None) -> bytes:
    """The content of an ONNX file.

    Args:
        network: on the CPU, not training, without sums of features.
        popularity: (items,) scores where nothing is known.
        trained_users: (users,) bool, whose vectors were trained; None for a network that does not read users.

    Raises:
        SettingsError: torch cannot export the network, it is too large, or a library is missing.
    """
    module = _Graph(network, popularity, trained_users).eval()
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    if size > LARGEST:
        raise SettingsError(
            f"export: expected at most {LARGEST / 1e9:.0f} GB of weights, which a file of ONNX can hold. Got "
            f"{size / 1e9:.1f} GB. Train narrower vectors."
        )
    rows, steps = torch.export.Dim("batch"), torch.export.Dim("length")
    inputs = {
        "items": torch.zeros(3, 5, dtype=torch.int64),
        "lengths": torch.tensor([5, 2, 0]),
        "users": torch.tensor([0, -1, 0]),
    }
    shapes: dict[str, Any] = {"items": {0: rows, 1: steps}, "lengths": {0: rows}, "users": {0: rows}}
    if trained_users is None:
        del inputs["users"], shapes["users"]
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                kwargs=inputs,
                dynamo=True,
                verbose=False,
                input_names=list(inputs),
                output_names=["states", "scores"],
                dynamic_shapes=shapes,
                opset_version=OPSET,
            )
    except ImportError as error:
        raise SettingsError(
            f"export: needs {error.name or 'onnxscript'}. Install it with: pip install 'seqrec[export]'"
        ) from error
    except torch.onnx.errors.OnnxExporterError as error:
        why = str(error).strip().splitlines()[-1]
        raise SettingsError(
            f"export: torch cannot export {type(network).__name__} to ONNX ({shown(why, str)}). See the "
            "operators that its exporter knows, or recommend with the model itself."
        ) from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Loggers whose warnings a user can do nothing about."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def rounded(content: bytes) -> bytes:
    """The same graph with its tables and what it multiplies with, the item vectors among them, in 8 bits."""
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, _quiet("root", "onnxruntime"):
        path, rounded = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        path.write_bytes(content)
        quantization.quantize_dynamic(
            path,
            rounded,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )
        return rounded.read_bytes()


def write(
    folder: str | Path,
    network: Encoder,
    model: Contents,
    popularity: np.ndarray,
    trained_users: np.ndarray | None,
    reference: Embeds,
    int8: bool = False,
    filter_seen: bool = True,
    prior: Transitions | None = None,
    unlearned: np.ndarray | None = None,
) -> Agreement:
    """Writes an encoder as a folder that ``onnx_model.load`` opens.

    Args:
        model: whose catalogue, histories and provenance go with it.
        popularity: (items,) scores where nothing is known.
        trained_users: (users,) bool, whose vectors were trained; None: all.
        reference: who recommends by the network itself.
        int8: whether weights are rounded to 8 bits.
        filter_seen: whether items of the history are left out where nobody says.
        prior: what is added to the graph's scores; None: nothing.
        unlearned: (n,) int64 items that are never recommended; None: there are none.

    Returns:
        how it recommends, compared with the reference.

    Raises:
        SettingsError: the network reads what a graph is not given, cannot be exported, or recommends
            otherwise as a graph; a folder with a trained model; a library is missing.
    """
    check(folder, network)
    plain = _plain(network)
    if "users" in network.reads:
        trained_users = np.ones(model.users, dtype=bool) if trained_users is None else trained_users
    else:
        trained_users = None
    content = graph(plain, popularity, trained_users)
    if int8:
        content = rounded(content)
    with torch.no_grad():
        table = np.ascontiguousarray(plain.item_vectors().numpy(), dtype=np.float32)
    about = onnx_model.About(
        name=model.name,
        dtype="int8" if int8 else "float32",
        inputs=["items", "lengths", *(["users"] if trained_users is not None else [])],
        items=len(model.item_catalogue),
        users=model.users,
        width=width_of(plain),
        longest=longest_read(plain),
        filter_seen=filter_seen,
        provenance=model.provenance,
        files={},
    )
    arrays = {"item_vectors.npy": table, "popularity.npy": popularity.astype(np.float32)}
    if trained_users is not None:
        arrays["trained_users.npy"] = trained_users
    if unlearned is not None and len(unlearned):
        arrays["unlearned.npy"] = unlearned
    parts = {
        "model.onnx": content,
        "items.parquet": model.item_catalogue.to_bytes(),
        "items.json": _json(model.item_catalogue),
        **{name: _npy(array) for name, array in arrays.items()},
        **artifact.histories(model.sequences, model.known_stops, model.known_times),
    }
    if prior is not None:
        parts["prior.safetensors"] = safetensors.numpy.save(prior.arrays())
    query, filter = asked(model, about.longest), Filter(seen=filter_seen)
    agreement = compare(reference, onnx_model.of(about, parts), query, popularity, filter)
    if not int8 and agreement.same < 1:
        raise SettingsError(
            f"export: expected the same recommendations from the graph of {type(network).__name__}. Got "
            f"others for {1 - agreement.same:.1%} of {agreement.histories:,} histories. Its padded_inputs "
            "and query_inputs may differ, or torch's exporter has a fault."
        )
    described = about.model_dump(exclude={"files", "bytes", "sha256"})
    with snapshot.write(
        folder, onnx_model.MARKER, onnx_model.PARTS, version.stamp(onnx_model.FORMAT) | described
    ) as files:
        for name, part in parts.items():
            with files.open(name) as stream:
                stream.write(part)
    return agreement


def check(folder: str | Path, network: Encoder) -> None:
    """Checks, before any work is done, what can be.

    Raises:
        SettingsError: the folder has a trained model, whose files would be replaced, or the network reads
            more than items and users.
    """
    if storage.exists(storage.join(folder, "model.json")):
        raise SettingsError(
            f"{folder}: expected a folder of its own for what is exported. Got that of a trained model."
        )
    if others := sorted(network.reads - {"users"}):
        raise SettingsError(
            f"export: expected a network that reads items and users. Got {type(network).__name__}, which "
            f"reads {', '.join(others)} too. Recommend with the model itself."
        )


def asked(model: Contents, longest: int) -> Query:
    """Histories of up to ``COMPARED`` of the model's users (made-up ones, if it has none), and a few of the
    kinds that graphs go wrong with.

    Args:
        longest: events of a history that the network reads.
    """
    rng = np.random.default_rng(0)
    items, odd = len(model.item_catalogue), [0, 0, 1, 2, min(longest, 2_000) + 1]
    lists: list[np.ndarray] = []
    some = np.empty(0, np.int32)
    if model.sequences is not None and model.known_stops is not None:
        s, stops = model.sequences, model.known_stops
        some = rng.permutation(len(stops))[:COMPARED].astype(np.int32)
        lists = [s.items[s.offsets[user] : stops[user]] for user in some]
    else:
        odd += rng.integers(1, 100, COMPARED).tolist()
    lists += [rng.integers(0, items, length).astype(np.int32) for length in odd]
    users = rng.integers(-1, max(1, model.users), len(odd))
    users[:2] = -1, 0
    return Query.from_lists(lists, np.concatenate([some, users.astype(np.int32)]))


def _json(catalogue: Catalogue) -> bytes:
    """The ids in the order of their indices, and the titles, where the catalogue has some."""
    named = {"ids": catalogue.ids.to_list()}
    if catalogue.attributes is not None and "title" in catalogue.attributes.columns:
        named["titles"] = catalogue.attributes["title"].cast(pl.String).to_list()
    return json.dumps(named, ensure_ascii=False).encode()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
