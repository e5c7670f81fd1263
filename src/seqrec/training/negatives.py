"""Samplers of negatives. Each tells the log-probability with which it draws an item, so that losses can be
corrected for it.

Counts come from training events only, and nothing else of the data is ever looked at.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from seqrec.errors import SettingsError
from seqrec.settings.base import Settings
from seqrec.training.own_items import OwnItems


class NegativesSettings(Settings):
    """How the negatives of a loss are drawn."""

    count: int = Field(256, ge=0, le=1_000_000)
    """Sampled items: for the whole batch if shared, else for each position. 0 leaves the in-batch ones
    only."""
    alpha: float = Field(0.0, ge=0, le=2)
    """Items are drawn with probability proportional to their training count to this power: 0 uniform, 1 by
    popularity."""
    in_batch: bool = False
    """The other targets of the batch are negatives too."""
    shared: bool = True
    """One draw for all positions of a batch (fast: one matrix multiply), or one for each."""
    logq: float = Field(0.0, ge=0, le=1)
    """How much of the log-probability of being drawn is subtracted from every score: with 1 sampled softmax
    estimates the full one (but an item that is expected more than once among them, where a few make up most
    of a log, comes out above its share)."""
    logq_form: Literal["expected", "counts"] = "expected"
    """What that log-probability is: the log of how often an item is expected among the negatives, in-batch
    and sampled together; or, as GRU4Rec's authors have it, the log of its training count where it comes from
    the batch, and of its count to the power alpha where it is sampled."""
    top: int = Field(0, ge=0, le=1_000_000)
    """Of a position's negatives only so many count, those that score highest now (Wilm et al., TRON, RecSys
    2023, arXiv 2307.14906). 0: all of them."""
    mask_targets: bool = True
    """A negative that is the position's own target does not count; GRU4Rec's authors let it."""
    own: Literal["keep", "exclude"] = "keep"
    """Negatives that are items of the user's own training events count, or do not: nothing is drawn in their
    place. Needs ``shared: false``."""
    repeats: bool = True
    """An item drawn for a user again counts again. False: what is drawn for all of a user's training events
    together is a set, as MetaSpore's is. A draw then counts with the probability that makes the item come as
    often as in that set, so that nothing has to be remembered. Needs ``shared: false`` and ``logq: 0``."""

    @property
    def of_users(self) -> bool:
        """Whether they depend on whose a position is."""
        return self.own == "exclude" or not self.repeats

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.of_users and self.shared:
            raise ValueError("shared: false with own: exclude or repeats: false, which depend on the user")
        if self.logq and not self.repeats:
            raise ValueError("logq: 0 with repeats: false, whose probabilities differ from user to user")
        return self


@dataclass(frozen=True)
class Negatives:
    """Negatives of a batch of N positions.

    Attributes:
        items: (M,) shared by all positions, or (N, M).
        log_q: the same shape: log of how often each is expected among the negatives.
        target_log_q: (N,) the same for the targets.
    """

    items: Tensor
    log_q: Tensor
    target_log_q: Tensor


@dataclass(frozen=True)
class Distinct:
    """Shared negatives of a batch of N positions, together with the targets, each item once.

    Attributes:
        items: (U,) ascending.
        log_weight: (U,) log of the sum over an item's draws of ``exp(-logq log_q)``; -inf where it was not
            drawn.
        target_log_weight: (N,) the same for each target as the positive.
        own_log_weight: (N,) the same for each target's own item as a negative: -inf where that is masked or
            was not drawn.
        at: (N,) where the targets are among them.
        beside: (m,) where other items are that were asked for, or None.
    """

    items: Tensor
    log_weight: Tensor
    target_log_weight: Tensor
    own_log_weight: Tensor
    at: Tensor
    beside: Tensor | None

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights of the items as negatives, of the targets, and of each target's own item."""
        return self.log_weight, self.target_log_weight, self.own_log_weight


BLOCK = 1 << 17  # draws made at once
BATCHES = 32  # that share their small operations: of more the cost of each falls no further
SPARSE = 8  # times as many items as are looked for: then sorting these is faster than marks in a catalogue


