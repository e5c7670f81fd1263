"""The plots, as Vega-Lite specifications turned into SVG text: no script runs in the page to draw them.

Colours are CSS variables of the page, so that the same drawing suits a light and a dark screen. Each mark has
a description ``model: what it shows``, for screen readers and as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from seqrec.benchmark.results import Group, Row
from seqrec.errors import SettingsError
from seqrec.evaluation import metrics

COLOURS = 10  # variables --c0 .. --c9 of the page
DEEPEST = 50  # largest k of the recall curve
SHORTEST = 0.01  # seconds: less is drawn there
SIZE = {"width": 420, "height": 240}
AXIS = {
    "domainColor": "var(--line)",
    "tickColor": "var(--line)",
    "gridColor": "var(--grid)",
    "labelColor": "var(--soft)",
    "titleColor": "var(--soft)",
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 11,
}
CONFIG = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": AXIS,
    "axisX": {"grid": False, "labelAngle": 0},
    "axisY": {
        "titleAngle": 0,
        "titleAlign": "left",
        "titleX": -28,
        "titleY": -10,
        "domain": False,
        "ticks": False,
    },
}


def svg(spec: dict[str, Any]) -> str:
    """The drawing as SVG text.

    Raises:
        SettingsError: the library that draws is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise SettingsError(
            "report: needs vl-convert-python to draw. Install it with: pip install 'seqrec[report]'"
        ) from error
    return vl_convert.vegalite_to_svg(
        {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "config": CONFIG, **SIZE, **spec}
    )


def colour(models: list[str]) -> dict[str, Any]:
    """The colour of each model: its place in the table."""
    scale = {"domain": models, "range": [f"var(--c{i % COLOURS})" for i in range(len(models))]}
    return {"field": "model", "type": "nominal", "scale": scale, "legend": None}


def quantity(field: str, title: str, zero: bool = True, log: bool = False, **axis: Any) -> dict[str, Any]:
    """The encoding of a number along an axis."""
    scale = {"type": "log", "nice": False, "padding": 14} if log else {"zero": zero, "nice": True}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": scale,
        "axis": {"tickCount": 5, **axis},
    }


SAID = {"field": "said", "type": "nominal"}


def lines(
    rows: list[dict[str, Any]], models: list[str], x: dict[str, Any], y: dict[str, Any], points: bool
) -> str:
    """A line a model (and seed, where rows have one)."""
    mark = {"type": "line", "strokeWidth": 1.8}
    encoding = {"x": x, "y": y, "color": colour(models), "detail": [{"field": "seed", "type": "nominal"}]}
    spots = {
        "mark": {"type": "point", "filled": True, "size": 34, "opacity": 1 if points else 0},
        "encoding": {**encoding, "description": SAID},
    }
    labelled = {**encoding, "description": {"field": "model", "type": "nominal"}}
    return svg({"data": {"values": rows}, "layer": [{"mark": mark, "encoding": labelled}, spots]})


def against_time(group: Group, models: list[str]) -> str:
    """First headline metric against the seconds of training, log scale."""
    seconds = {row.model: row.mean("train_seconds") for row in group.rows}
    known = {model: max(s, SHORTEST) for model, s in seconds.items() if s is not None}
    x = quantity(
        "x", "seconds of training (log scale)", log=True, format="~g", tickCount=6, labelOverlap="greedy"
    )
    return scatter(group, models, known, x, lambda s: f"after {s:,.1f} s")


def against_coverage(group: Group, models: list[str]) -> str | None:
    """First headline metric against the share of the catalogue that is recommended to anyone."""
    key = "coverage@10"
    found = {row.model: [run["lists"][key] for run in row.runs if run.get("lists")] for row in group.rows}
    known = {model: sum(values) / len(values) for model, values in found.items() if values}
    x = quantity("x", "share of the catalogue in someone's first 10", format=".0%")
    return (
        scatter(group, models, known, x, lambda share: f"with {share:.1%} of the catalogue")
        if known
        else None
    )


def scatter(
    group: Group, models: list[str], at: dict[str, float], x: dict[str, Any], say: Callable[[float], str]
) -> str:
    """A labelled point a model, with the interval of its first headline metric."""
    name = group.headline[0]
    spots: list[dict[str, Any]] = []
    for row in group.rows:
        if row.model in at:
            value = row.intervals([name])[name]
            spots.append(
                {
                    "model": row.model,
                    "x": at[row.model],
                    "said": f"{row.model}: {name} {value['mean']:.4f} {say(at[row.model])}",
                    **value,
                }
            )
    place_labels(spots, log=x["scale"].get("type") == "log")
    y = quantity("mean", name)
    base = {"x": x, "color": colour(models)}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.6},
            "encoding": {**base, "y": quantity("low", name), "y2": {"field": "high"}, "description": SAID},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {**base, "y": y, "description": SAID},
        },
    ]
    for side, dx, align in (("right", 8, "left"), ("left", -8, "right")):
        mark = {"type": "text", "dx": dx, "align": align, "fontSize": 10.5}
        layers.append(
            {
                "transform": [{"filter": f"datum.side == '{side}'"}],
                "mark": mark,
                "encoding": {**base, "y": y, "text": {"field": "model"}, "description": SAID},
            }
        )
    return svg({"data": {"values": spots}, "layer": layers})


