"""The page: whole, alone, and drawn from the result files."""

import json
import re
from html.parser import HTMLParser

import pytest
from made_up_results import write_results

from seqrec import report
from seqrec.benchmark.leaderboard import table_of
from seqrec.benchmark.results import collect, groups
from seqrec.errors import DataError, SettingsError
from seqrec.report import charts

pytest.importorskip("vl_convert", reason="needs vl-convert-python (extra: report)")


class Balance(HTMLParser):
    """Collects tags that are opened and not closed, or the other way round."""

    VOID = {"meta", "br", "img", "link", "hr"}

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_results(folder / "results", "made-up-v1")
    write_results(folder / "results", "made-up-v2")
    report.write(folder / "results", folder / "page.html")
    return (folder / "page.html").read_text()


def test_it_is_self_contained_and_small(page):
    links = re.findall(r"""\b(?:src|href)=["']?([^"'>]*)""", page)
    assert links
    to_results = [link for link in links if not link.startswith("#")]
    assert all(link.startswith("results/") and link.endswith(".json") for link in to_results), "fetched"
    assert not re.search(r"@import|url\(|fetch\(", page)
    assert len(page) < 1_500_000


def test_it_is_well_formed(page):
    balance = Balance()
    balance.feed(page)
    assert (balance.open, balance.wrong) == ([], [])
    assert "$" not in page


def test_it_holds_tables_plots_and_samples_of_every_protocol(page):
    for heading in (
        "Accuracy against training time",
        "Recall at k",
        "Learning curves",
        "By length of the history",
        "By popularity of the target",
        "Accuracy against coverage",
        "A few recommendations",
    ):
        assert len(re.findall(f"<h3>{heading}[^<]*</h3>", page)) == 2, heading
    assert page.count("<svg") == 12
    assert page.count("<table>") == 2
    assert "var(--c2)" in page
    assert "A &lt;1&gt;" in page
    assert "B &amp; C" in page
    assert "<li class=hit>D</li>" in page
    assert "&lt; .001" in page


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(DataError, match="Run seqrec benchmark first"):
        report.write(tmp_path, tmp_path / "page.html")
    write_results(tmp_path)
    with pytest.raises(DataError, match="Run seqrec benchmark first"):
        report.write(tmp_path, tmp_path / "page.html", protocols=["ml-1m-origin-v1"])


def test_without_the_drawing_library_it_says_what_to_install(tmp_path, monkeypatch):
    write_results(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    with pytest.raises(SettingsError, match=r"pip install 'seqrec\[report\]'"):
        report.render(tmp_path)


def test_labels_do_not_cover_each_other():
    spots = [{"model": "alike", "x": 1.0, "mean": 0.5, "high": 0.6} for _ in range(4)] + [
        {"model": "apart", "x": 9.0, "mean": 0.1, "high": 0.2}
    ]
    charts.place_labels(spots, log=True)
    assert [spot["side"] for spot in spots] == ["right", "none", "none", "none", "right"]


def test_a_model_has_one_colour_on_the_page_and_wide_tables_say_so(tmp_path):
    write_results(tmp_path, "one-v1")
    write_results(tmp_path, "two-v1")
    for seed in (0, 1):  # whose best model is another one, and would have the first colour
        next(iter(tmp_path.glob(f"**/two-v1/**/good/*seed-{seed}*"))).unlink()
    page = report.render(tmp_path)
    dots = set(re.findall(r'class="dot" style="background:var\(--(c\d)\)"></i>(\w+)', page))
    assert len(dots) == 3
    assert "scroll it sideways" in page


class Attributes(HTMLParser):
    """Collects the values of all attributes."""

    def __init__(self):
        super().__init__()
        self.found: dict[str, set[str | None]] = {}

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            self.found.setdefault(name, set()).add(value)


def test_names_cannot_leave_their_attributes(tmp_path):
    """Of models and protocols: whoever shares a result file does not write the page."""
    name = """a" onclick="alert(1)" x='<b>"""
    write_results(tmp_path, "one-v1")
    write_results(tmp_path, "two-v1")
    for path in tmp_path.glob("one-v1/good/*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"model": name}))
    for path in tmp_path.glob("two-v1/*/*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"protocol": f"p{name}"}))
    page, attributes = report.render(tmp_path), Attributes()
    attributes.feed(page)
    assert name in attributes.found["data-model"]
    assert f"p{name}" in attributes.found["id"]
    assert f"#p{name}" in attributes.found["href"]
    assert not {"onclick", "x"} & attributes.found.keys()


def test_targets_that_repeat_are_drawn_beside_those_that_explore(tmp_path):
    write_results(tmp_path / "results")
    for path in (tmp_path / "results").rglob("*.json"):
        content = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"}
        content |= {f"metrics_{part}": content["metrics"] for part in ("repeat", "explore")}
        path.write_text(json.dumps(content))
    (group,) = groups(collect(tmp_path / "results"))
    models = [row.model for row in group.rows]
    drawing = charts.repeat_and_explore(group, models)
    assert drawing.count("recall@10 of targets that explore") == len(models)
    assert "recall@10 repeat" in table_of(group).columns
