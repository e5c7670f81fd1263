"""How a network is trained: settings, and what follows from them alone."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from seqrec.errors import SettingsError
from seqrec.evaluation.metrics import MetricName
from seqrec.settings.base import Settings
from seqrec.training.options import FitSettings

LARGE = 200_000
"""Rows of a table from which on an update that goes through all of it takes half as long again, or more."""
RATE = 15.0
"""Adagrad's rate for the rows of a large table, in those of AdamW."""
EPOCHS, MOST_EPOCHS, PATIENCE = 20, 100, 3
UPDATES, UPDATES_AN_EPOCH = 1000, 700
SMALLEST_BATCH, LARGEST_BATCH = 32, 1024
LEARNING_RATE, RATE_OF_SMALL, SMALL = 2e-3, 1e-2, 2000
WARM = 0.25
"""What training follows where it follows the log (``TrainSettings.plan``); chosen on validation, see
``benchmarks/LOG.md``."""


class TableSettings(Settings):
    """An optimizer of the embedding tables' own."""

    optimizer: Literal["ftrl", "adagrad", "with_the_rest"] = "ftrl"
    """FTRL-proximal, Adagrad, or none: with_the_rest has ``train.optimizer`` train the tables, however large
    they are."""
    learning_rate: float = Field(0.01, gt=0)
    """FTRL's alpha, which no schedule changes (it falls by itself); Adagrad's peak rate."""
    beta: float = Field(1.0, ge=0)
    """FTRL: keeps the first updates small."""
    l1: float = Field(0.0, ge=0)
    """FTRL: makes exact zeros."""
    l2: float = Field(0.0, ge=0)
    """FTRL: pulls towards 0."""

    @model_validator(mode="after")
    def _of_ftrl(self) -> Self:
        if self.optimizer != "ftrl" and (self.l1 or self.l2):
            raise ValueError(f"no l1 and no l2 with {self.optimizer}, which has neither; optimizer: ftrl has")
        return self


