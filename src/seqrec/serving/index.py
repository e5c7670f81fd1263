"""The best of very many items, approximately: an index of the item vectors (extra ``index``).

    exact         state x all vectors                     every item is looked at
    approximate   state x the centres of 16,000 lists     the items of the nearest lists are

An inverted file of faiss (Sivic and Zisserman: Video Google, ICCV 2003): items are in the list whose centre
has the largest product with their vector. The items found are scored exactly, filters hold, and who needs
more than the index finds (a long history, a short list of what is allowed, nothing known of a query) is
answered exactly. How many of the exact best it finds, its recall, is measured when it is built, on histories
of the model's own users.

Beside a model stand ``index.json`` and ``index-*.bin``.
"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from seqrec import storage
from seqrec.data.query import Query
from seqrec.errors import DataError, SettingsError, shown
from seqrec.serving import recommender
from seqrec.serving.by_ids import ByIds
from seqrec.serving.embeds import Embeds, ItemVectors
from seqrec.storage import marker, snapshot, version
from seqrec.topk import Filter, TopK, distinct_seen

log = logging.getLogger("seqrec")

FORMAT = 1
MARKER = "index.json"
PART = "index.bin"
ADVICE = "Build the index again (seqrec index MODEL)"
K = 20
"""Of the recall that is measured."""
ASKED = 500
"""Histories on which it is measured."""
LISTS, LEAST = 16, 16
"""So many lists for each root of the number of items, and so many items a list at least."""
SAMPLE, ROUNDS = 16, 6
"""Items a list that their centres are learned from, and rounds of learning (k-means)."""
FIRST = 8
"""Lists looked at first; twice as many, until the recall is what is asked for."""
PARALLEL = 3
"""faiss's way to share work among threads: a query each. Its own choice has them wait for each other in a
single query, which takes ten times as long where another program has a core."""
FEWEST = 8
"""One item in so many may be asked for, or has to be allowed, at most; else all are looked at."""
MOST_SEEN = 512
"""Items of the history beyond which the exact way is taken."""


class Approximate(ByIds):
    """A model that recommends by an index of its item vectors. All else is as of the model.

    Attributes:
        model: the model itself, which also answers what the index cannot.
        breadth: lists that a search looks at.
        recall: share of the 20 best items that the index finds, over the histories it was built with.

    Raises:
        SettingsError: the model has a prior, or reads times.
    """

    def __init__(self, model: Embeds, index: Any, breadth: int, recall: float = 0.0):
        check_model(model)
        self.model, self.breadth, self.recall = model, breadth, recall
        self.item_catalogue, self.sequences = model.item_catalogue, model.sequences
        self.reads_baskets, self.reads_times = model.reads_baskets, model.reads_times
        self.known_stops, self.known_times = model.known_stops, model.known_times
        self.provenance: dict[str, Any] = getattr(model, "provenance", {})
        self._index, self._vectors = index, model.vectors()
        self._index.parallel_mode = PARALLEL

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def needs_baskets(self) -> bool:
        """As of the model."""
        return self.model.needs_baskets

    @property
    def unlearned(self) -> np.ndarray:
        """(n,) int64 items that are never recommended, as of the model."""
        return self.model.unlearned

    def knows(self, query: Query) -> np.ndarray:
        """(queries,) bool, as of the model."""
        return self.model.knows(query)

    def vectors(self) -> ItemVectors:
        """The model's."""
        return self._vectors

    def state_vectors(self, query: Query) -> np.ndarray:
        """(queries, width) float32 state after each history, as of the model."""
        return self.model.state_vectors(query)

    def nearest(self, items: np.ndarray, k: int, by: str) -> TopK:
        """The k items nearest to each of (n,) items, as of the model."""
        return self.model.nearest(items, k, by)

    def best(self, query: Query, k: int, filter: Filter) -> TopK:
        """The k best items after each history, of those that the index finds."""
        items = len(self._vectors.vectors)
        k, filter = min(k, items), filter.without(self.unlearned)
        refused = filter.refused(items)
        row = distinct_seen(query)[0] if filter.seen else np.empty(0, np.int64)
        seen = np.bincount(row, minlength=len(query))
        more = int(seen.max(initial=0, where=seen <= MOST_SEEN))
        by_index = self.knows(query) & (seen <= MOST_SEEN)
        if FEWEST * (k + more) > items or (refused is not None and FEWEST * int((~refused).sum()) < items):
            by_index[:] = False
        found = TopK(
            np.full((len(query), k), -1, dtype=np.int64), np.full((len(query), k), -np.inf, dtype=np.float32)
        )
        if len(rows := np.flatnonzero(by_index)):
            some = self.search(query.select(rows), k, more, refused, filter.seen)
            found.items[rows], found.scores[rows] = some.items, some.scores
            by_index[rows] = some.items[:, -1] >= 0
        if len(rows := np.flatnonzero(~by_index)):
            exact = self.model.best(query.select(rows), k, filter)
            found.items[rows], found.scores[rows] = exact.items, exact.scores
        return found

    def search(
        self,
        query: Query,
        k: int,
        more: int = 0,
        refused: np.ndarray | None = None,
        filter_seen: bool = False,
    ) -> TopK:
        """The k best items that the index finds for each of (n,) histories, fewer where it finds no more.

        Args:
            more: how many of what it finds may have been seen.
            refused: (items,) bool, what nobody may get; None: there is none.
            filter_seen: leave out what is in the history.
        """
        faiss, v = _faiss(), self._vectors
        asked = self.model.state_vectors(query)
        if v.bias is not None:
            asked = np.pad(asked, ((0, 0), (0, 1)), constant_values=1)
        parameters: dict[str, Any] = {"nprobe": self.breadth}
        if refused is not None:
            allowed = np.packbits(~refused, bitorder="little")
            parameters["sel"] = faiss.IDSelectorBitmap(allowed)
        scores, items = self._index.search(
            np.ascontiguousarray(asked), k + more, params=faiss.SearchParametersIVF(**parameters)
        )
        scores[items < 0] = -np.inf
        if filter_seen:
            row, item = distinct_seen(query)
            pairs = np.arange(len(query))[:, None] * len(v.vectors) + items
            scores[np.isin(pairs, row * len(v.vectors) + item)] = -np.inf
        order = np.lexsort((items, -scores))[:, :k]
        items, scores = np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
        return TopK(np.where(np.isneginf(scores), -1, items), scores)

    def save(self, folder: str | Path) -> None:
        """Writes the index beside its model."""
        about = {
            **version.stamp(FORMAT),
            "vectors": _digest(self._vectors),
            "breadth": self.breadth,
            "recall": self.recall,
        }
        with snapshot.write(folder, MARKER, (PART,), about) as files, files.open(PART) as stream:
            stream.write(_faiss().serialize_index(self._index).tobytes())


