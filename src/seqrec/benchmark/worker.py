"""One run in its own process: data, training, selection on validation, one look at the test queries, one
result file.

Started by ``runner.run`` with a request on standard input.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from seqrec import storage
from seqrec.benchmark import provenance, results
from seqrec.benchmark.runner import Config, recipe_of, settings_of
from seqrec.errors import SeqrecError
from seqrec.evaluation import lists, metrics
from seqrec.evaluation.evaluation import measure
from seqrec.evaluation.ranking import Ranks
from seqrec.experiment import fitting, judge
from seqrec.experiment.data_check import warnings_of_order
from seqrec.experiment.protocol import read_protocol, read_sequences
from seqrec.splitting.split import Queries, Split
from seqrec.storage import lock, marker
from seqrec.training.options import FitOptions

EXAMPLES = 4
log = logging.getLogger("seqrec")


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


def examples(ranks: Ranks, split: Split, queries: Queries, filter_seen: bool) -> list[dict[str, Any]]:
    """A few queries as one would read them: the end of the history, what was recommended, what came. The same
    queries for every model."""
    catalogue = split.sequences.item_catalogue
    attributes = catalogue.attributes
    names = attributes["title"] if attributes is not None and "title" in attributes.columns else catalogue.ids
    query, first = split.query(queries), queries.first_targets
    lists = ranks.lists if filter_seen else ranks.lists_unfiltered

    def named(items: np.ndarray) -> list[str]:
        return [str(names[int(item)]) for item in items if item >= 0]

    chosen = np.unique(np.linspace(0, len(queries) - 1, EXAMPLES + 2).astype(int)[1:-1])
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
    protocol = read_protocol(request["protocol"])
    config = Config.of(request["config"], request["label"])
    sequences, source = read_sequences(protocol.data, protocol.ties, request["data_dir"])
    split = protocol.apply(sequences)
    if request.get("warn"):
        for warning in warnings_of_order(sequences, protocol.ties == "random"):
            log.warning(
                "%s", warning.replace("data.tie_order=random", "ties: random in a protocol of your own")
            )
    recipe = recipe_of(protocol, request["label"], config)
    settings = settings_of(recipe.make(), config)
    path, progress = str(request["path"]), request["progress"]
    # A run that was interrupted goes on from its last epoch.
    digest = hashlib.sha256(
        json.dumps([settings, split.hash, sequences.ids_digest], sort_keys=True).encode()
    ).hexdigest()[:8]
    hidden = f".{Path(path).stem}-"
    checkpoint = storage.sibling(path, f"{hidden}{digest}.safetensors")
    on = FitOptions(
        **config.fit.model_dump() | {"seed": request["seed"]},
        progress=progress,
        checkpoint=checkpoint,
        baselines=False,  # which have rows of their own
    )
    retrain = protocol.retrain or config.retrain
    fitted = fitting.fit(recipe, split, on, retrain)
    report = fitted.chosen.fit_report

    filter_seen, names, cutoffs = protocol.filter_seen, protocol.headline, protocol.cutoffs
    validation = fitted.validate(names, filter_seen, cutoffs)
    known = split.retrain() if retrain else split
    tested = judge.ask(fitted.final, known, names, filter_seen, cutoffs=cutoffs)
    peak = provenance.peak_memory_mb()

    test = tested.ranks
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
        "metrics": tested.metrics,
        protocol.other: measure(test, not filter_seen, cutoffs, names),
        **{f"metrics_{part}": found for part, found in tested.apart.items()},
        "validation_metrics": validation.metrics,
        "lists": describe_lists(test, known, filter_seen),
        "train_seconds": report.train_seconds,
        "retrain_seconds": fitted.final.fit_report.train_seconds if retrain else None,
        "evaluation_seconds": tested.seconds,
        "peak_memory_mb": peak,
        "positions_per_second": report.positions_per_second,
        "training": {
            k: v
            for k, v in report.to_json().items()
            if k
            in (
                *("epochs", "best_epoch", "plan", "updates", "parameters"),
                *("tables", "device", "precision", "threads"),
            )
        },
        "curve": list(report.curve),
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
        "examples": examples(test, known, split.test, filter_seen),
        "ranks": results.pack_ranks(test),
    }
    for name in protocol.variants:
        other_split = protocol.variant(name, sequences)
        asked = judge.ask(fitted.final, known, names, filter_seen, cutoffs=cutoffs, variant=other_split)
        other = asked.ranks
        content |= {
            f"metrics_{name}": asked.metrics,
            f"{protocol.other}_{name}": measure(other, not filter_seen, cutoffs, names),
            f"queries_{name}": len(other_split.test),
            f"cold_targets_{name}": float((known.item_counts[known.targets(other_split.test)] == 0).mean()),
            f"split_hash_{name}": other_split.hash,
            f"ranks_{name}": results.pack_ranks(other),
        }
    content |= {
        "variants": list(protocol.variants),
        "retrained": retrain,
        "seconds": time.perf_counter() - begin,
        "commit": commit,
        "hardware": provenance.hardware(),
        "libraries": provenance.libraries(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if request.get("topk"):
        lists.write(test, known, request["topk"], filter_seen)
    storage.write_json(marker.sealed(content), path)
    for name in storage.names(storage.parent(path)):
        if name.startswith(hidden) and name.endswith(".safetensors"):
            storage.remove(storage.sibling(path, name))
    return content


def source_of(source: str) -> str:
    """Where the data came from, as ``sources.fetch`` words it, without the folders of this machine."""
    place = source.rpartition(", from ")[2].partition(", unpacked in ")[0]
    return Path(place).name if Path(place).exists() else place


def main() -> int:
    """Does the run that standard input describes as JSON; 1 after an error of the user's, else 0."""
    request = json.loads(sys.stdin.read())
    logging.basicConfig(
        level=logging.INFO if request["progress"] else logging.WARNING,
        format="%(message)s",
        stream=sys.stderr,
    )
    if not _ends_with_the_parent(request["parent"]):
        return 1
    try:
        with lock.held(storage.parent(request["path"]), f".{Path(request['path']).stem}.lock"):
            run_one(request)
    except KeyboardInterrupt:
        return 130  # Ctrl-C reaches both, and the parent says what there is to say
    except SeqrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}.", file=sys.stderr)
        return 1
    return 0


def _ends_with_the_parent(parent: int) -> bool:
    """Has Linux end this process when its parent ends, however that ends.

    Returns:
        False where it has ended already, while this one was importing.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        except (OSError, AttributeError):
            return True  # it trains to its end, and its result is good
        return os.getppid() == parent
    return True


if __name__ == "__main__":
    sys.exit(main())
