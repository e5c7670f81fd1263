"""What is said of one fit, apart from the model's own settings; and what a fit has to report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import Field

from seqrec.settings.base import Settings


class FitSettings(Settings):
    """The section ``fit`` of a run: what is no property of a model."""

    seed: int = Field(0, ge=0, lt=2**42)
    """Of the initial weights, the order, dropout and negatives."""
    device: str = "auto"
    """"cpu", "cuda", "mps", or the best there is."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What matrices are multiplied in: auto takes bfloat16 on a GPU that has it, and float32 elsewhere."""
    threads: int | None = Field(None, ge=1, le=4096)
    """Of torch, on a CPU. None: as many as torch has, or fewer where updates tried at the start are clearly
    faster so, since other work keeps cores busy (a training of less than a minute is not tried); one with
    ``train.streams``. A resumed training takes the number that it began with. Another number can change the
    last digits."""
    start: str | None = None
    """The folder of an earlier model, or of the run that has it, with whose weights training begins instead
    of random ones: of the same kind and settings, and trained on a part of the log, say. Items and users that
    it does not know get fresh vectors, the others keep theirs, by their ids. With a validation the start
    itself is a candidate, so that the result is never worse on it than what it began with."""
    track: Literal["tensorboard", "mlflow"] | None = None
    """Where a training can be followed besides the log: event files for TensorBoard in the folder
    ``tensorboard`` beside the checkpoint, or a run in MLflow, whose server ``MLFLOW_TRACKING_URI`` names.
    Needs the extra ``track``."""


class FitOptions(FitSettings):
    """How a model is fitted. A model ignores what it has no use for: one that is not trained by gradient,
    nearly all."""

    start: Any = None
    """As in a run (the folder of an earlier model, or of its run), or the earlier model itself."""
    checkpoint: str | Path | None = None
    """A file (.safetensors) written after each epoch; where it exists already, training goes on from it."""
    earlier_epochs: int | None = None
    """What ``train.epochs`` was when the checkpoint was written, if more are to be trained now. A falling
    rate rises again, since the schedule is that of the new number: other weights than those of as many epochs
    from the start."""
    progress: bool = True
    """Show how it gets on."""
    stop_after: int | None = None
    """Train exactly this many epochs of the schedule, however long they take, and validate nothing: training
    again with validation events, once the number of epochs is chosen (``FitReport.best_epoch``). With a
    ``start`` it may be 0."""
    schedule_epochs: float | None = None
    """Epochs in which the schedule of rates is run through; None: ``train.epochs``.
    ``FitReport.schedule_epochs`` has what it was: fewer where ``train.minutes`` cut a training short, so
    given on to the training that repeats it, rates fall as fast (evenly over the epochs, where those of the
    limited one went by the clock)."""
    again: Any = None
    """The report of an earlier fit that this one repeats on more events, for models that are made of
    several."""
    watch: Any = None
    """A function of an epoch's number and what it reached on validation, called after each that is validated:
    where it gives False, training ends, with the best weights so far."""
    baselines: bool = True
    """Where there are validation queries, a neural model says at the end how it did on them beside
    popularity and the Markov chain, which takes as long as validating it twice."""


class FitChanges(TypedDict, total=False):
    """The fields of ``FitOptions`` as keywords of ``Model.fit``."""

    seed: int
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    threads: int | None
    start: Any
    track: Literal["tensorboard", "mlflow"] | None
    checkpoint: str | Path | None
    earlier_epochs: int | None
    progress: bool
    stop_after: int | None
    schedule_epochs: float | None
    again: Any
    watch: Any
    baselines: bool


@dataclass(frozen=True)
class FitReport:
    """What a fit did. All but the seconds is None where a model is not trained by gradient.

    Attributes:
        train_seconds: wall clock, earlier parts of a resumed training included.
        positions_per_second: mean over the epochs, without validation.
        epochs, best_epoch: how many were trained, and which one's weights are kept; 0 where a training with a
            start found nothing better than that.
        start: of a training with one, ``{"digest": .., "items": {"kept": .., "new": .., "gone": ..}}``,
            ``users`` likewise, and what the start itself reached on validation, ``{"ndcg@10": ..}``.
        schedule_epochs: those in which the schedule of rates was (or would have been) run through.
        plan: settings of training that were left to follow the log, and what they came to: ``epochs``,
            ``batch_positions``, ``patience``, ``learning_rate``.
        prior: where its weight was chosen, ``{"weight": .., "ndcg@10": {"0.1": .., ..}}``: which, and what
            each that was tried reached on validation.
        members: of an ensemble or a rerank, the report of each with its ``name`` and ``weight``.
        validation: what the kept weights and the baselines reach on the validation queries:
            ``{"metric": "ndcg@10", "filter_seen": True, "model": .., "popularity": .., "markov": ..}``.
        updates: of the weights.
        device, precision: where it was trained, and in what matrices were multiplied.
        threads: of torch, as chosen.
        parameters: numbers that were trained.
        tables: the optimizer of the embedding tables, where they had one of their own: told, or chosen for
            their size.
        seed: of all that is random.
        curve: a dictionary an epoch: epoch, loss, the validation metric, positions_per_second, positions,
            seconds.
    """

    train_seconds: float
    positions_per_second: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    schedule_epochs: float | None = None
    plan: Mapping[str, float] | None = None
    start: Mapping[str, Any] | None = None
    prior: Mapping[str, Any] | None = None
    members: tuple[dict[str, Any], ...] | None = None
    validation: Mapping[str, Any] | None = None
    updates: int | None = None
    device: str | None = None
    threads: int | None = None
    parameters: int | None = None
    tables: str | None = None
    precision: str | None = None
    seed: int | None = None
    curve: tuple[dict[str, Any], ...] = ()

    @property
    def whole_epochs(self) -> int | None:
        """``best_epoch`` in epochs that were trained whole: a limit of minutes may have ended the last one
        early. At least 1, unless no epoch was better than a start."""
        positions: list[int] = [point.get("positions", 0) for point in self.curve]
        if not self.best_epoch or not positions or not all(positions):
            return self.best_epoch
        return max(1, round(sum(positions[: self.best_epoch]) / max(positions)))

    def settled(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """The sections of a model with what this fit chose: in ``train`` what followed the log, in ``prior``
        the weight; for another fit, which is to repeat this one."""
        found = dict(sections)
        if self.plan:
            found["train"] = {**(found.get("train") or {}), **self.plan}
        if self.prior:
            own = found["prior"]
            own = {"name": own} if isinstance(own, str) else own
            found["prior"] = {**own, "weight": self.prior["weight"]}
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, without what is None."""
        content = {f.name: getattr(self, f.name) for f in fields(self)} | {"curve": list(self.curve)}
        if self.members is not None:
            content["members"] = list(self.members)
        return {name: value for name, value in content.items() if value is not None and value != []}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FitReport:
        """What ``to_json`` gave; of another version, what both know."""
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        known["curve"] = tuple(known.get("curve", ()))
        if known.get("members") is not None:
            known["members"] = tuple(known["members"])
        return cls(**{"train_seconds": 0.0} | known)