class TrainSettings(Settings):
    """How a network is trained."""

    epochs: int | None = Field(None, ge=1, le=10**9)
    """Passes over the training events, at most. None follows the log: 20, or on a small one as many more as
    1,000 updates take, 100 at most."""
    batch_positions: int | None = Field(None, ge=1, le=2**31 - 1)
    """Targets in the loss an update, about. None follows the log: the power of two from 32 to 1,024 that
    makes at least 700 updates an epoch, if any does."""
    optimizer: Literal["adamw", "adagrad"] = "adamw"
    """AdamW, or Adagrad with momentum (GRU4Rec's)."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate. None follows the log: 0.002, or 0.01 on one of fewer than 2,000 training
    targets."""
    tables: TableSettings | None = None
    """An optimizer of the embedding tables' own, which touches only the rows of a batch. None chooses by
    size: ``optimizer`` trains them with the rest; but where one has 200,000 rows or more, adamw would go
    through all of it in every update, so adagrad trains the tables, at 15 times the ``learning_rate`` (not
    with a loss over the whole catalogue, ``weight_decay`` or ``clip``, which need all rows).
    ``{optimizer: with_the_rest}`` has ``optimizer`` train them in any case."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay, of matrices and tables only."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Adagrad's momentum."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """The learning rate over the run: constant, or falling to nothing as half a cosine."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Share of the run in which the learning rate rises to its peak."""
    clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0 does not clip."""
    average: float = Field(0.0, ge=0, lt=1)
    """Exponential moving average of the weights with this decay an update: it is what is validated and kept;
    0 for none."""
    metric: MetricName = "ndcg@10"
    """What is validated; the weights of its best epoch are kept. A run under a protocol takes the protocol's
    if nothing is said."""
    filter_seen: bool = True
    """Whether validation filters what a user has seen. A run does as its test does (or its protocol says) if
    nothing is said."""
    validate_every: int = Field(1, ge=1)
    """Epochs from one validation to the next."""
    patience: int | None = Field(None, ge=1)
    """Validations without a better value after which training stops. None follows the epochs: 3 of 20, and so
    on in proportion, so that the rate falls before training stops."""
    streams: int = Field(1, ge=1, le=100_000)
    """Parts of the users that make an update together, each with its own batches, negatives and dropout, of
    ``batch_positions`` all together. Several processes (torchrun, ``seqrec train --engine spark``) share the
    streams: the numbers are those of as many streams in one process."""
    objective: Literal["positions", "prefixes"] = "positions"
    """What a row of a batch asks, in models that read windows of a sequence: the next item at every position
    of the window; or only the one after its last item, as when recommending. Then every training event has a
    row with the items before it, in random order over all users. A row costs what its window costs, so an
    epoch takes many times as long; on sparse logs it often gives the better model."""
    prefixes_from: float = Field(0.0, ge=0, lt=1)
    """With prefixes: share of the training, at the beginning, whose epochs ask at all positions nevertheless:
    of the epochs, or of the minutes where these end it earlier."""
    minutes: float | None = Field(None, gt=0)
    """Limit on wall clock, validation included; the schedule fits itself to it. Such a run depends on the
    speed of its machine. Training again for a chosen number of epochs (``stop_after``) has no such limit."""

    @classmethod
    def of(cls, values: Self | dict[str, Any] | None, section: str) -> Self:
        given = values if isinstance(values, dict) else {}
        moved = [name for name in FitSettings.model_fields if name in given]
        if moved:
            name, value = moved[0], given[moved[0]]
            raise SettingsError(
                f"{section}.{name}: it is not a setting of the model any more, but fit.{name}; "
                f"in Python an argument of fit, as in model.fit(log, {name}={value!r}). Got {value!r}."
            )
        return super().of(values, section)

    def plan(self, positions: int, warm: bool = False) -> TrainPlan:
        """The same for a log with that many training positions, which what is None follows.

        Args:
            warm: whether training begins with the weights of an earlier model: a quarter of the epochs.

        A network learns by updates: as many of each as a large log has in 20 epochs are a hundred times too
        few on a small one. So a small log gets small batches first, and then more epochs.
        """
        batch = self.batch_positions
        if batch is None:
            largest = max(1, positions // UPDATES_AN_EPOCH)
            batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, 1 << (largest.bit_length() - 1)))
        epochs = self.epochs
        if epochs is None:
            epochs = min(MOST_EPOCHS, max(EPOCHS, math.ceil(UPDATES / math.ceil(max(1, positions) / batch))))
            epochs = math.ceil(epochs * WARM) if warm else epochs
        patience = self.patience
        if patience is None:
            patience = max(PATIENCE, math.ceil(PATIENCE * epochs / EPOCHS))
        rate = self.learning_rate
        if rate is None:
            rate = RATE_OF_SMALL if positions < SMALL else LEARNING_RATE
        given = {name: getattr(self, name) for name in TrainSettings.model_fields}
        found = {"batch_positions": batch, "epochs": epochs, "patience": patience, "learning_rate": rate}
        return TrainPlan(**given | found)

    @field_validator("momentum")
    @classmethod
    def _of_adagrad(cls, momentum: float, info: ValidationInfo) -> float:
        if momentum and info.data.get("optimizer") == "adamw":
            raise ValueError("no momentum with adamw, which has its own; optimizer: adagrad has this one")
        return momentum


class TrainPlan(TrainSettings):
    """How a network is trained on one log: nothing is left to follow it."""

    epochs: int
    """Passes over the training events, at most."""
    batch_positions: int
    """Targets in the loss an update, about."""
    patience: int
    """Validations without a better value after which training stops."""
    learning_rate: float
    """Peak learning rate."""


def schedule(s: TrainSettings, progress: float) -> float:
    """The share of its peak that a learning rate has at a point of the run, progress in [0, 1]."""
    if progress < s.warmup:
        return max(progress / s.warmup, 1e-3)
    if s.schedule == "constant":
        return 1.0
    return max(0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - s.warmup) / (1 - s.warmup))), 1e-4)


def by_size(s: TrainSettings, rows: int, draws: bool) -> TrainSettings:
    """The same with the optimizer of the embedding tables chosen, where it is left open.

    Args:
        rows: of the largest table.
        draws: whether the loss compares with drawn negatives, so that an update needs some rows only.

    Returns:
        settings whose ``tables`` is None where ``optimizer`` trains the tables with the rest.
    """
    if s.tables is not None:
        return s.model_copy(update={"tables": None}) if s.tables.optimizer == "with_the_rest" else s
    if rows < LARGE or not draws or s.optimizer != "adamw" or s.weight_decay or s.clip:
        return s
    rate = LEARNING_RATE if s.learning_rate is None else s.learning_rate
    return s.model_copy(update={"tables": TableSettings(optimizer="adagrad", learning_rate=RATE * rate)})


def knows_sparse_gradients(s: TrainSettings, with_adagrad: bool) -> bool:
    """Whether the tables' optimizer is to read and write only the rows of a batch: one of their own, or
    adagrad for all where that is said.

    Such gradients cannot be clipped.
    """
    return not s.clip and (s.tables is not None or (with_adagrad and s.optimizer == "adagrad"))
