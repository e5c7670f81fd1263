"""Puts the page together: a section a protocol, with its table, plots and a few recommendations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

from seqrec import __version__, storage, tables
from seqrec.benchmark import leaderboard
from seqrec.benchmark.results import Group, Result, Row, collect, groups
from seqrec.errors import DataError
from seqrec.experiment.protocol import read_protocol
from seqrec.report import charts

TITLE = "Sequential recommendation benchmark"
Sources = str | Path | Iterable[str | Path | Result]


def dot(models: list[str], model: str) -> str:
    """A dot in the model's colour."""
    return f'<i class="dot" style="background:var(--c{models.index(model) % charts.COLOURS})"></i>'


def interval_bar(value: dict[str, float], top: float, models: list[str], model: str) -> str:
    """Mean and interval as a mark on a track from 0 to the table's largest value."""
    left, width, at = (100 * x / top for x in (value["low"], value["high"] - value["low"], value["mean"]))
    paint = f"background:var(--c{models.index(model) % charts.COLOURS})"
    return (
        f'<div class="track"><i style="left:{left:.2f}%;width:{width:.2f}%;{paint}"></i><b '
        f'style="left:{at:.2f}%;{paint}"></b></div>'
    )


def file_links(row: Row, folder: str | None) -> str:
    """Links from a page in a folder to the result files of a row, a seed each; nothing where either is
    remote."""
    found = []
    for run in row.runs:
        if folder is not None and not storage.is_remote(run.path) and Path(run.path).is_file():
            target = Path(os.path.relpath(run.path, folder)).as_posix()
            said = f"result file, seed {run['seed']}"
            found.append(f'<a href="{escape(quote(target))}" title="{said}">{run["seed"]}</a>')
    return f"<small>result of seed {' '.join(found)}</small>" if found else ""


def table(group: Group, models: list[str], folder: str | None = None) -> str:
    """The leaderboard's table as HTML, with a drawn interval of the first metric.

    Args:
        folder: where the page will be, for links to the result files; None for none.
    """
    rows_of = {row.model: row for row in group.rows}
    source = leaderboard.table_of(group)
    name = group.headline[0]
    top = max(row[name]["high"] for row in source.rows) or 1.0
    head = ""
    for c in source.columns:
        head += f"<th{'' if source.is_number(c) else ' class=text'}>{escape(c)}</th>"
        head += "<th class=text>95% interval</th>" if c == name else ""
    body = []
    for row in source.rows:
        cells = []
        for c in source.columns:
            value = row.get(c)
            text = escape(source.text(row, c))
            if c == "model":
                text = dot(models, row["model"]) + text + file_links(rows_of[row["model"]], folder)
            elif isinstance(value, dict):
                text = (
                    f"{tables.fraction(value['mean'])}<small>{tables.fraction(value['low'])} – "
                    f"{tables.fraction(value['high'])}</small>"
                )
            number = value["mean"] if isinstance(value, dict) else value
            sort = f' data-value="{number}"' if isinstance(number, int | float) else ""
            cells.append(f"<td{sort}{'' if source.is_number(c) else ' class=text'}>{text}</td>")
            if c == name:
                bar = interval_bar(row[name], top, models, row["model"])
                cells.append(f"<td{sort} class=text>{bar}</td>")
        body.append(f'<tr data-model="{escape(row["model"])}">{"".join(cells)}</tr>')
    notes = "".join(f"<li>{inline(note.removeprefix('- '))}</li>" for note in source.notes)
    rows = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    scroll = '<div class="scroll" tabindex="0" role="region" aria-label="Table, scrolls sideways">'
    hint = '<p class="sideways">The table is wider than the screen: scroll it sideways.</p>'
    return f'{hint}{scroll}<table>{rows}</table></div><ul class="notes">{notes}</ul>'


