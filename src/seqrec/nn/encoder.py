"""What a network is: batches of inputs become states, and items have vectors; the score is their product.

Training, ranking and exporting know this much of a network, and nothing of the model that it belongs to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from torch import Tensor, nn

from seqrec.data.sequences import Histories
from seqrec.nn.batch import Batch
from seqrec.splitting.split import Split


class Encoder(nn.Module, ABC):
    """Turns histories into states. An item's score is the product of state and item vector, which may have
    one column more: the item's bias.

    Attributes:
        knows_users: True where users have vectors of their own, so that even an empty history says something.
    """

    knows_users = False

    @abstractmethod
    def batches(self, split: Split, positions: int, rng: np.random.Generator) -> Iterator[Batch]:
        """One epoch of training batches of about that many positions."""

    @abstractmethod
    def history_batch(self, histories: Histories) -> Batch:
        """One batch with one wanted state a history, the one after its last item."""

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """(positions, width) states at ``batch.at``."""

    @abstractmethod
    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """(items, width or width + 1) vectors of all items, or of these (any shape, width last)."""

    def use_sparse_gradients(self) -> None:
        """Embedding tables get sparse gradients: an update reads and writes only the rows that it needs (for
        optimizers that know how)."""
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                module.sparse = True
