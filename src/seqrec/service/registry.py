"""The models that are served: who answers whom, and how a new state of a model replaces the old one.

users       0 .................. .9 ....... 1      a user's place is a hash of the id: always the same
models      [      sasrec       ] [ gru4rec ]
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import polars as pl

from seqrec import storage
from seqrec.data.query import Query
from seqrec.errors import DataError, SeqrecError, SettingsError, did_you_mean
from seqrec.service.batches import Batches
from seqrec.serving.embeds import Embeds
from seqrec.serving.settings import ServiceSettings
from seqrec.topk import Filter

log = logging.getLogger("seqrec")


@dataclass(frozen=True)
class Source:
    """A model as it is named when the service starts.

    Attributes:
        name: what requests call it.
        folder: of the model, on any storage.
        share: its part of the users; the parts of all models sum to 1.
        filter_seen: whether it leaves out the items of the history if a request says nothing.
    """

    name: str
    folder: str
    share: float
    filter_seen: bool = True


@dataclass(frozen=True)
class Loaded:
    """What ``open_model`` gives.

    Attributes:
        model, runs_on: the model, and what computes it.
    """

    model: Embeds
    runs_on: Literal["torch", "onnx"]


class Served:
    """One state of a model, with its worker.

    Args:
        source: whose state it is.
        loaded: the model.
        state: the checksum of its marker.
        settings: of the service.
        measured: called with the number of histories of each batch.

    Raises:
        DataError: the model is not trained.
    """

    def __init__(
        self,
        source: Source,
        loaded: Loaded,
        state: str,
        settings: ServiceSettings,
        measured: Callable[[int], object],
    ):
        self.source, self.model, self.runs_on, self.state = source, loaded.model, loaded.runs_on, state
        if self.model.item_catalogue is None:
            raise DataError(f"{source.folder}: the model is not trained.")
        self.catalogue, self.loaded_at = self.model.item_catalogue, time.time()
        self.ids: list[Any] = self.catalogue.ids.to_list()
        attributes = self.catalogue.attributes
        self.titles: list[str | None] | None = None
        if attributes is not None and settings.titles in attributes.columns:
            self.titles = attributes[settings.titles].cast(pl.String).to_list()
        self._warm()
        self.batches = Batches(self.model, settings.batch, measured)

    def _warm(self) -> None:
        """What is made at the first question is made now."""
        first = np.zeros(min(1, len(self.ids)), dtype=np.int32)
        self.model.best(self._of_nobody(first), 1, Filter())
        assert self.catalogue.index is not None
        # (items, width) item vectors; None of a model that has none
        self.vectors: np.ndarray | None = None
        with contextlib.suppress(SeqrecError):
            self.vectors = self.model.vectors().vectors
        self.knows_alike = False
        with contextlib.suppress(SeqrecError):
            self.model.nearest(first.astype(np.int64), 1, "cosine")
            self.knows_alike = True
        if self.model.sequences is not None:
            assert self.model.sequences.user_catalogue.index is not None

    def titles_of(self, items: list[int]) -> list[str | None] | None:
        """The titles of these items; None where the catalogue has none."""
        return None if self.titles is None else [self.titles[i] for i in items]

    @property
    def users(self) -> int:
        """How many users' histories it has kept."""
        return 0 if self.model.sequences is None else self.model.sequences.users

    def history(self, user: int | str) -> tuple[int, np.ndarray, float]:
        """What it knows of a user: the index (-1: nothing), the (length,) items, and when the last of them
        was taken (seconds since 1970; -inf where that is not known)."""
        model = self.model
        if model.sequences is None or model.known_stops is None:
            return -1, np.empty(0, np.int32), -np.inf
        index = model.sequences.user_catalogue.index.get(user, -1)
        if index < 0:
            return -1, np.empty(0, np.int32), -np.inf
        known = model.sequences.items[model.sequences.offsets[index] : model.known_stops[index]]
        return index, known, -np.inf if model.known_times is None else float(model.known_times[index])

    def baskets_of(self, user: int, events: int) -> np.ndarray:
        """(events,) int64 baskets of that many first events of a user, -1 for nobody; each its own where they
        are not known."""
        s = self.model.sequences
        if user < 0 or s is None or s.baskets is None:
            return np.arange(events)
        begin = int(s.offsets[user])
        return np.asarray(s.baskets[begin : begin + events], dtype=np.int64)

    def times_of(self, user: int, events: int) -> np.ndarray:
        """(events,) seconds since 1970 of that many first events of a user, -1 for nobody.

        Raises:
            SettingsError: they were not kept.
        """
        s = self.model.sequences
        if user < 0 or s is None:
            return np.empty(0)
        if s.times is None:
            raise SettingsError(
                f"{self.source.folder}: expected a model with the times of its users' events. Got one "
                "without. Train it again."
            )
        begin = int(s.offsets[user])
        return np.asarray(s.times[begin : begin + events], dtype=np.float64)

    def _of_nobody(self, items: np.ndarray) -> Query:
        """The query of a history, (length,), of nobody."""
        baskets = [np.arange(len(items))] if self.model.reads_baskets else None
        times = [np.zeros(len(items))] if self.model.reads_times else None
        query = Query.from_lists([items], np.array([-1], np.int32), baskets, times)
        return replace(query, asked_at=np.zeros(1)) if self.model.reads_times else query

    @cached_property
    def popular(self) -> np.ndarray:
        """(items,) item indices, the most popular first."""
        nobody = self._of_nobody(np.empty(0, np.int32))
        found: np.ndarray = self.model.best(nobody, len(self.ids), Filter(False)).items[0]
        return found

    @cached_property
    def _searched(self) -> pl.DataFrame:
        ids = self.catalogue.ids.cast(pl.String).alias("id")
        texts = ids.alias("text")
        if self.titles is not None:
            titles = pl.Series(self.titles, dtype=pl.String)
            texts = titles.zip_with(titles.fill_null("") != "", ids).alias("text")
        frame = pl.DataFrame([ids.str.to_lowercase(), texts.str.to_lowercase()])
        return frame.with_columns(index=pl.int_range(pl.len()))[self.popular[self.popular >= 0]]

    def search(self, words: str, most: int) -> list[int]:
        """The indices of the items whose title (or id, where there is none) has all words: first those whose
        id or title is just that, then the most popular."""
        words = words.lower().strip()
        exact = (pl.col("id") == words) | (pl.col("text") == words)
        parts = [pl.col("text").str.contains(word, literal=True) for word in words.split()]
        found = self._searched.filter(exact | pl.all_horizontal(pl.lit(True), *parts))
        return found.sort(exact, descending=True, maintain_order=True)["index"].head(most).to_list()


