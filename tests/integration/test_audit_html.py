"""The audit's page in a real Chromium: hostile data does nothing, no request is made, and people can use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sparkfleet.audit.report import html
from tests.chromium import Browser, Pages, browser
from tests.lab import tools
from tests.unit.audit_runs import CONTROLS, HOSTILE_CONTROLS, hostile, large, small

if tools.browser() is None:
    pytest.skip("there is no browser, and apt has none outside of snap (tests/lab/tools.py)", allow_module_level=True)

CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0, 1] : [255, 255, 255, 1];
  const behind = (e) => e ? over(parse(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : canvas;
  const bad = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const below = behind(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)].sort((x, y) => y - x);
    seen += 1;
    if ((a + .05) / (b + .05) < 4.5) bad.push([element.outerHTML.slice(0, 80), (a + .05) / (b + .05)]);
  }
  return [seen, bad];
})()"""
INJECTED = """(() => {
  const script = document.createElement('script');
  script.textContent = 'window.pwned = 1';
  const box = document.createElement('div');
  box.innerHTML = '<img src=http://127.0.0.1:9/x onerror="window.pwned=2">';
  document.body.append(script, box);
})()"""
VISIBLE_ROWS = (
    "[...document.querySelectorAll('#matrix tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
)
VISIBLE_COLUMNS = (
    "[...document.querySelectorAll('#matrix thead th')].filter(c => !c.hidden).map(c => c.textContent.trim())"
)
VISIBLE_FINDINGS = (
    "[...document.querySelectorAll('.finding')].filter(f => !f.hidden).map(f => f.querySelector('b').textContent)"
)
DETAIL = "document.querySelector('#detail').open && document.querySelector('#detail').innerText"


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    served = Pages()
    yield served
    served.close()


@pytest.fixture
def page(tab: Browser, pages: Pages) -> Browser:
    """The small report, in a wide window."""
    tab.media()
    tab.size(1200, 900)
    tab.open(pages.add("small", html.dumps(small(), CONTROLS)))
    return tab


def test_hostile_data_does_nothing(tab: Browser, pages: Pages) -> None:
    pages.asked.clear()
    url = pages.add("hostile", html.dumps(hostile(), HOSTILE_CONTROLS))
    tab.size(1200, 900)
    tab.open(url)
    tab.click("#matrix td.f")
    shown = tab.js(DETAIL)
    assert "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>" in shown
    assert r"\x1b[2J\x1b]0;pwned\x07\u202egnp.exe" in shown
    assert "more characters are in the JSON report]" in shown
    assert len(shown) < 60_000
    assert tab.js("window.pwned") is None
    assert tab.js("document.scripts.length") == 2
    assert tab.js("document.images.length") == 0
    assert tab.js(r"/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)") is False
    assert tab.js("document.body.textContent.includes('{{ 7 * 7 }}')")
    assert tab.requests() == [url]
    assert pages.asked == ["/hostile"]
    assert tab.complaints() == []


def test_the_policy_holds_where_the_escaping_would_not(page: Browser) -> None:
    page.js(INJECTED)
    assert page.js("fetch('/small').then(() => 'sent', () => 'forbidden')") == "forbidden"
    assert page.js("window.pwned") is None
    assert any("Content Security Policy" in said for said in page.complaints())


def test_no_request_is_made(page: Browser, pages: Pages) -> None:
    assert [url.rpartition("/")[2] for url in page.requests()] == ["small"]
    assert "/favicon.ico" not in pages.asked
    assert page.complaints() == []


def test_the_worst_stands_first(page: Browser) -> None:
    assert page.js(VISIBLE_ROWS) == ["spark2", "spark3", "(fleet)", "spark10", "spark1"]
    assert page.js(VISIBLE_COLUMNS)[:2] == ["host", "SPK-SWAP-01"]
    assert page.js(VISIBLE_FINDINGS)[0] == "SPK-SWAP-01"


def test_words_filter_hosts_and_controls(page: Browser) -> None:
    page.click("#words")
    page.call("Input.insertText", text="spark1 uv")
    assert page.js(VISIBLE_ROWS) == ["spark10", "spark1"]
    assert page.js(VISIBLE_COLUMNS) == ["host", "SPK-UV-01"]
    assert page.js(VISIBLE_FINDINGS) == ["SPK-UV-01"]
    assert page.js("document.querySelector('#shown').textContent") == "2 of 5 hosts, 1 of 5 findings."
    page.click("button[type=reset]")
    page.until(f"{VISIBLE_ROWS}.length === 5")


