"""What a network is: inputs become states, and items have vectors; the score is their product.

Training, ranking and exporting know this much of a network, and nothing of the model that it belongs to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from seqrec.data.query import Query
from seqrec.errors import SettingsError
from seqrec.nn.batch import Batches, Inputs
from seqrec.splitting.split import Split

ItemRows = Tensor | slice | None
"""Which items: indices of any shape, a range of them, or None for all."""


class Encoder(nn.Module, ABC):
    """Turns histories into states. An item's score is the product of state and item vector, which may have
    one column more: the item's bias.

    Attributes:
        reads: what it reads of a history beside its items: ``users`` (they have vectors of their own, so that
            even an empty history says something), ``times``, ``baskets`` (said by the class). Batches hold
            what is named here.
        scores_rows: whether ``item_vectors`` gives the rows of its table ``items`` as they are, so that a
            table that knows a faster way to scores (``nn.jpq``) may take it.
    """

    reads: frozenset[str] = frozenset()
    scores_rows: bool = False

    @property
    def window(self) -> int:
        """The most events of a row, for encoders that train on windows (``batching.windows``), and so could
        train on prefixes of as many (``train.objective``); 0 for those that train otherwise."""
        return 0

    @abstractmethod
    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Batches:
        """One epoch of training batches of about that many positions."""

    @abstractmethod
    def query_inputs(self, query: Query) -> Inputs:
        """Inputs with one wanted state a query, the one after the last item of its history."""

    @abstractmethod
    def encode(self, inputs: Inputs) -> Tensor:
        """(positions, width) states at ``inputs.at``."""

    @abstractmethod
    def item_vectors(self, items: ItemRows = None) -> Tensor:
        """(items, width or width + 1) vectors of all items, of a range, or of these (any shape, width
        last)."""

    def padded_inputs(self, items: Tensor, lengths: Tensor, users: Tensor | None) -> Inputs:
        """As ``query_inputs``, of tensors and in operations on tensors alone, so that it can be exported as a
        graph. Usually ``batching.last_states_of`` or ``last_items_of``.

        Args:
            items: (rows, steps) int64 whole histories, oldest first, padded on the right with any item.
            lengths: (rows,) int64 items of each.
            users: (rows,) int64 user of each, -1 for unknown; None for a network that does not read users.

        Raises:
            SettingsError: this network has none, and cannot be exported.
        """
        raise SettingsError(
            f"{type(self).__name__}: expected a method padded_inputs, which reads histories as tensors. Got "
            "none, so it cannot be exported to ONNX. Give the network one: see CONTRIBUTING.md."
        )

    def use_sparse_gradients(self) -> None:
        """Embedding tables get sparse gradients: an update reads and writes only the rows that it needs (for
        optimizers that know how)."""
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                module.sparse = True


@runtime_checkable
class Streaming(Protocol):
    """An encoder that can go on from a state: serving one new event costs the same however long the history
    is."""

    @property
    def longest(self) -> int:
        """The longest history of which ``step`` and ``Encoder.encode`` give the same; 0 where they never
        do."""
        ...

    def start(self, rows: int) -> list[Tensor]:
        """The state before any event: (rows, width) of each layer."""
        ...

    def step(self, state: list[Tensor], items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Reads one more item of each history.

        Args:
            state: as ``start`` or an earlier step gave it.
            items: (rows,) int64.
        Returns:
            the new state, and (rows, width) what ``Encoder.encode`` gives for the histories so far.
        """
        ...
