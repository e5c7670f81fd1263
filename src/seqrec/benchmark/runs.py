"""The output folders of `seqrec train` as results: so that they can be compared, and put into a report.

A folder has a model and its settings, but no ranks: its model is asked the test queries again, on the data of
its run.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from seqrec import __version__, storage
from seqrec.benchmark import results
from seqrec.benchmark.results import Result, Row
from seqrec.errors import DataError, SettingsError
from seqrec.evaluation import comparison, metrics
from seqrec.experiment.settings import read_run
from seqrec.tables import Table


def collect(entries: str | Path | Iterable[str | Path], data_dir: str | None = None) -> list[Result]:
    """The results in folders and files, as ``results.collect``; the output folders of runs among them, or
    below them, are results too.

    Raises:
        DataError: no such file or folder, or a JSON file that is neither.
    """
    found: list[Result] = []
    for entry in [entries] if isinstance(entries, str | Path) else entries:
        if not storage.exists(entry):
            raise DataError(f"{entry}: no such file or folder.")
        folders: list[str] = []
        if storage.is_folder(entry):
            below = storage.files_below(entry)
            folders = [storage.parent(path) for path in below if Path(path).name == "run.json"]
        found += [of_run(folder, data_dir) for folder in folders]
        if not folders:
            found += results.collect(entry)
            continue
        inside = tuple(f"{folder}/" for folder in folders)
        rest = [path for path in below if path.endswith(".json") and not path.startswith(inside)]
        found += results.collect([path for path in rest if not Path(path).name.startswith(".")])
    return found


def of_run(folder: str, data_dir: str | None = None) -> Result:
    """The output folder of a run as a result. Its protocol is the run's; or, of a run that names none, a name
    made from its data and split, so that runs on the same test queries stand in one table."""
    from seqrec.experiment import judge  # torch

    run = read_run(folder)
    model, known, tested = judge.again(folder, data_dir)
    data = run.get("data", {})
    source = data.get("name") or data.get("path") or ""
    name = Path(source[0] if isinstance(source, list) else source).name
    split = known.settings["name"]
    report, test = model.fit_report, tested.ranks
    targets, first = known.targets(known.test), known.test.first_targets
    popularity = np.add.reduceat(known.item_counts[targets], first[:-1]) // np.diff(first)
    headline = (run.get("evaluate") or {}).get("metrics", ["ndcg@10", "recall@10"])[:2]
    shown = "filtered" if tested.filter_seen else "unfiltered"
    other = "metrics_unfiltered" if tested.filter_seen else "metrics_filtered"
    protocol = Path(run["protocol"]).stem if run.get("protocol") else f"{name}, {split}, {shown}"
    label = Path(folder).resolve().name if not storage.is_remote(folder) else folder.rsplit("/", 1)[-1]
    headline_ranks = test.headline(tested.filter_seen)
    content = {
        "protocol": protocol,
        "title": protocol,
        "model": f"{model.name} ({label})",
        "seed": report.seed or 0,
        "settings": {"model": model.reference(), **model.configuration()},
        "filter_seen": tested.filter_seen,
        "headline": list(headline),
        "metrics": tested.metrics,
        other: comparison.intervals(
            comparison.by_user(test.metrics(not tested.filter_seen, metrics.CUTOFFS, headline), test.users)
        ),
        "validation_metrics": {},
        "train_seconds": report.train_seconds,
        "peak_memory_mb": None,
        "positions_per_second": report.positions_per_second,
        "curve": list(report.curve),
        "items": len(known.sequences.item_catalogue),
        "users": known.sequences.users,
        "events": known.sequences.events,
        "queries": len(known.test),
        "cold_targets": float((known.item_counts[targets] == 0).mean()),
        "cold_targets_miss": known.cold_targets_miss,
        "split": known.settings,
        "split_hash": known.hash,
        "data": {"name": name, "revision": "as it is here", "source": "the run's log"},
        "by_history_length": results.by_bin(
            known.query(known.test).lengths, headline_ranks, headline, offsets=test.offsets
        ),
        "by_item_popularity": results.by_bin(popularity, headline_ranks, headline, offsets=test.offsets),
        "ranks": results.pack_ranks(test),
        "variants": [],
        "commit": f"seqrec {__version__}",
        "hardware": "not known of a run of seqrec train",
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return Result(content, storage.join(folder, "run.json"))


def compare(
    one: str,
    other: str,
    names: Iterable[str] = ("ndcg@10", "recall@10", "mrr@10"),
    data_dir: str | None = None,
) -> Table:
    """Two models on the same test queries, with the paired test: a run's folder, a result file, or a folder
    with the result files of one model's seeds each.

    Raises:
        SettingsError: an unknown metric, or test queries, candidates or filters that differ.
        DataError: no such result, or several models in one folder.
    """
    rows = [_row(entry, data_dir) for entry in (one, other)]
    first, second = (row.runs[0] for row in rows)
    for key, what in (
        ("split_hash", "the same test queries (split)"),
        ("items", "as many candidates"),
        ("filter_seen", "the same filter of seen items (evaluate.filter_seen)"),
    ):
        if first[key] != second[key]:
            raise SettingsError(
                f"{other}: expected {what} as in {one}, {first[key]}. Got {second[key]}. Only runs on "
                "the same test queries can be compared: use the same data, split and filter."
            )
    values = [row.headline for row in rows]
    lines = []
    for name in names:
        metrics.parse(name)
        if any(name not in value.sums for value in values):
            known = ", ".join(values[0].sums)
            raise SettingsError(f"metric {name}: the results do not have it. Known: {known}.")
        intervals = [row.intervals([name])[name] for row in rows]
        p = float(comparison.paired_tests(values, name)[0, 1])
        difference = comparison.UserValues(
            values[0].users, values[0].counts, {name: values[1].sums[name] - values[0].sums[name]}
        )
        lines.append(
            {
                "metric": name,
                "A": intervals[0],
                "B": intervals[1],
                "B - A": comparison.intervals(difference)[name],
                "p": p,
            }
        )
    notes = [
        *(
            f"{letter}: {row.model}, {entry}"
            for letter, row, entry in zip("AB", rows, (one, other), strict=True)
        ),
        f"{first.get('queries', 0):,} test queries; seen items are "
        f"{'filtered' if first['filter_seen'] else 'not filtered'}. In brackets: 95% intervals over users.",
        "p: paired randomisation test of a user's values, each metric for itself: below .05 the two differ.",
        f"Seeds: A {', '.join(map(str, rows[0].seeds))}; B {', '.join(map(str, rows[1].seeds))}. A user's "
        "value is the mean over them; intervals and p leave out how other seeds would come out.",
    ]
    return Table("", ["metric", "A", "B", "B - A", "p"], lines, notes, {"p": lambda p: f"{p:.4f}"})


def _row(entry: str, data_dir: str | None) -> Row:
    runs = collect(entry, data_dir)
    models = sorted({run["model"] for run in runs})
    if len(models) != 1 or len({run["protocol"] for run in runs}) != 1:
        raise DataError(
            f"{entry}: expected the results of one model under one protocol. Got "
            f"{', '.join(models) or 'none'}. Name a run's folder, a result file, or the folder of one "
            "model's seeds."
        )
    return Row(models[0], tuple(sorted(runs, key=lambda run: run["seed"])), runs[0]["filter_seen"])
