"""One run in its own process: data, training, selection on validation, one look at the test queries, one
result file.

Started by ``runner.run`` with a request on standard input.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from seqrec import storage
from seqrec.benchmark import provenance, results
from seqrec.benchmark.runner import Config, model_of, settings_of
from seqrec.errors import SeqrecError
from seqrec.evaluation import comparison, lists, metrics, ranking
from seqrec.evaluation.ranking import Ranks
from seqrec.experiment.protocol import Protocol, load_protocol, load_sequences
from seqrec.models.model import Model
from seqrec.splitting.split import Queries, Split
from seqrec.training.options import FitOptions

SAMPLES = 4


def train(
    protocol: Protocol, label: str, config: Config, seed: int, split: Split, checkpoint: str, progress: bool
) -> tuple[Model, Model, dict[str, Any]]:
    """Selects on validation and, where the protocol says so, trains again on training and validation events.

    Returns:
        the model to validate, the model to test, and what training reported.
    """
    model = model_of(protocol, label, config)
    on = FitOptions(**config.fit.model_dump() | {"seed": seed}, progress=progress)
    model.fit(split, on, checkpoint=checkpoint)
    report = model.fit_report.to_json()
    if not protocol.retrain:
        return model, model, report
    final = model_of(protocol, label, config)
    # As many epochs, at the rates that those had.
    final.fit(
        split.retrain(),
        on,
        stop_after=report.get("best_epoch"),
        schedule_epochs=report.get("schedule_epochs"),
    )
    return model, final, report | {"retrain_seconds": final.fit_report.train_seconds}


def measure(ranks: Ranks, filter_seen: bool, cutoffs: list[int]) -> dict[str, dict[str, float]]:
    """All metrics with intervals over users."""
    return comparison.intervals(comparison.by_user(ranks.metrics(filter_seen, tuple(cutoffs)), ranks.users))


def describe_lists(ranks: Ranks, split: Split, filter_seen: bool) -> dict[str, float]:
    """Measures of the recommended lists as a whole, at 10; none where nothing is recommended, since everyone
    has seen everything."""
    lists = (ranks.lists if filter_seen else ranks.lists_unfiltered)[:, :10]
    if not (lists >= 0).any():
        return {}
    items = len(split.sequences.item_catalogue)
    return {
        "coverage@10": metrics.coverage(lists, items),
        "gini@10": metrics.gini(lists, items),
        "popularity_percentile@10": metrics.popularity_percentile(lists, split.item_counts),
        "novelty@10": metrics.novelty(lists, split.item_counts),
    }


def samples(ranks: Ranks, split: Split, queries: Queries, filter_seen: bool) -> list[dict[str, Any]]:
    """A few queries as one would read them: the end of the history, what was recommended, what came. The same
    queries for every model."""
    catalogue = split.sequences.item_catalogue
    attributes = catalogue.attributes
    names = attributes["title"] if attributes is not None and "title" in attributes.columns else catalogue.ids
    query, first = split.query(queries), queries.first_targets
    lists = ranks.lists if filter_seen else ranks.lists_unfiltered

    def named(items: np.ndarray) -> list[str]:
        return [str(names[int(item)]) for item in items if item >= 0]

    chosen = np.unique(np.linspace(0, len(queries) - 1, SAMPLES + 2).astype(int)[1:-1])
    return [
        {
            "user": str(split.sequences.user_catalogue.ids[int(queries.users[q])]),
            "history": named(query.at(q)[-5:]),
            "recommended": named(lists[q, :5]),
            "target": ", ".join(named(split.targets(queries)[first[q] : first[q + 1]])),
            "rank": int(ranks.headline(filter_seen)[first[q] : first[q + 1]].min()),
        }
        for q in chosen
    ]


def run_one(request: dict[str, Any]) -> dict[str, Any]:
    """The whole run. Returns the content of the result file, which it has written."""
    # now: while a long run goes on, the files may change
    begin, commit = time.perf_counter(), provenance.commit()
    protocol = load_protocol(request["protocol"])
    config = Config.of(request["config"], request["label"])
    sequences, source = load_sequences(protocol.data, protocol.ties, request["data_dir"])
    split = protocol.apply(sequences)
    settings = settings_of(model_of(protocol, request["label"], config), config.fit)
    path, progress = str(request["path"]), request["progress"]
    # A run that was interrupted goes on from its last epoch.
    digest = hashlib.sha256(
        json.dumps([settings, split.hash, sequences.ids_digest], sort_keys=True).encode()
    ).hexdigest()[:8]
    hidden = f".{Path(path).stem}-"
    checkpoint = storage.sibling(path, f"{hidden}{digest}.safetensors")
    model, final, report = train(
        protocol, request["label"], config, request["seed"], split, checkpoint, progress
    )

    validation = ranking.rank(model, split, split.validation, lists=False)
    known = split.retrain() if protocol.retrain else split
    asking = time.perf_counter()
    test = ranking.rank(final, known, split.test)
    evaluation_seconds = time.perf_counter() - asking
    peak = provenance.peak_memory_mb()

    filter_seen, names = protocol.filter_seen, protocol.headline
    targets, first = known.targets(split.test), split.test.first_targets
    popularity = np.add.reduceat(known.item_counts[targets], first[:-1]) // np.diff(first)
    content: dict[str, Any] = {
        "protocol": protocol.name,
        "title": protocol.title,
        "model": request["label"],
        "seed": request["seed"],
        "settings": settings,
        "filter_seen": filter_seen,
        "headline": names,
        "metrics": measure(test, filter_seen, protocol.cutoffs),
        protocol.other: measure(test, not filter_seen, protocol.cutoffs),
        "validation_metrics": measure(validation, filter_seen, protocol.cutoffs),
        "lists": describe_lists(test, known, filter_seen),
        "train_seconds": report.get("train_seconds"),
        "retrain_seconds": report.get("retrain_seconds"),
        "evaluation_seconds": evaluation_seconds,
        "peak_memory_mb": peak,
        "positions_per_second": report.get("positions_per_second"),
        "training": {
            k: v
            for k, v in report.items()
            if k in ("epochs", "best_epoch", "updates", "parameters", "device", "precision", "threads")
        },
        "curve": report.get("curve", []),
        "items": len(sequences.item_catalogue),
        "users": sequences.users,
        "events": sequences.events,
        "train_positions": split.train_positions,
        "queries": len(split.test),
        "asked_users": len(np.unique(split.test.users)),
        "ties": lists.ties_within(test, filter_seen=True),
        "ties_unfiltered": lists.ties_within(test, filter_seen=False),
        "cold_targets": float((known.item_counts[targets] == 0).mean()),
        "cold_targets_miss": split.cold_targets_miss,
        "split": split.settings,
        "split_hash": split.hash,
        "data": {"name": protocol.data.name, "revision": protocol.data.revision, "source": source_of(source)},
        "by_history_length": results.by_bin(
            split.query(split.test).lengths, test.headline(filter_seen), names, offsets=test.offsets
        ),
        "by_item_popularity": results.by_bin(
            popularity, test.headline(filter_seen), names, offsets=test.offsets
        ),
        "samples": samples(test, known, split.test, filter_seen),
        "ranks": results.pack_ranks(test),
    }
    for name in protocol.variants:
        other_split = protocol.variant(name, sequences)
        other = ranking.rank(final, known, other_split.test, lists=False)
        content |= {
            f"metrics_{name}": measure(other, filter_seen, protocol.cutoffs),
            f"{protocol.other}_{name}": measure(other, not filter_seen, protocol.cutoffs),
            f"queries_{name}": len(other_split.test),
            f"cold_targets_{name}": float((known.item_counts[known.targets(other_split.test)] == 0).mean()),
            f"split_hash_{name}": other_split.hash,
            f"ranks_{name}": results.pack_ranks(other),
        }
    content |= {
        "variants": list(protocol.variants),
        "retrained": protocol.retrain,
        "seconds": time.perf_counter() - begin,
        "commit": commit,
        "hardware": provenance.hardware(),
        "libraries": provenance.libraries(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if request.get("topk"):
        lists.write(test, known, request["topk"], filter_seen)
    storage.write_json(content, path)
    for name in storage.names(storage.parent(path)):
        if name.startswith(hidden) and name.endswith(".safetensors"):
            storage.remove(storage.sibling(path, name))
    return content


def source_of(source: str) -> str:
    """Where the data came from, as ``sources.fetch`` words it, without the folders of this machine."""
    place = source.rpartition(", from ")[2].partition(", unpacked in ")[0]
    return Path(place).name if Path(place).exists() else place


def main() -> int:
    request = json.loads(sys.stdin.read())
    logging.basicConfig(
        level=logging.INFO if request["progress"] else logging.WARNING,
        format="%(message)s",
        stream=sys.stderr,
    )
    try:
        run_one(request)
    except SeqrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