def marker_of(folder: str) -> tuple[str, str] | None:
    """The folder in which a model is (of a run's folder one within), and the name of its marker; None where
    there is none."""
    for place in (folder, storage.join(folder, "serving"), storage.join(folder, "model")):
        for name in ("onnx.json", "model.json"):
            if storage.exists(storage.join(place, name)):
                return place, name
    return None


def open_model(folder: str, settings: ServiceSettings) -> Loaded:
    """The model of a folder: one of torch, or one exported to ONNX, which needs no torch.

    Raises:
        DataError: the folder holds none.
    """
    found = marker_of(folder)
    if found is None:
        raise DataError(
            f"{folder}: expected the folder of a trained model, of a run, or of an exported model. Train and "
            "save one first."
        )
    place, name = found
    threads = settings.threads or max(1, (os.cpu_count() or 1) - 1)  # one is left for the requests
    if name == "onnx.json":
        from seqrec.serving import onnx_model

        loaded = Loaded(onnx_model.load(place, threads), "onnx")
    else:
        loaded = Loaded(_of_torch(place, threads, settings), "torch")
    if settings.approximate:
        from seqrec.serving import index

        return Loaded(index.load(loaded.model, place), loaded.runs_on)
    return loaded


def _of_torch(place: str, threads: int, settings: ServiceSettings) -> Embeds:
    import torch

    from seqrec import models

    torch.set_num_threads(threads)
    model = models.load_model(place, settings.device)
    stream = getattr(model, "stream", None)
    if stream is not None:
        stream(settings.remembered)
    return model


def _state(folder: str) -> str:
    """The checksum of the marker of a folder's model, and of its index, if it has one; "" without a model."""
    found = marker_of(folder)
    if found is None:
        return ""
    digest = hashlib.sha256()
    for name in (found[1], "index.json"):
        path = storage.join(found[0], name)
        if storage.exists(path):
            with storage.open_read(path) as stream:
                digest.update(stream.read())
    return digest.hexdigest()[:16]


