"""Small random logs for property tests, and splits put into plain words to compare with obvious
implementations."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Sequences
from seqrec.splitting.split import Split

ITEMS = 7


def build(users: list[list[tuple[int, int, int]]], items: int = ITEMS) -> Sequences:
    """Sequences from each user's (item, time, rating) events, which are sorted by time here, ties as they
    come."""
    users = [sorted(events, key=lambda e: e[1]) for events in users]
    flat = np.array([e for events in users for e in events], dtype=np.int64).reshape(-1, 3)
    return Sequences(
        items=flat[:, 0].astype(np.int32),
        offsets=np.cumsum([0, *map(len, users)]).astype(np.int64),
        item_catalogue=Catalogue([f"item {i}" for i in range(items)]),
        user_catalogue=Catalogue([f"user {u}" for u in range(len(users))]),
        times=flat[:, 1],
        ratings=flat[:, 2].astype(np.float32),
    )


def of_items(*users: str, times: list[list[int]] | None = None) -> Sequences:
    """Sequences from words, a letter an item: ``of_items("abc", "ab")``."""
    letters = sorted(set("".join(users)))
    flat = [letters.index(letter) for word in users for letter in word]
    return Sequences(
        items=np.array(flat, dtype=np.int32),
        offsets=np.cumsum([0, *map(len, users)]).astype(np.int64),
        item_catalogue=Catalogue(letters),
        user_catalogue=Catalogue(list(range(1, len(users) + 1))),
        times=None if times is None else np.array([t for user in times for t in user], dtype=np.int64),
    )


event = st.tuples(st.integers(0, ITEMS - 1), st.integers(1, 20), st.integers(1, 5))
logs = st.lists(st.lists(event, max_size=9), min_size=1, max_size=8)
busy_logs = st.lists(st.lists(event, min_size=2, max_size=9), min_size=3, max_size=8)


def lacks_a_part(told: list[dict[str, list]]) -> bool:
    """Whether a split (in plain words) has nothing to train on, or nothing to ask, and is to be refused."""
    return not (
        any(len(user["train"]) > 1 for user in told)
        and any(user["validation"] for user in told)
        and any(user["test"] for user in told)
    )


def plain(split: Split) -> list[dict[str, list]]:
    """For each user the positions trained on, and (position, history length) of each query."""
    s = split.sequences
    told: list[dict[str, list]] = []
    for user in range(s.users):
        begin = int(s.offsets[user])
        told.append(
            {
                "train": list(
                    range(int(split.train_starts[user]) - begin, int(split.train_stops[user]) - begin)
                ),
                "validation": [],
                "test": [],
            }
        )
    for role, queries in (("validation", split.validation), ("test", split.test)):
        for target, user, stop in zip(
            queries.targets.tolist(), queries.users.tolist(), queries.history_stops.tolist()
        ):
            begin = int(s.offsets[user])
            told[user][role].append((target - begin, stop - begin))
    return told
