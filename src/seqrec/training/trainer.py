"""One loop trains every encoder: epochs, validation, early stopping, averaged weights, checkpoints.

The same settings, data and number of threads give the same numbers, whether or not the run was interrupted:
everything random in an epoch is seeded by (seed, epoch), and a checkpoint is written after each epoch under a
temporary name, then renamed. What an update learns from is drawn in ``seqrec.training.streams``: the order of
the batches, dropout and the negatives have generators of their own. Initial weights are drawn after
``torch.manual_seed(seed)``.

Several processes run this loop in step, each with the same weights. The first one writes and shows.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqrec import processes, storage
from seqrec.errors import SettingsError, TrainingError
from seqrec.nn.encoder import Encoder
from seqrec.splitting.split import Split
from seqrec.training import threads
from seqrec.training.memory import keep_freed_memory
from seqrec.training.objective import Objective
from seqrec.training.options import FitOptions, FitReport
from seqrec.training.progress import TrainingProgress
from seqrec.training.settings import TrainPlan, schedule
from seqrec.training.state import TrainingState
from seqrec.training.streams import Streams, batches_of
from seqrec.training.tracking import Tracking, Untracked

log = logging.getLogger("seqrec")


UPDATES_BETWEEN_CHECKS = 50  # of the loss, which costs a synchronisation on a GPU


def fit(
    network: Encoder,
    split: Split,
    s: TrainPlan,
    objective: Callable[[int], Objective],
    validate: Callable[[Encoder], float] | None,
    name: str,
    fingerprint: str,
    on: FitOptions,
    earlier: str | None = None,
    tracking: Tracking | None = None,
) -> FitReport:
    """Trains a network, which is where it shall be trained and as it starts. It ends with its best weights.

    Args:
        objective: what is minimised in an epoch whose negatives have that seed.
        validate: the value of ``s.metric`` for a network; None where nothing can be validated.
        name: of the model, for what is shown.
        fingerprint: what must be the same for a checkpoint to go on from.
        on: all but the device, which is where the network is.
        earlier: the fingerprint of the same with ``on.earlier_epochs``, whose checkpoint will do too.
        tracking: where else to tell how it gets on.

    Returns:
        the report of the training.
    Raises:
        SettingsError: ``stop_after`` is not from 1 (with a start 0) to ``train.epochs``, or
            ``schedule_epochs`` is not above 0; or ``train.streams`` does not suit the log or the processes.
        TrainingError: the loss is not finite (the last checkpoint, if any, is good), the checkpoint belongs
            to another run, or another process of this run is lost.
    """
    checkpoint, stop_after = on.checkpoint, on.stop_after
    fewest = 1 if on.start is None else 0
    if stop_after is not None and not fewest <= stop_after <= s.epochs:
        raise SettingsError(
            f"stop_after: expected from {fewest} to train.epochs ({s.epochs}). Got {stop_after}. Raise "
            "train.epochs for more."
        )
    schedule_epochs = float(s.epochs) if on.schedule_epochs is None else on.schedule_epochs
    if not schedule_epochs > 0:
        raise SettingsError(
            f"schedule_epochs: expected more than 0. Got {schedule_epochs}. Leave it out for train.epochs."
        )
    minutes = s.minutes if stop_after is None else None
    device = next(network.parameters()).device
    keep_freed_memory()
    parameters: list[Tensor] = list(network.parameters())
    run = TrainingState(network, s, device)
    averaged: list[Tensor] = list(run.averaged.parameters())
    processes.agree("model, settings and data", fingerprint)
    streams = Streams(network, split, s, objective, on.seed)
    if checkpoint is not None and processes.from_first(lambda: b"there" * storage.exists(checkpoint)):
        run.load(checkpoint, fingerprint, earlier)
    validate = validate if stop_after is None else None
    epochs = s.epochs if stop_after is None else stop_after
    of_an_epoch = streams.positions
    total = schedule_epochs * of_an_epoch
    begin = time.perf_counter() - run.seconds

    validation_seconds = 0.0  # the longest pass so far: a limited run keeps that much for its last one

    def out_of_time() -> bool:
        return minutes is not None and time.perf_counter() - begin + validation_seconds > 60 * minutes

    def point_of_schedule() -> float:
        by_epochs = run.done / total
        if minutes is None or not run.done:
            return by_epochs
        # the clock counts only where the epochs would not fit, so that a generous limit changes nothing
        return max(by_epochs, (time.perf_counter() - begin) / (60 * minutes))

    stopped = False

    def finished() -> bool:
        waited = run.epoch - run.best_epoch >= s.patience * s.validate_every
        return (
            stopped
            or run.epoch >= epochs
            or out_of_time()
            or (validate is not None and bool(run.best) and waited)
        )

    def keep_best(value: float) -> None:
        # nothing but zeros chooses no epoch
        if value > run.best_value or value == run.best_value == 0:
            run.best_value, run.best_epoch = value, run.epoch
            run.best = {name: t.detach().clone() for name, t in run.averaged.state_dict().items()}

    if earlier is not None and 0 < run.epoch < epochs:
        more = ""
        if s.schedule == "cosine":
            more = (
                " The learning rate, which had fallen, goes on at "
                f"{schedule(s, point_of_schedule()):.0%} of its peak: the weights will be others than those "
                "of as many epochs from the start."
            )
        log.warning(
            "%s: goes on from epoch %d to %d.%s --restart (restart=True) trains from the start.",
            name,
            run.epoch,
            epochs,
            more,
        )
    if on.threads is not None:
        run.threads = on.threads
    elif not run.threads and s.streams > 1:
        run.threads = 1  # as many as processes have that share a machine, so that these repeat its numbers
    elif not run.threads:
        run.threads = torch.get_num_threads()
        if run.threads > 1 and device.type == "cpu" and of_an_epoch and not finished():
            run.threads = _fastest_threads(
                network, split, s, objective(on.seed), epochs * of_an_epoch, run.threads, name
            )
    tracked = tracking is not None and processes.first() and not finished()
    with (
        threads.use(run.threads),
        TrainingProgress(name, epochs * of_an_epoch, on.progress and processes.first()) as shown,
        tracking.begin(run.updates) if tracking and tracked else nullcontext(Untracked()) as tracker,
    ):
        shown.resume(run.done)
        if on.start is not None and validate is not None and run.start_value is None:
            asked = time.perf_counter()
            run.start_value = validate(run.averaged)
            validation_seconds = 1.1 * (time.perf_counter() - asked)
            keep_best(run.start_value)
            shown.line(f"{name} at the start: validation {s.metric} {run.start_value:.4f}")
        while not finished():
            epoch = run.epoch + 1
            start, positions, loss_sum = time.perf_counter(), 0, torch.zeros((), device=device)
            for loss, read in streams.updates(epoch, point_of_schedule()):
                # The parameters have their gradients.
                run.set_rates(schedule(s, point_of_schedule()))
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
                run.done += read
                positions += read
                loss_sum.add_(loss, alpha=read)
                if run.updates % UPDATES_BETWEEN_CHECKS == 0:
                    _check(loss_sum, epoch, s, checkpoint)
                    mean = float(loss_sum) / positions
                    shown.update(run.done, epoch, mean)
                    rate = schedule(s, point_of_schedule()) * s.learning_rate
                    tracker.values(run.updates, {"loss": mean, "learning_rate": rate})
                if out_of_time():
                    break
            _check(loss_sum, epoch, s, checkpoint)
            if not all(bool(torch.isfinite(p).all()) for p in parameters):
                raise _not_finite(epoch, "a weight", s, checkpoint)  # the last update has no loss after it
            run.epoch = epoch
            seconds = time.perf_counter() - start
            point_of_curve = {
                "epoch": epoch,
                "loss": float(loss_sum) / max(1, positions),
                "positions_per_second": positions / seconds,
                "positions": positions,
            }
            if validate is not None and (epoch % s.validate_every == 0 or epoch == epochs or out_of_time()):
                asked = time.perf_counter()
                value = validate(run.averaged)
                validation_seconds = max(validation_seconds, 1.1 * (time.perf_counter() - asked))
                point_of_curve[s.metric] = value
                keep_best(value)
                stopped = on.watch is not None and not on.watch(epoch, value)
            run.seconds = time.perf_counter() - begin
            point_of_curve["seconds"] = run.seconds
            run.curve.append(point_of_curve)
            told = {k: point_of_curve[k] for k in ("loss", "positions_per_second")}
            if s.metric in point_of_curve:
                told[f"validation/{s.metric}"] = point_of_curve[s.metric]
            tracker.values(run.updates, told)
            measured = (
                f", validation {s.metric} {point_of_curve[s.metric]:.4f}"
                if s.metric in point_of_curve
                else ""
            )
            speed = f"{point_of_curve['positions_per_second']:,.0f} positions/s"
            shown.line(
                f"{name} epoch {epoch}: loss {point_of_curve['loss']:.4f}{measured}, {speed}, "
                f"{run.seconds:.0f} s"
            )
            if checkpoint is not None and processes.first():
                run.save(checkpoint, fingerprint)
    network.load_state_dict(run.best if validate is not None and run.best else run.averaged.state_dict())
    network.eval()
    return FitReport(
        train_seconds=run.seconds,
        positions_per_second=(
            float(np.mean([p["positions_per_second"] for p in run.curve])) if run.curve else None
        ),
        epochs=run.epoch,
        best_epoch=run.best_epoch if validate is not None else run.epoch,
        schedule_epochs=(
            schedule_epochs if minutes is None or not run.epoch else run.epoch / min(1.0, point_of_schedule())
        ),
        start=None if run.start_value is None else {s.metric: run.start_value},
        updates=run.updates,
        device=str(device),
        threads=run.threads,
        parameters=sum(p.numel() for p in network.parameters()),
        tables=None if s.tables is None else s.tables.optimizer,
        seed=on.seed,
        curve=tuple(run.curve),
    )


def _fastest_threads(
    network: Encoder, split: Split, s: TrainPlan, trial: Objective, positions: int, most: int, name: str
) -> int:
    """The number of threads for a training of so many positions, at most ``most``: tried on a first batch,
    with an objective of its own, which leaves nothing behind but gradients."""
    network.train()
    batches = batches_of(network, split, s, 0.0, np.random.default_rng(0))
    batch, drawn = next(iter(trial.drawn(batches)))

    def update() -> None:
        network.zero_grad()
        torch.autograd.backward(trial.loss(batch, drawn))

    found = threads.choose(update, positions // max(1, batch.positions), most)
    if found < most:
        log.info(
            "%s: trains with %d of %d threads, which is faster beside the other work of this machine. "
            "fit.threads=%d takes all.",
            name,
            found,
            most,
            most,
        )
    return found


def _check(loss_sum: Tensor, epoch: int, s: TrainPlan, checkpoint: str | Path | None) -> None:
    if not math.isfinite(float(loss_sum)):
        raise _not_finite(epoch, "the loss", s, checkpoint)


def _not_finite(epoch: int, what: str, s: TrainPlan, checkpoint: str | Path | None) -> TrainingError:
    kept = (
        f" The checkpoint {checkpoint} holds the last complete epoch and is usable."
        if checkpoint is not None and storage.exists(checkpoint)
        else ""
    )
    return TrainingError(
        f"epoch {epoch}: {what} is not finite. Lower train.learning_rate ({s.learning_rate}), or "
        f"set train.clip.{kept}"
    )
