"""Tables whose rows are made of features: a row's own vector, and the vectors of the values that its
attributes have.

v(row) = own(row) + sum over features of the mean over the row's values of w(value)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.errors import TrainingError
from seqrec.features.encoding import Side
from seqrec.nn.batch import Inputs
from seqrec.nn.dropout import dropout


class FeatureEmbedding(nn.Module):
    """Read as a ``torch.nn.Embedding`` is: called with rows, or whole as ``weight``, which is computed here.

    Args:
        rows, width: as of an embedding.
        side: which features each row has.
        shared: a table over the same rows whose vectors are used where both have them.
    """

    def __init__(
        self, rows: int, width: int, side: Side, shared: nn.Embedding | FeatureEmbedding | None = None
    ):
        super().__init__()
        assert side.index is not None
        assert side.weight is not None
        own = shared.ids if isinstance(shared, FeatureEmbedding) else shared
        self.ids: nn.Embedding | None = (
            None if not side.ids else nn.Embedding(rows, width) if own is None else own
        )
        self.values: nn.Embedding = (
            shared.values if isinstance(shared, FeatureEmbedding) else nn.Embedding(side.values, width)
        )
        self.index: Tensor
        self.share: Tensor
        # They belong to the data: a checkpoint needs only to tell them from others.
        self.register_buffer("index", torch.from_numpy(side.index), persistent=False)
        self.register_buffer("share", torch.from_numpy(side.weight), persistent=False)
        self.digest = side.digest

    def forward(self, rows: Tensor) -> Tensor:
        """(...) rows -> (..., width)."""
        at = rows.flatten()
        vectors = self._sum(self.index.index_select(0, at), self.share.index_select(0, at)).view(
            *rows.shape, self.values.embedding_dim
        )
        return vectors if self.ids is None else self.ids(rows) + vectors

    @property
    def weight(self) -> Tensor:
        """(rows, width) all vectors."""
        vectors = self._sum(self.index, self.share)
        return vectors if self.ids is None else self.ids.weight + vectors

    def _sum(self, index: Tensor, share: Tensor) -> Tensor:
        return F.embedding_bag(index, self.values.weight, mode="sum", per_sample_weights=share, padding_idx=0)

    @property
    def sparse(self) -> bool:
        """Whether the rows' own vectors get sparse gradients; those of values are few."""
        return self.ids is not None and self.ids.sparse

    @sparse.setter
    def sparse(self, sparse: bool) -> None:
        if self.ids is not None:
            self.ids.sparse = sparse

    def get_extra_state(self) -> Tensor:
        """(1,) digest of the features, which a checkpoint keeps."""
        return torch.tensor([self.digest])

    def set_extra_state(self, state: Tensor) -> None:
        """Compares the (1,) digest of a checkpoint with that of the features.

        Raises:
            TrainingError: they differ.
        """
        if int(state[0]) != self.digest:
            raise TrainingError(
                "the weights were trained with other attributes than the data has now. "
                "Remove the checkpoint to start from scratch."
            )


def embedding(
    rows: int, width: int, side: Side, shared: nn.Embedding | FeatureEmbedding | None = None
) -> nn.Embedding | FeatureEmbedding:
    """A plain embedding, unless the side has more than ids. Arguments as of ``FeatureEmbedding``."""
    if side.index is not None:
        return FeatureEmbedding(rows, width, side, shared)
    own = shared.ids if isinstance(shared, FeatureEmbedding) else shared
    return nn.Embedding(rows, width) if own is None else own


def add_users(
    states: Tensor, users: nn.Embedding | FeatureEmbedding, inputs: Inputs, dropped: float = 0.0
) -> Tensor:
    """The states, each with the vector of its user added: nothing for an unknown user, and nothing but that
    for an empty history.

    Args:
        states: (positions, width), one for each of ``inputs.at``.
        users: the table of the users.
        dropped: share of the numbers of the users' vectors that dropout zeroes; 0 when not training.
    """
    if inputs.users is None:
        return states
    states = states * inputs.mask.flatten().index_select(0, inputs.at)[:, None]
    steps = inputs.items.shape[1]
    user = (
        inputs.users.flatten().index_select(0, inputs.at)
        if inputs.users.dim() == 2
        else inputs.users.index_select(0, inputs.at // steps)
    )
    vectors = users(user.clamp(min=0)) * user.ge(0)[:, None]
    return states + dropout(vectors, dropped, training=True)


def rows_of(table: nn.Embedding | FeatureEmbedding, rows: Tensor | slice | None) -> Tensor:
    """(..., width) rows of a table: some (any shape), a range of them, or all.

    A range of a plain table is a view."""
    found: Tensor
    if isinstance(rows, Tensor):
        found = table(rows)
        return found
    if rows is None or isinstance(table, nn.Embedding):
        return table.weight if rows is None else table.weight[rows]
    found = table(torch.arange(*rows.indices(len(table.index)), device=table.index.device))
    return found
