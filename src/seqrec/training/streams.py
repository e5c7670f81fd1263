"""Several streams of batches make an update together, in one process or in several.

A stream is a part of the users, with its own batches, negatives and dropout, drawn with seeds of its own. An
update takes a batch of each, and sums the streams' gradients in the order of the streams:

    stream      0         1         2         3
    users    [0, 250)  [250, 510)  ...                     as many training targets each, about
    process     0         0         1         1            of two; each has the same weights
    gradient   g0   +    g1    +   g2    +   g3            weighed by the positions of each batch

Every process gets what each stream has found, and adds it up for itself in that order. So which process
computes a stream changes nothing: for a given number of streams 1, 2 and 4 processes end with the same
weights, bit for bit. Gradients of tables that are trained by rows travel as rows.

A stream that has come to its end contributes nothing, until all have: an update has no other number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqrec import processes
from seqrec.errors import DataError, SettingsError
from seqrec.nn.batch import Batches
from seqrec.nn.encoder import Encoder
from seqrec.splitting.split import Split
from seqrec.training import batching
from seqrec.training.objective import Objective
from seqrec.training.settings import TrainPlan, TrainSettings

log = logging.getLogger("seqrec")

FEW = 512
"""Positions of a stream in an update, below which a second process has too little to do."""
NEGATIVES, DROPOUT = 1, 2
"""Branches of numpy's seed sequence of an epoch from which negatives are drawn, and dropout of streams."""
NONE, DENSE = 0, -1
"""Kinds of gradients, where processes tell each other: none, all of a parameter; n + 1: n rows of it."""


def dropout_seed(seed: int, epoch: int, stream: int = 0) -> int:
    """What torch's global generator starts an epoch with.

    On a CPU torch takes the low 32 bits of a seed: those of the first stream are distinct for seeds below
    4,294 and epochs from 1 to 1,000,000. The initial weights of a seed (``torch.manual_seed(seed)``) come
    from the words of seed 0's dropout in the epoch of that number, never from those of the same run.
    """
    return seed * 1_000_003 + epoch if not stream else _seed(seed, epoch, stream, DROPOUT)


def negatives_seed(seed: int, epoch: int, stream: int = 0) -> int:
    """The seed of an epoch's negatives, independent of everything else that is drawn."""
    return _seed(seed, epoch, stream, NEGATIVES)


