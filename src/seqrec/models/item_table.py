"""Which parts of their vectors items share (``seqrec.nn.jpq``), from who took what.

Petrov and Macdonald: RecJPQ, WSDM 2024 (arXiv 2312.06165).

    (users, items) of 0 and 1  ~  U S V'            truncated singular value decomposition, a column a split
    code_s(item) = its place among all items by V[:, s], in bins of equally many items

Items that the same people take so get the same codes, before any training; where values are equal, tiny noise
decides. Only training events are read. Items without one share code 0 of every split, and with it a vector
which training moves as one; bins are those of the other items, in the codes from 1 on.

Difference from the paper: code 0.
"""

from __future__ import annotations

import logging
import time
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from seqrec.features.encoding import Codes
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.training import threads

log = logging.getLogger("seqrec")

OVERSAMPLED, ITERATIONS = 16, 4
"""Columns more than are wanted, and rounds of refinement, of the randomised decomposition."""
NOISE = 1e-5
"""In standard deviations of a column."""


class ItemTableSettings(Settings):
    """How the vectors of items are stored."""

    name: Literal["jpq"] = "jpq"
    """RecJPQ: a vector is made of parts that items share, and an item takes a byte a split."""
    splits: int = Field(8, ge=1, le=1024)
    """Parts of a vector; divides the width."""
    codes: int = Field(256, ge=2, le=256)
    """How many different parts there are in each split, one of them for items without a training event."""


def codes_of(s: ItemTableSettings, split: Split, seed: int) -> Codes:
    """The codes of all items, from the training events.

    Args:
        seed: of the decomposition, and of the noise. The number of threads changes nothing.
    """
    begin = time.perf_counter()
    trained = np.flatnonzero(split.item_counts)
    vectors = _vectors(split, trained, s.splits, seed)
    vectors = vectors / np.maximum(vectors.std(0, keepdims=True), np.finfo(np.float32).tiny)
    vectors = vectors + np.random.default_rng(seed).normal(scale=NOISE, size=vectors.shape)
    place = vectors.argsort(0, kind="stable").argsort(0)
    of_rows = np.zeros((s.splits, len(split.item_counts)), dtype=np.uint8)
    of_rows[:, trained] = 1 + (place * (s.codes - 1) // max(1, len(trained))).T
    log.info(
        "item_table: %s items by %s codes of %s, from a decomposition of the training events in %.0f s.",
        f"{len(split.item_counts):,}",
        s.splits,
        s.codes,
        time.perf_counter() - begin,
    )
    return Codes(of_rows, s.codes)


def unknown_codes(s: ItemTableSettings, items: int) -> Codes:
    """Code 0 for all, until those of a saved model are put in their place."""
    return Codes(np.zeros((s.splits, items), dtype=np.uint8), s.codes)


def _vectors(split: Split, trained: np.ndarray, columns: int, seed: int) -> np.ndarray:
    """(trained items, columns) right singular vectors of who took which of these items, the largest first;
    zeros where the data has no more of them."""
    items = len(trained)
    events = np.flatnonzero(split.train_events)
    of = np.searchsorted(split.sequences.offsets, events, side="right") - 1
    users, of = np.unique(of, return_inverse=True)
    column = np.searchsorted(trained, split.sequences.items[events])
    pairs = np.unique(of * np.int64(items) + column)
    at = torch.from_numpy(np.stack([pairs // items, pairs % items]))
    found = np.zeros((items, columns))
    most = min(len(users), items)
    if not most:
        return found
    with threads.use(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        taken = torch.sparse_coo_tensor(
            at, torch.ones(len(pairs)), (len(users), items), check_invariants=True, is_coalesced=True
        )
        wanted = min(columns + OVERSAMPLED, most)
        _, _, right = torch.svd_lowrank(taken, q=wanted, niter=ITERATIONS)
    kept = min(columns, wanted)
    found[:, :kept] = right[:, :kept].numpy()
    return found
