"""Models that look at a history and a candidate together, so that no product of a state and an item vector
gives the score: what DIN and BST share.

    score(j | history) = f(history, j)

A score costs a pass through the network, so that all items cost as many passes. Over a small catalogue such a
model can rank by itself; over a large one it reorders what a retriever found: ``rerank``. It is trained on
targets and drawn negatives, each a candidate of its own, with any loss that draws.

Raises:
    SettingsError: a loss over the whole catalogue; or what needs item vectors: an index, alike items, an
        export.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.features.encoding import Features
from seqrec.models.neural import EncoderScorer, NeuralModel
from seqrec.nn.batch import Batch, Batches, Inputs
from seqrec.nn.embedding import embedding
from seqrec.nn.encoder import Encoder, ItemRows
from seqrec.scoring import Scorer, Scores
from seqrec.serving.embeds import ItemVectors
from seqrec.splitting.split import Split
from seqrec.training import batching
from seqrec.training.negatives import Distinct, Sampler
from seqrec.training.objective import Objective
from seqrec.training.options import FitOptions

PAIRS = 1 << 13
"""Histories and candidates compared at once, about: with a history of 20 items of width 32 these are 20 MB in
each layer."""


class PairNetwork(Encoder):
    """Tables of items and users, and the last items of a history, latest first; a subclass gives
    ``compare``.

    Args:
        settings: with ``width``, ``recent`` and ``user_vectors``.
    """

    def __init__(self, settings: Any, items: int, users: int, features: Features | None = None):
        super().__init__()
        s = self.settings = settings
        f = features or Features.ids_only(users=s.user_vectors)
        self.items = embedding(items, s.width, f.item)
        self.input_items = None if f.item_is_sequence else embedding(items, s.width, f.sequence, self.items)
        self.users = embedding(users, s.width, f.user) if f.user else None
        self.reads = frozenset({"users"} if self.users is not None else ())
        for table in (self.items, self.input_items, self.users):
            if table is not None:
                for vectors in table.parameters():
                    torch.nn.init.normal_(vectors, std=s.width**-0.5)

    @abstractmethod
    def compare(self, inputs: Inputs, candidates: Tensor) -> Tensor:
        """(rows, candidates) scores of (rows, candidates) items, each beside the history of its row."""

    def of_history(self, inputs: Inputs) -> Tensor:
        """(rows, steps, width) vectors of the items of histories."""
        vectors: Tensor = (self.input_items or self.items)(inputs.items)
        return vectors

    def of_users(self, inputs: Inputs) -> Tensor:
        """(rows, width) vectors of users, zero of unknown ones."""
        assert self.users is not None
        users = inputs.users if inputs.users is not None else inputs.at.new_full((len(inputs.items),), -1)
        vectors: Tensor = self.users(users.clamp(min=0)) * users.ge(0)[:, None]
        return vectors

    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        return batching.recent(split, self.settings.recent, positions, rng, self.reads)

    def query_inputs(self, query: Query) -> Inputs:
        return batching.last_items(query, self.settings.recent, self.reads)

    def encode(self, inputs: Inputs) -> NoReturn:
        """
        Raises:
            SettingsError: always; ``compare`` gives scores.
        """
        raise _no_vectors(type(self).__name__)

    def item_vectors(self, items: ItemRows = None) -> NoReturn:
        """
        Raises:
            SettingsError: always; ``compare`` gives scores.
        """
        raise _no_vectors(type(self).__name__)


class PairObjective(Objective):
    """The loss of targets and drawn negatives that are compared with the history of their row."""

    encoder: PairNetwork

    def drawn(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Distinct | None]]:
        yield from ((batch.to(self.sampler.device), None) for batch in batches)

    def _loss(self, batch: Batch, drawn: Distinct | None) -> Tensor:
        targets, labels, events = batch.targets.items, batch.targets.labels, batch.targets.events
        negatives = self.sampler.sample(targets)
        others = negatives.items.expand(len(targets), -1)
        with self.precision(batch.inputs):
            scores = self.encoder.compare(batch.inputs, torch.cat([targets[:, None], others], 1)).float()
        of_draws = self.of_scored(scores[:, 0], scores[:, 1:], negatives, targets, events)
        positive, negative = (self.wanted(x, batch) for x in of_draws)
        if not len(positive):  # every target of the batch is disliked
            return scores.sum() * 0.0
        return self.of_scores.of_draws(positive, negative, labels, self.sampler.items)


@dataclass(frozen=True)
class PairScorer(EncoderScorer):
    """Scores by a network of pairs, a block of items at a time.

    Attributes:
        network: which scores them.
    """

    network: PairNetwork

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _table(self) -> None:
        return None

    def _scores(self, query: Query, rows: np.ndarray, table: Tensor | None, alone: bool) -> Scores:
        def block(begin: int, end: int) -> Tensor:
            every = torch.arange(begin, end, device=self.device).expand(len(query), -1)
            return self.of(query, every)

        return self._in_blocks(query, rows, block)

    @torch.no_grad()
    def of(self, query: Query, candidates: Tensor) -> Tensor:
        """(queries, candidates) scores of (queries, candidates) items, compared a few at a time."""
        if self.network.training:
            self.network.eval()
        found = torch.empty(candidates.shape, device=candidates.device)
        width = max(1, min(PAIRS, candidates.shape[1]))
        at_once = max(1, PAIRS // width)
        for begin in range(0, len(query), at_once):
            rows = np.arange(begin, min(begin + at_once, len(query)))
            inputs = self.network.query_inputs(self._known(query.select(rows))).to(candidates.device)
            for column in range(0, candidates.shape[1], width):
                part = slice(begin, begin + len(rows)), slice(column, column + width)
                found[part] = self.network.compare(inputs, candidates[part])
        return found


class Within(Protocol):
    """Where a model of pairs is validated when it reorders what another one found."""

    def described(self) -> list[Any]:
        """What makes its order, as JSON has it."""
        ...

    def reordered(self, pairs: PairScorer) -> Scorer:
        """All items, those that were found in the order of these pairs."""
        ...


class PairModel(NeuralModel):
    """A model whose network is a ``PairNetwork``."""

    takes_features = True
    draws_only = True
    longest_chunk = 65_536  # of which it reads the last few
    within: Within | None = None
    default_loss: ClassVar = {"name": "sampled_softmax"}
    default_negatives: ClassVar = {"count": 16, "alpha": 0.5, "shared": False}

    def objective(self, network: Encoder, sampler: Sampler, bfloat16: bool = False) -> Objective:
        return PairObjective(network, self.loss, sampler, bfloat16)

    def pairs(self, network: Encoder) -> PairScorer:
        """Scores of candidates by that network."""
        found = super().scorer(network)
        return PairScorer(**{name: getattr(found, name) for name in EncoderScorer.__dataclass_fields__})

    def scorer(self, network: Encoder) -> Any:
        """Of all items; while it is trained for a ``rerank``, of those that its retriever found first."""
        pairs = self.pairs(network)
        return pairs if self.within is None else self.within.reordered(pairs)

    def fingerprint(self, split: Split, on: FitOptions) -> str:
        own = super().fingerprint(split, on)
        if self.within is None:
            return own
        return hashlib.sha256(json.dumps([own, self.within.described()]).encode()).hexdigest()[:16]

    def vectors(self) -> ItemVectors:
        """
        Raises:
            SettingsError: always; it has none.
        """
        raise _no_vectors(self.name)

    def state_vectors(self, query: Query) -> np.ndarray:
        """
        Raises:
            SettingsError: always; it has none.
        """
        raise _no_vectors(self.name)

    def states(self, query: Query) -> Tensor:
        """
        Raises:
            SettingsError: always; it has none.
        """
        raise _no_vectors(self.name)

    def export_onnx(
        self, folder: str | Path, int8: bool = False, histories: bool = True, filter_seen: bool = True
    ) -> NoReturn:
        """
        Raises:
            SettingsError: always; what is exported are states and item vectors.
        """
        raise _no_vectors(self.name)


def _no_vectors(name: str) -> SettingsError:
    return SettingsError(
        f"{name} has no item vectors: it compares each candidate with the history, so that there is nothing "
        "to export to ONNX, to index or to look for alike items in. Take a model that has some (sasrec, "
        f"gru4rec), and {name} as the scorer of a rerank."
    )
