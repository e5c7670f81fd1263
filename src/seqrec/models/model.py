"""What every model offers: ``fit``, ``recommend``, ``save``, ``load``. One class, and ``NeuralModel`` below
it for models trained by gradient."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import polars as pl
import torch

from seqrec import scoring
from seqrec.data.catalogue import Catalogue
from seqrec.data.interactions import Interactions
from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, SeqrecError, SettingsError, TrainingError
from seqrec.evaluation import evaluation
from seqrec.evaluation.evaluation import Evaluation
from seqrec.models import warm_start
from seqrec.models.signature import documentation_of, signature_of
from seqrec.scoring import CELLS, ROWS, Scores
from seqrec.serving import artifact, onnx_model, similar
from seqrec.serving.by_ids import ByIds
from seqrec.serving.embeds import ItemVectors
from seqrec.settings import names
from seqrec.settings.base import Settings
from seqrec.splitting.everything import everything
from seqrec.splitting.split import Split
from seqrec.topk import Filter, TopK
from seqrec.training.device import choose_device
from seqrec.training.options import FitChanges, FitOptions, FitReport
from seqrec.training.settings import TrainSettings

log = logging.getLogger("seqrec")

BASKETS = (
    "%s: this model does not read the log's baskets. The items of a basket have no order, but splits and "
    "models take them one after another, in the file's. Compare with a random order of ties "
    "(tie_order=random), or take a model that reads baskets: tifu_knn, up_cf, taiw, personal_top; hrm or "
    "fpmc with baskets=1, gru4rec or sasrec with pool_baskets=average."
)


@contextmanager
def told_of_baskets_once() -> Iterator[None]:
    """Within it, models that do not read baskets say so once for all of them: for a search among many."""
    told = False

    def first(record: logging.LogRecord) -> bool:
        nonlocal told
        if record.msg != BASKETS:
            return True
        record.msg = BASKETS.replace("%s: this model does not read", "%s is a model that does not read")
        told, before = True, told
        return not before

    log.addFilter(first)
    try:
        yield
    finally:
        log.removeFilter(first)


class Model(ByIds, ABC):
    """A recommender of next items.

    A subclass gives ``name``, ``Settings``, ``fit_split``, ``score``, and ``state`` / ``load_state`` for
    saving. Nothing else depends on what it is.

    Args:
        settings: the fields of the model's ``Settings``; an unknown one raises ``SettingsError``.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    # sections of a run that it takes beside ``model``, and what each says; those of NeuralModel, or none
    sections: ClassVar[Mapping[str, str]] = {}
    # whether scores are at least 0, and twice as high for what is twice as likely
    counts_occurrences: ClassVar[bool] = False
    # whether the order of a history says anything to it
    reads_order: ClassVar[bool] = True
    # whether histories are saved with their times, by a model that has a moment of its own where nobody asks
    # for one
    keeps_times: bool = False
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        if hasattr(cls, "Settings"):
            init = inspect.signature(cls.__init__)
            cls.__signature__ = signature_of(init, cls.Settings)
            cls.__doc__ = documentation_of(cls, cls.Settings, cls.sections)

    def __init__(self, **settings: Any):
        self.settings: Any = self.Settings.of(settings, self.name)
        self.item_catalogue: Catalogue | None = None
        self.sequences: Sequences | None = None
        self.known_stops: np.ndarray | None = None
        self.known_times: np.ndarray | None = None
        self._fit_report: FitReport | None = None
        self._users = 0  # of a loaded model, whose histories may have been left out
        self.provenance: dict[str, Any] = {}

    @property
    def needs_baskets(self) -> bool:
        """Whether it was trained on baskets and reads them, so that items alone do not say enough."""
        return self.reads_baskets and bool(self.provenance.get("baskets"))

    @classmethod
    def reference(cls) -> str:
        """What a saved model and a run file call this class: its name if the package ships it, else
        ``package.module:Name``."""
        return cls.name if cls.__module__.startswith("seqrec.") else names.reference(cls)

    @abstractmethod
    def fit_split(self, split: Split, on: FitOptions) -> None:
        """Learns from the training events of a split, and may choose its epochs on the validation queries.
        Called through ``fit``.

        Args:
            on: of which a model takes what it has a use for. One that has more to report than how long it
                took sets ``fit_report``.
        """

    @abstractmethod
    def score(self, query: Query) -> torch.Tensor:
        """(queries, items) float32 score of every item as the next one, which belongs to the caller."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Everything learned, as named arrays of any shape, (...)."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        """Takes back what ``state`` gave.

        Args:
            state: named arrays of any shape, (...).
            items, users: how many of each it was trained on.

        Raises:
            DataError: the arrays are none of such a model.
        """

    def configuration(self) -> dict[str, Any]:
        """Keyword arguments that make the same model again (JSON values)."""
        values: dict[str, Any] = self.settings.model_dump(mode="json")
        return values

    def fit(
        self,
        data: Split | Sequences | Interactions | pl.DataFrame | Any,
        on: FitOptions | None = None,
        *,
        columns: Mapping[str, str | int | None] | None = None,
        **changes: Unpack[FitChanges],
    ) -> Self:
        """Learns from a log, or from the training part of a split.

        Args:
            data: a split; or sequences, a log or a pandas / polars frame with ``user_id, item_id`` and, if
                known, ``timestamp``: then every event trains, except that models which choose their epochs
                hold out the last event of a tenth of the users (100 to 1,000) to choose on; of fewer than 200
                users nothing is held out, and all epochs are trained.
            on: seed, device, checkpoint and the like (``seqrec.training.options.FitOptions``). A model
                ignores what it has no use for.
            columns: of a frame: which column is which, ``{"user_id": "client", "item_id": "sku"}``, as in
                ``Interactions.from_frame``.
            changes: fields of ``FitOptions`` that replace those of ``on``: ``fit(log, seed=1)``.

        Returns:
            the model itself.

        Raises:
            SettingsError: an unknown option, or one out of range; columns of what is no frame; a ``start`` of
                another model or with other settings, or for a model that is not trained by gradient.
            TrainingError: no training event, or training cannot go on.
        """
        on = self._options(on, changes)
        if on.start is not None:
            on = on.model_copy(update={"start": warm_start.Start.of(on.start, type(self))})
            on.start.check(self)
        split = self._as_split(data, columns)
        # Where sets are asked for, or nothing, and no order is read, nothing hangs on the order within a
        # basket. And a repetition of an earlier fit on more events has no news.
        sound = not self.reads_order and (split.test.offsets is not None or not len(split.test))
        told = self.reads_baskets or sound or on.stop_after is not None
        if split.sequences.baskets is not None and not told:
            log.warning(BASKETS, self.name)
        if not split.train_events.any():
            raise TrainingError(
                "data: expected at least one training event. Got none; check the split's cut and the filters."
            )
        self.item_catalogue, self.sequences = split.sequences.item_catalogue, split.sequences
        self._fit_report, begin = None, time.perf_counter()
        self.fit_split(split, on)
        if self._fit_report is None:
            self.fit_report = FitReport(time.perf_counter() - begin)
        # What is known of each user when recommending: everything before their first test target.
        self.known_stops = split.known_stops
        self.known_times = split.sequences.last_times(split.known_stops)
        self.provenance = {
            "split": split.settings,
            "split_hash": split.hash,
            "train_events": int(split.train_events.sum()),
        }
        if self.reads_baskets:
            self.provenance["baskets"] = split.sequences.baskets is not None
        return self

    @staticmethod
    def _options(on: FitOptions | None, changes: FitChanges) -> FitOptions:
        for name, value in changes.items():
            if name in TrainSettings.model_fields:
                raise SettingsError(
                    f"fit.{name}: unknown setting. It is a setting of training, which neural models take "
                    f"when they are made: train={{{name!r}: {value!r}}}."
                )
        given = {name: getattr(on, name) for name in FitOptions.model_fields} if on else {}
        return FitOptions.of({**given, **changes}, "fit")

    @property
    def fit_report(self) -> FitReport:
        """What the last fit did (of a loaded model, the one before it was saved).

        Raises:
            SeqrecError: the model is not trained.
        """
        if self._fit_report is None:
            raise SeqrecError(f"{self.name} is not trained. Call fit, or load a saved model.")
        return self._fit_report

    @fit_report.setter
    def fit_report(self, report: FitReport) -> None:
        self._fit_report = report

    def fingerprint(self, split: Split, on: FitOptions) -> str:
        """What must be the same for a fit to be resumed: model, settings, seed, precision (but not the
        device), the earlier weights that it began with, and data, ids included."""
        settings = self.configuration()
        settings.pop("prior", None)  # which is added when the network is trained
        settings["train"] = settings.get("train", {}) | {"seed": on.seed, "precision": on.precision}
        if settings["train"].get("streams") == 1:  # as checkpoints of earlier versions say
            del settings["train"]["streams"]
        data = [split.hash, split.train_positions, split.sequences.ids_digest]
        if on.start is not None:
            data.append(warm_start.Start.of(on.start, type(self)).digest)
        return hashlib.sha256(
            json.dumps([self.reference(), settings, *data], sort_keys=True).encode()
        ).hexdigest()[:16]

    @staticmethod
    def _as_split(data: Any, columns: Mapping[str, str | int | None] | None = None) -> Split:
        if columns is not None and isinstance(data, Split | Sequences | Interactions):
            raise SettingsError(
                f"columns: expected a frame, whose columns have names. Got {type(data).__name__}. "
                "Leave it out."
            )
        if isinstance(data, Split):
            return data
        if not isinstance(data, Sequences):
            data = data if isinstance(data, Interactions) else Interactions.from_frame(data, columns)
            data = data.sequences()
        return everything(data)

    def evaluate(
        self, split: Split, metrics: Iterable[str] | None = None, filter_seen: bool = True
    ) -> Evaluation:
        """Asks the test queries of a split, which the model should not have been trained on: fit it on the
        same split.

        Args:
            metrics: such as ``["ndcg@10", "auc"]``; None for all at the usual cut-offs.
            filter_seen: leave out what is in the history.

        Returns:
            ``evaluation["ndcg@10"]`` is the value, ``evaluation.metrics`` has 95% intervals over users,
            ``evaluation.table()`` prints.

        Raises:
            DataError: the split's ids are not those that the model was trained on, or it has no test queries.
            SettingsError: an unknown metric.
            SeqrecError: the model is not trained.
        """
        if not isinstance(split, Split):
            raise SettingsError(
                "split: expected a split, such as SplitSettings(name='leave_one_out')"
                f".apply(log.sequences()). Got {type(split).__name__}."
            )
        if self.item_catalogue is None:
            raise SeqrecError(f"{self.name} is not trained. Call fit, or load a saved model.")
        names = None if metrics is None else list(metrics)
        found = evaluation.evaluate(self, split, split.test, names or (), filter_seen)
        return found if names is None else found.of(names)

    @property
    def unlearned(self) -> np.ndarray:
        """(n,) int64 items of which nothing was learned, and which ``recommend`` leaves out. By default none;
        a model to which an item without a training event is as good as any says here which they are."""
        return np.empty(0, dtype=np.int64)

    def vectors(self) -> ItemVectors:
        """What states are compared with, of all items.

        Raises:
            SettingsError: this model has none.
        """
        raise SettingsError(
            f"{self.name} has no item vectors. Take a model that learns some: hrm, gru4rec, sasrec or fpmc."
        )

    def state_vectors(self, query: Query) -> np.ndarray:
        """(queries, width) float32 state after each history.

        Raises:
            SettingsError: this model has none.
        """
        raise SettingsError(
            f"{self.name} has no vectors of histories. Take a model that learns some: hrm, gru4rec, sasrec "
            "or fpmc."
        )

    def nearest(self, items: np.ndarray, k: int, by: str) -> TopK:
        """The k items nearest to each of (n,) items, which are never their own neighbours. See
        ``seqrec.serving.similar.nearest``.

        Raises:
            SettingsError: an unknown measure, or this model does not know which items are alike.
        """
        return similar.nearest(self.vectors().vectors, items, k, by, self.unlearned)

    def save(self, folder: str | Path, histories: bool = True) -> None:
        """Writes the model as a folder of safetensors, Parquet and JSON. See ``seqrec.serving.artifact``.

        Args:
            histories: also write the users' histories, so that ``recommend(users=...)`` works after loading.

        Raises:
            DataError: the model is not trained.
            SettingsError: the folder has an exported model.
        """
        if self.item_catalogue is None:
            raise DataError(f"{self.name} is not trained. Call fit before save.")
        if onnx_model.is_folder(folder):  # some of its files have the same names, and would go
            raise SettingsError(
                f"{folder}: expected a folder of its own for the model. Got that of an exported model."
            )
        sequences = self.sequences
        if sequences is not None and not self.reads_baskets:
            sequences = replace(sequences, baskets=None)
        if sequences is not None and not (self.reads_times or self.keeps_times):
            sequences = replace(sequences, times=None)
        kept = (sequences, self.known_stops, self.known_times) if histories else (None, None, None)
        users = self._users if self.sequences is None else self.sequences.users
        about = self.fit_report.to_json(), self.provenance
        artifact.write(
            folder,
            artifact.Contents(
                self.reference(),
                self.configuration(),
                self.state(),
                self.item_catalogue,
                users,
                *kept,
                *about,
            ),
        )

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Opens a folder that ``save`` wrote. Of whichever class: ``seqrec.load``.

        Args:
            device: where it computes scores: "cpu", "cuda", "mps", or the best there is.

        Raises:
            DataError: the folder holds no whole model, or one of another class.
            SettingsError: this machine has no such device, or the class is none of a single model.
        """
        if not hasattr(cls, "name"):
            raise SettingsError(
                f"{cls.__name__}.load: expected the class of a model, such as seqrec.SASRec. For a folder of "
                "whichever model take seqrec.load(folder)."
            )
        where = choose_device(device)
        return artifact.load(folder, lambda found: cls.of(found, where))

    @classmethod
    def of(cls, found: artifact.Contents, device: torch.device) -> Self:
        """The model that was taken apart for saving.

        Raises:
            DataError: it is one of another class.
        """
        if found.name not in (cls.reference(), cls.name):
            raise DataError(f"expected a {cls.name} model. Got {found.name!r}.")
        model = cls(**found.configuration)
        model.item_catalogue, model.sequences = found.item_catalogue, found.sequences
        model.known_stops, model.known_times = found.known_stops, found.known_times
        model.load_state(found.state, len(found.item_catalogue), found.users)
        model._users = found.users
        model.to(device)
        model.fit_report, model.provenance = FitReport.from_json(found.fit_report), found.provenance
        return model

    def to(self, device: torch.device) -> None:
        """Moves what scores are computed with, where a model has anything to move."""

    def numbering(self) -> dict[str, Catalogue | None]:
        """What the indices of items and users stand for."""
        return {
            "item": self.item_catalogue,
            "user": None if self.sequences is None else self.sequences.user_catalogue,
        }

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool, False where nothing is known of a query and it gets the most popular items. By
        default of an empty history; a model that reads more says so here."""
        known: np.ndarray = query.lengths > 0
        return known

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        """The k best items after each history. See ``seqrec.scoring.best``.

        Raises:
            TrainingError: a score is not a number.
        """
        return scoring.best(self, query, k, filter.without(self.unlearned))

    def score_blocks(self, query: Query, rows: int = ROWS) -> Iterator[Scores]:
        """The scores of a few histories at a time, fewer where the catalogue is large: see
        ``seqrec.scoring``."""
        items = 0 if self.item_catalogue is None else len(self.item_catalogue)
        at_once = max(1, min(rows, CELLS // max(1, items)))
        order = np.argsort(query.lengths, kind="stable")
        for begin in range(0, len(order), at_once):
            some = order[begin : begin + at_once]
            asked = query.select(some)
            yield Scores.whole(some, asked, self.score(asked))
