"""Batches are views over the flat sequences. Nothing is expanded, and next to nothing is padded.

Ways to walk through the training events, for the kinds of encoders:

    windows   attention: each sequence cut into pieces of at most ``steps`` events, pieces of like length
              side by side
    lanes     recurrence: sequences laid end to end in parallel lanes, read a few steps at a time, hidden
              state carried over
    prefixes  for every event, in random order, the few items before it, read from nothing
    hidden    attention to both sides: pieces as windows have them, in which some items are to be found
    recent    pooling: the same rows, latest item first
    baskets   pooling: every basket, in random order, with the baskets before it

Those whose steps are baskets are in ``seqrec.training.basket_batching``.

The batch size is set in positions (targets in the loss), not in users: 128 users of 200 events are 25,000
positions an update, and that many learn almost nothing in minutes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqrec.data.baskets import begin_of_last, starts_of
from seqrec.data.query import Query
from seqrec.errors import DataError
from seqrec.nn.batch import Batch, Batches, Inputs, Memory, Targets
from seqrec.splitting.split import Split

Reads = frozenset[str]
LAID_AT_ONCE = 1 << 20
"""Events laid in lanes at a time, which bounds the memory that it takes beside the lanes."""


def targets_of(split: Split, events: np.ndarray) -> Targets:
    """The items of (positions,) events as targets."""
    return Targets(
        torch.from_numpy(split.sequences.items[events].astype(np.int64)),
        None if split.positive is None else torch.from_numpy(split.positive[events]),
        torch.from_numpy(events),
    )


def _beside(
    reads: Reads, times: np.ndarray | None, baskets: np.ndarray | None, events: np.ndarray
) -> dict[str, Any]:
    """Times and baskets of the (rows, steps) events of a batch, as far as an encoder reads them.

    Raises:
        DataError: the log does not have them.
    """
    found = {}
    for name, column in (("times", times), ("baskets", baskets)):
        if name in reads:
            if column is None:
                raise DataError(f"{name}: the model reads the {name} of events. Got a log without any.")
            found[name] = torch.from_numpy(column[events])
    return found


def _of_events(split: Split, reads: Reads, events: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """As ``_beside``, and the moment that each of the (positions,) target events happened at."""
    s = split.sequences
    found = _beside(reads, s.times, s.baskets, events)
    if "times" in reads and s.times is not None:
        found["asked_at"] = torch.from_numpy(s.times[targets])
    return found


def inputs_of(split: Split) -> np.ndarray:
    """(users,) inputs of each user in training: all training events but the last.

    Raises:
        DataError: there are none.
    """
    inputs: np.ndarray = np.maximum(split.train_stops - split.train_starts - 1, 0)
    if not inputs.any():
        raise DataError(
            "split: expected at least one user with two training events. Got none; check the split and the "
            "log's filters."
        )
    return inputs


def windows(
    split: Split,
    steps: int,
    batch_positions: int,
    rng: np.random.Generator,
    reads: Reads = frozenset(),
) -> Batches:
    """Pieces of at most ``steps`` inputs, cut from each training sequence at a random offset, batched with
    pieces of like length.

    ``[1, 2, 3, 4, 5]`` with steps 3 gives the pieces (inputs -> targets) ``[1] -> [2]`` and ``[2, 3, 4] ->
    [3, 4, 5]``, or ``[1, 2] -> [2, 3]`` and ``[3, 4] -> [4, 5]``, or ``[1, 2, 3] -> [2, 3, 4]`` and ``[4] ->
    [5]``. Every position is trained on once.

    Args:
        reads: what to tell beside items and users: ``times``, ``baskets``.

    Returns:
        batches of about ``batch_positions`` positions, in random order.
    """
    inputs = inputs_of(split)
    return Batches(int(inputs.sum()), _windows(split, inputs, steps, batch_positions, rng, reads))


def _windows(
    split: Split, inputs: np.ndarray, steps: int, batch_positions: int, rng: np.random.Generator, reads: Reads
) -> Iterator[Batch]:
    for users, event, mask in pieces(split.train_starts, inputs, steps, batch_positions, rng):
        at = np.flatnonzero(mask)
        target = event.ravel()[at] + 1
        inputs_of_rows = Inputs(
            items=torch.from_numpy(split.sequences.items[event].astype(np.int64) * mask),
            mask=torch.from_numpy(mask),
            at=torch.from_numpy(at),
            users=torch.from_numpy(users),
            **_of_events(split, reads, event, target),
        )
        yield Batch(inputs_of_rows, targets_of(split, target))


def pieces(
    starts: np.ndarray, lengths: np.ndarray, steps: int, at_once: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """So many events (or baskets) of each user from the first that trains on, (users,) lengths and starts,
    cut at a random offset into pieces of at most ``steps``; about ``at_once`` at a time, in pieces of like
    length.

    Returns:
        (rows,) users of these pieces, (rows, steps) their events, and a mask of these.
    """
    user = np.flatnonzero(lengths)
    first = np.where(lengths[user] > steps, rng.integers(1, steps + 1, len(user)), lengths[user])
    count = 1 + -(-(lengths[user] - first) // steps)
    row_user = np.repeat(user, count)
    number = np.arange(len(row_user)) - np.repeat(np.cumsum(count) - count, count)
    begin = np.where(number == 0, 0, np.repeat(first, count) + (number - 1) * steps)
    length = np.minimum(np.where(number == 0, np.repeat(first, count), steps), lengths[row_user] - begin)
    begin = begin + starts[row_user]

    # Sort by length with a little noise, so that neighbours are alike but not the same in every epoch.
    order = np.argsort(length * rng.uniform(0.9, 1.1, len(length)), kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(np.cumsum(length[order]) // at_once)) + 1)
    for g in rng.permutation(len(groups)):
        rows = groups[g]
        step = np.arange(length[rows].max())
        mask = step < length[rows][:, None]
        yield row_user[rows], np.where(mask, begin[rows][:, None] + step, 0), mask


def hidden(
    split: Split,
    steps: int,
    share: float,
    batch_positions: int,
    rng: np.random.Generator,
    reads: Reads = frozenset(),
) -> Batches:
    """Pieces as those of ``windows``, of all training events, in which a random share of the items is hidden:
    these are the targets, read from both sides.

    ``[1, 2, 3, 4, 5]`` with steps 4 gives the pieces ``[1]`` and ``[2 3 4 5]``, say, and of them ``[?] -> 1``
    and ``[2 ? 4 5] -> 3``. Each piece has a target.

    Args:
        share: of the items that are hidden, in (0, 1).
        reads: what to tell beside items and users: ``times``, ``baskets``.

    Returns:
        batches of about ``batch_positions`` positions, in random order, with a mask that lets only known
        items through. They are about as many as is said.
    """
    lengths = np.where(inputs_of(split) > 0, split.train_stops - split.train_starts, 0)
    at_once = max(1, round(batch_positions / share))

    def batches() -> Iterator[Batch]:
        for users, event, mask in pieces(split.train_starts, lengths, steps, at_once, rng):
            drawn = np.where(mask, rng.random(mask.shape), 1.0)
            asked = drawn < np.maximum(share, drawn.min(1, keepdims=True) * (1 + 1e-9))
            at = np.flatnonzero(asked)
            target = event.ravel()[at]
            known = mask & ~asked
            inputs = Inputs(
                items=torch.from_numpy(split.sequences.items[event].astype(np.int64) * known),
                mask=torch.from_numpy(known),
                at=torch.from_numpy(at),
                users=torch.from_numpy(users),
                **_of_events(split, reads, event, target),
            )
            yield Batch(inputs, targets_of(split, target))

    return Batches(round(float(np.maximum(share * lengths, lengths > 0).sum())), batches())


def lanes(
    split: Split,
    count: int,
    steps: int,
    order: Literal["random", "start"],
    rng: np.random.Generator,
    reads: Reads = frozenset(),
) -> Batches:
    """Sequences laid end to end in ``count`` parallel lanes, read ``steps`` at a time.

    A lane that ends one sequence goes on with the next unread one, so two lanes over ``[1 2 3]``, ``[4 5]``,
    ``[6 7 8 9]`` read

        lane 0    4>5 | 6>7  7>8  8>9               ( | : the hidden state is reset )
        lane 1    1>2   2>3

    With ``steps=1`` these are the session-parallel mini-batches of GRU4Rec (Hidasi et al., 2016, section
    3.1.1, figure 2): a lane without a sequence left drops out.

    Args:
        order: "random", or "start": by the time of each sequence's first event (by file order where there are
            no times).
        reads: what to tell beside the items: ``users`` (of each input), ``times``, ``baskets``.

    Returns:
        batches of at most count * steps positions, with a memory in which the encoder carries its hidden
        state from one to the next.
    """
    inputs = inputs_of(split)
    return Batches(int(inputs.sum()), _lanes(split, inputs, count, steps, order, rng, reads))


def _lanes(
    split: Split,
    inputs: np.ndarray,
    count: int,
    steps: int,
    order: Literal["random", "start"],
    rng: np.random.Generator,
    reads: Reads,
) -> Iterator[Batch]:
    user = np.flatnonzero(inputs)
    if order == "random":
        user = rng.permutation(user)
    elif split.sequences.times is not None:
        user = user[np.argsort(split.sequences.times[split.train_starts[user]], kind="stable")]
    count = min(count, len(user))
    rows, event, resets = _in_lanes(split, user, inputs[user], count)
    running, every, memory = np.diff(rows), torch.arange(count), Memory()
    owner_of_none = np.searchsorted(split.sequences.offsets, 0, side="right") - 1
    for begin in range(0, len(running), steps):
        end = min(begin + steps, len(running))
        # Lanes run out at their end only, the longest last: those still running are the first.
        lanes_left, part = int(running[begin]), slice(rows[begin], rows[end])
        mask = np.arange(lanes_left) < running[begin:end, None]
        events = event[part].astype(np.int64)
        here = torch.from_numpy(mask.T)
        at = every[:lanes_left] if steps == 1 else here.flatten().nonzero().squeeze(1)
        # the targets, lane by lane
        targets = _laid_out(mask, events, -1).ravel()[at.numpy()] + 1
        beside = _of_events(split, reads, _laid_out(mask, events, -1), targets) if reads - {"users"} else {}
        users = None
        if "users" in reads:
            users = _laid_out(
                mask, np.searchsorted(split.sequences.offsets, events, side="right") - 1, owner_of_none
            )
        yield Batch(
            Inputs(
                items=torch.from_numpy(_laid_out(mask, split.sequences.items[events].astype(np.int64), 0)),
                mask=here,
                at=at,
                users=None if users is None else torch.from_numpy(users),
                resets=torch.from_numpy(_laid_out(mask, resets[part], False)),
                memory=memory,
                **beside,
            ),
            targets_of(split, targets),
            # Session-parallel losses are summed and divided by the number of lanes: the few that are left at
            # the end weigh no more.
            weight=lanes_left / count if steps == 1 else 1.0,
        )


def _laid_out(mask: np.ndarray, values: np.ndarray, none: Any) -> np.ndarray:
    """(lanes, times) of values that are given without gaps, where a (times, lanes) mask is True, and what
    stands elsewhere. In memory time comes first: what a batch reads lies together."""
    if len(mask) == 1:  # every lane that is left has an event
        return values[:, None]
    whole = np.full(mask.shape, none, dtype=values.dtype)
    whole[mask] = values
    return whole.T


def _in_lanes(
    split: Split, user: np.ndarray, lengths: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences laid end to end, each in the lane that is free first. Nothing is padded: of each time there
    are the lanes that have an event then, the longest lanes first.

    Args:
        user, lengths: (sequences,) whose they are, and their inputs, in the order in which they are laid.

    Returns:
        rows: (times + 1,) where each time begins in the other two.
        event: (inputs,) the event read in a lane at a time.
        resets: (inputs,) bool, True where it is the first of its sequence.
    """
    heap = [(0, lane) for lane in range(count)]
    begins, lane_of = np.zeros((2, len(user)), dtype=np.int64)
    for i, length in enumerate(lengths.tolist()):
        begins[i], lane_of[i] = heap[0]
        heapq.heapreplace(heap, (int(begins[i]) + length, int(lane_of[i])))
    ends = np.empty(count, dtype=np.int64)
    for end, lane in heap:
        ends[lane] = end
    place = np.empty(count, dtype=np.int64)  # of each lane, the longest first
    place[np.argsort(-ends, kind="stable")] = np.arange(count)
    running = count - np.searchsorted(np.sort(ends), np.arange(ends.max()), side="right")
    rows = np.concatenate([[0], np.cumsum(running)])
    event = np.empty(rows[-1], dtype=np.int32 if split.sequences.events < 2**31 else np.int64)
    resets = np.zeros(rows[-1], dtype=bool)
    resets[rows[begins] + place[lane_of]] = True
    done = np.cumsum(lengths)
    edges = [0, *np.flatnonzero(np.diff(done // LAID_AT_ONCE)) + 1, len(user)]
    for first, end in itertools.pairwise(edges):
        n = lengths[first:end]
        step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        at = rows[np.repeat(begins[first:end], n) + step] + np.repeat(place[lane_of[first:end]], n)
        event[at] = np.repeat(split.train_starts[user[first:end]], n) + step
    return rows, event, resets


def recent(
    split: Split, width: int, batch_positions: int, rng: np.random.Generator, reads: Reads = frozenset()
) -> Batches:
    """Every training event that has something before it, in random order, with the ``width`` items before it,
    latest first.

    ``[1, 2, 3, 4, 5]`` with width 3 gives the rows ``[1 - -] -> 2``, ``[2 1 -] -> 3``, ``[3 2 1] -> 4``, ``[4
    3 2] -> 5``, shuffled.

    Args:
        reads: what to tell beside items and users: ``times``, ``baskets``.
    """
    inputs = inputs_of(split)

    def batches() -> Iterator[Batch]:
        for target, user in _random_targets(split, inputs, batch_positions, rng):
            event = target[:, None] - 1 - np.arange(width)
            mask = event >= split.train_starts[user][:, None]
            yield _rows(split, event, mask, np.arange(len(target)), target, user, reads)

    return Batches(int(inputs.sum()), batches())


def baskets(split: Split, count: int, batch_positions: int, rng: np.random.Generator) -> Batches:
    """Every training basket that has one before it, in random order, with the items of the ``count`` baskets
    before it, latest first. Each of its items is a target, and all have one row.

    ``[{1 2} {3} {4 5}]`` with count 1 gives the rows ``[2 1] -> 3`` and ``[3 -] -> 4, 5``, shuffled.

    Raises:
        DataError: the log has no baskets, or no user has two in training.
    """
    s = split.sequences
    if s.baskets is None:
        raise DataError("baskets: the model reads the baskets of events. Got a log without any.")
    begins = starts_of(s.offsets, s.baskets)
    user = np.searchsorted(s.offsets, begins, side="right") - 1
    ends = np.minimum(np.append(begins[1:], s.events), split.train_stops[user])
    first = np.searchsorted(begins, s.offsets[user])  # of the user's baskets
    earlier = begins[np.maximum(np.arange(len(begins)) - count, first)]
    chosen = (begins > split.train_starts[user]) & (begins < ends)
    if not chosen.any():
        raise DataError(
            "split: expected at least one user with two training baskets. Got none; check the split and the "
            "log's filters."
        )
    begins, ends, user = begins[chosen], ends[chosen], user[chosen]
    earlier = np.maximum(earlier[chosen], split.train_starts[user])

    def batches() -> Iterator[Batch]:
        order = rng.permutation(len(begins))
        done = np.cumsum((ends - begins)[order])
        for rows in np.split(order, np.flatnonzero(np.diff(done // batch_positions)) + 1):
            event = begins[rows][:, None] - 1 - np.arange((begins - earlier)[rows].max())
            sizes = (ends - begins)[rows]
            at = np.repeat(np.arange(len(rows)), sizes)
            target = np.arange(len(at)) + np.repeat(begins[rows] - np.cumsum(sizes) + sizes, sizes)
            mask = event >= earlier[rows][:, None]
            yield _rows(split, event, mask, at, target, user[rows], frozenset())

    return Batches(int((ends - begins).sum()), batches())


def prefixes(
    split: Split, steps: int, batch_positions: int, rng: np.random.Generator, reads: Reads = frozenset()
) -> Batches:
    """Every training event that has something before it, in random order, with the ``steps`` items before it
    in their order, and one loss a row.

    ``[1, 2, 3, 4, 5]`` with steps 3 gives the rows ``[1 - -] -> 2``, ``[1 2 -] -> 3``, ``[1 2 3] -> 4``, ``[2
    3 4] -> 5``, shuffled. A batch mixes users, and no row goes on from another: the training sequences of Tan
    et al. (2016, arXiv 1606.08117, section 3.1), cut to their last ``steps`` items.

    Args:
        reads: what to tell beside items and users: ``times``, ``baskets``.

    Returns:
        batches of ``batch_positions`` rows, the last one smaller; an epoch holds one number an event.
    """
    inputs = inputs_of(split)

    def batches() -> Iterator[Batch]:
        for target, user in _random_targets(split, inputs, batch_positions, rng):
            length = np.minimum(target - split.train_starts[user], steps)
            step = np.arange(length.max())
            mask = step < length[:, None]
            at = np.arange(len(target)) * len(step) + length - 1
            yield _rows(split, (target - length)[:, None] + step, mask, at, target, user, reads)

    return Batches(int(inputs.sum()), batches())


def _random_targets(
    split: Split, inputs: np.ndarray, batch_positions: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All training targets in random order, some at a time: (positions,) events, and whose they are."""
    ends = np.cumsum(inputs)
    order = rng.permutation(int(ends[-1]))
    for begin in range(0, len(order), batch_positions):
        number = order[begin : begin + batch_positions]
        user = np.searchsorted(ends, number, side="right")
        yield split.train_stops[user] - (ends[user] - number), user


def _rows(
    split: Split,
    event: np.ndarray,
    mask: np.ndarray,
    at: np.ndarray,
    target: np.ndarray,
    user: np.ndarray,
    reads: Reads,
) -> Batch:
    """A batch of rows that stand alone, one target each.

    Args:
        event: (rows, steps) what is read, arbitrary where the mask, of that shape, lets nothing through.
        at: (positions,) the wanted states.  target: (positions,) events.  user: (rows,)
    """
    event = np.where(mask, event, 0)
    inputs = Inputs(
        items=torch.from_numpy(split.sequences.items[event].astype(np.int64) * mask),
        mask=torch.from_numpy(mask),
        at=torch.from_numpy(at),
        users=torch.from_numpy(user),
        **_of_events(split, reads, event, target),
    )
    return Batch(inputs, targets_of(split, target))


def _of_query(query: Query, reads: Reads, events: np.ndarray) -> dict[str, Any]:
    found = _beside(reads, query.events.times, query.events.baskets, events)
    if "times" in reads:
        if query.asked_at is None:
            raise DataError("asked_at: the model reads the time of the prediction. Got a query without.")
        found["asked_at"] = torch.from_numpy(query.asked_at)
    return found


def last_states(query: Query, longest: int, reads: Reads = frozenset()) -> Inputs:
    """One row a history with its last ``longest`` items and its user, and one wanted state a row: the one
    after its last item (any, for an empty history)."""
    events, mask = query.padded(longest)
    rows, steps = events.shape
    return Inputs(
        items=torch.from_numpy(query.items(events, mask)),
        mask=torch.from_numpy(mask),
        at=torch.from_numpy(np.arange(rows) * steps + np.maximum(mask.sum(1), 1) - 1),
        users=None if query.users is None else torch.from_numpy(query.users.astype(np.int64)),
        **_of_query(query, reads, events),
    )


def last_items(query: Query, width: int, reads: Reads = frozenset()) -> Inputs:
    """One row a history with its last ``width`` items, latest first, and its user."""
    events, mask = query.recent(width)
    users = np.full(len(query), -1) if query.users is None else query.users
    return Inputs(
        items=torch.from_numpy(query.items(events, mask)),
        mask=torch.from_numpy(mask),
        at=torch.arange(len(events)),
        users=torch.from_numpy(users.astype(np.int64)),
        **_of_query(query, reads, events),
    )


def last_baskets(query: Query, count: int) -> Inputs:
    """One row a history with the items of its last ``count`` baskets, latest first, and its user.

    Raises:
        DataError: the histories are of items alone.
    """
    if query.events.baskets is None:
        raise DataError("baskets: the model reads the baskets of histories. Got items alone.")
    begin = begin_of_last(query, count)
    events = query.stops[:, None] - 1 - np.arange(max(1, int((query.stops - begin).max(initial=0))))
    mask = events >= begin[:, None]
    events = np.where(mask, events, 0)
    users = np.full(len(query), -1) if query.users is None else query.users
    return Inputs(
        items=torch.from_numpy(query.items(events, mask)),
        mask=torch.from_numpy(mask),
        at=torch.arange(len(events)),
        users=torch.from_numpy(users.astype(np.int64)),
    )


def last_states_of(items: Tensor, lengths: Tensor, users: Tensor | None, longest: int) -> Inputs:
    """``last_states`` of histories that are tensors: see ``Encoder.padded_inputs``.

    Args:
        items: (rows, steps) int64.  lengths, users: (rows,) int64.
    """
    kept = lengths.clamp(max=longest)
    place = torch.arange(items.shape[1], device=items.device)[:longest]
    mask = place < kept[:, None]
    # a length beyond the row finds no item there, and is an error
    items = items.gather(1, ((lengths - kept)[:, None] + place) * mask)
    rows, steps = items.shape
    return Inputs(
        items=items * mask,
        mask=mask,
        at=torch.arange(rows, device=items.device) * steps + kept.clamp(min=1) - 1,
        users=users,
    )


def last_items_of(items: Tensor, lengths: Tensor, users: Tensor | None, width: int) -> Inputs:
    """``last_items`` of histories that are tensors: see ``Encoder.padded_inputs``.

    Args:
        items: (rows, steps) int64.  lengths, users: (rows,) int64.
    """
    at = lengths[:, None] - 1 - torch.arange(width, device=items.device)
    mask = at >= 0
    return Inputs(
        items=items.gather(1, at.clamp(min=0)) * mask,
        mask=mask,
        at=torch.arange(items.shape[0], device=items.device),
        users=users,
    )
