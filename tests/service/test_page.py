"""The page in a real browser: Chromium, driven by playwright."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time

import httpx
import polars as pl
import pytest
import uvicorn
from conftest import cycle_log
from playwright.sync_api import expect, sync_playwright

from seqrec.data.interactions import Interactions
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.service.app import Service, make_app
from seqrec.service.registry import Registry, Source
from seqrec.service.telemetry import Telemetry
from seqrec.serving.settings import ServiceSettings

expect.set_options(timeout=20_000)

HACK = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script> & co"
TITLES = {f"i{i}": f"Film {i}" for i in range(12)} | {
    "i0": HACK,
    "i5": "Donaudampfschifffahrtsgesellschaftskapitaenswitwenrentenauszahlungsstelle",
    "i7": "",
}
LARGE = 2**60 + 1


@contextlib.contextmanager
def serving(folders, token=None, **limits):
    """A service with these models in a thread of its own: its address, and what stops it."""
    settings, telemetry = ServiceSettings(reload_seconds=0, **limits), Telemetry()
    registry = Registry(
        [Source(name, str(folder), 1 / len(folders)) for name, folder in folders.items()], settings
    )
    app = make_app(Service(registry, None, telemetry), token)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def stop():
        server.should_exit = True
        thread.join(30)

    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/", stop
    finally:
        stop()
        registry.close()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A service with two models of films; one of them has never seen the last film."""
    root, log = tmp_path_factory.mktemp("models"), cycle_log()
    titles = pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())})
    Markov().fit(Interactions.from_frame(log, items=titles), progress=False).save(root / "markov")
    known = log.filter(pl.col("item_id") != "i11")
    HRM(width=8, train={"epochs": 2}).fit(
        Interactions.from_frame(known, items=titles), progress=False, seed=1
    ).save(root / "hrm")
    with serving({"markov": root / "markov", "hrm": root / "hrm"}, max_k=30) as (address, _):
        yield address


@pytest.fixture(scope="module")
def ids_only(tmp_path_factory):
    """A model without titles whose ids do not fit into a double."""
    log = cycle_log(users=20).with_columns(
        *(
            pl.col(name).str.slice(1).cast(pl.Int64) + add
            for name, add in (("user_id", 0), ("item_id", LARGE))
        )
    )
    folder = tmp_path_factory.mktemp("models") / "ids"
    Markov().fit(log, progress=False).save(folder)
    return {"ids": folder}


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a browser: no chromium is installed")
    options = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    options += " disable-component-update disable-sync"
    with sync_playwright() as started:
        made = started.chromium.launch(
            executable_path=path, args=["--headless=new", *(f"--{option}" for option in options.split())]
        )
        yield made
        made.close()


@pytest.fixture
def opened(browser):
    """Opens pages, and holds afterwards that none had a fault or asked anyone but its service."""
    contexts, faults, asked = [], [], []

    def open_page(address, width=1200, height=900, scheme="light", script=None):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda request: asked.append((address, request.url)))
        if script is not None:
            page.add_init_script(script)
        page.goto(address)
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
    assert [url for address, url in asked if not url.startswith((address, "data:"))] == []


def settled(page):
    """Waits until every model has answered what the page now asks."""
    expect(page.locator(".items").first).to_be_attached()
    expect(page.locator(".items:not([aria-busy=false])")).to_have_count(0)


def listed(page, model):
    """The titles that a model's card shows."""
    settled(page)
    return page.get_by_role("article", name=model).locator(".pick bdi").all_inner_texts()


def chosen(page):
    """The history, newest first."""
    return page.locator("#history bdi").all_inner_texts()


def add(page, words):
    page.get_by_role("combobox").fill(words)
    page.keyboard.press("Enter")
    expect(page.get_by_role("combobox")).to_have_value("")


def answered(address, model, **body):
    found = httpx.post(
        address + "v1/recommend", json={"model": model, "k": 10, "explain": True, **body}
    ).json()
    return found["results"][0]


def named(answer):
    return [title or item for item, title in zip(answer["items"], answer["titles"])]


