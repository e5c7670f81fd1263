"""Baskets as an encoder's steps: a basket's vector is the mean or the largest of its items' vectors, so that
their order means nothing.

Yu, Liu, Wu, Wang, Tan: A Dynamic Recurrent Model for Next Basket Recommendation, SIGIR 2016 (DREAM), section
2: the recurrence runs over such vectors.

    x_t = mean or max of e(i) over the items i of basket t
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from seqrec.nn.batch import Inputs

PoolBaskets = Literal["average", "max"]
"""How the vectors of a basket's items become its own."""


def pooled(vectors: Tensor, inputs: Inputs, how: PoolBaskets) -> tuple[Tensor, Inputs]:
    """Pools the vectors of the items of each basket.

    Args:
        vectors: (rows, steps, width) of the items of ``inputs``, whose ``baskets`` number those of a row from
            0 on, and whose ``at`` counts rows of baskets.

    Returns:
        (rows, baskets, width), zero where a row has no such basket; and the inputs as rows of baskets, whose
        items are all 0.
    """
    assert inputs.baskets is not None
    (rows, _, width), mask = vectors.shape, inputs.mask
    count = int((inputs.baskets * mask).amax()) + 1
    basket = (inputs.baskets + count * torch.arange(rows, device=mask.device)[:, None])[mask]
    sizes = torch.bincount(basket, minlength=rows * count)
    there = sizes > 0
    if how == "average":
        x = vectors.new_zeros(rows * count, width).index_add(0, basket, vectors[mask])
        x = x / sizes.clamp(min=1)[:, None].to(x.dtype)
    else:
        x = vectors.new_full((rows * count, width), -torch.inf)
        x = x.scatter_reduce(0, basket[:, None].expand(-1, width), vectors[mask], "amax")
        x = torch.where(there[:, None], x, torch.zeros_like(x))
    of_rows = there.view(rows, count)
    steps = replace(inputs, items=torch.zeros_like(of_rows, dtype=torch.int64), mask=of_rows, baskets=None)
    return x.view(rows, count, width), steps