def place_labels(spots: list[dict[str, Any]], log: bool) -> None:
    """Gives each spot the side of its label, ``right`` or ``left``; ``none`` where it would cover another."""
    across = [math.log(spot["x"]) if log else spot["x"] for spot in spots]
    left, right, top = min(across), max(across), max(spot["high"] for spot in spots) or 1.0
    points = [
        ((a - left) / ((right - left) or 1.0) * 0.85 * SIZE["width"], SIZE["height"] * spot["mean"] / top)
        for a, spot in zip(across, spots)
    ]
    taken: list[tuple[float, float, float]] = []  # from, to, height of labels
    for spot, (px, py) in zip(spots, points):
        length = 8 + 6.2 * len(spot["model"])
        spot["side"] = "none"
        for side, begin in (("right", px + 4), ("left", px - 4 - length)):
            end = begin + length
            free = all(abs(y - py) > 11 or b > end or e < begin for b, e, y in taken)
            free = free and all(abs(y - py) > 8 or not begin < x < end for x, y in points)
            if free and begin > -10 and end < SIZE["width"]:
                spot["side"] = side
                taken.append((begin, end, py))
                break


def learning_curves(group: Group, models: list[str]) -> str | None:
    """The validation metric after each epoch, a line a seed; None where no model learns in epochs."""
    rows, name = [], ""
    for run in group.runs:
        for point in run.get("curve") or []:
            validated = [key for key in point if "@" in key]
            if validated:
                name = validated[0]
                said = f"{run['model']}: epoch {point['epoch']}, {name} {point[name]:.4f}, seed {run['seed']}"
                rows.append(
                    {
                        "model": run["model"],
                        "seed": run["seed"],
                        "epoch": point["epoch"],
                        "value": point[name],
                        "said": said,
                    }
                )
    if not rows:
        return None
    return lines(
        rows,
        models,
        quantity("epoch", "epoch", tickMinStep=1, format="d"),
        quantity("value", f"validation {name}"),
        points=False,
    )


def recall_at_k(group: Group, models: list[str]) -> str:
    """Share of the queries whose target is among the first k; of several targets the share that is."""
    rows = []
    for row in group.rows:
        ranks = [(run.ranks(group.filter_seen), run.offsets()) for run in row.runs]
        for k in (*range(1, 21), 25, 30, 40, DEEPEST):
            value = float(sum(metrics.recall(r, k, offsets).mean() for r, offsets in ranks) / len(ranks))
            rows.append(
                {
                    "model": row.model,
                    "seed": 0,
                    "k": k,
                    "value": value,
                    "said": f"{row.model}: recall@{k} {value:.4f}",
                }
            )
    return lines(rows, models, quantity("k", "k", format="d"), quantity("value", "recall at k"), points=False)


def repeat_and_explore(group: Group, models: list[str]) -> str | None:
    """Recall (or the first headline metric) of the targets that were in the history, and of the others, a bar
    a model; None where results do not tell them apart."""
    name = next((key for key in group.headline if key.startswith("recall@")), group.headline[0])
    rows = []
    for row in group.rows:
        for part in ("repeat", "explore"):
            found = [run[f"metrics_{part}"][name]["mean"] for run in row.runs if run.get(f"metrics_{part}")]
            if len(found) == len(row.runs):
                value = sum(found) / len(found)
                said = f"{row.model}: {name} of targets that {part} {value:.4f}"
                rows.append({"model": row.model, "part": part, "value": value, "said": said})
    if not rows:
        return None
    own = [row.model for row in group.rows]
    encoding = {
        "y": {"field": "model", "type": "nominal", "sort": own, "title": None},
        "x": quantity("value", name),
        "color": colour(models),
        "column": {"field": "part", "type": "nominal", "sort": ["repeat", "explore"], "title": None},
        "description": SAID,
    }
    width = {"width": (SIZE["width"] - 30) / 2, "resolve": {"scale": {"x": "independent"}}}
    return svg({"data": {"values": rows}, "mark": {"type": "bar"}, "encoding": encoding, **width})


def by_property(group: Group, models: list[str], key: str, title: str) -> str | None:
    """The first headline metric in bins of a property of the queries."""
    name, rows, order = group.headline[0], [], []
    for row in group.rows:
        for low, high, queries, value in bins_of(row, key, name):
            label = f"{low:,}" if low == high else f"{low:,}–{high:,}"
            if label not in order:
                order.append(label)
            said = f"{row.model}: {title} {label}, {name} {value:.4f} ({queries:,} queries)"
            rows.append({"model": row.model, "seed": 0, "bin": label, "value": value, "said": said})
    if not rows:
        return None
    x = {"field": "bin", "type": "ordinal", "sort": order, "title": title}
    return lines(rows, models, x, quantity("value", name), points=True)


def bins_of(row: Row, key: str, name: str) -> list[tuple[int, int, int, float]]:
    """(low, high, queries, mean over seeds) of each bin."""
    of_runs = [run.get(key) or [] for run in row.runs]
    return [
        (b[0]["low"], b[0]["high"], b[0]["queries"], sum(x[name] for x in b) / len(b))
        for b in zip(*of_runs, strict=False)
    ]
