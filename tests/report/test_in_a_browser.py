"""The report in a real browser: sorting, filtering and links, and nothing asked of a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs playwright")
pytest.importorskip("vl_convert", reason="needs vl-convert-python (extra: report)")

from made_up_results import write_results
from playwright.sync_api import sync_playwright

from seqrec import report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a browser: no chromium is installed")
    folder = tmp_path_factory.mktemp("report")
    write_results(folder / "results")
    report.write(folder / "results", folder / "page.html")
    options = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=path, args=["--headless=new", *(f"--{option}" for option in options.split())]
        )
        page, faults, asked = browser.new_page(), [], []
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / "page.html").as_uri())
        yield page
        assert faults == []
        assert asked == [(folder / "page.html").as_uri()]
        browser.close()


def models(page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('tbody tr')].filter((r) => !r.hidden).map((r) => r.dataset.model)"
    )


def test_the_head_of_a_column_sorts(page) -> None:
    assert models(page) == ["good", "similar", "poor"]
    page.get_by_role("button", name="ndcg@10", exact=True).click()
    assert models(page) == ["good", "similar", "poor"]
    page.get_by_role("button", name="ndcg@10", exact=True).click()
    assert models(page) == ["poor", "similar", "good"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="model", exact=True).click()
    assert models(page) == ["good", "poor", "similar"]


def test_a_name_hides_its_model(page) -> None:
    shown = "document.querySelectorAll('svg [aria-label^=\"poor\"]:not(g):not(.gone)').length"
    assert page.evaluate(shown)
    page.get_by_role("button", name="poor", exact=True).click()
    assert "poor" not in models(page)
    assert page.evaluate(shown) == 0
    page.get_by_role("button", name="poor", exact=True).click()
    assert "poor" in models(page)


def test_drawings_say_what_they_show_and_rows_where_they_are_from(page) -> None:
    for drawing in page.locator("svg").all():
        assert (drawing.get_attribute("aria-label") or "").count(".") >= 1
    links = page.locator("tbody a").evaluate_all("all => all.map((a) => a.href)")
    assert len(links) == 6
    assert all(Path(link.removeprefix("file://")).is_file() for link in links)


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_nothing_is_wider_than_the_screen(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width
