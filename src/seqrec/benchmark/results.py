"""Result files: one self-contained JSON document a run, and the rows of a table made from them.

Per-query ranks are kept, so that any metric, interval or paired test can be computed later without another
run. They are packed (smallest unsigned type, zlib, base64): 6,040 ranks are about 12 KB.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from seqrec import storage
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation import comparison, metrics
from seqrec.evaluation.comparison import UserValues
from seqrec.experiment.protocol import Protocol, names, read_protocol
from seqrec.experiment.settings import upgraded
from seqrec.storage import marker

if TYPE_CHECKING:  # it imports torch
    from seqrec.evaluation.ranking import Ranks

WHAT = ("protocol", "model", "seed", "settings", "filter_seen", "items", "users", "split_hash")
MEASURED = (
    "metrics",
    "validation_metrics",
    "ranks",
    "train_seconds",
    "peak_memory_mb",
    "positions_per_second",
)
WHENCE = ("commit", "hardware", "date")
REQUIRED = (*WHAT, *MEASURED, *WHENCE)
BINS = 5
ADDED = {
    "baskets": 0,
    "drop_ids": 0.0,
    "dropout_at": "pooled",
    "dropout_between": 0.0,
    "dropout_item": 0.0,
    "most_items": 5_000,
    "objective": "positions",
    "output_layer": False,
    "own": "keep",
    "prefixes_from": 0.0,
    "repeats": True,
    "rows": "lanes",
    "seen": "keep",
    "streams": 1,
    "top": 0,
    "window": 1,
}
"""Settings that were added since, with the value that says: as before."""
ADVICE = "Run the benchmark again for this file"


def pack(array: np.ndarray) -> dict[str, Any]:
    """An (n,) array of whole numbers from 0 on as a JSON value."""
    dtype = np.min_scalar_type(int(array.max(initial=0)))
    data = zlib.compress(array.astype(dtype).astype(dtype.newbyteorder("<")).tobytes(), 9)
    return {"dtype": dtype.name, "length": len(array), "zlib_base64": base64.b64encode(data).decode()}


def unpack(value: Mapping[str, Any]) -> np.ndarray:
    """The (length,) int64 array that ``pack`` was given.

    Raises:
        DataError: the value is damaged or incomplete.
    """
    try:
        most = int(value["length"]) * np.dtype(value["dtype"]).itemsize
        opened = zlib.decompressobj()
        data = opened.decompress(base64.b64decode(value["zlib_base64"], validate=True), most + 1)
        if len(data) > most or not opened.eof:
            raise ValueError(f"not {most} bytes")
        array = np.frombuffer(data, dtype=np.dtype(value["dtype"]).newbyteorder("<")).astype(np.int64)
    except (KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
        raise DataError(
            f"packed array: not readable ({error}). Run the benchmark again for this file."
        ) from error
    if len(array) != value.get("length"):
        raise DataError(
            f"packed array: expected {value.get('length')} values. Got {len(array)}. Run the benchmark "
            "again for this file."
        )
    return array


def pack_ranks(ranks: Ranks) -> dict[str, Any]:
    """Filtered and unfiltered rank of every target, and user of every query (as differences, which are
    small); and how many targets each query has, where it is not one."""
    several = {} if ranks.offsets is None else {"targets": pack(np.diff(ranks.offsets))}
    return several | {
        "filtered": pack(ranks.filtered),
        "unfiltered": pack(ranks.unfiltered),
        "users": pack(np.diff(ranks.users, prepend=0)),
    }


def by_bin(
    values: np.ndarray,
    ranks: np.ndarray,
    names: Iterable[str],
    bins: int = BINS,
    offsets: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Metrics of the queries in bins of a property, with about as many queries each.

    Queries with value 0 are a bin of their own.

    Args:
        values: (queries,) the property (history length, training events of the target).
        ranks: (targets,) headline ranks.
        offsets: (queries + 1,) where the targets of each query begin; None: each has one.

    Returns:
        one dictionary a bin: ``low`` and ``high`` (both included), ``queries``, and each metric.
    """
    measured = {
        name: metrics.values(metric, ranks, k, offsets)
        for name in names
        for metric, k in [metrics.parse(name)]
    }
    some = np.sort(values[values > 0])
    # the largest value of each bin
    edges = (
        np.unique(some[[-(-len(some) * i // bins) - 1 for i in range(1, bins + 1)]]) if len(some) else some
    )
    group = np.where(values > 0, np.searchsorted(edges, values) + 1, 0)
    result = []
    for g in np.unique(group):
        inside = group == g
        row = {
            "low": int(values[inside].min()),
            "high": int(values[inside].max()),
            "queries": int(inside.sum()),
        }
        result.append(row | {name: float(of_queries[inside].mean()) for name, of_queries in measured.items()})
    return result


class _Packed(marker.Schema):
    dtype: Literal["uint8", "uint16", "uint32", "uint64"]
    length: int = Field(ge=0, le=2**32)
    zlib_base64: str


class _Ranks(marker.Schema):
    filtered: _Packed
    unfiltered: _Packed
    users: _Packed
    targets: _Packed | None = None


class _Interval(marker.Schema):
    mean: float
    low: float
    high: float


class _Variant(marker.Schema):
    ranks: _Ranks
    metrics: dict[str, _Interval]


class _Example(marker.Schema):
    user: str
    history: list[str]
    recommended: list[str]
    target: str
    rank: int


class _Data(marker.Schema):
    name: str
    revision: str
    source: str


class _About(marker.Schema):
    """What a result file says, as far as tables and pages read it."""

    protocol: str
    model: str
    seed: int = Field(ge=0)
    settings: dict[str, Any]
    filter_seen: bool
    items: int = Field(ge=0)
    users: int = Field(ge=0)
    split_hash: str
    metrics: dict[str, _Interval]
    validation_metrics: dict[str, Any] | None
    ranks: _Ranks
    train_seconds: float
    peak_memory_mb: float
    positions_per_second: float | None
    commit: str
    hardware: str
    date: str
    title: str | None = None
    headline: list[str] | None = None
    variants: list[str] | None = None
    queries: int | None = None
    events: int | None = None
    ties: int | None = None
    ties_unfiltered: int | None = None
    cold_targets: float | None = None
    cold_targets_miss: bool | None = None
    retrained: bool | None = None
    lists: dict[str, float] | None = None
    curve: list[dict[str, float]] | None = None
    data: _Data | None = None
    examples: list[_Example] | None = None
    samples: list[_Example] | None = None
    by_history_length: list[dict[str, float]] | None = None
    by_item_popularity: list[dict[str, float]] | None = None


@dataclass(frozen=True)
class Result:
    """One run, as read from its file.

    Attributes:
        content: the JSON document.
        path: where it was read from, for messages.
    """

    content: dict[str, Any]
    path: str

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return self.content.get(key, default)

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """A result from its file.

        Raises:
            DataError: not a result file, or an incomplete one.
        """
        content = marker.read(path, ADVICE)
        missing = [key for key in REQUIRED if key not in content]
        if missing:
            raise DataError(
                f"{path}: expected a result file of seqrec benchmark. Missing keys: {', '.join(missing)}."
            )
        about = marker.parse(content, _About, path, ADVICE)
        for variant in about.variants or ():
            own = {key: content.get(f"{key}_{variant}") for key in ("ranks", "metrics")}
            marker.parse(own, _Variant, f"{path}: {variant}", ADVICE)
        found = cls(content, str(path))
        try:
            found.check()
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        return found

    def check(self) -> None:
        """Checks that users, targets and ranks belong together.

        Raises:
            DataError: they do not.
        """
        for variant in ("", *(self.get("variants") or ())):
            packed = self.content[f"ranks_{variant}" if variant else "ranks"]
            of_users = unpack(packed["users"])
            targets = int(unpack(packed["targets"]).sum()) if "targets" in packed else len(of_users)
            if "targets" in packed and packed["targets"]["length"] != len(of_users):
                raise DataError(f"ranks: expected targets of {len(of_users)} queries. {ADVICE}.")
            for key in ("filtered", "unfiltered"):
                ranks = unpack(packed[key])
                if len(ranks) != targets or not len(ranks) or ranks.min() < 1:
                    raise DataError(f"ranks.{key}: expected {targets:,} ranks from 1 on. {ADVICE}.")

    @property
    def examples(self) -> list[dict[str, Any]]:
        """A few queries as one would read them (older files call them samples)."""
        return self.get("examples") or self.get("samples") or []

    def ranks(self, filter_seen: bool, variant: str = "") -> np.ndarray:
        """(targets,) int64 ranks, from 1.

        Raises:
            DataError: they are damaged.
        """
        return unpack(
            self.content[f"ranks_{variant}" if variant else "ranks"][
                "filtered" if filter_seen else "unfiltered"
            ]
        )

    def offsets(self, variant: str = "") -> np.ndarray | None:
        """(queries + 1,) where the targets of each query begin; None: each has one.

        Raises:
            DataError: they are damaged.
        """
        packed = self.content[f"ranks_{variant}" if variant else "ranks"]
        if "targets" not in packed:
            return None
        return np.concatenate([[0], np.cumsum(unpack(packed["targets"]))])

    def values(
        self, filter_seen: bool, cutoffs: Sequence[int] = metrics.CUTOFFS, variant: str = ""
    ) -> UserValues:
        """Every metric by user."""
        packed = self.content[f"ranks_{variant}" if variant else "ranks"]
        users, offsets = np.cumsum(unpack(packed["users"])), self.offsets(variant)
        ranks, more = self.ranks(filter_seen, variant), self.get("headline") or ()
        return comparison.by_user(metrics.from_ranks(ranks, tuple(cutoffs), more, offsets), users)


def collect(results: str | Path | Iterable[str | Path | Result]) -> list[Result]:
    """All results below a folder, or in several files and folders, by protocol, model and seed.

    Raises:
        DataError: a folder or file that does not exist, or a JSON file that is not a result.
    """
    found: list[Result] = []
    for entry in [results] if isinstance(results, str | Path) else results:
        if isinstance(entry, Result):
            found.append(entry)
        elif storage.is_folder(entry):
            found += [
                Result.read(path)
                for path in storage.files_below(entry)
                if path.endswith(".json") and not Path(path).name.startswith(".")
            ]
        else:
            found.append(Result.read(entry))
    return sorted(found, key=lambda r: (r["protocol"], r["model"], r["seed"]))


def same_settings(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the settings of two results agree, whichever versions wrote them.

    None counts as absent, and so do the values of ``ADDED``: older results lack settings that were added
    later.
    """
    return bool(_set(upgraded(one)) == _set(upgraded(other)))


def _set(settings: Any) -> Any:
    if isinstance(settings, list):  # the members of an ensemble
        return [_set(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        key: _set(value)
        for key, value in settings.items()
        if value is not None and not (key in ADDED and value == ADDED[key])
    }


@lru_cache
def protocol_of(name: str) -> Protocol | None:
    """The shipped protocol of this name, if there is one."""
    return read_protocol(name) if name in names() else None


@dataclass(frozen=True)
class Row:
    """All seeds of one model under one protocol: a row of a table.

    Attributes:
        model: the row's label.
        runs: in the order of their seeds, with the same settings, split and queries.
        filter_seen: whether the protocol's headline is filtered.
    """

    model: str
    runs: tuple[Result, ...]
    filter_seen: bool

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [run["seed"] for run in self.runs]

    def values(self, filter_seen: bool | None = None, variant: str = "") -> UserValues:
        """Every metric by user, mean over seeds; under the headline's filter by default."""
        chosen = self.filter_seen if filter_seen is None else filter_seen
        return comparison.over_seeds([run.values(chosen, variant=variant) for run in self.runs])

    @cached_property
    def headline(self) -> UserValues:
        """Every metric by user, mean over seeds, under the headline's filter."""
        return self.values()

    def intervals(
        self, names: Sequence[str], filter_seen: bool | None = None, variant: str = ""
    ) -> dict[str, dict[str, float]]:
        """Mean over seeds of some metrics, with 95% intervals over users."""
        values = self.values(filter_seen, variant)
        return comparison.intervals(
            UserValues(values.users, values.counts, {name: values.sums[name] for name in names})
        )

    def spread(self, name: str) -> float | None:
        """Standard deviation of a headline metric over seeds; None with fewer than two."""
        means = [run["metrics"][name]["mean"] for run in self.runs]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def mean(self, key: str) -> float | None:
        """Mean over the runs of a number in the files; None if a run lacks it."""
        found = [run.get(key) for run in self.runs]
        return None if any(value is None for value in found) else float(np.mean(found))


@dataclass(frozen=True)
class Group:
    """All results of one protocol.

    Attributes:
        protocol, title, description: of the protocol.
        filter_seen: whether the headline metrics filter seen items.
        headline: names of the metrics in the table.
        variants: names of other query sets that are measured too.
        rows: best first, by the first headline metric.
        compared: model -> its test against the best.
    """

    protocol: str
    title: str
    description: str
    filter_seen: bool
    headline: tuple[str, ...]
    variants: tuple[str, ...]
    rows: tuple[Row, ...]
    compared: dict[str, comparison.Comparison]

    @property
    def runs(self) -> list[Result]:
        """The runs of all rows."""
        return [run for row in self.rows for run in row.runs]

    def all_of(self, key: str) -> list[Any]:
        """The distinct values of a key over all runs."""
        return [
            json.loads(text)
            for text in sorted({json.dumps(run.get(key), sort_keys=True) for run in self.runs})
        ]


def groups(results: Iterable[Result]) -> list[Group]:
    """Results grouped by protocol and model.

    Raises:
        DataError: runs that do not belong in one table: different splits or candidates, different settings
            for the seeds of a model, or a seed with several files.
    """
    by_protocol: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        by_protocol.setdefault(result["protocol"], {}).setdefault(result["model"], []).append(result)
    return [group(protocol, by_model) for protocol, by_model in sorted(by_protocol.items())]


def group(protocol: str, by_model: dict[str, list[Result]]) -> Group:
    """The results of one protocol as a group.

    Raises:
        DataError: as ``groups``.
    """
    declared = protocol_of(protocol)
    first = next(iter(by_model.values()))[0]
    expected = {key: first[key] for key in ("split_hash", "items", "users", "filter_seen")}
    if declared is not None and declared.split_hash is not None:
        expected["split_hash"] = declared.split_hash
    rows = []
    for model, runs in by_model.items():
        runs = sorted(runs, key=lambda run: run["seed"])
        for run in runs:
            for key, value in expected.items():
                if run[key] != value:
                    raise DataError(
                        f"{run.path}: {key}: expected {value!r} as in the other results of {protocol}. "
                        f"Got {run[key]!r}. Run it again."
                    )
            if not same_settings(run["settings"], runs[0]["settings"]):
                raise DataError(
                    f"{run.path}: settings: expected those of {runs[0].path}. Remove the files of "
                    "settings no longer wanted."
                )
        if len({run["seed"] for run in runs}) < len(runs):
            raise DataError(
                f"{runs[0].path}: {protocol}, {model}: a seed has several result files. Keep one of each."
            )
        rows.append(Row(model, tuple(runs), first["filter_seen"]))
    headline = (
        tuple(declared.headline)
        if declared is not None
        else tuple(first.get("headline") or ("ndcg@10", "recall@10"))
    )
    try:
        compared = {
            c.model: c for c in comparison.compare({row.model: row.headline for row in rows}, headline[0])
        }
    except SettingsError as error:
        raise DataError(
            f"{protocol}: results on different queries do not belong in one table ({error})"
        ) from error
    rows.sort(key=lambda row: list(compared).index(row.model))
    return Group(
        protocol,
        declared.title if declared else first.get("title", protocol),
        declared.description if declared else "",
        first["filter_seen"],
        headline,
        tuple(first.get("variants") or ()),
        tuple(rows),
        compared,
    )