def order_of_epoch(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    """What an epoch's batches are drawn with."""
    return np.random.default_rng((seed, epoch, stream) if stream else (seed, epoch))


def _seed(seed: int, epoch: int, stream: int, branch: int) -> int:
    of_epoch = np.random.SeedSequence((seed, epoch, stream) if stream else (seed, epoch), spawn_key=(branch,))
    return int(of_epoch.generate_state(1, np.uint64)[0])


def batches_of(
    network: Encoder, split: Split, s: TrainPlan, point: float, rng: np.random.Generator
) -> Batches:
    """The batches of a stream in an epoch that begins at a point of the training, from 0 to 1: as the network
    has them, or prefixes where they are asked for.

    Raises:
        SettingsError: prefixes are asked for, and the network does not read windows.
    """
    positions = max(1, s.batch_positions // s.streams)
    if s.objective == "positions":
        return network.batches(split, positions, rng)
    if not network.window:
        raise SettingsError(
            "train.objective: expected 'positions' for a model that does not train on windows, as "
            f"{type(network).__name__}. Got 'prefixes'. Leave it out, or take sasrec or another that attends "
            "to windows; gru4rec has rows: prefixes."
        )
    if point < s.prefixes_from:
        return network.batches(split, positions, rng)
    return batching.prefixes(split, network.window, positions, rng, network.reads)


def check(s: TrainSettings, started: int) -> None:
    """Checks that so many processes can train with these settings.

    Raises:
        SettingsError: they cannot.
    """
    if started == 1:
        return
    if s.streams % started:
        raise SettingsError(
            f"train.streams: expected a multiple of the {started} processes that were started, as "
            f"train.streams={started}. Got {s.streams}. So many streams give the same numbers on any number "
            "of processes."
        )
    if s.minutes is not None:
        raise SettingsError(
            f"train.minutes: expected no limit with several processes, whose clocks differ. Got "
            f"{s.minutes:g}. Give epochs (train.epochs), or train in one process."
        )


@dataclass(frozen=True)
class Found:
    """What a stream contributes to an update.

    Attributes:
        size: its weight: the positions of its batch; 0 where it has ended.
        positions: of its batch.
        more: whether it has another batch after this one.
        loss: () of its batch.
        gradients: of each parameter, of its shape, (...), or None.
    """

    size: float
    positions: int
    more: bool
    loss: Tensor
    gradients: Sequence[Tensor | None]


class Streams:
    """What an update learns from. The streams of this process are made here, and those of the others there.

    Args:
        network: whose gradients are computed.
        split: of all users.
        objective: what is minimised in an epoch whose negatives have that seed.
        seed: of all that is drawn.

    Raises:
        SettingsError: more streams than there are users who train, a number of streams that these processes
            cannot share, or something that several processes cannot do.
    """

    def __init__(
        self, network: Encoder, split: Split, s: TrainPlan, objective: Callable[[int], Objective], seed: int
    ):
        check(s, processes.count())
        self.network, self.s, self.objective, self.seed = network, s, objective, seed
        self.parameters: list[Tensor] = list(network.parameters())
        self.device = self.parameters[0].device
        each = s.streams // processes.count()
        self.own = range(processes.rank() * each, (processes.rank() + 1) * each)
        cuts = _cuts(split, s.streams)
        self.splits = {v: split.of_users(*cuts[v : v + 2]) if s.streams > 1 else split for v in self.own}
        # Counted, not made: the batches of an epoch are made one by one.
        own = sum(self._batches(v, 0.0, np.random.default_rng(0)).positions for v in self.own)
        self.positions = int(processes.summed(torch.tensor([own])))
        """Of an epoch, of all streams."""
        if s.streams > 1 and s.batch_positions // s.streams < FEW:
            log.warning(
                "train.streams: %d streams share updates of %d positions, fewer than %d each, so that "
                "processes tell each other more than they compute. Take fewer, or a larger "
                "train.batch_positions.",
                s.streams,
                s.batch_positions,
                FEW,
            )

    def _batches(self, stream: int, point: float, rng: np.random.Generator) -> Batches:
        try:
            return batches_of(self.network, self.splits[stream], self.s, point, rng)
        except DataError as error:
            if self.s.streams == 1:
                raise
            raise SettingsError(
                f"train.streams: expected so few that each has something to train on. Got {self.s.streams}, "
                f"of which number {stream} has nothing ({error})"
            ) from error

    def updates(self, epoch: int, point: float = 0.0) -> Iterator[tuple[Tensor, int]]:
        """The updates of an epoch (1, 2, ...), which begins at a point of the training, from 0 to 1. Each
        time the parameters have their gradients, until the next one is asked for.

        Returns:
            the loss of each, (), and its positions.
        """
        if self.s.streams > 1:
            yield from self._of_several(epoch, point)
            return
        torch.manual_seed(dropout_seed(self.seed, epoch))
        of_epoch = self.objective(negatives_seed(self.seed, epoch))
        self.network.train()
        for batch, drawn in of_epoch.drawn(self._batches(0, point, order_of_epoch(self.seed, epoch))):
            loss = of_epoch.loss(batch, drawn)
            for p in self.parameters:
                p.grad = None
            torch.autograd.backward(loss)
            yield loss.detach(), batch.positions

    def _of_several(self, epoch: int, point: float) -> Iterator[tuple[Tensor, int]]:
        streams = [_Stream(self, v, epoch, point) for v in self.own]
        self.network.train()
        more = True
        while more:
            found = _told([stream.batch() for stream in streams], self.parameters)
            whole = sum(one.size for one in found)
            if not whole:
                return
            shares = [one.size / whole for one in found]
            for number, p in enumerate(self.parameters):
                p.grad = _sum([one.gradients[number] for one in found], shares)
            loss = _sum([one.loss for one in found], shares)
            assert loss is not None
            more = any(one.more for one in found)
            yield loss, sum(one.positions for one in found)


class _Stream:
    """One stream in one epoch."""

    def __init__(self, streams: Streams, number: int, epoch: int, point: float = 0.0):
        seed = streams.seed
        self.parameters, self.device = streams.parameters, streams.device
        self.objective = streams.objective(negatives_seed(seed, epoch, number))
        batches = streams._batches(number, point, order_of_epoch(seed, epoch, number))
        self.drawn = self.objective.drawn(batches)
        self.next = next(self.drawn, None)
        torch.manual_seed(dropout_seed(seed, epoch, number))
        self.random = _random(self.device)

    @contextmanager
    def _own_dropout(self) -> Iterator[None]:
        """Goes on with the numbers of this stream where they were left."""
        _set_random(self.device, self.random)
        yield
        self.random = _random(self.device)

    def batch(self) -> Found:
        """What the next batch contributes."""
        if self.next is None:
            return Found(0.0, 0, False, torch.zeros((), device=self.device), [None] * len(self.parameters))
        batch, drawn = self.next
        with self._own_dropout():
            loss = self.objective.loss(batch, drawn)
            for p in self.parameters:
                p.grad = None
            torch.autograd.backward(loss)
        gradients = [
            p.grad if p.grad is None or not p.grad.is_sparse else p.grad.coalesce() for p in self.parameters
        ]
        self.next = next(self.drawn, None)
        # A batch that weighs less than a mean of its positions weighs as if it had those that it lacks.
        size = batch.positions / batch.weight
        return Found(size, batch.positions, self.next is not None, loss.detach(), gradients)


def _random(device: torch.device) -> list[Tensor]:
    """The state of torch's global generators."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _cuts(split: Split, count: int) -> list[int]:
    """(count + 1,) where the users of each stream begin: each has about as many training targets, and at
    least one.

    Raises:
        SettingsError: fewer users have any.
    """
    positions = np.maximum(split.train_stops - split.train_starts - 1, 0)
    users = np.flatnonzero(positions)
    if count > max(1, len(users)):
        raise SettingsError(
            f"train.streams: expected at most one for each of the {len(users):,} users with two training "
            f"events. Got {count}."
        )
    if count == 1:
        return [0, len(positions)]
    done = np.cumsum(positions[users])
    number, ends = np.arange(1, count), len(users) - count + np.arange(1, count)
    first = np.searchsorted(done, number * done[-1] / count, side="left") + 1
    first = np.minimum(np.maximum.accumulate(first - number) + number, ends)
    return [0, *(int(users[i]) for i in first), len(positions)]


def _sum(parts: list[Tensor | None], shares: list[float]) -> Tensor | None:
    """The weighted sum of (...) tensors of one shape, in their order; sparse where all are.

    Products and sums are rounded one by one, so that it is the same wherever the numbers lie in memory.
    """
    there = [(part, share) for part, share in zip(parts, shares, strict=True) if part is not None]
    if not there:
        return None
    if all(part.is_sparse for part, _ in there):
        rows = torch.cat([part._indices() for part, _ in there], 1)
        values = torch.cat([part._values() * share for part, share in there])
        return torch.sparse_coo_tensor(rows, values, there[0][0].shape, check_invariants=False).coalesce()
    total: Tensor | None = None
    for part, share in there:
        weighed = (part.to_dense() if part.is_sparse else part) * share
        total = weighed if total is None else total.add_(weighed)
    return total


def _told(own: list[Found], parameters: list[Tensor]) -> list[Found]:
    """What all streams contribute, in their order; these are those of this process.

    Two messages go round: what there is of each stream, and then all of it in one piece.
    """
    if processes.count() == 1:
        return own
    kinds = [
        [NONE if g is None else g._values().shape[0] + 1 if g.is_sparse else DENSE for g in found.gradients]
        for found in own
    ]
    about = [
        [found.size, found.positions, found.more, *of_found]
        for found, of_found in zip(own, kinds, strict=True)
    ]
    # (streams, 3 + parameters) of all processes
    of_all = processes.gathered(torch.tensor(about, dtype=torch.float64)).flatten(0, 1).tolist()
    sizes = [1 + sum(_numbers(p, int(kind)) for p, kind in zip(parameters, one[3:])) for one in of_all]
    each = len(own)
    longest = max(sum(sizes[begin : begin + each]) for begin in range(0, len(sizes), each))
    message = torch.zeros(longest, dtype=torch.float32, device=parameters[0].device)
    at = 0
    for found in own:
        for part in (found.loss, *found.gradients):
            for numbers in [] if part is None else _flat(part):
                message[at : at + len(numbers)] = numbers
                at += len(numbers)
    everything: list[Found] = []
    for begin, of_process in zip(range(0, len(of_all), each), processes.gathered(message), strict=True):
        rest = of_process
        for size, positions, more, *kind in of_all[begin : begin + each]:
            loss, rest = rest[0], rest[1:]
            gradients = []
            for p, k in zip(parameters, kind, strict=True):
                numbers, rest = rest.tensor_split([_numbers(p, int(k))])
                gradients.append(_of_flat(numbers, p, int(k)))
            everything.append(Found(size, int(positions), bool(more), loss, gradients))
    return everything


def _numbers(p: Tensor, kind: int) -> int:
    """How many float32 numbers a gradient takes in a message; the index of a row takes two."""
    if kind == NONE:
        return 0
    return p.numel() if kind == DENSE else (kind - 1) * (2 + p[0].numel())


def _flat(gradient: Tensor) -> list[Tensor]:
    """(n,) float32 pieces that make a gradient."""
    if not gradient.is_sparse:
        return [gradient.reshape(-1)]
    rows = gradient._indices()[0].contiguous()
    return [rows.view(torch.float32), gradient._values().reshape(-1)]


def _of_flat(numbers: Tensor, p: Tensor, kind: int) -> Tensor | None:
    """The gradient of a parameter, from (n,) float32 as ``_flat`` has them."""
    if kind == NONE:
        return None
    if kind == DENSE:
        return numbers.view(p.shape)
    rows = numbers[: 2 * (kind - 1)].clone().view(torch.int64)
    values = numbers[2 * (kind - 1) :].view(kind - 1, *p.shape[1:])
    return torch.sparse_coo_tensor(rows[None], values, p.shape, is_coalesced=True, check_invariants=False)
