"""Pages of the site that are made from the code and the result files, when ``make docs`` builds it:

    models/NAME.md   the model's module: paper, equations, differences; its settings; its rows
    settings.md      every key of a run, as ``seqrec settings`` has it
    python.md        every public name
    notebooks/NAME.md    a notebook, run from its first cell to its last, with what it shows
    leaderboard.md, log.md, contributing.md    files from elsewhere in the repository

A hook of mkdocs: see ``hooks`` in mkdocs.yml.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor

import seqrec
from seqrec import models
from seqrec.benchmark import results
from seqrec.experiment import settings_table
from seqrec.tables import fraction

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "leaderboard.md": "benchmarks/LEADERBOARD.md",
    "log.md": "benchmarks/LOG.md",
    "fidelity.md": "benchmarks/FIDELITY.md",
    "speed.md": "benchmarks/SPEED.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Page -> file of the repository."""


def on_config(config: Any) -> Any:
    """Adds a page a model to the navigation."""
    pages = [{name: f"models/{name}.md"} for name in models.MODELS]
    config["nav"].insert(-1, {"Models": pages})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    found = results.collect(ROOT / "benchmarks" / "results")
    made = {f"models/{name}.md": model_page(name, found) for name in models.MODELS}
    made |= {"settings.md": settings_page(), "python.md": python_page()}
    # a cell's `python` is the one that builds the site, whether or not its environment is activated
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    with ThreadPoolExecutor(2) as pool:  # each runs in a process of its own
        made |= {
            f"notebooks/{n.stem}.md": page for n, page in zip(notebooks, pool.map(notebook_page, notebooks))
        }
    made |= {page: (ROOT / path).read_text(encoding="utf-8") for page, path in ELSEWHERE.items()}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def notebook_page(path: Path) -> str:
    """A notebook as Markdown with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        run = ExecutePreprocessor(timeout=240, extra_arguments=["--log-level=ERROR"])
        run.preprocess(notebook, {"metadata": {"path": folder}})
    body, _ = MarkdownExporter().from_notebook_node(notebook)
    return re.sub("\x1b\\[[0-9;]*m", "", body)  # colours of a terminal


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the repository become links to their pages."""
    for target, path in ELSEWHERE.items():
        name = Path(path).name
        for link in (f"](../{path}", f"]({path}", f"]({name}"):
            markdown = markdown.replace(link, f"]({target}")
        markdown = markdown.replace(f"](../../{path}", f"](../{target}")
    return markdown.replace("](docs/", "](")


def model_page(name: str, found: list[results.Result]) -> str:
    """The page of a model."""
    cls = models.get(name)
    title, _, rest = (importlib.import_module(cls.__module__).__doc__ or "").partition("\n")
    own = [one for one in found if one["settings"]["model"] == name]
    parts = [f"# {name}", title, "```text", rest.strip(), "```", "## Settings"]
    parts += [settings_table.table(name).markdown(), "## Measured", measured(own)]
    return "\n\n".join(parts)


def measured(own: list[results.Result]) -> str:
    """A table of a model's rows, one a protocol and label: the mean over its seeds."""
    if not own:
        return "It has no row in the [leaderboard](../leaderboard.md) yet."
    lines = ["| protocol | row | seeds | metric | test | training |", "|---|---|---:|---|---:|---:|"]
    for group in results.groups(own):
        for row in group.rows:
            metric = row.runs[0]["headline"][0]
            value = sum(run["metrics"][metric]["mean"] for run in row.runs) / len(row.runs)
            seconds = sum(run["train_seconds"] for run in row.runs) / len(row.runs)
            lines.append(
                f"| {group.protocol} | {row.model} | {len(row.runs)} | {metric} | {fraction(value)} "
                f"| {seconds:,.0f} s |"
            )
    return "\n".join(lines) + "\n\nAll rows of a protocol are in the [leaderboard](../leaderboard.md)."


def settings_page() -> str:
    """Every section, loss and split with its keys."""
    parts = ["# Settings", "As `seqrec settings NAME` prints them. Those of a model are on its page."]
    for name in settings_table.names():
        if name not in models.MODELS:
            parts += [f"## {name}", settings_table.table(name).markdown()]
    return "\n\n".join(parts)


def python_page() -> str:
    """Every public name with its documentation."""
    names = [name for name in seqrec.__all__ if not name.startswith("__")]
    return "\n\n".join(["# Python", *(f"::: seqrec.{name}" for name in names)])
