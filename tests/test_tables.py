"""One table, four forms."""

import csv
import io
import json

import pytest
from rich.console import Console

from seqrec import tables
from seqrec.errors import SettingsError
from seqrec.tables import Table

TABLE = Table(
    "Scores",
    ["model", "ndcg@10", "seconds", "n"],
    [
        {
            "model": "a|b",
            "ndcg@10": {"mean": 0.16934, "low": 0.1632, "high": 0.1755},
            "seconds": 12.34,
            "n": 6040,
        },
        {"model": "c", "ndcg@10": None, "seconds": 1234.5},
    ],
    notes=["a note"],
)


def test_cells_read_well():
    assert tables.show({"mean": 0.16934, "low": 0.1632, "high": 0.1755}) == ".1693 [.1632, .1755]"
    assert tables.fraction(1.0) == "1.0000"
    assert tables.fraction(-0.25) == "-.2500"
    assert [tables.show(x) for x in (None, True, 12.34, 1234.5, 0.123456, 6040, "x")] == [
        "–",
        "yes",
        "12.3",
        "1,234",
        "0.1235",
        "6,040",
        "x",
    ]


def test_markdown():
    assert TABLE.markdown() == (
        "| model | ndcg@10 | seconds | n |\n|---|---:|---:|---:|\n| a\\|b | .1693 [.1632, .1755] | 12.3 | "
        "6,040 |\n| c | – | 1,234 | – |\n\na note\n"
    )


def test_csv_and_json_keep_raw_values(tmp_path):
    TABLE.write(tmp_path / "t.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert rows[0] == {
        "model": "a|b",
        "ndcg@10": "0.16934",
        "ndcg@10_low": "0.1632",
        "ndcg@10_high": "0.1755",
        "seconds": "12.34",
        "n": "6040",
    }
    assert rows[1]["ndcg@10"] == rows[1]["ndcg@10_high"] == rows[1]["n"] == ""
    TABLE.write(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["rows"][0]["ndcg@10"]["low"] == 0.1632
    TABLE.write(tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text().startswith("# Scores\n\n| model")


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"\.json, \.csv, \.md. Got '\.txt'"):
        TABLE.write(tmp_path / "t.txt")


def test_print_and_own_formats():
    out = io.StringIO()
    table = Table("", TABLE.columns, TABLE.rows, TABLE.notes, {"seconds": lambda s: f"{s:.0f} s"})
    table.print(Console(file=out, width=100))
    assert "12 s" in out.getvalue()
    assert ".1693 [.1632, .1755]" in out.getvalue()
    assert "a note" in out.getvalue()


def test_cells_are_folded_on_a_terminal_only():
    rows = [{"model": "recent_popularity", "title": "a long film title " * 4}]
    for is_terminal in (True, False):
        out = io.StringIO()
        Table("", ["model", "title"], rows).print(
            Console(file=out, width=40, force_terminal=is_terminal, color_system=None)
        )
        assert (rows[0]["title"].strip() in out.getvalue()) is not is_terminal


def test_what_looks_like_markup_is_printed_as_it_is():
    out = io.StringIO()
    Table("", ["title"], [{"title": "[red] (2007)"}]).print(Console(file=out, width=100))
    assert "[red] (2007)" in out.getvalue()


def test_a_wide_table_is_printed_in_parts_and_no_name_is_broken():
    columns = ["model", *(f"metric@{k}" for k in range(8))]
    rows = [
        {"model": name, **dict.fromkeys(columns[1:], 0.123456)} for name in ("recent_popularity", "gru4rec")
    ]
    out = io.StringIO()
    Table("", columns, rows).print(Console(file=out, width=60, force_terminal=True, color_system=None))
    text = out.getvalue()
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.count("recent_popularity") == text.count("model") == 2
    assert all(text.count(column) == 1 for column in columns[1:])


def test_markdown_has_no_html_of_its_cells():
    rows = [{"title": "<script>alert(1)</script> & <b>\nx|y"}, {"title": "a < b & c"}]
    text = Table("", ["title"], rows).markdown()
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script>alert(1)&lt;/script> &amp; &lt;b> x\\|y" in text
    assert len(text.splitlines()) == 4
