"""The tutorial page: its content, and its layout in a browser at desktop and phone width.

The page differs between backends only by rounding, so it is built with the best backend only.
"""

from __future__ import annotations

import builtins
import html
import os
import re
import symtable
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from browser import Tab, browser, chromium
from chainrule.cli import main

INSTALL = 'the tutorial requires: pip install "chainrule[cli]"'
for module in ("click", "matplotlib", "PIL", "latex2mathml", "pygments"):
    pytest.importorskip(module, reason=INSTALL)

from chainrule.tutorial import CHAPTERS  # noqa: E402

DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the page once and return its file."""
    best = cr.backends()[-1]
    if cr.info()["backend"] != best:
        pytest.skip(f"the page is built only with the backend {best}")
    path = tmp_path_factory.mktemp("tutorial") / "page.html"
    assert main(["tutorial", "--quick", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def text(page_file: Path) -> str:
    return page_file.read_text("utf-8")


@pytest.fixture(scope="module")
def browser_tab(page_file: Path) -> Iterator[Tab]:
    """Open a browser tab. Each test loads the page."""
    path = chromium()
    if path is None and os.environ.get("CHAINRULE_REQUIRE_CHROMIUM") == "1":
        pytest.fail("CHAINRULE_REQUIRE_CHROMIUM=1, but PATH has no Chromium")
    if path is None:
        pytest.skip("PATH has no Chromium: apt-get install chromium")
    with browser(path) as tab:
        yield tab


@pytest.fixture
def tab(browser_tab: Tab, page_file: Path) -> Tab:
    """Load the page at desktop width."""
    browser_tab.events.clear()
    browser_tab.resize(*DESKTOP)
    browser_tab.open(page_file.as_uri())
    return browser_tab


# The file


def test_page_is_one_small_file(text: str) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert len(text.encode()) < 5_000_000
    assert all(f'<section id="{key}">' in text for key, *_ in CHAPTERS)


def test_page_has_every_equation(text: str) -> None:
    for number in range(1, 68):
        row = re.search(rf'id="eq-{number}">(.*?)<div class="no">\((\d+)\)', text)
        assert row, number
        assert row[2] == str(number)
        assert "<math" in row[1]
    rows = re.findall(r'<tr id="index-\d+"><td><a href="#eq-(\d+)">', text)
    assert rows == [str(number) for number in range(1, 68)]


def test_page_has_no_external_reference(text: str) -> None:
    """No reference to another file or server, neither to load nor as a link."""
    external = [
        value
        for value in re.findall(r'\b(?:src|href|action|data|poster)="([^"]*)"', text)
        if not value.startswith(("#", "data:"))
    ]
    assert external == []
    assert all(each.startswith("#") for each in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "@font-face" not in text


def test_ids_are_unique_and_links_resolve(text: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_page_has_no_date(text: str) -> None:
    assert not re.search(r"\b20[2-9]\d-\d\d-\d\d", text)


def listings(text: str) -> list[str]:
    found = re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code></pre>", text, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]*>", "", each)) for each in found]


def undefined(table: symtable.SymbolTable, known: set[str]) -> set[str]:
    """Return the global names that a program uses without defining them."""
    used = {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    return (used - known).union(*(undefined(child, known) for child in table.get_children()))


def test_every_figure_has_self_contained_code(text: str) -> None:
    programs = listings(text)
    assert len(programs) == len(re.findall(r"<figure", text)) >= 18
    for program in programs:
        compile(program, "listing", "exec")
        table = symtable.symtable(program, "listing", "exec")
        known = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
        known |= {child.get_name() for child in table.get_children()}
        assert undefined(table, known | set(dir(builtins))) == set(), program


def test_a_listing_runs(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the listing of the product of Jacobians."""
    program = next(each for each in listings(text) if "jacobian_factors" in each)
    exec(compile(program, "listing", "exec"), {})
    assert "product: 1 x 25" in capsys.readouterr().out


