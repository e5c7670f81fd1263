"""What users took in training, against a slow reading of their events."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.splitting.split import Queries, Split
from seqrec.testing import sequences_of
from seqrec.training.own_items import OwnItems

ITEMS = 6
lists = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=5)


@given(lists, st.integers(0, 2), st.integers(0, 2), st.sets(st.integers(0, ITEMS - 1), min_size=1))
def test_what_was_taken_before_an_event(items, before, after, distinct):
    """Of training events alone, whatever comes before or after them."""
    sequences = sequences_of([np.array(x, dtype=np.int32) for x in items], ITEMS)
    starts = np.minimum(sequences.offsets[:-1] + before, sequences.offsets[1:])
    stops = np.maximum(sequences.offsets[1:] - after, starts)
    none = Queries.at(sequences, np.empty(0, dtype=np.int64))
    split = Split(sequences, starts, stops, none, none, {"name": "by hand"})
    own = OwnItems(split, torch.device("cpu"))
    events = np.flatnonzero(split.train_events)
    if not len(events):
        return
    users = np.searchsorted(sequences.offsets, events, side="right") - 1
    seen = [set(sequences.items[starts[u] : e].tolist()) for u, e in zip(users, events)]
    asked = torch.from_numpy(events)
    assert own.users(asked).tolist() == users.tolist()

    everything = torch.arange(ITEMS).expand(len(events), -1)
    found = own.contain(own.users(asked), everything, asked)
    assert [set(np.flatnonzero(row).tolist()) for row in found.numpy()] == seen
    of_user = own.contain(own.users(asked), everything)
    assert of_user.tolist() == [
        [i in sequences.items[starts[u] : stops[u]] for i in range(ITEMS)] for u in users
    ]

    for columns in (None, sorted(distinct)):
        names = range(ITEMS) if columns is None else columns
        histories = own.before(asked, None if columns is None else torch.tensor(columns))
        first = len(events) // 2  # a chunk from the middle on
        scores = torch.zeros(len(events) - first, len(names))
        histories.leave_out(scores, first)
        assert torch.isneginf(scores).tolist() == [[i in s for i in names] for s in seen[first:]]
