"""What training minimises: a loss over the targets of a batch, and the negatives that it compares them with.

A model may hand in an objective of its own: one that is equal to this and faster, or another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from seqrec.errors import SettingsError
from seqrec.nn.batch import Batch, Inputs
from seqrec.nn.encoder import Encoder
from seqrec.training import losses
from seqrec.training.loss import Loss
from seqrec.training.negatives import BATCHES, Distinct, Negatives, Sampler
from seqrec.training.own_items import Seen


class Objective:
    """The loss of a batch: encode, score the targets and their negatives, compare.

    Args:
        of_scores: the loss of states and item vectors, or of scores.
        bfloat16: encode and multiply in bfloat16 (sums, norms and losses stay float32).
    """

    def __init__(self, encoder: Encoder, of_scores: Loss, sampler: Sampler, bfloat16: bool = False):
        self.encoder, self.of_scores, self.sampler, self.bfloat16 = encoder, of_scores, sampler, bfloat16

    def drawn(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Distinct | None]]:
        """The batches on the sampler's device, each with its shared negatives where these are drawn for many
        batches at once."""
        device, batches = self.sampler.device, iter(batches)
        if not self.of_scores.scores_distinct(self.sampler.settings):
            yield from ((batch.to(device), None) for batch in batches)
            return
        while some := [batch.to(device) for batch in itertools.islice(batches, BATCHES)]:
            drawn = self.sampler.distinct(
                [self.wanted(batch.targets.items, batch) for batch in some], self.beside(some)
            )
            yield from zip(some, drawn, strict=True)

    def beside(self, batches: list[Batch]) -> list[Tensor] | None:
        """Items to look up together with the targets and negatives of each batch, if any."""
        return None

    def loss(self, batch: Batch, drawn: Distinct | None = None) -> Tensor:
        """The loss of a batch as ``drawn`` gives it."""
        loss = self._loss(batch, drawn)
        return loss if batch.weight == 1 else loss * batch.weight

    def _loss(self, batch: Batch, drawn: Distinct | None) -> Tensor:
        if self.of_baskets and batch.inputs.asked_at is None:
            return self._of_sets(batch)
        states = self.encode(batch.inputs)
        if drawn is not None:
            return self.compare(states, self.encoder.item_vectors(drawn.items), batch, drawn)
        states, targets = self.wanted(states, batch), self.wanted(batch.targets.items, batch)
        if not len(targets):  # every target of the batch is disliked
            return states.sum() * 0.0
        if self.of_scores.draws:
            events = batch.targets.events
            events = None if events is None else self.wanted(events, batch)
            return self._of_draws(states, targets, batch.targets.labels, events)
        compared = self.sampler.compared
        seen = self.seen(batch, compared)
        if compared is not None:
            targets = torch.searchsorted(compared, targets)
        vectors = self.encoder.item_vectors(compared)
        return self.of_scores.of_catalogue(
            states, vectors, targets, self.bfloat16, **({"seen": seen} if seen else {})
        )

    @property
    def of_baskets(self) -> bool:
        """Whether targets that were taken together, which have one state, are compared with the whole
        catalogue at once."""
        return "baskets" in self.encoder.reads and not self.of_scores.draws and self.of_scores.seen == "keep"

    def _of_sets(self, batch: Batch) -> Tensor:
        at, of = torch.unique_consecutive(batch.inputs.at, return_inverse=True)
        states = self.encode(replace(batch.inputs, at=at))
        targets, of = self.wanted(batch.targets.items, batch), self.wanted(of, batch)
        if not len(targets):
            return states.sum() * 0.0
        return self.of_scores.of_sets(states, self.encoder.item_vectors(), targets, of, self.bfloat16)

    def seen(self, batch: Batch, distinct: Tensor | None = None) -> Seen | None:
        """The histories of the positions, where the loss leaves out what they have seen.

        Args:
            distinct: (U,) the items that have a score; None: all.

        Raises:
            SettingsError: the batches do not tell which events their targets are.
        """
        if self.of_scores.seen == "keep":
            return None
        if batch.targets.events is None or self.sampler.own is None:
            raise SettingsError(
                "loss.seen: mask needs batches that tell which event each target is. Got some that do not."
            )
        return self.sampler.own.before(self.wanted(batch.targets.events, batch), distinct)

    def _of_draws(
        self, states: Tensor, targets: Tensor, labels: Tensor | None, events: Tensor | None
    ) -> Tensor:
        """The loss of (N, width) states with (N,) targets, which are these (N,) events, every draw of a
        negative scored for itself."""
        encoder, sampler = self.encoder, self.sampler
        negatives = sampler.sample(targets)
        positive = losses.scores_of_own(states, encoder.item_vectors(targets)[:, None]).squeeze(1)
        vectors = encoder.item_vectors(negatives.items)
        score = losses.scores if negatives.items.dim() == 1 else losses.scores_of_own
        negative = score(states, vectors)
        positive, negative = self.of_scored(positive, negative, negatives, targets, events)
        return self.of_scores.of_draws(positive, negative, labels, sampler.items)

    def of_scored(
        self, positive: Tensor, negative: Tensor, negatives: Negatives, targets: Tensor, events: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(N,) scores of targets and (N, M) of their negatives as the loss takes them: corrected for how they
        were drawn, -inf where one does not count."""
        sampler = self.sampler
        if sampler.settings.logq:
            positive = positive - sampler.settings.logq * negatives.target_log_q
            negative = negative - sampler.settings.logq * negatives.log_q
        negative = negative.masked_fill(
            sampler.excluded(negatives, targets, events, self.of_scores.seen == "mask"), -torch.inf
        )
        if 0 < sampler.settings.top < negative.shape[1]:
            negative = negative.topk(sampler.settings.top, dim=1).values
        return positive, negative

    def encode(self, inputs: Inputs) -> Tensor:
        """(positions, width) float32 states."""
        with self.precision(inputs):
            return self.encoder.encode(inputs).float()

    def precision(self, inputs: Inputs) -> torch.autocast | nullcontext[None]:
        """In what matrices are multiplied while encoding."""
        return torch.autocast(inputs.items.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def compare(self, states: Tensor, vectors: Tensor, batch: Batch, drawn: Distinct) -> Tensor:
        """The loss of (positions, width) states with the (U, width or width + 1) vectors of the distinct
        items."""
        states = self.wanted(states, batch)
        if not len(states):
            return states.sum() * 0.0
        seen = self.seen(batch, drawn.items)
        return self.of_scores.of_distinct(
            states, vectors, drawn, self.bfloat16, **({"seen": seen} if seen else {})
        )

    def wanted(self, values: Tensor, batch: Batch) -> Tensor:
        """Those of (positions, ...) values that the loss looks at: with labels only the liked positions,
        unless it has a use for the others."""
        labels = batch.targets.labels
        return values if labels is None or self.of_scores.uses_disliked else values[labels]