# In the browser


def errors(tab: Tab) -> list[Any]:
    methods = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    return [event["params"] for event in tab.events if event["method"] in methods]


def requests(tab: Tab) -> set[str]:
    sent = [e["params"]["request"]["url"] for e in tab.events if "requestWillBeSent" in e["method"]]
    return {url for url in sent if not url.startswith("data:")}


def test_page_has_no_error_and_no_request(tab: Tab, page_file: Path) -> None:
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    assert errors(tab) == []
    assert requests(tab) == {page_file.as_uri()}


def test_browser_reports_errors_and_requests(browser_tab: Tab, tmp_path: Path) -> None:
    """Check the method of the test above with a page that has both."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://nowhere.invalid/x.png'><script>nothing.at.all</script>")
    browser_tab.events.clear()
    browser_tab.open(bad.as_uri())
    assert errors(browser_tab)
    assert "http://nowhere.invalid/x.png" in requests(browser_tab)


def test_every_equation_is_rendered(tab: Tab) -> None:
    """Each equation has MathML with a size, and the text contains no LaTeX."""
    boxes = tab.evaluate(
        "[...document.querySelectorAll('.eq .row')].map(row => [row.id, "
        "...[...row.querySelectorAll('math')].map(m => m.getBoundingClientRect())"
        ".map(b => Math.min(b.width, b.height))])"
    )
    assert len(boxes) == 67
    assert all(len(sizes) > 0 and min(sizes) > 8 for _, *sizes in boxes)
    assert tab.evaluate("document.querySelectorAll('merror').length") == 0
    prose = tab.evaluate(
        "[...document.querySelectorAll('main p, main li, main h3, figcaption, math, .label')]"
        ".map(e => { const c = e.cloneNode(true); c.querySelectorAll('code').forEach(x => "
        "x.remove()); return c.textContent; }).join(' ')"
    )
    assert not re.search(r"\\|\$|\^\{|_\{|\*\*|`", prose)


def test_no_figure_is_empty(tab: Tab, tmp_path: Path) -> None:
    """Each picture has a size and more than one color."""
    from PIL import Image

    figures = tab.evaluate("[...document.querySelectorAll('figure')].map(f => f.id)")
    assert len(figures) >= 18
    for name in figures:
        boxes = tab.evaluate(
            f"(() => {{ const f = document.querySelector('#{name}'), o = f.getBoundingClientRect();"
            "return [...f.querySelectorAll('.panel svg')].map(s => s.getBoundingClientRect())"
            ".filter(b => b.width > 0)"
            ".map(b => [b.left - o.left, b.top - o.top, b.right - o.left, b.bottom - o.top]); })()"
        )
        assert boxes, name
        path = tmp_path / f"{name}.png"
        tab.screenshot(f"#{name}", path)
        figure = Image.open(path).convert("L")
        for left, top, right, bottom in boxes:
            assert min(right - left, bottom - top) > 12, name
            pixels = np.asarray(figure.crop((left, top, right, bottom)), dtype=float)
            assert pixels.std() > 2.0, (name, left, top)


def test_each_slider_position_shows_a_different_frame(tab: Tab) -> None:
    sliders = tab.evaluate(
        "[...document.querySelectorAll('.slider input')].map(i => [i.id, +i.max])"
    )
    assert len(sliders) >= 8
    for name, last in sliders:
        seen = []
        for position in range(last + 1):
            seen.append(
                tab.evaluate(
                    f"(() => {{ const i = document.getElementById('{name}'); i.value = {position};"
                    "i.dispatchEvent(new Event('input')); const f = i.closest('figure');"
                    "return f.querySelector('output').textContent + "
                    "[...f.querySelectorAll('.notes p')].filter(p => p.getClientRects().length)"
                    ".map(p => p.textContent).join() +"
                    "[...f.querySelectorAll('.frame')].filter(g => g.getClientRects().length)"
                    ".length; })()"
                )
            )
            assert not seen[-1].endswith("\n0"), (name, position)
        assert len(set(seen)) == last + 1, name


def test_pointer_on_the_digit_shows_the_element(tab: Tab) -> None:
    result = tab.evaluate(
        "(() => { const f = document.querySelector('#fig-slide');"
        "const s = f.querySelector('.input-image svg'), b = s.getBoundingClientRect();"
        "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.x + b.width * 11.5 / 28,"
        "clientY: b.y + b.height * 9.5 / 28})); return [f.querySelector('.readout').textContent,"
        "JSON.parse(f.dataset.window)[0].values[8][10]]; })()"
    )
    readout, value = result
    assert readout.startswith("Row 9, column 11 ")
    assert readout.endswith(f"z = {value:.2f}.".replace("-", "−"))
    # The number equals the library's result.
    from chainrule.tutorial.ch6_layers import INDEX, edge_filter, load_digit

    expected = (load_digit(INDEX)[0, 8:11, 10:13, 0] * edge_filter()[0, :, :, 0]).sum()
    assert value == pytest.approx(expected, abs=1e-3)


def test_page_does_not_scroll_horizontally_on_a_phone(browser_tab: Tab, page_file: Path) -> None:
    browser_tab.resize(*PHONE)
    browser_tab.open(page_file.as_uri())
    assert browser_tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    wide = browser_tab.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > "
        f"{PHONE[0]} + 1 && !e.closest('.body, .scroll, .trace, pre')).map(e => "
        "e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))"
    )
    assert wide == []
    cut = browser_tab.evaluate(
        "[...document.querySelectorAll('.panel')].filter(e => e.scrollWidth > "
        "e.clientWidth + 1).map(e => [(e.parentElement || e).id, e.clientWidth, e.scrollWidth])"
    )
    assert cut == []
    heights = browser_tab.evaluate(
        "[...document.querySelectorAll('.slider')].map(s => [...s.children].slice(1).map("
        "e => { const b = e.getBoundingClientRect(); return (b.top + b.bottom) / 2; }))"
    )
    for each in heights:
        assert max(each) - min(each) < 2, "a slider and its buttons must be in one line"
    assert (
        browser_tab.evaluate("getComputedStyle(document.querySelector('main p')).fontSize")
        == "16px"
    )


def test_equations_are_legible_on_a_phone(browser_tab: Tab, page_file: Path) -> None:
    """Equations have at least 14 pixels, and fit into the page or say that they scroll."""
    browser_tab.resize(*PHONE)
    browser_tab.open(page_file.as_uri())
    sizes = browser_tab.evaluate(
        "[...document.querySelectorAll('math')].filter(m => m.getClientRects().length)"
        ".map(m => parseFloat(getComputedStyle(m).fontSize))"
    )
    assert len(sizes) > 100
    assert min(sizes) >= 14
    boxes = browser_tab.evaluate(
        "[...document.querySelectorAll('.eq .body, .scroll, .trace, .output')].map(e => {"
        "const h = (e.closest('.row') || e).nextElementSibling; return [e.className,"
        "e.scrollWidth > e.clientWidth + 1, h.getClientRects().length > 0, h.textContent,"
        "getComputedStyle(e).overflowX, e.tabIndex]; })"
    )
    assert any(wide for _, wide, *_ in boxes)
    for name, wide, said, hint, overflow, focus in boxes:
        assert (said, focus) == (wide, 0), name
        assert "scrolls sideways" in hint
        assert overflow == "auto"
    assert not any(wide for name, wide, *_ in boxes if name == "body")


def test_pictures_have_no_white_card_in_the_dark_scheme(
    browser_tab: Tab, page_file: Path, tmp_path: Path
) -> None:
    """Pictures are dark in the dark scheme, and have about the contrast of the light scheme."""
    from PIL import Image

    found: dict[str, list[tuple[float, float]]] = {}
    # Figures with heatmaps, images, text on a heatmap, and curves.
    figures = ("slide", "maps", "softmax", "confusion", "mistakes", "filters", "descent")
    names = [*(f"#fig-{name} .panels" for name in figures), "#digits .trace"]
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser_tab.call("Emulation.setEmulatedMedia", features=features)
        browser_tab.resize(*DESKTOP)
        browser_tab.open(page_file.as_uri())
        found[scheme] = []
        for name in names:
            browser_tab.screenshot(name, tmp_path / "x.png")
            pixels = np.asarray(Image.open(tmp_path / "x.png").convert("L"), dtype=float)
            found[scheme].append((float(np.median(pixels)), float(pixels.std())))
    browser_tab.call("Emulation.setEmulatedMedia", features=[])
    for name, light, dark in zip(names, *found.values(), strict=True):
        assert light[0] > 225, name
        assert dark[0] < 60, name
        assert dark[1] > 0.5 * light[1], name


RESULT = "document.querySelector('#{0}').closest('form').dataset.result || ''"
VERDICT = "document.querySelector('#{0}').closest('form').querySelector('.verdict').textContent"


def test_each_chapter_ends_with_three_exercises(tab: Tab) -> None:
    found = tab.evaluate(
        "[...document.querySelectorAll('main > section')].map(s => [s.id, s.lastElementChild"
        ".className, [...s.querySelectorAll('.exercise')].map(f => [JSON.parse(f.dataset.check)"
        ".kind, [...f.querySelectorAll('.uses a')].map(a => a.hash)])])"
    )
    assert [key for key, *_ in found] == [key for key, *_ in CHAPTERS]
    for _, last, exercises in found:
        assert last == "exercises"
        assert [kind for kind, _ in exercises] == ["number", "setting", "line"]
        assert all(
            links and all(link.startswith("#index-") for link in links) for _, links in exercises
        )


def test_exercises_are_checked_with_a_mouse(tab: Tab) -> None:
    for name, wrong, right in (
        ("descent-exercise-1", "0,6", "1,4"),
        ("depth-exercise-1", "100,352", "101,770"),
        ("neuron-exercise-1", "-1.5", "\N{MINUS SIGN}0.15"),
        ("three-units-exercise-3", "a_1^(1)", "'a_2^(1)'"[1:-1]),
        ("depth-exercise-3", "<", " > "),
    ):
        assert tab.evaluate(RESULT.format(name)) == ""
        button = f"form:has(#{name}) button"
        tab.click(button)
        assert tab.evaluate(RESULT.format(name)) == "empty"
        for text, result in ((wrong, "wrong"), (right, "right")):
            tab.click(f"#{name}")
            tab.evaluate(f"document.querySelector('#{name}').select()")
            tab.type(text)
            assert tab.evaluate(RESULT.format(name)) == ""
            tab.click(button)
            assert tab.evaluate(RESULT.format(name)) == result, name
        assert tab.evaluate(VERDICT.format(name)).startswith("Correct. ")


def test_exercises_are_checked_with_a_keyboard(tab: Tab) -> None:
    """The whole exercise works without a mouse: the slider with arrows, the check with Enter."""
    tab.evaluate("document.querySelector('#jacobians-exercise-2').focus()")
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Check"
    tab.press("Enter")
    assert tab.evaluate(RESULT.format("jacobians-exercise-2")) == "wrong"
    assert tab.evaluate(VERDICT.format("jacobians-exercise-2")).startswith("Not yet. ")
    tab.evaluate("document.querySelector('#jacobians-exercise-2').focus()")
    for _ in range(2):
        tab.press("ArrowRight")
    label = "document.querySelector('#jacobians-exercise-2').getAttribute('aria-valuetext')"
    assert tab.evaluate(label) == "2"
    tab.press("Tab")
    tab.press(" ")
    assert tab.evaluate(RESULT.format("jacobians-exercise-2")) == "right"
    tab.evaluate("document.querySelector('#layers-exercise-1').focus()")
    tab.type("12")
    tab.press("Enter")
    assert tab.evaluate(RESULT.format("layers-exercise-1")) == "right"
    # The text of a result is announced, and the page is not left.
    assert tab.evaluate("document.querySelectorAll('.verdict[role=status]').length") == 27
    assert tab.evaluate("location.search") == ""


def test_every_right_answer_is_accepted(tab: Tab) -> None:
    results = tab.evaluate(
        "[...document.querySelectorAll('.exercise')].flatMap(form => { const input = "
        "form.querySelector('input'), d = JSON.parse(form.dataset.check);"
        "return (d.answers || [d.answer]).map(each => { input.value = each; form.requestSubmit();"
        "return [input.id, form.dataset.result]; }); })"
    )
    assert len(results) >= 27
    assert {result for _, result in results} == {"right"}, results


def test_page_is_complete_without_script(browser_tab: Tab, page_file: Path) -> None:
    browser_tab.resize(*DESKTOP)
    browser_tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser_tab.open(page_file.as_uri())
    finally:
        browser_tab.call("Emulation.setScriptExecutionDisabled", value=False)
    state = browser_tab.evaluate(
        "[...document.querySelectorAll('figure[data-slider]')].map(f => [f.id,"
        "f.querySelector('.slider').getClientRects().length,"
        "[...f.querySelectorAll('.frame')].filter(g => g.getClientRects().length).length])"
    )
    assert len(state) >= 8
    for name, slider, frames in state:
        assert slider == 0, name
        assert frames > 0, name
    shown = browser_tab.evaluate(
        "['.exercise > p', '.exercise summary', '.exercise button'].map(s => "
        "document.querySelector(s).getClientRects().length > 0)"
    )
    assert shown == [True, True, False]


def test_print_opens_the_code_and_shows_the_static_frame(tab: Tab) -> None:
    frames = "document.querySelectorAll('#fig-three-units svg .frame.on').length"
    start, end = tab.evaluate(
        "(() => { const f = document.querySelector('#fig-three-units'),"
        "i = f.querySelector('input'), count = (at) => { i.value = at;"
        f"i.dispatchEvent(new Event('input')); return {frames}; }};"
        "return [count(i.max), count(0)]; })()"
    )[::-1]
    assert start < end
    closed = "document.querySelectorAll('main details.call:not([open])').length"
    assert tab.evaluate(closed) > 0
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(closed) == 0
    assert tab.evaluate(frames) == end
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(closed) > 0
    assert tab.evaluate(frames) == start
    pages = tab.pdf()
    assert pages.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pages)) > 10


# One element per selector.
TEXTS = """
main p, h1, h2 .number, .no, .names, .names code, figcaption, figcaption a, .call summary,
pre .k, pre .s, pre .n, pre .c, .slider output, .notes p, .facts dt, nav a, th,
pre.output, .trace td, .exercise p, .uses, .uses a, .exercise output, .exercise button,
.exercise input[type=text], .solution summary
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast(browser_tab: Tab, page_file: Path, scheme: str) -> None:
    """Text has the contrast ratio 4.5 of WCAG in the light and the dark color scheme."""
    browser_tab.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    try:
        browser_tab.open(page_file.as_uri())
        dark = browser_tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        ratios = browser_tab.contrast(" ".join(TEXTS.split()).split(", "))
    finally:
        browser_tab.call("Emulation.setEmulatedMedia", features=[])
    assert dark == (scheme == "dark")
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_page_is_accessible(tab: Tab) -> None:
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('svg:not([aria-hidden])')].filter(s => "
        "(s.getAttribute('aria-label') || '').length < 12).length"
    )
    assert unnamed == 0
    levels = tab.evaluate(
        "[...document.querySelectorAll('h1, main h2, main h3')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert tab.evaluate("[...document.querySelectorAll('input')].every(i => i.labels.length === 1)")
