"""One loop trains every encoder: epochs, validation, early stopping, averaged weights, checkpoints.

The same settings, data and number of threads give the same numbers, whether or not the run was interrupted: everything random in an epoch is seeded
by (seed, epoch), and a checkpoint is written after each epoch under a temporary name, then renamed.
"""

from __future__ import annotations

import copy
import ctypes
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from seqrec import storage
from seqrec.config import MetricName, Settings
from seqrec.encoder import Encoder
from seqrec.errors import SettingsError, TrainingError
from seqrec.objective import Objective
from seqrec.optimizers import FTRL, AdagradMomentum
from seqrec.progress import TrainingProgress
from seqrec.splitting.split import Split

log = logging.getLogger("seqrec")
UPDATES_BETWEEN_CHECKS = 50  # of the loss, which costs a synchronisation on a GPU


class TableSettings(Settings):
    optimizer: Literal["ftrl", "adagrad"] = "ftrl"
    """FTRL-proximal, or Adagrad."""
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
            raise ValueError("no l1 and no l2 with adagrad, which has neither; optimizer: ftrl has")
        return self


class TrainSettings(Settings):
    epochs: int = Field(20, ge=1)
    """Passes over the training events, at most."""
    batch_positions: int = Field(1024, ge=1)
    """Targets in the loss an update, about."""
    optimizer: Literal["adamw", "adagrad"] = "adamw"
    """AdamW, or Adagrad with momentum (GRU4Rec's)."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate."""
    tables: TableSettings | None = None
    """An optimizer of the embedding tables' own, which touches only the rows of a batch; None has ``optimizer`` train them with the rest."""
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
    """Exponential moving average of the weights with this decay an update: it is what is validated and kept; 0 for none."""
    metric: MetricName = "ndcg@10"
    """What is validated; the weights of its best epoch are kept. A run under a protocol takes the protocol's if nothing is said."""
    filter_seen: bool = True
    """Whether validation filters what a user has seen. A run does as its test does (or its protocol says) if nothing is said."""
    validate_every: int = Field(1, ge=1)
    """Epochs from one validation to the next."""
    patience: int = Field(3, ge=1)
    """Validations without a better value after which training stops."""
    minutes: float | None = Field(None, gt=0)
    """Limit on wall clock, validation included; the schedule fits itself to it. Such a run depends on the speed of its machine. Training again for a
    chosen number of epochs (``stop_after``) has no such limit."""
    seed: int = Field(0, ge=0)
    """Of the initial weights, the order, dropout and negatives."""
    device: str = "auto"
    """"cpu", "cuda", "mps", or the best there is."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What matrices are multiplied in: auto takes bfloat16 on a GPU that has it, and float32 elsewhere."""

    @field_validator("momentum")
    @classmethod
    def _of_adagrad(cls, momentum: float, info: ValidationInfo) -> float:
        if momentum and info.data.get("optimizer") == "adamw":
            raise ValueError("no momentum with adamw, which has its own; optimizer: adagrad has this one")
        return momentum