def test_status_and_severity_filter(page: Browser) -> None:
    for status in "uewpn":
        page.click(f"input[name=status][value={status}]")
    assert page.js(VISIBLE_ROWS) == ["spark2", "(fleet)", "spark10"]
    page.click("input[name=severity][value=critical]")
    assert page.js(VISIBLE_ROWS) == ["(fleet)", "spark10"]
    assert page.js(VISIBLE_FINDINGS) == ["SPK-HOST-01", "SPK-UV-01"]


def test_a_click_shows_the_evidence(page: Browser) -> None:
    page.click("#matrix td.f")
    shown = page.js(DETAIL)
    for said in (
        "spark2, SPK-SWAP-01: fail",
        "no swap is in use",
        "/swap.img file 16777212",
        "mend SPK-SWAP-01 by hand",
    ):
        assert said in shown
    page.press("Escape", 27)
    page.until("!document.querySelector('#detail').open")


def test_the_keyboard_does_all(page: Browser) -> None:
    for _ in range(40):
        page.press("Tab", 9)
        if page.js("document.activeElement.tagName") == "TD":
            break
    label = "document.activeElement.getAttribute('aria-label')"
    assert page.js(label) == "spark2, SPK-SWAP-01: fail"
    page.press("ArrowDown", 40)
    assert page.js(label) == "spark3, SPK-SWAP-01: unreachable"
    page.press("ArrowRight", 39)
    page.press("ArrowUp", 38)
    assert page.js(label) == "spark2, SPK-HOST-01: error"
    page.press("Enter", 13, "\r")
    assert "spark2, SPK-HOST-01: error" in page.js(DETAIL)
    page.press("Escape", 27)
    page.until(f"{label} === 'spark2, SPK-HOST-01: error'")
    page.press("Tab", 9)
    assert page.js("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize("width", [320, 360, 768])
@pytest.mark.parametrize("report", ["small", "hostile", "many"])
def test_a_phone_scrolls_in_one_direction(width: int, report: str, tab: Browser, pages: Pages) -> None:
    made = {"small": (small(), CONTROLS), "hostile": (hostile(), HOSTILE_CONTROLS), "many": large(12, 60)}[report]
    tab.media()
    tab.size(width, 740, phone=True)
    tab.open(pages.add("phone", html.dumps(*made)))
    assert tab.js("document.documentElement.scrollWidth") <= width
    assert tab.js("window.innerWidth") == width
    tab.click("#matrix td.f")
    assert tab.js(DETAIL)
    assert tab.js("(d => d.scrollWidth - d.clientWidth)(document.querySelector('#detail'))") <= 0
    assert tab.js("document.querySelector('#detail').getBoundingClientRect().right") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(scheme: str, page: Browser) -> None:
    page.media(**{"prefers-color-scheme": scheme})
    luminous = page.js("getComputedStyle(document.body).backgroundColor")
    assert (luminous == "rgb(255, 255, 255)") == (scheme == "light")
    seen, bad = page.js(CONTRAST)
    assert seen > 80
    assert bad == []
    page.click("#matrix td.f")
    assert page.js(CONTRAST)[1] == []


def test_it_can_be_read_without_scripts(page: Browser, pages: Pages) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(pages.add("plain", html.dumps(small(), CONTROLS)))
        text = page.js("document.body.innerText")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Show everything" not in text
    assert "spark2" in text
    assert "/swap.img, 16 GiB" in text


def test_it_prints(page: Browser) -> None:
    page.js("document.querySelectorAll('details').forEach(d => d.open = false)")
    page.js(
        "addEventListener('beforeprint', () => window.unfolded = document.querySelectorAll('details[open]').length)"
    )
    assert len(page.call("Page.printToPDF")["data"]) > 10_000
    assert page.js("window.unfolded") == 5
    assert page.js("document.querySelectorAll('details[open]').length") == 0
    page.media("print")
    assert page.js("document.querySelector('#filter').checkVisibility()") is False
    assert page.js("document.querySelector('#matrix').checkVisibility()") is True


def test_a_large_fleet_is_filtered_at_once(tab: Browser, pages: Pages) -> None:
    made, controls = large()
    tab.media()
    tab.size(1200, 900)
    tab.open(pages.add("large", html.dumps(made, controls)))
    tab.click("#words")
    tab.call("Input.insertText", text="spark17")
    assert len(tab.js(VISIBLE_ROWS)) == 11
    assert tab.complaints() == []