def test_models_answer_side_by_side_as_the_service_does(films, opened):
    page = opened(films)
    settled(page)
    for model in ("markov", "hrm"):
        said = page.get_by_role("article", name=model)
        assert "From popularity, not from the model: the history is empty." in said.inner_text()
        assert listed(page, model) == named(answered(films, model, sequences=[[]]))
    add(page, "film 3")
    add(page, "film 4")
    assert chosen(page) == ["Film 4", "Film 3"]
    for model in ("markov", "hrm"):
        answer = answered(films, model, sequences=[["i3", "i4"]])
        assert listed(page, model) == named(answer)
        card = page.get_by_role("article", name=model)
        assert "From popularity" not in card.inner_text()
        best = float(card.locator(".number").first.inner_text().replace("−", "-"))
        assert best == pytest.approx(answer["scores"][0], rel=0.01)
        near = card.locator(".why").first.inner_text()
        if model == "markov":
            assert near == ""
            assert "cannot tell which items of the history are near" in card.inner_text()
        else:
            assert near == "near " + " · ".join(TITLES[i] for i in answer["because"][0][:2])
    boxes = [page.get_by_role("article", name=model).bounding_box() for model in ("markov", "hrm")]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    said = page.get_by_role("status").inner_text()
    assert said.startswith("Added Film 4. markov: ")
    assert "hrm: " in said
    # what one model recommends and another, too
    also = page.get_by_role("article", name="markov").locator(".pick").first.inner_text()
    assert re.search(r", also \d+ in hrm", also)


def test_what_a_model_does_not_know_is_named(films, opened):
    page = opened(films)
    settled(page)
    add(page, "film 11")
    settled(page)
    said = page.get_by_role("article", name="hrm").inner_text()
    assert "From popularity, not from the model: none of the history is known to this model." in said
    assert "Left out, since this model does not know it: Film 11." in said
    assert "Left out" not in page.get_by_role("article", name="markov").inner_text()
    add(page, "film 2")
    settled(page)
    said = page.get_by_role("article", name="hrm").inner_text()
    assert "Film 11." in said
    assert "From popularity" not in said


def test_by_keyboard_alone(films, opened):
    page = opened(films)
    settled(page)

    def focused():
        return page.evaluate(
            "(({ ariaLabel, id, innerText }) => ariaLabel || id || innerText)(document.activeElement)"
        )

    def press(*keys):
        for key in keys:
            page.keyboard.press(key)

    press("Tab")
    assert focused() == "Skip to the next items"
    press("Tab", "Tab")
    assert focused() == "search"
    box, options = page.get_by_role("combobox"), page.get_by_role("option")
    press("ArrowDown")
    expect(options).to_have_count(12)
    expect(box).to_have_attribute("aria-expanded", "true")
    press("ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp")
    expect(page.locator("[aria-selected=true]")).to_have_id(box.get_attribute("aria-activedescendant"))
    assert box.get_attribute("aria-activedescendant") == "option-11"
    press("Escape")
    expect(box).to_have_attribute("aria-expanded", "false")
    assert page.get_by_role("listbox").count() == 0
    # Enter before the answer has come takes the best of that answer, not of what was shown
    page.keyboard.type("film 8")
    press("Enter")
    expect(page.locator("#history bdi")).to_have_text(["Film 8"])
    page.keyboard.type("nowhere")
    expect(page.locator("#nothing")).to_have_text("No item has all these words.")
    press("Enter", "Escape", "Escape")
    assert box.input_value() == ""
    page.keyboard.type("film")
    expect(options.first).to_be_visible()
    press("ArrowDown", "Enter")
    expect(page.locator("#history bdi")).to_have_count(2)
    second = chosen(page)[0]
    settled(page)
    # reorder and remove; the focus stays with the item, then goes on to its neighbour
    press("Tab")
    assert focused() == f"Move down: {second}"
    press("Enter")
    assert chosen(page) == ["Film 8", second]
    assert focused() == f"Move up: {second}"
    press("Enter")
    assert chosen(page) == [second, "Film 8"]
    press("Tab")
    assert focused() == f"Remove: {second}"
    press("Space")
    assert chosen(page) == ["Film 8"]
    assert focused() == "Remove: Film 8"
    settled(page)
    # a recommended item is added, and the focus stays on the first row
    page.locator(".pick").first.focus()
    press("Enter")
    expect(page.locator("#history bdi")).to_have_text(["Film 9", "Film 8"])
    settled(page)
    assert page.evaluate("document.activeElement === document.querySelector('.pick')")
    assert page.evaluate("getComputedStyle(document.activeElement, '::after').outlineStyle") == "solid"
    page.get_by_role("button", name="Clear").focus()
    press("Enter")
    expect(page.locator("#history bdi")).to_have_count(0)
    assert focused() == "search"


