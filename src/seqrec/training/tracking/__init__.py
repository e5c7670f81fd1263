"""A training followed in a tool that people have open already: TensorBoard or MLflow (``fit.track``).

    step      the updates so far
    values    loss, learning_rate           every 50 updates and at the end of an epoch
              positions_per_second          at the end of an epoch
              validation/ndcg@10            where an epoch is validated

A training that is resumed goes on in the same run. One file a tool, imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from seqrec import storage
from seqrec.errors import SettingsError


class Tracker(Protocol):
    """What is told how a training gets on."""

    def values(self, step: int, found: Mapping[str, float]) -> None:
        """Takes named values after so many updates."""
        ...


class Untracked:
    """Where no tool was asked for."""

    def values(self, step: int, found: Mapping[str, float]) -> None:
        """Takes no notice."""


@dataclass(frozen=True)
class Tracking:
    """A training that is to be tracked.

    Attributes:
        tool: "tensorboard" or "mlflow"; None: none.
        name: of the model.
        settings: those of the model and of the fit, sections within sections.
        fingerprint: what a training has to share with an earlier one to go on in its run.
        checkpoint: of the training, if any. TensorBoard's files go into the folder that it is in.
    """

    tool: str | None
    name: str
    settings: Mapping[str, Any]
    fingerprint: str
    checkpoint: str | Path | None = None

    def __post_init__(self) -> None:
        """Finds out at once what would fail later.

        Raises:
            SettingsError: the tool is not installed, or cannot write where the run is.
        """
        if self.tool is None:
            return
        self._module()
        if self.tool == "tensorboard" and self.checkpoint is not None and storage.is_remote(self.checkpoint):
            raise SettingsError(
                "fit.track: tensorboard writes into the folder of the run, and expects a local one. Got "
                f"{self.checkpoint}. Give a local output folder, or take mlflow."
            )

    def begin(self, step: int) -> AbstractContextManager[Tracker]:
        """The tool, told of a training that has made so many updates; within ``with``, since it has to know
        whether the training came to its end."""
        if self.tool is None:
            return nullcontext(Untracked())
        tracker: AbstractContextManager[Tracker] = self._module().begin(self, step)
        return tracker

    def _module(self) -> Any:
        try:
            return importlib.import_module(f"{__name__}.{self.tool}")
        except ImportError as error:
            raise SettingsError(
                f'fit.track: {self.tool} is not installed ({error}). Run: pip install "seqrec[track]"'
            ) from error


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Sections within sections as one level: ``{"train.epochs": 20}``."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