def inline(text: str) -> str:
    """The Markdown that notes use, as HTML: *emphasis* and `code`."""
    text = re.sub(r"\*(.+?)\*", r"<em>\1</em>", escape(text, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def figure(title: str, drawing: str | None, caption: str) -> str:
    """A drawing with its title and caption; nothing where there is no drawing."""
    if not drawing:
        return ""
    # a drawing whose marks have descriptions of their own, so no single picture
    said = f'<svg role="graphics-document document" aria-label="{escape(f"{title}. {caption}")}" '
    drawing = drawing.replace("<svg ", said, 1)
    return f"<figure><h3>{escape(title)}</h3>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def examples(group: Group, models: list[str], most: int = 4) -> str:
    """What the best models recommend for a few histories, the target marked where it was found."""
    shown = [row.runs[0] for row in group.rows if row.runs[0].examples][:most]
    if not shown:
        return ""
    parts = []
    for i, example in enumerate(shown[0].examples):
        lists = []
        for run in shown:
            own = run.examples[i] if i < len(run.examples) else None
            if own is None or own["user"] != example["user"]:
                continue
            items = "".join(
                f"<li{' class=hit' if item == example['target'] else ''}>{escape(item)}</li>"
                for item in own["recommended"]
            )
            name = (
                f"{dot(models, run['model'])}{escape(run['model'])}<small>target at rank "
                f"{own['rank']:,}</small>"
            )
            lists.append(f"<div><h4>{name}</h4><ol>{items}</ol></div>")
        history = " → ".join(escape(item) for item in example["history"])
        target = f"<strong>{escape(example['target'])}</strong>"
        summary = f"User {escape(example['user'])}: … {history} → {target}"
        parts.append(
            f"<details{'' if i else ' open'}><summary>{summary}</summary><div "
            f"class=lists>{''.join(lists)}</div></details>"
        )
    note = (
        "The end of a history, the item that came next in bold, and the five best recommendations of "
        "the best models (first seed)."
    )
    return f"<h3>A few recommendations</h3><p class=quiet>{note}</p>{''.join(parts)}"


def section(group: Group, everyone: list[str] | None = None, folder: str | None = None) -> str:
    """One protocol's section: title, table, plots and a few recommendations.

    Args:
        everyone: the models of the whole page, whose places give the colours, so that one model has the same
            everywhere.
        folder: where the page will be, for links to the result files; None for none.
    """
    own = [row.model for row in group.rows]
    models = own if everyone is None else everyone
    filters = "seen items filtered" if group.filter_seen else "seen items not filtered"
    key = group.headline[0]
    drawn = [
        (
            f"Accuracy against training time: {key}",
            charts.against_time(group, models),
            f"{key}, test, mean over seeds; bars are 95% intervals over users.",
        ),
        (
            "Recall at k: share of targets among the first k",
            charts.recall_at_k(group, models),
            f"Test queries, {filters}.",
        ),
        (
            "Learning curves: validation after each epoch",
            charts.learning_curves(group, models),
            "A line a seed; for models trained in epochs.",
        ),
        (
            "Repeat and explore: targets in the history, and others",
            charts.repeat_and_explore(group, models),
            "The same lists, but only the targets that the history has count, or only the others.",
        ),
        (
            f"By length of the history: {key}",
            charts.by_property(group, models, "by_history_length", "events in the history"),
            "Test queries in bins of about as many queries each.",
        ),
        (
            f"By popularity of the target: {key}",
            charts.by_property(group, models, "by_item_popularity", "training events of the target"),
            "Test queries in bins of about as many queries each; 0 is a target never seen in training.",
        ),
        (
            f"Accuracy against coverage: {key}",
            charts.against_coverage(group, models),
            f"{key}; further right, more of the items are recommended to anyone.",
        ),
    ]
    legend = "".join(
        f'<button type="button" data-model="{escape(model)}" aria-pressed="true">{dot(models, model)}'
        f"{escape(model)}</button>"
        for model in own
    )
    head = (
        f'<h2>{escape(group.title)}</h2><p class="quiet"><code>{escape(group.protocol)}</code> '
        f"{escape(group.description)}</p>"
    )
    figures = "".join(figure(*d) for d in drawn)
    plots = (
        f'<div class="legend" role="group" aria-label="Models that are shown">{legend}</div>'
        f'<div class="charts">{figures}</div>'
    )
    body = head + table(group, models, folder) + plots + examples(group, models)
    return f'<section id="{escape(group.protocol)}">{body}</section>'


def render(
    results: Sources,
    protocols: Sequence[str | Path] | None = None,
    title: str = TITLE,
    folder: str | None = None,
) -> str:
    """The page as HTML text.

    Args:
        folder: where the page will be, for links to the result files; None for none.

    Raises:
        DataError: there are no results, or some that do not belong in one table.
    """
    wanted = None if protocols is None else {read_protocol(p).name for p in protocols}
    found = groups(r for r in collect(results) if wanted is None or r["protocol"] in wanted)
    if not found:
        raise DataError(
            f"{results}: expected result files of seqrec benchmark. Got none. Run seqrec benchmark first."
        )
    links = (
        "".join(f'<a href="#{escape(g.protocol)}">{escape(g.protocol)}</a>' for g in found)
        if len(found) > 1
        else ""
    )
    everyone = list(dict.fromkeys(row.model for g in found for row in g.rows))
    values = {
        "title": escape(title),
        "links": f"<nav>{links}</nav>" if links else "",
        "sections": "".join(section(g, everyone, folder) for g in found),
        "footer": escape(f"seqrec {__version__}, {datetime.now(UTC):%Y-%m-%d}"),
    }
    return Template(resources.files("seqrec.report").joinpath("page.html").read_text("utf-8")).substitute(
        values
    )


def write(
    results: Sources, path: str | Path, protocols: Sequence[str | Path] | None = None, title: str = TITLE
) -> None:
    """Writes the page.

    Args:
        results: a folder of result files, or files and folders.
        protocols: only these; None for all that have results.

    Raises:
        DataError: there are no results, or some that do not belong in one table.
    """
    folder = None if storage.is_remote(str(path)) else str(Path(path).parent)
    storage.write_text(render(results, protocols, title, folder), path)
