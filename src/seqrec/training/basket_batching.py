"""Batches whose steps are baskets, for encoders that read a basket as one vector (``seqrec.nn.baskets``).

history    {a b} {c} {d e}
items       a b   c   d e       of a row, its baskets numbered 0 0 1 2 2
states      0     1   2         one after each basket, which ``Inputs.at`` counts
targets           c | d e       all items of the basket that comes next, in one state each time
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from seqrec.data.baskets import begin_of_last, starts_of
from seqrec.data.query import Query
from seqrec.errors import DataError
from seqrec.nn.batch import Batch, Batches, Inputs
from seqrec.splitting.split import Split
from seqrec.training.batching import pieces, targets_of


@dataclass(frozen=True)
class Training:
    """The baskets that are trained on, or the parts of them that are.

    Attributes:
        begins, ends: (baskets,) int64, the events ``[begins[i], ends[i])`` of each, in order.
        first, counts: (users,) int64, each user's first one, and how many there are.
    """

    begins: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, split: Split) -> Self:
        """Those of a split.

        Raises:
            DataError: the log has no baskets, or no user has two in training.
        """
        s = split.sequences
        if s.baskets is None:
            raise DataError("baskets: the model reads the baskets of events. Got a log without any.")
        begins = starts_of(s.offsets, s.baskets)
        user = np.searchsorted(s.offsets, begins, side="right") - 1
        ends = np.minimum(np.append(begins[1:], s.events), split.train_stops[user])
        begins = np.maximum(begins, split.train_starts[user])
        kept = begins < ends
        counts = np.bincount(user[kept], minlength=s.users)
        if not (counts > 1).any():
            raise DataError(
                "split: expected at least one user with two training baskets. Got none; check the split and "
                "the log's filters."
            )
        return cls(begins[kept], ends[kept], np.cumsum(counts) - counts, counts)


def basket_windows(split: Split, steps: int, batch_positions: int, rng: np.random.Generator) -> Batches:
    """Pieces of at most ``steps`` baskets, cut from each training sequence at a random offset, batched with
    pieces of like length. After each basket the items of the next one are the targets.

    ``[{1 2} {3} {4 5} {6}]`` with steps 2 gives the pieces (inputs -> targets) ``[{1 2}] -> [{3}]`` and
    ``[{3} {4 5}] -> [{4 5} {6}]``, or ``[{1 2} {3}] -> [{3} {4 5}]`` and ``[{4 5}] -> [{6}]``.

    Raises:
        DataError: the log has no baskets, or no user has two in training.
    """
    b = Training.of(split)
    sizes, lengths = b.ends - b.begins, np.maximum(b.counts - 1, 0)
    positions = int(sizes.sum() - sizes[b.first[b.counts > 0]].sum())
    at_once = max(1, round(batch_positions * int(lengths.sum()) / positions))

    def batches() -> Iterator[Batch]:
        for users, basket, mask in pieces(b.first, lengths, steps, at_once, rng):
            last = basket[np.arange(len(users)), mask.sum(1) - 1]
            event, of_items, number = _laid_out(b.begins[basket[:, 0]], b.ends[last], b.begins)
            following = basket[mask] + 1
            size = sizes[following]
            at = np.repeat(np.flatnonzero(mask), size)
            within = np.arange(len(at)) - np.repeat(np.cumsum(size) - size, size)
            inputs = Inputs(
                items=torch.from_numpy(split.sequences.items[event].astype(np.int64) * of_items),
                mask=torch.from_numpy(of_items),
                at=torch.from_numpy(at),
                users=torch.from_numpy(users),
                baskets=torch.from_numpy((number - basket[:, :1]) * of_items),
            )
            yield Batch(inputs, targets_of(split, np.repeat(b.begins[following], size) + within))

    return Batches(positions, batches())


def last_baskets_in_order(query: Query, longest: int) -> Inputs:
    """One row a history with its last ``longest`` baskets, oldest first, and its user; one wanted state a
    row: the one after its last basket (any, for an empty history).

    Raises:
        DataError: the histories are of items alone.
    """
    if query.events.baskets is None:
        raise DataError("baskets: the model reads the baskets of histories. Got items alone.")
    begin = begin_of_last(query, longest)
    length = query.stops - begin
    step = np.arange(max(1, int(length.max(initial=0))))
    mask = step < length[:, None]
    event = np.where(mask, begin[:, None] + step, 0)
    told = query.events.baskets[event]
    new = (np.diff(told, axis=1, prepend=told[:, :1]) != 0) & mask
    number = np.cumsum(new, axis=1) * mask
    last = number.max(axis=1, initial=0)
    return Inputs(
        items=torch.from_numpy(query.items(event, mask)),
        mask=torch.from_numpy(mask),
        at=torch.from_numpy(np.arange(len(query)) * (int(last.max(initial=0)) + 1) + last),
        users=None if query.users is None else torch.from_numpy(query.users.astype(np.int64)),
        baskets=torch.from_numpy(number),
    )


def _laid_out(
    begins: np.ndarray, ends: np.ndarray, of_baskets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, steps) events ``[begins[i], ends[i])`` of each row, a mask of these, and the basket of each,
    where baskets begin ``of_baskets``."""
    step = np.arange((ends - begins).max())
    mask = step < (ends - begins)[:, None]
    event = np.where(mask, begins[:, None] + step, begins[:, None])
    return event, mask, np.searchsorted(of_baskets, event, side="right") - 1
