"""Tables whose rows are made of features: a row's own vector, the vectors of the values that its attributes
have, and what linear maps make of its embeddings.

v(row) = own(row) + sum over features of the mean over the row's values of w(value)
                  + sum over columns of embeddings of x(row) M
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.errors import TrainingError
from seqrec.features.encoding import Side
from seqrec.nn.batch import Inputs
from seqrec.nn.dropout import dropout
from seqrec.nn.jpq import JPQEmbedding


class Mapped(nn.Module):
    """A column of embeddings, taken to the width of the other vectors by a learned map M without a bias: what
    is not known stays zero.

    Args:
        vectors: (rows, numbers) float32.
        width: of what comes out.
    """

    def __init__(self, vectors: np.ndarray, width: int):
        super().__init__()
        self.vectors: Tensor
        # They belong to the data, as the index of a FeatureEmbedding does.
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)
        self.map = nn.Parameter(torch.randn(vectors.shape[1], width))

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """(...) rows, or all -> (..., width)."""
        return (self.vectors if rows is None else self.vectors[rows]) @ self.map


class FeatureEmbedding(nn.Module):
    """Read as a ``torch.nn.Embedding`` is: called with rows, or whole as ``weight``, which is computed here.

    Args:
        rows, width: as of an embedding.
        side: which features each row has.
        shared: a table over the same rows whose vectors are used where both have them.
        biases: how many of the columns, the last ones, are biases.
    """

    def __init__(self, rows: int, width: int, side: Side, shared: Table | None = None, biases: int = 0):
        super().__init__()
        self.rows, self.width = rows, width
        own = shared.ids if isinstance(shared, FeatureEmbedding) else shared
        self.ids: nn.Embedding | JPQEmbedding | None = (
            None if not side.ids else _own(rows, width, side, biases) if own is None else own
        )
        values = shared.values if isinstance(shared, FeatureEmbedding) else None
        self.values: nn.Embedding | None = None
        if side.index is not None and side.weight is not None:
            self.values = values or nn.Embedding(side.values, width)
            self.index: Tensor
            self.share: Tensor
            # They belong to the data: a checkpoint needs only to tell them from others.
            self.register_buffer("index", torch.from_numpy(side.index), persistent=False)
            self.register_buffer("share", torch.from_numpy(side.weight), persistent=False)
        self.columns = tuple(side.embeddings)
        self.mapped: nn.ModuleList
        of_both = dict(zip(shared.columns, shared.mapped)) if isinstance(shared, FeatureEmbedding) else {}
        self.mapped = nn.ModuleList(
            of_both.get(column) or Mapped(vectors, width) for column, vectors in side.embeddings.items()
        )
        self.digest, self.drop_ids = side.digest, side.drop_ids

    def forward(self, rows: Tensor) -> Tensor:
        """(...) rows -> (..., width)."""
        parts = [] if self.ids is None else [self._dropped(self.ids(rows))]
        if self.values is not None:
            at = rows.flatten()
            of_values = self._sum(self.values, self.index.index_select(0, at), self.share.index_select(0, at))
            parts.append(of_values.view(*rows.shape, self.width))
        return sum_of([*parts, *(mapped(rows) for mapped in self.mapped)])

    @property
    def weight(self) -> Tensor:
        """(rows, width) all vectors."""
        parts = [] if self.ids is None else [self._dropped(self.ids.weight)]
        if self.values is not None:
            parts.append(self._sum(self.values, self.index, self.share))
        return sum_of([*parts, *(mapped() for mapped in self.mapped)])

    def _dropped(self, own: Tensor) -> Tensor:
        """(..., width) the rows' own vectors; in training some are zero."""
        if not self.training or not self.drop_ids:
            return own
        return own * (torch.rand(own.shape[:-1], device=own.device) >= self.drop_ids)[..., None]

    @staticmethod
    def _sum(values: nn.Embedding, index: Tensor, share: Tensor) -> Tensor:
        return F.embedding_bag(index, values.weight, mode="sum", per_sample_weights=share, padding_idx=0)

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


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape, (..., width)."""
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    return found


Table = nn.Embedding | JPQEmbedding | FeatureEmbedding


def embedding(rows: int, width: int, side: Side, shared: Table | None = None, biases: int = 0) -> Table:
    """A plain embedding, unless the side has more than ids, or shares parts of vectors. Arguments as of
    ``FeatureEmbedding``."""
    if side.has_attributes:
        return FeatureEmbedding(rows, width, side, shared, biases)
    own = shared.ids if isinstance(shared, FeatureEmbedding) else shared
    return _own(rows, width, side, biases) if own is None else own


def _own(rows: int, width: int, side: Side, biases: int) -> nn.Embedding | JPQEmbedding:
    """The vectors that rows have to themselves, or share parts of."""
    if side.codes is None:
        return nn.Embedding(rows, width)
    return JPQEmbedding(rows, width - biases, side.codes, biases)


def biases_of(table: Table, width: int) -> Iterator[Tensor]:
    """(..., columns) what comes after the first ``width`` columns of all that a table's vectors are made of:
    the biases, where it has some."""
    for module in table.modules():
        for values in module.parameters(recurse=False):
            yield values if isinstance(module, JPQEmbedding) else values[:, width:]


def add_users(states: Tensor, users: Table, inputs: Inputs, dropped: float = 0.0) -> Tensor:
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


def rows_of(table: Table, rows: Tensor | slice | None) -> Tensor:
    """(..., width) rows of a table: some (any shape), a range of them, or all.

    A range of a plain table is a view."""
    found: Tensor
    if isinstance(rows, Tensor):
        found = table(rows)
        return found
    if rows is None or isinstance(table, nn.Embedding):
        return table.weight if rows is None else table.weight[rows]
    begin, end, _ = rows.indices(table.rows)
    if isinstance(table, JPQEmbedding):
        return table.of_range(begin, end)
    device = next(table.parameters()).device
    found = table(torch.arange(begin, end, device=device))
    return found