def test_titles_are_text_whatever_they_hold(films, opened):
    page = opened(films)
    settled(page)
    page.get_by_role("combobox").fill("onerror")
    expect(page.get_by_role("option")).to_have_text([re.compile(re.escape(HACK))])
    page.get_by_role("option").click()
    add(page, "film 1")
    add(page, "i7")  # of an item without a title the id is searched and shown
    add(page, "i4")  # of others an id that is written out
    assert chosen(page) == ["Film 4", "i7", "Film 1", HACK]
    page.get_by_label("Leave out items of the history").uncheck()
    settled(page)
    assert HACK in listed(page, "markov")
    page.locator("#user").fill(HACK)
    page.keyboard.press("Enter")
    expect(page.locator("#who")).to_have_text(f"Before that: user {HACK}")
    settled(page)
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.hacked") is None
    # and if one did come in as HTML, the policy would hold
    page.evaluate("addEventListener('securitypolicyviolation', () => (window.stopped = true))")
    page.evaluate("(html) => document.body.insertAdjacentHTML('beforeend', html)", HACK)
    page.wait_for_timeout(100)
    assert page.evaluate("[window.stopped, window.hacked]") == [True, None]
    opened.faults.clear()
    policy = httpx.get(films).headers["content-security-policy"]
    for part in ("default-src 'none'", "script-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy


def test_an_answer_that_comes_late_is_dropped(films, opened):
    late = """
        const real = fetch;
        window.fetch = async (path, options) => {
          const slow = options.body && options.body.includes('[["i3"]]');
          const answer = await real(path, slow ? {...options, signal: undefined} : options);
          if (slow) await new Promise((done) => setTimeout(done, 600));
          if (slow) window.late = (window.late || 0) + 1;
          return answer;
        };"""
    page = opened(films, script=late)
    settled(page)
    add(page, "film 3")
    page.wait_for_timeout(200)
    add(page, "film 6")
    expected = named(answered(films, "markov", sequences=[["i3", "i6"]]))
    assert listed(page, "markov") == expected
    while page.evaluate("window.late") != 2:
        page.wait_for_timeout(50)
    page.wait_for_timeout(50)
    assert listed(page, "markov") == expected


def test_a_known_user_is_looked_up(films, opened):
    page = opened(films)
    settled(page)
    page.get_by_label("Before that: the history of a known user").fill("u3")
    page.keyboard.press("Enter")
    add(page, "film 2")
    asked = {"users": ["u3"], "sequences": [["i2"]]}
    answer = answered(films, "markov", **asked)
    assert listed(page, "markov") == named(answer)
    expect(page.locator("#how-many")).to_have_text("15 items kept")
    page.locator("#how-many").click()
    kept = page.locator("#kept li").all_inner_texts()
    assert kept == [TITLES[i] or i for i in answer["history"][:-1]][::-1]
    assert "Read 15 kept items of user u3." in page.get_by_role("article", name="markov").inner_text()
    page.get_by_role("button", name="Edit a copy").click()
    settled(page)
    assert chosen(page) == ["Film 2", *kept]
    assert listed(page, "markov") == named(answered(films, "markov", sequences=[answer["history"]]))
    page.get_by_role("button", name="Clear").click()
    page.locator("#user").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("#none-kept")).to_have_text("Nothing is kept of this user.")
    assert "nothing is known of this user" in page.get_by_role("article", name="markov").inner_text()
    page.get_by_role("button", name="Leave this user").click()
    expect(page.locator("#lookup")).to_be_visible()


def test_options_and_errors_in_the_words_of_the_service(films, opened):
    page = opened(films)
    add(page, "film 1")
    box = page.get_by_label("Leave out items of the history")
    assert box.is_checked()
    box.uncheck()
    assert "Film 1" in listed(page, "markov")
    number = page.get_by_label("Items a model")
    number.fill("3")
    assert len(listed(page, "markov")) == 3
    number.fill("31")
    for model in ("markov", "hrm"):
        problem = page.get_by_role("article", name=model).get_by_role("alert")
        expect(problem).to_have_text("k: expected at most 30 items. Got 31.")
    number.fill("12")
    assert len(listed(page, "markov")) == 12
    assert "No more than 11 items may be recommended." in page.get_by_role("article", name="hrm").inner_text()


