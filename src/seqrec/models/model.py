"""What every model offers: ``fit``, ``recommend``, ``save``, ``load``. One class, and ``NeuralModel`` below
it for models trained by gradient."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch

from seqrec.data.catalogue import Catalogue
from seqrec.data.interactions import Interactions
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SettingsError, TrainingError, did_you_mean
from seqrec.scoring import CELLS, ROWS, Scores
from seqrec.serving import artifact, recommender
from seqrec.settings.base import Settings
from seqrec.splitting.everything import everything
from seqrec.splitting.split import Split
from seqrec.training.settings import TrainSettings

OPTIONS = ("checkpoint", "progress", "stop_after", "schedule_epochs")
"""Of ``fit``; a model that is not trained by gradient has no use for them."""


class Model(ABC):
    """A recommender of next items.

    A subclass gives ``name``, ``Settings``, ``fit_split``, ``score``, and ``state`` / ``load_state`` for
    saving. Nothing else depends on what it is.

    Args:
        settings: the fields of the model's ``Settings``; an unknown one raises ``SettingsError``.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]

    def __init__(self, **settings: Any):
        self.settings: Any = self.Settings.of(settings, self.name)
        self.item_catalogue: Catalogue | None = None
        self.sequences: Sequences | None = None
        self.known_stops: np.ndarray | None = None
        self.fit_report: dict[str, Any] = {}
        self.provenance: dict[str, Any] = {}

    @abstractmethod
    def fit_split(self, split: Split, **options: Any) -> None:
        """Learns from the training events of a split, and may choose its epochs on the validation queries.

        Sets ``fit_report`` (at least ``train_seconds``). Called through ``fit``.
        """

    @abstractmethod
    def score(self, query: Query) -> torch.Tensor:
        """(queries, items) float32 score of every item as the next one, which belongs to the caller."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Everything learned, as named arrays."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        """Takes back what ``state`` gave."""

    def configuration(self) -> dict[str, Any]:
        """Keyword arguments that make the same model again (JSON values)."""
        return self.settings.model_dump(mode="json")

    def fit(self, data: Split | Sequences | Interactions | pl.DataFrame | Any, **options: Any) -> Model:
        """Learns from a log, or from the training part of a split.

        Args:
            data: a split; or sequences, a log or a pandas / polars frame with ``user_id, item_id`` and, if
                known, ``timestamp``: then every event trains, except that models which choose their epochs
                hold out the last event of a tenth of the users (100 to 1,000) to choose on; of fewer than 200
                users nothing is held out, and all epochs are trained.
            options: for neural models ``checkpoint`` (a file to save to after every epoch and to resume
                from), ``progress`` (False for none), ``stop_after`` (train this many epochs and validate
                nothing) and ``schedule_epochs`` (see ``seqrec.training.trainer.fit``).

        Returns:
            the model itself.

        Raises:
            SettingsError: an unknown option.
        """
        self._check_options(options)
        split = self._as_split(data)
        if not split.train_events.any():
            raise TrainingError(
                "data: expected at least one training event. Got none; look at the split's cut or filters."
            )
        self.item_catalogue, self.sequences = split.sequences.item_catalogue, split.sequences
        self.fit_split(split, **options)
        # What is known of each user when recommending: everything before their first test target.
        self.known_stops = split.sequences.offsets[1:].copy()
        np.minimum.at(self.known_stops, split.test.users, split.test.targets[split.test.first_targets[:-1]])
        self.provenance = {
            "split": split.settings,
            "split_hash": split.hash,
            "train_events": int(split.train_events.sum()),
        }
        return self

    def _check_options(self, options: dict[str, Any]) -> None:
        known = {*OPTIONS, *inspect.signature(self.fit_split).parameters} - {"split", "options"}
        for name, value in options.items():
            if name in known:
                continue
            if name in TrainSettings.model_fields:
                advice = (
                    " It is a setting of training, which neural models take when they are made: "
                    f"train={{{name!r}: {value!r}}}."
                )
            else:
                advice = did_you_mean(name, known)
            raise SettingsError(f"fit: unknown option {name!r}.{advice}")

    @staticmethod
    def _as_split(data: Any) -> Split:
        if isinstance(data, Split):
            return data
        if not isinstance(data, Sequences):
            data = data if isinstance(data, Interactions) else Interactions.from_frame(data)
            data = data.sequences()
        return everything(data)

    def recommend(
        self,
        sequences: Any = None,
        *,
        users: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
    ) -> pl.DataFrame:
        """The best next items for anyone's history, or for users of the training data. See
        ``seqrec.serving.recommender.recommend``."""
        return recommender.recommend(
            self,
            sequences,
            users=users,
            k=k,
            filter_seen=filter_seen,
            allow=allow,
            deny=deny,
            on_unknown=on_unknown,
        )

    def save(self, folder: str | Path, histories: bool = True) -> None:
        """Writes the model as a folder of safetensors, Parquet and JSON. See ``seqrec.serving.artifact``.

        Args:
            histories: also write the users' histories, so that ``recommend(users=...)`` works after loading.
        """
        if self.item_catalogue is None:
            raise DataError(f"{self.name} is not trained. Call fit before save.")
        kept = (self.sequences, self.known_stops) if histories else (None, None)
        users = 0 if self.sequences is None else self.sequences.users
        about = self.fit_report, self.provenance
        artifact.write(
            folder,
            artifact.Contents(
                self.name, self.configuration(), self.state(), self.item_catalogue, users, *kept, *about
            ),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Opens a folder that ``save`` wrote. Of whichever class: ``seqrec.load``.

        Raises:
            DataError: the folder holds no whole model, or one of another class.
        """
        return artifact.load(folder, cls.of)

    @classmethod
    def of(cls, found: artifact.Contents) -> Self:
        """The model that was taken apart for saving.

        Raises:
            DataError: it is one of another class.
        """
        if found.name != cls.name:
            raise DataError(f"expected a {cls.name} model. Got {found.name!r}.")
        model = cls(**found.configuration)
        model.item_catalogue, model.sequences, model.known_stops = (
            found.item_catalogue,
            found.sequences,
            found.known_stops,
        )
        model.load_state(found.state, len(found.item_catalogue), found.users)
        model.fit_report, model.provenance = found.fit_report, found.provenance
        return model

    def numbering(self) -> dict[str, Catalogue | None]:
        """What the indices of items and users stand for."""
        return {
            "item": self.item_catalogue,
            "user": None if self.sequences is None else self.sequences.user_catalogue,
        }

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        """The scores of a few histories at a time, fewer where the catalogue is large: see
        ``seqrec.scoring``."""
        items = 0 if self.item_catalogue is None else len(self.item_catalogue)
        at_once = max(1, min(rows, CELLS // max(1, items)))
        order = np.argsort(query.lengths, kind="stable")
        for begin in range(0, len(order), at_once):
            some = order[begin : begin + at_once]
            yield Scores.whole(some, self.score(query.select(some)))
