"""Items drawn by popularity, never one that the user has taken: exact, and nothing is drawn again.

All users of a block are drawn for at once. The items stand on a line, each as long as its weight. For a user
who has taken b and d, what is left is the line without b and d:

    all    |   a   | b |     c     |  d  | e |
    left   |   a   |     c     | e |            one cut after a, where b was, and one after c, where d was

A point is drawn on what is left, moved right by the weights of the taken items whose cuts are not after it,
and names the item where it then lies. Weights are whole numbers, so that no rounding ever puts a point on a
taken item.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SCALE = 1 << 46
"""Sum of all weights, up to rounding: fine enough for tens of millions of items; 2^16 of it fit 64 bits."""
BLOCK = 1 << 20
"""Draws and events of a block of users."""
USERS = 1 << 16
"""Users of a block, at most."""


def weights_of(counts: np.ndarray, alpha: float) -> np.ndarray:
    """(items,) int64 proportional to count^alpha; 0 for items without a count, whatever alpha."""
    known = counts > 0
    powers = np.where(known, np.maximum(counts, 1).astype(np.float64) ** alpha, 0.0)
    weights: np.ndarray = np.maximum(np.rint(powers / max(powers.sum(), 1.0) * SCALE).astype(np.int64), known)
    return weights


def draw(
    items: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    weights: np.ndarray,
    wanted: np.ndarray,
    seed: int,
    repeats: bool = True,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draws with replacement, by weight, from the items that each user has not taken.

    Without repeats they are what is left of draws from all items, each item once and the user's own left
    out: ``set(draws) - set(own)``. How many draws are not the user's own is then drawn first.

    A user who has taken every item gets no draws.

    Args:
        items: (events,) item of each event.
        starts, stops: (users,) user u has taken ``items[starts[u] : stops[u]]``.
        weights: (items,) as ``weights_of`` makes them.
        wanted: (users,) how many draws; without repeats, from all items.
        repeats: whether an item that is drawn for a user again is given again.

    Yields:
        block by block, users in order: (n,) users, (n,) int32 drawn items, and for each draw (n,) one of the
            user's events, drawn uniformly.
    """
    ends = np.cumsum(weights)
    total = int(ends[-1])
    lengths = stops - starts
    done = np.cumsum(np.maximum(lengths, wanted))
    first, block = 0, 0
    while first < len(wanted):
        reached = 0 if first == 0 else done[first - 1]
        last = min(max(first + 1, int(np.searchsorted(done, reached + BLOCK, side="right"))), first + USERS)
        rng = np.random.default_rng([seed, block])
        users = np.arange(last - first)
        # The distinct items of each user, users in order and items in order.
        owner = np.repeat(users, lengths[first:last])
        at = np.arange(len(owner)) + np.repeat(
            starts[first:last] - (np.cumsum(lengths[first:last]) - lengths[first:last]), lengths[first:last]
        )
        owner, taken = np.divmod(np.unique(owner * len(weights) + items[at]), len(weights))
        # Their weights summed within the user, and the cuts: where they were on the line of what is left.
        running = np.cumsum(weights[taken])
        bounds = np.searchsorted(owner, np.arange(last - first + 1))
        before = np.append(0, running)[bounds]
        summed = running - before[owner]
        cuts = ends[taken] - summed
        left = total - np.diff(before)
        count = np.where(left > 0, wanted[first:last], 0)
        drawer = np.repeat(users, count if repeats else rng.binomial(count, left / total))
        if len(drawer):
            point = rng.integers(0, left[drawer])
            cut = np.searchsorted(owner * (total + 1) + cuts, drawer * (total + 1) + point, side="right") - 1
            point += np.where(cut >= bounds[drawer], np.append(summed, 0)[cut], 0)
            drawn = np.searchsorted(ends, point, side="right").astype(np.int32)
            if not repeats:
                drawer, once = np.divmod(np.unique(drawer * len(weights) + drawn), len(weights))
                drawn = once.astype(np.int32)
            event = starts[first:last][drawer] + rng.integers(0, lengths[first:last][drawer])
            yield drawer + first, drawn, event
        first, block = last, block + 1
