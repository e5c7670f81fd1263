"""Writes docs/which-model.md from the result files: which model on which kind of log, with the figures behind
each sentence.

    python benchmarks/which_model.py [--results benchmarks/results] [--write docs/which-model.md]

What kind of log a protocol's is stands in KINDS; all else is computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seqrec.benchmark.results import Group, Row, collect, groups
from seqrec.tables import Table, fraction

ROOT = Path(__file__).parent.parent
SIMPLE = (
    "popularity",
    "recent_popularity",
    "markov",
    "item_knn",
    "vsknn",
    "personal_top",
    "tifu_knn",
    "up_cf",
    "taiw",
)
"""Models that are not trained by gradient."""
KINDS = {
    "yoochoose-clicks-v1": "Short sessions of clicks, with repeats",
    "ml-1m-leave-one-out-v1": "People with many events each",
    "ml-100k-leave-one-out-v1": "A small log of people with many events each",
    "beauty-leave-one-out-v1": "Many items, few events a person",
    "ml-1m-global-temporal-v1": "The future, from a log that few of its people go on in",
    "games-global-temporal-v1": "The future, of many items with few events each",
    "ml-100k-global-temporal-v1": "The future, from a small log",
    "ml-1m-time-v1": "People with many events each, the moment of the question known",
    "ta-feng-next-basket-v1": "Next baskets of groceries",
    "complete-journey-next-basket-v1": "Next baskets of households over a year",
    "complete-journey-temporal-v1": "Next baskets of households, cut in time",
}
HEAD = """# Which model

Generated from the files in `benchmarks/results/` by `python benchmarks/which_model.py`; do not edit it. Each
section is one log under one protocol; figures of two sections cannot be compared. For a log of your own,
`seqrec choose LOG` measures this instead of guessing from here.

"Simple" models are not trained by gradient and take seconds. *As good* means that a paired test over users,
corrected for all pairs of rows, does not tell it from the best (p of .05 or more).
"""


def is_simple(row: Row) -> bool:
    """Whether a row's model is not trained by gradient."""
    return row.runs[0]["settings"]["model"] in SIMPLE


def said(row: Row, metric: str) -> str:
    """A row's value with its interval."""
    value = row.intervals([metric])[metric]
    return f"{fraction(value['mean'])} [{fraction(value['low'])}, {fraction(value['high'])}]"


def seconds(row: Row) -> str:
    """How long a row trained."""
    taken = row.mean("train_seconds") or 0.0
    return f"{taken:,.0f} s" if taken >= 1 else "under a second"


def section(group: Group) -> str:
    """One log."""
    metric = group.headline[0]
    simple = [row for row in group.rows if is_simple(row)]
    networks = [row for row in group.rows if not is_simple(row)]
    run = group.runs[0]
    lines = [
        f"## {KINDS[group.protocol]}",
        "",
        f"`{group.protocol}`: {group.title}. {run['users']:,} users, {run['items']:,} items, "
        f"{len(run.ranks(group.filter_seen)):,} queries.",
        "",
    ]
    best = group.rows[0]
    lines.append(f"- Best: **{best.model}**, {metric} {said(best, metric)}, trained in {seconds(best)}.")
    if not is_simple(best) and simple:
        near = simple[0]
        share = near.headline.mean(metric) / best.headline.mean(metric)
        verdict = "as good" if group.compared[near.model].like_best else f"{share:.0%} of it"
        lines.append(
            f"- Best simple model: **{near.model}**, {said(near, metric)}: {verdict}, in {seconds(near)}."
        )
    elif networks:
        near = networks[0]
        share = near.headline.mean(metric) / best.headline.mean(metric)
        verdict = "as good" if group.compared[near.model].like_best else f"{share:.0%} of it"
        lines.append(
            f"- Best network: **{near.model}**, {said(near, metric)}: {verdict}, in {seconds(near)}. A "
            "simple model is enough here."
        )
    if not networks:
        lines.append("- No network was run here.")
    alike = [row.model for row in group.rows[1:] if group.compared[row.model].like_best]
    if alike:
        lines.append(f"- As good as the best: {', '.join(alike)}.")
    floor = next((row for row in group.rows if row.model == "popularity"), None)
    if floor is not None and floor is not best:
        times = best.headline.mean(metric) / max(1e-9, floor.headline.mean(metric))
        lines.append(f"- Popularity alone: {said(floor, metric)}; the best is {times:.1f} times that.")
    cold = cold_share(best)
    if cold >= 0.005:
        lines.append(f"- {cold:.0%} of the targets have no event in training; every model misses them.")
    return "\n".join(lines) + "\n"


def cold_share(row: Row) -> float:
    """Share of the queries whose target was never seen in training."""
    bins: list[dict[str, Any]] = row.runs[0].get("by_item_popularity") or []
    queries = sum(b["queries"] for b in bins)
    cold = sum(b["queries"] for b in bins if b["high"] == 0)
    return cold / queries if queries else 0.0


def overview(found: list[Group]) -> Table:
    """All logs at a glance."""
    rows = []
    for group in found:
        metric, best = group.headline[0], group.rows[0]
        simple = next((row for row in group.rows if is_simple(row)), None)
        rows.append(
            {
                "log": KINDS[group.protocol],
                "metric": metric,
                "best": best.model
                + (" (no network was run)" if all(is_simple(row) for row in group.rows) else ""),
                "value": fraction(best.headline.mean(metric)),
                "best simple": "–" if simple is None else simple.model,
                "its value": "–" if simple is None else fraction(simple.headline.mean(metric)),
            }
        )
    return Table("", ["log", "metric", "best", "value", "best simple", "its value"], rows)


def page(results: str) -> str:
    """The page as Markdown."""
    found = [group for group in groups(collect(results)) if group.protocol in KINDS]
    found.sort(key=lambda group: list(KINDS).index(group.protocol))
    return "\n".join([HEAD, overview(found).markdown(), *(section(group) for group in found)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", default=str(ROOT / "benchmarks" / "results"))
    parser.add_argument("--write", default=str(ROOT / "docs" / "which-model.md"))
    arguments = parser.parse_args()
    Path(arguments.write).write_text(page(arguments.results))