def _digest(v: ItemVectors) -> str:
    """16 hexadecimal digits of the vectors."""
    digest = hashlib.sha256()
    for array in (v.vectors, v.bias):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.hexdigest()[:16]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise SettingsError("index: needs faiss. Install it with: pip install 'seqrec[index]'") from error
    return faiss


def _indexed(v: ItemVectors) -> Any:
    """An inverted file of the vectors, with the biases as one column more."""
    faiss, rng = _faiss(), np.random.default_rng(0)
    table = np.ascontiguousarray(v.vectors if v.bias is None else np.column_stack([v.vectors, v.bias]))
    items, width = table.shape
    lists = max(1, min(int(LISTS * items**0.5), items // LEAST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = ROUNDS, SAMPLE, 1
    index.train(table[rng.permutation(items)[: SAMPLE * lists]])
    index.add(table)
    return index


def check_model(model: Embeds) -> None:
    """Checks that item vectors alone tell what a model recommends.

    Raises:
        SettingsError: it has a prior, or reads times.
    """
    if model.reads_times:
        raise SettingsError(
            f"index: expected a model that reads no times. Got {model.name}, which does. Recommend with "
            "the model itself."
        )
    if getattr(model, "prior", None) is not None:
        raise SettingsError(
            "index: expected a model without a prior, since an index knows the network's scores alone. "
            f"Got {model.name} with one. Train it without, or leave the index out."
        )


def check(recall: float) -> None:
    """Checks that a recall is one.

    Raises:
        SettingsError: it is no share.
    """
    if not 0 < recall <= 1:
        raise SettingsError(f"recall: expected a share above 0 and up to 1. Got {recall!r}.")


def build(model: Embeds, recall: float = 0.95) -> Approximate:
    """An index of a model's item vectors, searched as broadly as the recall needs.

    Args:
        recall: share of the 20 best items of the model's users that it should find, unfiltered.

    Raises:
        SettingsError: a recall that is no share, a model with a prior or one that reads times, or faiss is
            not installed.
        SeqrecError: the model has no item vectors, or is not trained.
    """
    check(recall)
    check_model(model)
    begin = time.perf_counter()
    index = _indexed(model.vectors())
    built = time.perf_counter() - begin
    query = _histories(model)
    exact = model.best(query, K, Filter(seen=False)).items
    found = Approximate(model, index, FIRST)
    while True:
        near = found.search(query, exact.shape[1]).items
        found.recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, near)]))
        if found.recall >= recall or found.breadth >= index.nlist:
            break
        found.breadth *= 2
    took = {name: _median_ms(one, query) for name, one in (("approximate", found), ("exact", model))}
    log.info(
        "%s: %s items indexed in %.1f s; of the exact 20 best it finds %.1f%% on %s histories, in %.1f ms a "
        "query (exact: %.1f ms)",
        model.name,
        f"{index.ntotal:,}",
        built,
        100 * found.recall,
        f"{len(query):,}",
        took["approximate"],
        took["exact"],
    )
    if took["exact"] < took["approximate"]:
        log.warning("%s: looking at all its items is faster: leave the index out.", model.name)
    return found