def choose_device(name: str) -> torch.device:
    """The device of that name, or for "auto" the best there is.

    Raises:
        SettingsError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"train.device: expected a device that this machine has. Got {name!r}. Use 'auto' or 'cpu'.") from error
    return device


def device_for_loading(name: str) -> torch.device:
    """The device that a saved model names; where this machine has none like it, the best there is."""
    try:
        return choose_device(name)
    except SettingsError:
        best = choose_device("auto")
        log.warning("train.device: the model was saved with %r, which this machine does not have; it is loaded on %r.", name, best.type)
        return best


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to multiply in bfloat16."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())


def keep_freed_memory() -> None:
    """Has glibc keep freed tensors for the next batch, instead of giving each back to the kernel and faulting its pages in again."""
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 29)  # M_TRIM_THRESHOLD
        except (OSError, AttributeError):
            return  # another C library: slower, not wrong


def schedule(s: TrainSettings, progress: float) -> float:
    """The share of its peak that a learning rate has at a point of the run, progress in [0, 1]."""
    if progress < s.warmup:
        return max(progress / s.warmup, 1e-3)
    if s.schedule == "constant":
        return 1.0
    return max(0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - s.warmup) / (1 - s.warmup))), 1e-4)


def knows_sparse_gradients(s: TrainSettings, with_adagrad: bool) -> bool:
    """Whether the tables' optimizer is to read and write only the rows of a batch: one of their own, or adagrad for all where that is said.

    Such gradients cannot be clipped.
    """
    return not s.clip and (s.tables is not None or (with_adagrad and s.optimizer == "adagrad"))


def make_optimizers(network: Encoder, s: TrainSettings, device: torch.device) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for all, ``{"optimizer": ..}``; with ``s.tables`` that of the embedding tables beside it, ``{"optimizer": .., "tables": ..}``.

    A group's ``initial_lr`` is its peak rate, which the schedule scales.
    """
    own = [m.weight for m in network.modules() if s.tables is not None and isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    rest = [p for p in network.parameters() if all(p is not table for table in own)]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if rest:
        optimizers["optimizer"] = _optimizer(rest, s, device)
    if own:
        assert s.tables is not None
        optimizers["tables"] = _optimizer_of_tables(own, s.tables)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            if "lr" in group:
                group["initial_lr"] = group["lr"]
    return optimizers


def _optimizer(parameters: list[nn.Parameter], s: TrainSettings, device: torch.device) -> torch.optim.Optimizer:
    if s.optimizer == "adagrad":
        return AdagradMomentum(parameters, lr=s.learning_rate, momentum=s.momentum)
    decayed = {"params": [p for p in parameters if p.dim() > 1], "weight_decay": s.weight_decay}
    others = {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, others], lr=s.learning_rate, betas=(0.9, 0.98), fused=device.type in ("cpu", "cuda"))


def _optimizer_of_tables(tables: list[Tensor], t: TableSettings) -> torch.optim.Optimizer:
    if t.optimizer == "adagrad":
        return AdagradMomentum(tables, lr=t.learning_rate)
    return FTRL(tables, alpha=t.learning_rate, beta=t.beta, l1=t.l1, l2=t.l2)


