"""How soon a model that begins with an earlier one's weights is as good as one that is trained from scratch.

    python benchmarks/warm_start.py --data ../shared/data/ml-1m/times.tsv.gz --models gru4rec sasrec
        [--share 0.9] [--epochs 10] [--folder warm_start] [--vary epochs=3,learning_rate=0.001]

The log is cut in time: the earlier one is the first 90% of the events, the grown one all of them. Leave one
out on each: the earlier model knows nothing that the grown log holds out, as a user's last two events of
either are held out of it. Trained are, with default settings: the earlier model; one from scratch on the
grown log; and one on the grown log with the earlier model as its start, its schedule by default or as each
``--vary`` says. All choose their epochs on validation; an epoch is as many positions from scratch as with a
start. Printed are NDCG@10 on validation after each epoch with the seconds so far, and in which share of the
epochs, and of the seconds, of the one from scratch (to the end of its best epoch) the one with a start is as
good as that. The test queries are asked once of either, by ``--test``, which takes one schedule only.

A model that is in the folder already is not trained again; a training that was stopped goes on from its last
epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import polars as pl
import yaml

import seqrec
from seqrec import models
from seqrec.data.interactions import Interactions
from seqrec.models.model import Model
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Split
from seqrec.tables import Table, fraction


def cut(log: Interactions, share: float) -> Interactions:
    """The events before the moment at which that share of them has happened."""
    moment = log.frame["timestamp"].quantile(share)
    return Interactions(log.frame.filter(pl.col("timestamp") < moment))


def trained(label: str, split: Split, folder: Path, settings: dict[str, Any], **more: Any) -> Model:
    """A model of that name that is trained, or was, with its curve as NDCG@10 after so many seconds."""
    kept = folder / label
    if kept.exists():
        return seqrec.load(kept, "cpu")
    model = models.get(label.split("-")[0])(train=settings)
    checkpoint = folder / f"{label}.safetensors"
    model.fit(split.without_test(), checkpoint=checkpoint, baselines=False, device="cpu", **more)
    model.save(kept)
    return model


def curve(model: Model) -> list[dict[str, float]]:
    """NDCG@10 on validation after each epoch, and the seconds so far; with a start, that at first."""
    report = model.fit_report
    points = [{"epoch": p["epoch"], "seconds": p["seconds"], "ndcg@10": p["ndcg@10"]} for p in report.curve]
    if report.start is not None:
        points.insert(0, {"epoch": 0, "seconds": 0.0, "ndcg@10": report.start["ndcg@10"]})
    return points


def shares(scratch: list[dict[str, float]], warm: list[dict[str, float]]) -> dict[str, float | None]:
    """In which share of the epochs, and of the seconds, of the best one from scratch a warm one is as
    good."""
    best = max(scratch, key=lambda p: p["ndcg@10"])
    reached = next((p for p in warm if p["ndcg@10"] >= best["ndcg@10"]), None)
    return {key: None if reached is None else reached[key] / best[key] for key in ("epoch", "seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a log with times")
    parser.add_argument("--models", nargs="+", default=["gru4rec", "sasrec"])
    parser.add_argument("--share", type=float, default=0.9, help="of the events, in the earlier log")
    parser.add_argument("--epochs", type=int, help="of the earlier model and of the one from scratch")
    parser.add_argument("--folder", type=Path, default=Path("warm_start"), help="where the models are kept")
    parser.add_argument("--vary", action="append", help="settings of train for the one with a start")
    parser.add_argument("--test", action="store_true", help="also ask the test, of the first schedule")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(message)s")
    log = seqrec.read_log(options.data)
    before, grown = (leave_one_out(one.sequences()) for one in (cut(log, options.share), log))
    known = set(before.sequences.item_catalogue.ids), set(before.sequences.user_catalogue.ids)
    s = grown.sequences
    new = [len(set(c.ids) - ids) for c, ids in zip((s.item_catalogue, s.user_catalogue), known, strict=True)]
    print(f"{before.sequences.events:,} of {s.events:,} events, {new[0]:,} new items, {new[1]:,} new users")
    long = {} if options.epochs is None else {"epochs": options.epochs}
    schedules = options.vary or [""]
    rows, tested = [], []
    for name in options.models:
        earlier = trained(f"{name}-earlier", before, options.folder, long)
        scratch = trained(f"{name}-scratch", grown, options.folder, long)
        models_of = {"from scratch": scratch}
        for schedule in schedules:
            settings = yaml.safe_load("{" + schedule.replace("=", ": ") + "}")
            label = f"{name}-warm-{schedule or 'default'}"
            warm = trained(label, grown, options.folder, settings, start=earlier)
            models_of[schedule or "by default"] = warm
        for label, model in models_of.items():
            points = curve(model)
            best = max(points, key=lambda p: p["ndcg@10"])
            row = {"model": name, "schedule": label, "epochs": model.fit_report.epochs}
            row |= {"best epoch": best["epoch"], "validation ndcg@10": best["ndcg@10"]}
            row |= {"seconds": best["seconds"]}
            if model is not scratch:
                found = shares(curve(scratch), points)
                row |= {f"as good after, {key}s": found[key] for key in found}
            rows.append(row)
            print(name, label, json.dumps(points))
        if options.test:
            for label, model in list(models_of.items())[:2]:
                ndcg = model.evaluate(grown, ["ndcg@10"])["ndcg@10"]
                tested.append({"model": name, "schedule": label, "test ndcg@10": ndcg})
    columns = [
        *("model", "schedule", "epochs", "best epoch", "validation ndcg@10", "seconds"),
        *("as good after, epochs", "as good after, seconds"),
    ]
    formats = {"validation ndcg@10": fraction, "test ndcg@10": fraction, "seconds": lambda v: f"{v:,.0f}"}
    formats |= {name: lambda v: f"{v:.2f}" for name in columns[-2:]}
    for title, header, content in (
        ("Validation", columns, rows),
        ("Test", ["model", "schedule", "test ndcg@10"], tested),
    ):
        if content:
            Table(title, header, content, formats=formats).print()


if __name__ == "__main__":
    main()
