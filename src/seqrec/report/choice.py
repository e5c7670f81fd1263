"""A choice of a model as a page: the words, what was tried, drawn with its intervals, and the table."""

from __future__ import annotations

import logging
from html import escape

from seqrec import storage
from seqrec.errors import SettingsError
from seqrec.experiment.choose import Choice
from seqrec.report import charts
from seqrec.report.trials import standalone

log = logging.getLogger("seqrec")

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:.9rem}td,th{padding:.25rem .7rem;text-align:left;"
    "border-bottom:1px solid #ddd}svg{max-width:100%;height:auto}.scroll{overflow-x:auto}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}"
    "figure{background:#fff;padding:1rem}}"
)


def drawing(choice: Choice) -> str:
    """The validation of each model with its interval, as SVG text.

    Raises:
        SettingsError: the library that draws is not installed.
    """
    rows = [
        {
            "model": tried.label,
            "value": tried.value,
            "low": tried.low,
            "high": tried.high,
            "taken": tried.label == choice.taken.label,
            "said": f"{tried.label}: validation {choice.metric} {tried.value:.4f}",
        }
        for tried in choice.tried
        if tried.value is not None
    ]
    names = [tried.label for tried in choice.tried if tried.value is not None]
    axis = {"minExtent": 7 * max(map(len, names))}  # else long names are cut off
    y = {"field": "model", "type": "nominal", "sort": names, "title": None, "axis": axis}
    x = charts.quantity("value", f"validation {choice.metric}, with 95% intervals over users")
    colour = {"condition": {"test": "datum.taken", "value": "var(--c1)"}, "value": "var(--c0)"}
    return standalone(
        charts.svg(
            {
                "data": {"values": rows},
                "height": 26 * len(rows),
                "layer": [
                    {
                        "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.6},
                        "encoding": {
                            "y": y,
                            "x": {**x, "field": "low"},
                            "x2": {"field": "high"},
                            "color": colour,
                        },
                    },
                    {
                        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                        "encoding": {"y": y, "x": x, "color": colour, "description": charts.SAID},
                    },
                ],
            }
        )
    )


def render(choice: Choice) -> str:
    """The page as HTML text. Without the library that draws it has no drawing."""
    table = choice.table()
    try:
        figure = f"<figure>{drawing(choice)}</figure>"
    except SettingsError as error:
        log.info("choice.html: no drawing (%s)", error)
        figure = ""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(table.text(row, column))}</td>' for column in table.columns)}</tr>"
        for row in table.rows
    )
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in choice.words)
    title = escape(f"Which model: {choice.taken.label}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>{words}{figure}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></html>'
    )


def write(choice: Choice, path: str) -> None:
    """Writes the page."""
    storage.write_text(render(choice), path)