def load(model: Embeds, folder: str | Path) -> Approximate:
    """The model with the index that stands in its folder.

    Raises:
        DataError: there is no whole index, or it is of another state of the model.
        SettingsError: faiss is not installed.
    """
    path = storage.join(folder, MARKER)
    if not storage.exists(path):
        raise DataError(f"{folder}: expected an index beside the model ({MARKER}). {ADVICE}.")
    about = marker.parse(marker.read(path, ADVICE, (FORMAT,)), About, path, ADVICE)
    if set(about.files) != {PART}:
        raise DataError(f"{path}: expected the file {PART}. {ADVICE}.")
    v = model.vectors()
    if about.vectors != _digest(v):
        raise DataError(f"{folder}: its index is of other item vectors than the model has now. {ADVICE}.")
    content = snapshot.read(folder, PART, about, ADVICE)
    try:
        index = _faiss().deserialize_index(np.frombuffer(content, dtype=np.uint8))
    except RuntimeError as error:
        raise DataError(f"{path}: its index cannot be read ({shown(error, str)}). {ADVICE}.") from error
    if index.ntotal != len(v.vectors):
        raise DataError(f"{path}: expected {len(v.vectors):,} items. Got {index.ntotal:,}. {ADVICE}.")
    return Approximate(model, index, about.breadth, about.recall)


class About(snapshot.Parts):
    """What an index.json says."""

    vectors: str
    """Digest of the item vectors that are indexed."""
    breadth: int = Field(ge=1)
    """Lists that a search looks at."""
    recall: float = Field(ge=0, le=1)
    """Share of the exact best that it found when it was built."""


def _histories(model: Embeds) -> Query:
    """Histories of the model's users; or of an item each, where it has kept none."""
    assert model.item_catalogue is not None
    rng = np.random.default_rng(0)
    if model.sequences is not None and model.known_stops is not None:
        users = np.flatnonzero(model.known_stops > model.sequences.offsets[:-1])
        if len(users):
            chosen = rng.choice(users, min(ASKED, len(users)), replace=False).astype(np.int32)
            return recommender.kept_histories(model, chosen)
    items = rng.choice(len(model.item_catalogue), min(ASKED, len(model.item_catalogue)), replace=False)
    baskets = [np.zeros(1, np.int64)] * len(items) if model.reads_baskets else None
    return Query.from_lists([np.array([item]) for item in items], baskets=baskets)


def _median_ms(model: Approximate | Embeds, query: Query) -> float:
    """Milliseconds for one query, the median over a few, seen items filtered."""
    taken = []
    for row in range(min(50, len(query))):
        one = query.select(np.array([row]))
        begin = time.perf_counter()
        model.best(one, K, Filter())
        taken.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(taken))