class Registry:
    """All models of a service.

    Args:
        sources: at least one, with distinct names.
        settings: of the service.
        opened: makes a model of a source.
        measured: called with a model's name and the number of histories of each of its batches.
        reloaded: called with a model's name and whether it could be loaded again.

    Raises:
        SettingsError: names or shares that do not fit.
        DataError: a folder that holds no model.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: ServiceSettings,
        opened: Callable[[str, ServiceSettings], Loaded] = open_model,
        measured: Callable[[str, int], object] = lambda name, size: None,
        reloaded: Callable[[str, bool], object] = lambda name, success: None,
    ):
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            raise SettingsError(
                f"models: expected at least one, each with a name of its own. Got {names}. "
                "Name them, as mine=FOLDER."
            )
        if min(s.share for s in sources) < 0 or abs(sum(s.share for s in sources) - 1) > 1e-6:
            raise SettingsError(
                f"share: expected parts from 0 to 1 that sum to 1. Got {[s.share for s in sources]}."
            )
        self.settings, self._opened, self._measured, self._reloaded = settings, opened, measured, reloaded
        self._edges = list(accumulate(source.share for source in sources))
        self._lock = threading.Lock()
        self._refused: dict[str, str] = {}
        self.served = {source.name: self._load(source) for source in sources}
        self.check_ids()

    def check_ids(self) -> None:
        """Refuses models whose ids are of different types: one request could not ask them all.

        Raises:
            SettingsError: says which.
        """
        kinds = {name: one.catalogue.ids.dtype.is_integer() for name, one in self.served.items()}
        if len(set(kinds.values())) > 1:
            raise SettingsError(
                "models: expected item ids of one type. Got whole numbers in "
                f"{[n for n in kinds if kinds[n]]} and texts in {[n for n in kinds if not kinds[n]]}. "
                "Serve them apart."
            )

    def _load(self, source: Source) -> Served:
        # the marker first: if it changes while the model is loaded, the next look sees another
        state = _state(source.folder)
        loaded = self._opened(source.folder, self.settings)
        name = source.name
        return Served(source, loaded, state, self.settings, lambda size: self._measured(name, size))

    @property
    def first(self) -> Served:
        """The model that was named first."""
        return next(iter(self.served.values()))

    def named(self, name: str) -> Served:
        """The model of that name.

        Raises:
            SettingsError: there is none.
        """
        if name not in self.served:
            raise SettingsError(f"model: no model {name!r} is served.{did_you_mean(name, self.served)}")
        return self.served[name]

    def of(self, key: object) -> Served:
        """The model that a user, or whatever is told instead, falls to: always the same while the shares
        are."""
        models = list(self.served.values())
        if len(models) == 1:
            return models[0]
        digest = hashlib.blake2b(str(key).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        return next((m for m, edge in zip(models, self._edges) if place < edge), models[-1])

    def changed(self) -> list[Source]:
        """The models whose folders have another state than the one that is served."""
        found = []
        for name, served in self.served.items():
            try:
                state = _state(served.source.folder)
            except (SeqrecError, OSError) as error:
                log.warning("%s: cannot be looked at (%s); the loaded state goes on.", name, error)
                continue
            if state and state not in (served.state, self._refused.get(name)):
                found.append(served.source)
        return found

    def reload(self, swap: Callable[[Callable[[], None]], object] = lambda replace: replace()) -> list[str]:
        """Loads models whose folders have changed, and says which. One that cannot be loaded is left as it
        is, and not tried again until its folder changes. Takes as long as loading does.

        Args:
            swap: runs the function that puts the new state in place, there where requests choose theirs.
        """
        done = []
        with self._lock:
            for source in self.changed():
                try:
                    served = self._load(source)
                    self._check_alike(source.name, served)
                except Exception as error:
                    self._refused[source.name] = _state(source.folder)
                    log.error(
                        "%s: the new state was not loaded (%s); the old one goes on.", source.name, error
                    )
                    self._reloaded(source.name, False)
                    continue
                swap(lambda served=served: self._replace(served))  # type: ignore[misc]
                log.info("%s: now serves the state %s.", source.name, served.state)
                self._reloaded(source.name, True)
                done.append(source.name)
        return done

    def _check_alike(self, name: str, served: Served) -> None:
        before = self.served[name].catalogue.ids.dtype
        if before.is_integer() != served.catalogue.ids.dtype.is_integer():
            served.batches.close()
            raise DataError(f"its item ids are of another type than before ({before}).")

    def _replace(self, served: Served) -> None:
        old = self.served[served.source.name]
        self.served[served.source.name] = served
        # Jobs that it has taken are answered first. Requests choose and hand in without a pause, in the
        # loop that runs this.
        old.batches.close()

    def close(self) -> None:
        """Ends all workers, once they have answered what waits."""
        for served in self.served.values():
            served.batches.close()
