"""A table: printed on the terminal, or written as JSON, CSV or Markdown.

The cells are values; how they look is decided here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from seqrec import storage

SUFFIXES = (".json", ".csv", ".md")
NARROWEST = 24  # characters to which a column of long text may be folded
WIDEST = 1000  # characters of a table that goes to a file or a pipe


def interval(value: dict[str, float]) -> str:
    """``{"mean": 0.1693, "low": 0.1632, "high": 0.1755}`` -> ``.1693 [.1632, .1755]``"""
    return f"{fraction(value['mean'])} [{fraction(value['low'])}, {fraction(value['high'])}]"


def fraction(value: float) -> str:
    """Four decimals without the zero before the point, as the field prints metrics: ``.1693``."""
    text = f"{value:.4f}"
    return re.sub(r"^(-?)0\.", r"\1.", text)


def _markdown(text: str) -> str:
    """A cell's text in Markdown: no end of a cell, no HTML and no line of its own."""
    text = " ".join(text.splitlines())
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text.replace("&", "&amp;") if "<" in text else text).replace(
        "|", "\\|"
    )


def show(value: Any) -> str:
    """A cell as text: intervals, numbers with a sensible number of digits, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, dict) and {"mean", "low", "high"} <= set(value):
        return interval(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.4g}"
        )
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        title: what it is about, or "".
        columns: names, in order.
        rows: one dictionary a row; a missing key is an empty cell. A cell may be text, a number, None, or an
            interval ``{"mean": .., "low": .., "high": ..}``.
        notes: lines below the table.
        formats: column -> function from a cell to its text, where ``show`` is not enough.
        notes_first: the notes are what matters, and are printed above the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()
    formats: dict[str, Callable[[Any], str]] = field(default_factory=dict)
    notes_first: bool = False

    def text(self, row: dict[str, Any], column: str) -> str:
        """One cell as it is shown."""
        value = row.get(column)
        return show(value) if value is None else self.formats.get(column, show)(value)

    def is_number(self, column: str) -> bool:
        """Whether the column lines up on the right: all its cells are numbers, intervals or empty."""
        cells = [value for row in self.rows if (value := row.get(column)) is not None]
        return bool(cells) and all(isinstance(value, int | float | dict) for value in cells)

    def print(self, console: Console | None = None) -> None:
        """Prints the table on a terminal, in parts where it is too wide, each with the first column; into a
        file or a pipe as it is."""
        console = console or Console()
        if console.is_terminal:
            parts = self._parts(console.width)
        else:  # a file or a pipe has no edge at which cells would have to be folded
            parts = [list(self.columns)]
            whole = Measurement.get(console, console.options.update(max_width=WIDEST), self._rich(parts[0]))
            console.width = max(console.width, whole.maximum)
        if self.title:  # in a line of its own: as the table's title it would be folded to the table's width
            console.print(self.title, style="italic", markup=False, highlight=False, soft_wrap=True)
        if not self.notes_first:
            self._print_parts(console, parts)
        for note in self.notes:
            style = "bold" if self.notes_first else "dim"
            console.print(note, style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal)
        if self.notes_first:
            console.print()
            self._print_parts(console, parts)

    def _print_parts(self, console: Console, parts: list[list[str]]) -> None:
        for number, columns in enumerate(parts):
            if number:
                console.print()
            console.print(self._rich(columns))

    def _widths(self) -> dict[str, int]:
        """What each column takes: its longest cell, or, of long text, which may be folded, ``NARROWEST``."""
        widths = {}
        for c in self.columns:
            longest = max([cell_len(str(c)), *(cell_len(self.text(row, c)) for row in self.rows)])
            folds = longest > NARROWEST and not self.is_number(c) and c != self.columns[0]
            widths[c] = NARROWEST if folds else longest
        return widths

    def _parts(self, width: int) -> list[list[str]]:
        """The columns in groups that fit, the first column in each."""
        widths = self._widths()
        first, *others = self.columns
        parts, taken = [[first]], widths[first]
        for column in others:
            if len(parts[-1]) > 1 and taken + 1 + widths[column] > width:
                parts.append([first])
                taken = widths[first]
            parts[-1].append(column)
            taken += 1 + widths[column]
        return parts

    def _rich(self, columns: Sequence[str]) -> RichTable:
        widths = self._widths()
        table = RichTable(header_style="bold", box=None, pad_edge=False)
        for c in columns:
            longest = max([cell_len(str(c)), *(cell_len(self.text(row, c)) for row in self.rows)])
            justify: Literal["left", "right"] = "right" if self.is_number(c) else "left"
            # what fits is not folded, whatever its neighbours take
            least = widths[c] if longest == widths[c] and longest <= NARROWEST else None
            table.add_column(c, justify=justify, overflow="fold", min_width=least)
        for row in self.rows:
            # Text: a title such as [REC] is no markup
            table.add_row(*(Text(self.text(row, c)) for c in columns))
        return table

    def markdown(self) -> str:
        """A Markdown table with its notes; without the title, whose level only the page knows."""
        lines = [f"- {note}" for note in self.notes] + [""] if self.notes_first and self.notes else []
        lines += [
            "| " + " | ".join(self.columns) + " |",
            "|" + "|".join("---:" if self.is_number(column) else "---" for column in self.columns) + "|",
        ]
        for row in self.rows:
            lines.append(
                "| " + " | ".join(_markdown(self.text(row, column)) for column in self.columns) + " |"
            )
        return "\n".join(lines + (["", *self.notes] if self.notes and not self.notes_first else [])) + "\n"

    def csv(self) -> str:
        """CSV with raw values; an interval becomes columns ``name``, ``name_low`` and ``name_high``."""
        wide = [c for c in self.columns if any(isinstance(row.get(c), dict) for row in self.rows)]
        header = [name for c in self.columns for name in ([c, f"{c}_low", f"{c}_high"] if c in wide else [c])]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        for row in self.rows:
            cells: list[Any] = []
            for c in self.columns:
                value = row.get(c)
                cells += (
                    [value["mean"], value["low"], value["high"]]
                    if isinstance(value, dict)
                    else [value, *([None, None] if c in wide else [])]
                )
            writer.writerow(cells)
        return out.getvalue()

    def json(self) -> str:
        """A JSON object with title, columns, rows (raw values) and notes."""
        rows = [{column: row.get(column) for column in self.columns} for row in self.rows]
        whole = {"title": self.title, "columns": list(self.columns), "rows": rows, "notes": list(self.notes)}
        return json.dumps(whole, indent=2, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the table in the format that the file's ending names.

        Raises:
            SettingsError: another ending than .json, .csv or .md, or nothing can be written there.
        """
        storage.check_file(path, SUFFIXES)
        suffix = Path(str(path)).suffix.lower()
        if suffix == ".md":
            storage.write_text((f"# {self.title}\n\n" if self.title else "") + self.markdown(), path)
        else:
            storage.write_text(self.json() if suffix == ".json" else self.csv(), path)
