"""A table whose rows share parts of their vectors: the table of RecJPQ.

Petrov and Macdonald: RecJPQ: Training Large-Catalogue Sequential Recommenders, WSDM 2024 (arXiv 2312.06165).
An item has a code for each of the splits of a vector, and a code stands for a part, which is learned:

    v(item) = [ part_0(code_0(item)) | part_1(code_1(item)) | ... ]
    score(item | state) = sum over splits s of state_s . part_s(code_s(item))

So a table takes a byte an item and split, and splits x codes parts, in place of a vector an item. The scores
of a few states are looked up in the (splits, codes) scores of the parts, and never made from vectors (PQTopK:
Petrov, Macdonald and Tonellotto, RecSys 2024, arXiv 2408.09992). The scores of many are the product with the
vectors of a block of items, which is faster then: see ``benchmarks/LOG.md``.

Differences from the paper: an item's bias, where a model has one, is its own. Where the codes come from says
``seqrec.models.item_table``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqrec.errors import DataError, SettingsError
from seqrec.features.encoding import Codes

FEW = 8
"""States whose scores are looked up."""
BLOCK = 1 << 16
"""Items of which scores are looked up at once: their codes stay in the cache."""


class JPQEmbedding(nn.Module):
    """Read as a ``torch.nn.Embedding`` is: called with rows, or whole as ``weight``, which is made here.

    Args:
        rows: of the table.
        width: of the parts of a vector together.
        codes: of the rows.
        biases: columns after the others, which each row has to itself.

    Raises:
        SettingsError: the splits do not divide the width.
    """

    def __init__(self, rows: int, width: int, codes: Codes, biases: int = 0):
        super().__init__()
        self.rows, self.width, self.splits = rows, width, len(codes.of_rows)
        if width % self.splits:
            raise SettingsError(
                f"item_table.splits: expected a divisor of the width of the vectors, which is {width}. Got "
                f"{self.splits}. Choose another number of splits, or another width."
            )
        self.parts = nn.Embedding(self.splits * codes.each, width // self.splits)
        self.biases = nn.Parameter(torch.zeros(rows, biases)) if biases else None
        self.codes: Tensor
        # (splits, rows): what is looked up together lies together
        self.register_buffer("codes", torch.from_numpy(codes.of_rows))
        self.first: Tensor
        first = torch.arange(0, self.splits * codes.each, codes.each)
        self.register_buffer("first", first[:, None], persistent=False)

    @property
    def sparse(self) -> bool:
        """Whether the parts get sparse gradients."""
        return self.parts.sparse

    @sparse.setter
    def sparse(self, sparse: bool) -> None:
        self.parts.sparse = sparse

    @property
    def weight(self) -> Tensor:
        """(rows, width + biases) all vectors."""
        return self.of_range(0, self.rows)

    def of_range(self, begin: int, end: int) -> Tensor:
        """(end - begin, width + biases) vectors of a range of rows."""
        own = None if self.biases is None else self.biases[begin:end]
        return self._joined(self.codes[:, begin:end], own)

    def forward(self, rows: Tensor) -> Tensor:
        """(...) rows -> (..., width + biases)."""
        at = rows.flatten()
        own = None if self.biases is None else self.biases.index_select(0, at)
        return self._joined(self.codes.index_select(1, at), own).view(*rows.shape, -1)

    def _joined(self, codes: Tensor, own: Tensor | None) -> Tensor:
        """(splits, n) codes, and (n, biases) -> (n, width + biases)."""
        at = (codes + self.first).T.reshape(-1)
        # index_select sums gradients faster; a sparse one is a row for each of them
        parts = self.parts(at) if self.parts.sparse else self.parts.weight.index_select(0, at)
        vectors = parts.view(-1, self.width)
        return vectors if own is None else torch.cat([vectors, own], 1)

    def scores(self, states: Tensor, begin: int, end: int) -> Tensor:
        """(n, end - begin) scores of a range of rows after (n, width) states."""
        if len(states) > FEW:
            vectors = self.of_range(begin, end)
            found = states @ vectors[:, : self.width].T
        else:
            found = self._looked_up(states, begin, end)
        return found if self.biases is None else found.add_(self.biases[begin:end].sum(1))

    def _looked_up(self, states: Tensor, begin: int, end: int) -> Tensor:
        of_states = states.view(len(states), self.splits, 1, -1)
        of_parts = self.parts.weight.view(self.splits, -1, self.width // self.splits)
        scores = (of_states * of_parts).sum(3)  # (n, splits, codes)
        found = states.new_empty(len(states), end - begin)
        for at in range(begin, end, BLOCK):
            codes = self.codes[:, at : min(at + BLOCK, end)].int()
            for row, of_row in zip(found[:, at - begin : at - begin + codes.shape[1]], scores, strict=True):
                torch.index_select(of_row[0], 0, codes[0], out=row)
                for split in range(1, self.splits):
                    row += of_row[split].index_select(0, codes[split])
        return found

    def check(self) -> None:
        """Checks codes that were read.

        Raises:
            DataError: one is of no part.
        """
        each = self.parts.num_embeddings // self.splits
        if self.codes.numel() and int(self.codes.max()) >= each:
            raise DataError(f"its item codes are not below {each}.")

    def forget(self) -> None:
        """The vector of the rows of code 0, of which no event tells, becomes zero."""
        with torch.no_grad():
            self.parts.weight[self.first.flatten()] = 0