class Sampler:
    """Draws negatives by popularity^alpha, from the other targets of the batch, or both.

    Args:
        item_counts: (items,) training events of each item.
        seed: of its own generator, so that draws do not depend on anything else that is random.
        own: the items of users, for settings of which negatives depend on them.
        compared: (n,) int64 the items that targets are compared with, ascending; None: all. The others are
            never drawn.

    Attributes:
        items: how many items targets are compared with.
    """

    def __init__(
        self,
        settings: NegativesSettings,
        item_counts: Tensor,
        seed: int,
        device: torch.device,
        own: OwnItems | None = None,
        compared: Tensor | None = None,
    ):
        self.settings, self.device, self.own = settings, device, own
        self.compared = None if compared is None else compared.to(device)
        counts = item_counts.to(torch.float64)
        weights = counts.clamp(min=0 if settings.alpha else 1) ** settings.alpha
        if compared is not None:
            weights = torch.zeros_like(weights).index_copy_(0, compared, weights[compared])
        self.items = len(item_counts if compared is None else compared)
        self.log_p = (weights / weights.sum()).clamp(min=1e-30).log().float().to(device)
        # An item is expected p times a draw: in a draw of the sampler, and for a target of the batch. (Or
        # what the authors of GRU4Rec take for it.)
        if settings.logq_form == "expected":
            sampled, from_batch = weights / weights.sum() * max(1, settings.count), counts / counts.sum()
        else:
            from_batch = counts.clamp(min=1)
            sampled = from_batch**settings.alpha
        self.q_sampled, self.q_batch = (q.clamp(min=1e-30).float().to(device) for q in (sampled, from_batch))
        keep, other = alias_table(weights.cpu().numpy())
        self.keep, self.other = torch.from_numpy(keep).to(device), torch.from_numpy(other).to(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.seen, self.place = (
            torch.zeros(0, dtype=torch.bool, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
        )
        self.block, self.used = torch.empty(0, dtype=torch.int64, device=device), 0

    def again(self, seed: int) -> Sampler:
        """Another one of the same items, whose tables are not made again, with a generator of its own."""
        other = copy.copy(self)
        other.generator = torch.Generator(self.device).manual_seed(seed)
        other.block, other.used = self.block[:0], 0
        return other

    def _found_once(self, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The distinct ones of (m,) numbers below ``count``, ascending, and (m,) where each is among them."""
        if count > SPARSE * len(cells):
            distinct: tuple[Tensor, Tensor] = torch.unique(cells, return_inverse=True)
            return distinct
        if len(self.seen) < count:
            self.seen = torch.zeros(count, dtype=torch.bool, device=self.device)
            self.place = torch.zeros(count, dtype=torch.int64, device=self.device)
        self.seen.index_fill_(0, cells, True)
        found = self.seen.nonzero().squeeze(1)
        self.seen.index_fill_(0, found, False)
        self.place.scatter_(0, found, torch.arange(len(found), device=self.device))
        return found, self.place.take(cells)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Items drawn independently, taken from a block that is drawn for many batches at once."""
        size = math.prod(shape)
        if self.used + size > len(self.block):
            self.block, self.used = self._draw(max(BLOCK, size)), 0
        self.used += size
        return self.block[self.used - size : self.used].view(shape)

    def _draw(self, size: int) -> Tensor:
        u = torch.rand(size, generator=self.generator, dtype=torch.float64, device=self.keep.device) * len(
            self.keep
        )
        cell = u.long()
        return torch.where(u - cell < self.keep.take(cell), cell, self.other.take(cell))

    def q(self, items: Tensor, n: int | Tensor) -> tuple[Tensor, Tensor]:
        """How often an item is expected among the negatives, (m,) -> (m,) if drawn from a batch of n targets,
        (m,) if drawn by the sampler. n: the same for all, or (m,)."""
        s = self.settings
        sampled, from_batch = self.q_sampled.take(items), self.q_batch.take(items)
        if s.logq_form == "counts":
            return from_batch, sampled
        both = sampled if not s.in_batch else sampled + n * from_batch if s.count else n * from_batch
        return both, both

    def sample(self, targets: Tensor) -> Negatives:
        """Negatives for these targets, (N,) -> ``Negatives``."""
        s, n = self.settings, len(targets)
        drawn = self.draw((s.count,) if s.shared else (n, s.count))
        log_q = self.q(drawn, n)[1].log()
        batch_log_q, sampled_log_q = (q.log() for q in self.q(targets, n))
        if not s.in_batch:
            return Negatives(drawn, log_q, sampled_log_q)
        if s.shared:
            return Negatives(torch.cat([targets, drawn]), torch.cat([batch_log_q, log_q]), batch_log_q)
        return Negatives(
            torch.cat([targets.expand(n, n), drawn], 1),
            torch.cat([batch_log_q.expand(n, n), log_q], 1),
            batch_log_q,
        )

    def excluded(
        self, negatives: Negatives, targets: Tensor, events: Tensor | None = None, seen: bool = False
    ) -> Tensor:
        """(N, M) bool, or of a shape that broadcasts to it: True where a negative does not count for a
        position.

        Args:
            targets: (N,).
            events: (N,) which events of the log they are; None: not known.
            seen: whether what the user took before the target does not count.

        Raises:
            SettingsError: that depends on the events, which are not known.
        """
        s, n = self.settings, len(targets)
        if s.mask_targets:
            found = negatives.items == targets[:, None]
        else:  # A position's own place in the batch is its positive.
            found = torch.zeros((n, negatives.items.shape[-1]), dtype=torch.bool, device=targets.device)
            if s.in_batch:
                found.fill_diagonal_(True)
        if not (s.of_users or seen):
            return found
        if events is None or self.own is None:
            raise SettingsError(
                "loss.seen: mask, and own: exclude and repeats: false of negatives, need batches that tell "
                "which event each target is. Got some that do not."
            )
        users = self.own.users(events)
        if s.own == "exclude":
            found = found | self.own.contain(users, negatives.items)
        elif seen:
            others = negatives.items != targets[:, None]
            found = found | self.own.contain(users, negatives.items, events) & others
        if s.count and not s.repeats:
            found[:, -s.count :] |= ~self.first(negatives.items[:, -s.count :], users)
        return found

    def first(self, drawn: Tensor, users: Tensor) -> Tensor:
        """Which draws count so that an item comes as often as in the set of all draws for its user.

        Of D draws an item of probability p is expected in D p, and at least once with probability ``1 - (1 -
        p)^D``: each of its draws counts with the ratio of the two.

        Args:
            drawn: (N, M) items.  users: (N,).
        Returns:
            (N, M) bool.
        """
        assert self.own is not None
        p = self.log_p.take(drawn).exp()
        draws = self.settings.count * self.own.positions.take(users)[:, None]
        u = torch.rand(drawn.shape, generator=self.generator, device=self.device)
        return u * draws * p < -torch.expm1(draws * torch.log1p(-p))

    def distinct(self, targets: Sequence[Tensor], beside: Sequence[Tensor] | None = None) -> list[Distinct]:
        """The same draws as ``sample`` of shared negatives, for some batches at once, each item of a batch
        once.

        The operations are small: one on the items of many batches costs hardly more than one on those of a
        single batch.

        Args:
            targets: (N,) of each batch.
            beside: other items to have among them, of any shape, of each batch; or None.
        """
        s, device, items_of_all = self.settings, self.device, len(self.q_batch)
        n, others = [len(t) for t in targets], [] if beside is None else [t.flatten() for t in beside]
        asked = [*targets, *(self.draw((s.count,)) for _ in targets), *others]
        sizes = torch.tensor([len(x) for x in asked], device=device)
        batch = torch.arange(len(targets), device=device)
        base = (batch * items_of_all).repeat(len(asked) // len(targets)).repeat_interleave(sizes)
        cells = torch.cat(asked) + base
        found, place = self._found_once(cells, len(targets) * items_of_all)

        begins = torch.searchsorted(found, batch * items_of_all)
        counts = torch.diff(begins, append=begins.new_tensor([len(found)]))
        items = found - (batch * items_of_all).repeat_interleave(counts)
        parts = [sum(n), s.count * len(n), len(place) - sum(n) - s.count * len(n)]
        at_target, drawn, _ = place.split_with_sizes(parts)
        from_batch, sampled = (torch.bincount(p, minlength=len(items)) for p in (at_target, drawn))
        batch_weight, sampled_weight = (
            q**-s.logq for q in self.q(items, sizes[: len(n)].repeat_interleave(counts))
        )
        negative = sampled * sampled_weight
        log_weight = (negative + from_batch * batch_weight if s.in_batch else negative).log()
        positive = (batch_weight if s.in_batch else sampled_weight).take(at_target).log()
        if s.mask_targets:
            own = torch.full_like(positive, -torch.inf)
        else:  # a position's own place in the batch is its positive, not a negative
            own = (
                (negative + (from_batch - 1) * batch_weight if s.in_batch else negative).take(at_target).log()
            )

        local = (place - begins.repeat(len(asked) // len(targets)).repeat_interleave(sizes)).split_with_sizes(
            [len(x) for x in asked]
        )
        others_at = local[2 * len(n) :] if others else [None] * len(n)
        of_batches = (
            items.split_with_sizes(counts.tolist()),
            log_weight.split_with_sizes(counts.tolist()),
            positive.split_with_sizes(n),
            own.split_with_sizes(n),
            local[: len(n)],
            others_at,
        )
        return [Distinct(*of_batch) for of_batch in zip(*of_batches, strict=True)]


def alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables for drawing in constant time with probability proportional to weights (Walker, 1977; Vose,
    1991).

    Every cell i holds item i with probability ``keep[i]``, and ``other[i]`` with the rest: draw a cell, then
    one of its two items.

    Args:
        weights: (items,) float64, at least 0.
    Returns:
        keep: (items,) float64.  other: (items,) int64.
    """
    share = weights * (len(weights) / weights.sum())
    keep, other = np.ones(len(weights)), np.arange(len(weights))
    left = share.tolist()
    small, large = np.flatnonzero(share < 1).tolist(), np.flatnonzero(share >= 1).tolist()
    while small and large:
        i, j = small.pop(), large[-1]
        keep[i], other[i] = left[i], j
        left[j] -= 1 - left[i]
        if left[j] < 1:
            small.append(large.pop())
    return keep, other