def test_a_token_is_asked_for_and_ids_stay_whole(ids_only, opened):
    with serving(ids_only, token="schlüssel") as (address, stop):
        page = opened(address)
        label = page.get_by_label("Token")
        expect(label).to_be_focused()
        assert not page.locator("main").is_visible()
        label.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#refused")).to_contain_text("'Authorization: Bearer TOKEN'")
        label.fill("schlüssel")
        page.keyboard.press("Enter")
        expect(page.get_by_role("combobox")).to_be_focused()
        add(page, str(LARGE + 2))
        assert chosen(page) == [str(LARGE + 2)]
        assert listed(page, "ids")[0] == str(LARGE + 3)
        page.locator("#user").fill("someone")
        page.keyboard.press("Enter")
        expect(page.locator("#wrong-user")).to_have_text("User ids here are whole numbers.")
        page.locator("#user").fill("3")
        page.keyboard.press("Enter")
        expect(page.locator("#how-many")).to_have_text("15 items kept")
        page.reload()
        settled(page)
        kept = "[sessionStorage.token, localStorage.length, document.cookie, location.href]"
        assert page.evaluate(kept) == ["schlüssel", 0, "", address]
        stop()
        page.locator(".pick").first.click()
        problem = page.get_by_role("article", name="ids").get_by_role("alert")
        expect(problem).to_have_text("The service cannot be reached. Is it running?")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        page.get_by_role("button", name="Forget the token").click()
        expect(label).to_be_focused()
        assert page.evaluate("sessionStorage.length") == 0


CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if ((!own && !element.placeholder) || !element.checkVisibility() || element.disabled
        || element.closest(".hidden, script, style")) continue;
    let ground = element;
    while (ground && parts(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(light);
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) poor.push(`${element.outerHTML.slice(0, 80)}: ${contrast.toFixed(2)}`);
  }
  return poor;
}"""

UNNAMED = """() => {
  const faults = [];
  const name = (e) => (e.ariaLabel || (e.getAttribute("aria-labelledby") || "").split(" ")
    .map((id) => document.getElementById(id)?.textContent || "").join(" ")
    || [...(e.labels || [])].map((l) => l.textContent).join(" ") || e.textContent).trim();
  for (const e of document.querySelectorAll(
    "button, input, a, summary, section, article, ol, [role=listbox], [role=group], nav"))
    if (!name(e) && e.checkVisibility()) faults.push("no name: " + e.outerHTML.slice(0, 80));
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size < ids.length) faults.push("an id twice");
  for (const attribute of ["aria-controls", "aria-labelledby", "aria-describedby", "aria-activedescendant"])
    for (const e of document.querySelectorAll(`[${attribute}]`))
      if (!document.getElementById(e.getAttribute(attribute))) faults.push(`${attribute} of ${e.id}`);
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!heading.checkVisibility()) continue;
    if (Number(heading.tagName[1]) > level + 1) faults.push("a level of headings is left out");
    level = Number(heading.tagName[1]);
  }
  if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1
      || !document.documentElement.lang || !document.title) faults.push("h1, main, lang or title");
  for (const e of document.querySelectorAll("button, input, summary")) {
    const { width, height } = (e.type === "checkbox" ? e.labels[0] : e).getBoundingClientRect();
    if (e.checkVisibility() && (width < 24 || height < 17)) faults.push("small: " + e.outerHTML.slice(0, 80));
  }
  return faults;
}"""


@pytest.mark.parametrize(
    ("width", "scheme", "paper"),
    [
        (1200, "light", "rgb(251, 251, 249)"),
        (1200, "dark", "rgb(20, 23, 28)"),
        (320, "light", "rgb(251, 251, 249)"),
    ],
)
def test_legible_named_and_within_the_width(films, opened, width, scheme, paper):
    page = opened(films, width, 700, scheme)
    settled(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper

    def check():
        settled(page)
        page.wait_for_timeout(250)  # colours that fade
        assert page.evaluate(CONTRASTS) == []
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    check()
    for words in ("film 11", "donau", "onerror"):
        add(page, words)
    page.locator("#user").fill("u3")
    page.keyboard.press("Enter")
    settled(page)
    page.locator("#how-many").click()
    page.get_by_label("Leave out items of the history").uncheck()
    page.locator(".items li").first.hover()
    check()
    page.get_by_label("Items a model").fill("31")
    page.get_by_role("combobox").fill("film")
    expect(page.get_by_role("option").first).to_be_visible()
    check()
