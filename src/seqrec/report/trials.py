"""What a search has reached, drawn: each trial, and the best so far, against the minutes."""

from __future__ import annotations

from collections.abc import Sequence

from seqrec.experiment.search import Search
from seqrec.report import charts

PALETTE = ["4c78a8", "f58518", "54a24b", "e45756", "72b7b2", "b279a2", "ff9da6", "9d755d", "bab0ac", "d67195"]
COLOURS = {f"c{i}": f"#{colour}" for i, colour in enumerate(PALETTE)} | {
    "line": "#888",
    "grid": "#ddd",
    "soft": "#444",
}
"""What the report's page sets, for a drawing that stands alone."""


def drawn(searches: Sequence[Search]) -> str:
    """The trials of some searches as SVG text.

    Raises:
        SettingsError: the library that draws is not installed.
    """
    names = [str(search.recipe.model.get("name")) for search in searches]
    spots, best = [], []
    for name, search in zip(names, searches, strict=True):
        seconds, reached = 0.0, 0.0
        for trial in search.trials():
            seconds += trial.seconds
            if trial.value is None:
                continue
            said = f"{name} trial {trial.number}: {search.metric} {trial.value:.4f}, {trial.state}"
            spots.append({"model": name, "x": seconds / 60, "value": trial.value, "said": said})
            if trial.state == "complete":
                reached = max(reached, trial.value)
                best.append({"model": name, "x": seconds / 60, "value": reached, "said": said})
    x = charts.quantity("x", "minutes of the search")
    y = charts.quantity("value", f"validation {searches[0].metric}", zero=False)
    colour = charts.colour(names) | {"legend": {"title": None, "labelColor": "var(--soft)"}}
    encoding = {"x": x, "y": y, "color": colour}
    line = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8}
    text = charts.svg(
        {
            "layer": [
                {"data": {"values": best}, "mark": line, "encoding": encoding},
                {
                    "data": {"values": spots},
                    "mark": {"type": "point", "filled": True, "size": 34, "opacity": 0.7},
                    "encoding": {**encoding, "description": charts.SAID},
                },
            ]
        }
    )
    return standalone(text)


def standalone(drawing: str) -> str:
    """A drawing with colours of its own, for a place that sets none."""
    for name, value in COLOURS.items():
        drawing = drawing.replace(f"var(--{name})", value)
    return drawing
