"""What training minimises: a loss over the targets of a batch, and the negatives that it compares them with.

A model may hand in an objective of its own: one that is equal to this and faster, or another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from seqrec.nn.batch import Batch
from seqrec.nn.encoder import Encoder
from seqrec.settings.base import Settings
from seqrec.training import losses
from seqrec.training.negatives import Distinct, Sampler

LossName = Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1", "top1_max"]
OPTIONS = {"smoothing": "softmax", "t": "gbce", "regularisation": "bpr_max", "elu": "bpr_max"}
"""Option of a loss -> the loss that has it."""


class LossSettings(Settings):
    name: LossName = "softmax"
    """Which loss."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """softmax: label smoothing."""
    t: float = Field(0.75, ge=0, le=1)
    """gbce: calibration."""
    regularisation: float = Field(1.0, ge=0)
    """bpr_max: weight of the score regulariser."""
    elu: float = Field(0.0, ge=0)
    """bpr_max: alpha of the ELU that scores pass through; 0 for none."""

    @field_validator(*OPTIONS)
    @classmethod
    def _of_this_loss(cls, value: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        of, name = OPTIONS[info.field_name], info.data.get("name")
        # a saved model lists defaults, too
        if name not in (of, None) and value != cls.model_fields[info.field_name].default:
            raise ValueError(f"no value with the loss {name}, since only {of} has it; leave it out")
        return value


class Objective:
    """The loss of a batch: encode, score the targets and their negatives, compare.

    Args:
        bfloat16: encode and multiply in bfloat16 (sums, norms and losses stay float32).
    """

    def __init__(self, encoder: Encoder, settings: LossSettings, sampler: Sampler, bfloat16: bool = False):
        self.encoder, self.settings, self.sampler, self.bfloat16 = encoder, settings, sampler, bfloat16

    @property
    def scores_once(self) -> bool:
        """Whether all positions share their negatives and the loss scores each distinct item once."""
        name = self.settings.name
        return self.sampler.settings.shared and (
            name == "sampled_softmax" or (name == "bpr_max" and not self.sampler.settings.logq)
        )

    def drawn(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Distinct | None]]:
        """The batches on the sampler's device, each with its shared negatives where these are drawn for many
        batches at once."""
        if not self.scores_once:
            yield from ((batch.to(self.sampler.device), None) for batch in batches)
            return
        batches = iter(batches)
        while some := [
            batch.to(self.sampler.device) for batch in itertools.islice(batches, self.sampler.batches_at_once)
        ]:
            drawn = self.sampler.distinct(
                [self.wanted(batch.targets, batch) for batch in some], self.beside(some)
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
        if drawn is not None:
            return self.compare(self.encode(batch), self.encoder.item_vectors(drawn.items), batch, drawn)
        s, encoder, targets = self.settings, self.encoder, self.wanted(batch.targets, batch)
        states = self.wanted(self.encode(batch), batch)
        if not len(targets):  # every target of the batch is disliked
            return states.sum() * 0.0
        if s.name == "softmax":
            return losses.softmax(states, encoder.item_vectors(), targets, s.smoothing, self.bfloat16)
        return _loss_of_draws(encoder, states, targets, batch.labels, s, self.sampler)

    def encode(self, batch: Batch) -> Tensor:
        with self.precision(batch):
            return self.encoder.encode(batch).float()

    def precision(self, batch: Batch) -> torch.autocast | nullcontext[None]:
        return torch.autocast(batch.items.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def compare(self, states: Tensor, vectors: Tensor, batch: Batch, drawn: Distinct) -> Tensor:
        """The loss of states with the vectors of the distinct items."""
        s, states = self.settings, self.wanted(states, batch)
        if not len(states):
            return states.sum() * 0.0
        weights = drawn.log_weight, drawn.target_log_weight, drawn.own_log_weight
        if s.name == "sampled_softmax":
            return losses.shared_sampled_softmax(states, vectors, drawn.at, weights, self.bfloat16)
        return losses.shared_bpr_max(states, vectors, drawn.at, weights, s.regularisation, s.elu)

    def wanted(self, values: Tensor, batch: Batch) -> Tensor:
        """Those of (positions, ...) values that the loss looks at: with labels only the liked positions,
        unless it has a use for the others."""
        return values if batch.labels is None or self.settings.name == "bce" else values[batch.labels]


def _loss_of_draws(
    encoder: Encoder,
    states: Tensor,
    targets: Tensor,
    labels: Tensor | None,
    settings: LossSettings,
    sampler: Sampler,
) -> Tensor:
    """The loss of (N, width) states with (N,) targets, every draw of a negative scored for itself."""
    negatives = sampler.sample(targets)
    positive = losses.scores_of_own(states, encoder.item_vectors(targets)[:, None]).squeeze(1)
    vectors = encoder.item_vectors(negatives.items)
    negative = (
        losses.scores(states, vectors)
        if negatives.items.dim() == 1
        else losses.scores_of_own(states, vectors)
    )
    if sampler.settings.logq:
        positive = positive - sampler.settings.logq * negatives.target_log_q
        negative = negative - sampler.settings.logq * negatives.log_q
    negative = negative.masked_fill(sampler.excluded(negatives, targets), -torch.inf)
    match settings.name:
        case "sampled_softmax":
            return losses.sampled_softmax(positive, negative)
        case "bce":
            return losses.bce(positive, negative, labels)
        case "gbce":
            return losses.gbce(positive, negative, len(sampler.log_p), settings.t)
        case "bpr":
            return losses.bpr(positive, negative)
        case "bpr_max":
            return losses.bpr_max(positive, negative, settings.regularisation, settings.elu)
        case "top1":
            return losses.top1(positive, negative)
        case "top1_max":
            return losses.top1_max(positive, negative)
        case other:
            raise AssertionError(f"{other} does not draw")