class Run:
    """Everything that changes while a training runs; what a checkpoint holds.

    Attributes:
        network, averaged: the weights that are trained, and those that are validated (the same object without averaging).
        best: the averaged weights of the best epoch so far.
        epoch, updates, done: finished epochs, updates, positions.
        seconds: wall clock spent, earlier parts of a resumed run included.
        curve: a dictionary an epoch: epoch, loss, the validation metric, positions_per_second, seconds.
    """

    def __init__(self, network: Encoder, s: TrainSettings, device: torch.device):
        self.network = network
        self.averaged = copy.deepcopy(network).requires_grad_(False) if s.average else network
        self.optimizers = make_optimizers(network, s, device)
        self.best: dict[str, Tensor] = {}
        self.best_value, self.best_epoch = -math.inf, 0
        self.epoch = self.updates = self.done = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []

    def set_rates(self, share: float) -> None:
        """Every rate that follows the schedule gets this share of its peak."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                if "lr" in group:
                    group["lr"] = share * group["initial_lr"]

    NUMBERS = ("epoch", "updates", "done", "seconds", "best_value", "best_epoch", "curve")

    def save(self, path: str | Path, fingerprint: str) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        if self.averaged is not self.network:
            tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        about = {name: getattr(self, name) for name in self.NUMBERS} | {"fingerprint": fingerprint}
        if not self.best:
            about["best_value"] = None
        content = safetensors.torch.save({k: v.detach().cpu().clone() for k, v in tensors.items()}, {"run": json.dumps(about)})
        with storage.open_write(path) as stream:
            stream.write(content)

    def load(self, path: str | Path, fingerprint: str) -> None:
        with storage.open_read(path) as stream:
            content = stream.read()
        try:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            about = json.loads(header["__metadata__"]["run"])
            tensors = safetensors.torch.load(content)
        except (ValueError, KeyError, safetensors.SafetensorError) as error:
            raise TrainingError(f"{path}: not a checkpoint of seqrec. Remove it to start anew.") from error
        if about.pop("fingerprint") != fingerprint:
            raise TrainingError(
                f"{path}: a checkpoint of another run (other settings or other data). Remove it to start anew (seqrec train --restart does), "
                "or name another file."
            )
        if about["best_value"] is None:
            about["best_value"] = -math.inf
        for name, value in about.items():
            setattr(self, name, value)

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

        self.network.load_state_dict(part("network"))
        if self.averaged is not self.network:
            self.averaged.load_state_dict(part("averaged"))
        self.best = part("best")
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in part(name).items():
                index, of_parameter = key.split(".", 1)
                state.setdefault(int(index), {})[of_parameter] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def fit(
    network: Encoder,
    split: Split,
    s: TrainSettings,
    objective: Callable[[int], Objective],
    validate: Callable[[Encoder], float] | None,
    name: str,
    fingerprint: str,
    *,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    stop_after: int | None = None,
    schedule_epochs: float | None = None,
) -> dict[str, Any]:
    """Trains a network, which is where it shall be trained and as it starts. It ends with its best weights.

    Args:
        objective: what is minimised in an epoch of that seed.
        validate: the value of ``s.metric`` for a network; None where nothing can be validated.
        name: of the model, for what is shown.
        fingerprint: what must be the same for a checkpoint to go on from.
        checkpoint: a file (.safetensors) written after each epoch; where it exists already, the run goes on from it.
        progress: show how it gets on.
        stop_after: train exactly this many epochs of the schedule, however long they take, and validate nothing (training again with validation
            events, once the number of epochs is chosen).
        schedule_epochs: epochs in which the schedule of rates is run through; None: ``train.epochs``. ``fit_report`` has what it was: fewer where
            ``train.minutes`` cut a run short, so given on to the training that repeats such a run, its rates fall as fast (evenly over the epochs,
            where those of the limited run went by the clock).

    Returns:
        the report of the training.
    Raises:
        SettingsError: ``stop_after`` is not from 1 to ``train.epochs``, or ``schedule_epochs`` is not above 0.
        TrainingError: the loss is not finite (the last checkpoint, if any, is good), or the checkpoint belongs to another run.
    """
    if stop_after is not None and not 1 <= stop_after <= s.epochs:
        raise SettingsError(f"stop_after: expected from 1 to train.epochs ({s.epochs}). Got {stop_after}. Raise train.epochs for more.")
    schedule_epochs = float(s.epochs) if schedule_epochs is None else schedule_epochs
    if not schedule_epochs > 0:
        raise SettingsError(f"schedule_epochs: expected more than 0. Got {schedule_epochs}. Leave it out for train.epochs.")
    minutes = s.minutes if stop_after is None else None
    device = next(network.parameters()).device
    keep_freed_memory()
    parameters: list[Tensor] = list(network.parameters())
    run = Run(network, s, device)
    averaged: list[Tensor] = list(run.averaged.parameters())
    if checkpoint is not None and storage.exists(checkpoint):
        run.load(checkpoint, fingerprint)
    validate = validate if stop_after is None else None
    epochs = s.epochs if stop_after is None else stop_after
    total = schedule_epochs * split.train_positions
    begin = time.perf_counter() - run.seconds

    validation_seconds = 0.0  # the longest pass so far: a limited run keeps that much for its last one

    def out_of_time() -> bool:
        return minutes is not None and time.perf_counter() - begin + validation_seconds > 60 * minutes

    def point_of_schedule() -> float:
        by_epochs = run.done / total
        return by_epochs if minutes is None else max(by_epochs, (time.perf_counter() - begin) / (60 * minutes))

    def finished() -> bool:
        waited = run.epoch - run.best_epoch >= s.patience * s.validate_every
        return run.epoch >= epochs or out_of_time() or (validate is not None and run.best_epoch > 0 and waited)

    with TrainingProgress(name, epochs * split.train_positions, progress) as shown:
        shown.resume(run.done)
        while not finished():
            epoch = run.epoch + 1
            torch.manual_seed(s.seed * 1_000_003 + epoch)
            of_epoch = objective(s.seed * 1_000_003 + epoch)
            network.train()
            start, positions, loss_sum = time.perf_counter(), 0, torch.zeros((), device=device)
            batches = network.batches(split, s.batch_positions, np.random.default_rng((s.seed, epoch)))
            for batch, negatives in of_epoch.drawn(batches):
                run.set_rates(schedule(s, point_of_schedule()))
                loss = of_epoch.loss(batch, negatives)
                for p in parameters:
                    p.grad = None
                loss.backward()
                if s.clip:
                    torch.nn.utils.clip_grad_norm_(parameters, s.clip)
                for optimizer in run.optimizers.values():
                    optimizer.step()
                run.updates += 1
                if s.average:
                    # A young average forgets faster, or it would remember the random start.
                    forget = 1 - min(s.average, (1 + run.updates) / (10 + run.updates))
                    with torch.no_grad():
                        torch._foreach_lerp_(averaged, parameters, forget)
                run.done += batch.positions
                positions += batch.positions
                loss_sum.add_(loss.detach(), alpha=batch.positions)
                if run.updates % UPDATES_BETWEEN_CHECKS == 0:
                    _check(loss_sum, epoch, s, checkpoint)
                    shown.update(run.done, epoch, float(loss_sum) / positions)
                if out_of_time():
                    break
            _check(loss_sum, epoch, s, checkpoint)
            run.epoch = epoch
            seconds = time.perf_counter() - start
            point_of_curve = {"epoch": epoch, "loss": float(loss_sum) / max(1, positions), "positions_per_second": positions / seconds}
            if validate is not None and (epoch % s.validate_every == 0 or epoch == epochs or out_of_time()):
                asked = time.perf_counter()
                value = validate(run.averaged)
                validation_seconds = max(validation_seconds, 1.1 * (time.perf_counter() - asked))
                point_of_curve[s.metric] = value
                if value > run.best_value or value == run.best_value == 0:  # nothing but zeros chooses no epoch
                    run.best_value, run.best_epoch = value, epoch
                    run.best = {name: t.detach().clone() for name, t in run.averaged.state_dict().items()}
            run.seconds = time.perf_counter() - begin
            point_of_curve["seconds"] = run.seconds
            run.curve.append(point_of_curve)
            measured = f", validation {s.metric} {point_of_curve[s.metric]:.4f}" if s.metric in point_of_curve else ""
            speed = f"{point_of_curve['positions_per_second']:,.0f} positions/s"
            shown.line(f"{name} epoch {epoch}: loss {point_of_curve['loss']:.4f}{measured}, {speed}, {run.seconds:.0f} s")
            if checkpoint is not None:
                run.save(checkpoint, fingerprint)
    network.load_state_dict(run.best if validate is not None and run.best else run.averaged.state_dict())
    network.eval()
    return {
        "train_seconds": run.seconds,
        "positions_per_second": float(np.mean([p["positions_per_second"] for p in run.curve])),
        "epochs": run.epoch,
        "best_epoch": run.best_epoch if validate is not None else run.epoch,
        "schedule_epochs": schedule_epochs if minutes is None else run.epoch / min(1.0, point_of_schedule()),
        "updates": run.updates,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "curve": run.curve,
    }


def _check(loss_sum: Tensor, epoch: int, s: TrainSettings, checkpoint: str | Path | None) -> None:
    if not math.isfinite(float(loss_sum)):
        kept = f" The checkpoint {checkpoint} is of the last whole epoch and good." if checkpoint is not None and storage.exists(checkpoint) else ""
        raise TrainingError(f"epoch {epoch}: the loss is not finite. Lower train.learning_rate ({s.learning_rate}), or set train.clip.{kept}")
