"""What titles tell of items that nobody has taken yet, and what they cost those that somebody has.

    python benchmarks/cold_items.py --data-dir ../shared/data [--folder cold_items] [--width 256]
        [--forms ids titles] [--set train.epochs=4] [--test]

Under ``games-global-temporal-v1`` SASRec is trained by ids alone, and with an embedding of the titles
(``seqrec embed``; no download). Printed are

    cold    recall@10 where the target has no training event: its rank among the items that have none
    warm    recall@10 and ndcg@10 of the other targets among all items, what the user has taken left out
    share   of the 10 best items, those without a training event; and of the targets

on validation; with ``--test`` also on the test, after another fit on training and validation events (as the
protocol has it). Items without a training event are fewer there: 127, of which a random order finds .079.

What was trained is kept in the folder, and what was stopped goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import seqrec
from seqrec.data.catalogue import Catalogue
from seqrec.evaluation import metrics, ranking
from seqrec.experiment import fitting
from seqrec.experiment.protocol import read_protocol, read_sequences
from seqrec.experiment.recipe import Recipe
from seqrec.features import text
from seqrec.models.model import Model
from seqrec.settings import yaml_file
from seqrec.splitting.split import Queries, Split
from seqrec.tables import Table, fraction
from seqrec.topk import Filter
from seqrec.training.options import FitOptions

PROTOCOL = "games-global-temporal-v1"
BOTH = ["item_id", "title_embedding"]
SASREC: dict[str, Any] = {
    "model": {"name": "sasrec", "length": 50, "dropout": 0.3},
    "loss": {"name": "sampled_softmax"},
    "negatives": {"count": 2048, "logq": 1.0},
    "train": {"epochs": 6},
}
FORMS: dict[str, dict[str, Any]] = {
    "ids": {},
    "titles": {"features": {"item": BOTH, "sequence": BOTH, "drop_ids": 0.5}},
}
"""Chosen on validation; what else was tried is in LOG.md."""


def measured(model: Model, split: Split, queries: Queries) -> dict[str, float]:
    """Recall of cold targets among cold items, and how warm ones rank among all."""
    cold = split.item_counts == 0
    of_cold = cold[split.targets(queries)]
    warm = ranking.rank(model, split, queries.select(~of_cold))
    alone = ranking.rank(
        model, split, queries.select(~of_cold), lists=False, candidates=Filter(deny=np.flatnonzero(cold))
    )
    asked = replace(split, cold_targets_miss=False)
    candidates = Filter(allow=np.flatnonzero(cold))
    ranks = ranking.rank(model, asked, queries.select(of_cold), lists=False, candidates=candidates)
    return {
        "cold items": int(cold.sum()),
        "cold queries": int(of_cold.sum()),
        "random": 10 / cold.sum(),
        "cold recall@10": float(metrics.recall(ranks.filtered, 10).mean()),
        "warm recall@10": float(metrics.recall(warm.filtered, 10).mean()),
        "warm ndcg@10": float(metrics.ndcg(warm.filtered, 10).mean()),
        "warm ndcg@10, warm items": float(metrics.ndcg(alone.filtered, 10).mean()),
        "share": float(cold[warm.lists[:, :10]].mean()),
        "share of targets": float(of_cold.mean()),
    }


def fitted(folder: Path, recipe: Recipe, split: Split, test: bool) -> list[Model]:
    """The model whose epochs validation chose; and, for the test, the one fitted again."""
    folder.mkdir(parents=True, exist_ok=True)
    on = FitOptions(device="cpu", baselines=False)
    chosen, final = folder / "chosen", folder / "final"
    if not chosen.exists():
        checkpoint = str(folder / "chosen.safetensors")
        recipe.make().fit(split.without_test(), on.model_copy(update={"checkpoint": checkpoint})).save(chosen)
    found = [seqrec.load(chosen, "cpu")]
    if test and not final.exists():
        checkpoint = str(folder / "final.safetensors")
        report = found[0].fit_report
        fitting.fit_again(recipe, split.retrain(), report, on, checkpoint).save(final)
    return [*found, seqrec.load(final, "cpu")] if test else found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="the folder that has games/")
    parser.add_argument("--folder", type=Path, default=Path("cold_items"), help="where the models are kept")
    parser.add_argument("--width", type=int, default=256, help="of the embeddings of titles")
    parser.add_argument("--forms", nargs="+", default=["ids", "titles"])
    parser.add_argument("--set", action="append", default=[], help="a setting of both, as train.epochs=4")
    parser.add_argument("--test", action="store_true", help="also ask the test")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(message)s")
    protocol = read_protocol(PROTOCOL)
    s, _ = read_sequences(protocol.data, protocol.ties, options.data_dir)
    assert s.item_catalogue.attributes is not None
    titles = s.item_catalogue.attributes["title"]
    attributes = pl.DataFrame({"title_embedding": text.embed(titles, options.width)})
    split = protocol.apply(replace(s, item_catalogue=Catalogue(s.item_catalogue.ids, attributes)))
    rows = []
    for form in options.forms:
        sections = copy.deepcopy(SASREC | FORMS[form])
        for override in options.set:
            yaml_file.apply_override(sections, override)
        folder = options.folder / "-".join([form, str(options.width), *options.set])
        models = fitted(folder, Recipe(**sections), split, options.test)
        asked = [(split, split.validation), (split.retrain(), split.test)]
        for model, (trained_on, queries), part in zip(models, asked, ("validation", "test")):
            row = {"reads": form, "part": part, "epoch": models[0].fit_report.best_epoch}
            rows.append(row | measured(model, trained_on, queries))
            print(json.dumps(rows[-1]), flush=True)
    formats = {name: fraction for name in rows[0] if isinstance(rows[0][name], float)}
    Table(PROTOCOL, list(rows[0]), rows, formats=formats).print()


if __name__ == "__main__":
    main()
