"""`sparkfleet watch --web` in a real Chromium, over hosts that stream (tests/doubles/status_host.py)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.audit.store import Store
from tests.chromium import Browser, browser
from tests.doubles import sshd, status_host
from tests.doubles.status_host import GIB, Host
from tests.integration.test_audit_html import CONTRAST, INJECTED
from tests.lab import tools
from tests.unit.audit_runs import CONTROLS, small

if tools.browser() is None:
    pytest.skip("there is no browser, and apt has none outside of snap (tests/lab/tools.py)", allow_module_level=True)

EVIL = "<img src=http://127.0.0.1:9/x onerror=pwned=1></script><script>pwned=2</script>\x1b[31m\u202e{{7*7}}"
ROWS = "[...document.querySelectorAll('#hosts tbody tr')].map(r => r.dataset.host)"
VALUES = """Object.fromEntries([...document.querySelectorAll('#hosts tbody tr')].map(r => [r.dataset.host,
  Object.fromEntries([...r.querySelectorAll('td')].map(c => [c.dataset.key, c.dataset.value]))]))"""


@dataclass
class Watched:
    """A fleet that is watched."""

    address: str
    hosts: dict[str, Host]
    fleet: Path
    home: Path
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        found = re.search(r":(\d+)/", self.address)
        assert found
        return int(found[1])


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Three hosts: a calm one, one of which everything is hostile, and one that needs a person; and an audit."""
    home = tmp_path_factory.mktemp("watched")
    event = status_host.kill(EVIL, EVIL)
    owners = [{"owner": EVIL, "cpu": 9 * GIB, "gpu": 30 * GIB}, {"owner": "bob", "cpu": GIB, "gpu": 0}]
    job = {**status_host.says()["jobs"][0], "owner": EVIL, "name": EVIL, "id": EVIL}
    hostile = status_host.says(
        events=[{**event, "text": EVIL, "why": [EVIL]}], warnings=[EVIL], jobs=[job], owners=owners
    )
    hosts = {
        "calm": Host(),
        "evil": Host({**hostile, "release": {"version": EVIL}, "reboot": EVIL}),
        "hot": Host(status_host.says(temperature=92)),
    }
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(sshd.serving(host.command, kind=status_host.Server))
            for name, host in hosts.items()
        }
        fleet = sshd.fleet_of(home, ports)
        run = small()
        names = dict(zip((host.name for host in run.hosts), hosts, strict=False))
        run = replace(
            run,
            fleet_file=str(fleet),
            hosts=tuple(replace(host, name=names.get(host.name, host.name)) for host in run.hosts),
            verdicts=tuple(replace(one, host=names.get(one.host, one.host)) for one in run.verdicts),
        )
        Store(home / "state/sparkfleet/audit").append(run, CONTROLS)
        words = [sys.executable, "-m", "sparkfleet.cli", "watch", "--web", "--port", "0", "--fleet", str(fleet)]
        process = subprocess.Popen(words, env=environment(home), stdout=subprocess.PIPE, text=True)
        assert process.stdout
        address = process.stdout.readline().removeprefix("open ").strip()
        assert "ssh -L" in process.stdout.readline()
        yield Watched(address, hosts, fleet, home, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def page(tab: Browser, watched: Watched) -> Browser:
    """The page, once all hosts have said something."""
    tab.media()
    tab.size(1600, 900)
    tab.open(watched.address)
    tab.until("document.querySelectorAll('#hosts tbody tr.up').length === 3")
    return tab


def status(watched: Watched) -> dict[str, Any]:
    """By host what `sparkfleet status --json` says now."""
    words = [sys.executable, "-m", "sparkfleet.cli", "status", "--json", "--fleet", str(watched.fleet)]
    done = subprocess.run(words, env=environment(watched.home), capture_output=True, text=True, timeout=60, check=False)
    return {host["name"]: host for host in json.loads(done.stdout)["hosts"]}


def test_the_page_shows_what_status_says(page: Browser, watched: Watched) -> None:
    told, shown = status(watched), page.js(VALUES)
    assert shown.keys() == told.keys()
    for name, host in told.items():
        says = host["host"]
        wanted = {
            **{key: says["memory"][key] for key in ("available", "total", "cpu", "gpu", "free")},
            "floor": says["floor"]["term"],
            "jobs": len(says["jobs"]),
            "clock": says["gpus"][0]["clock"],
            "warmest": max(says["temperature"], says["gpus"][0]["temperature"]),
            "up": int(says["up"]),
            "release": says["release"]["version"],
            "audit": sum(host["audit"]["red"].values()) if host["audit"] else "",
            "needs": len(host["needs"]),
        }
        assert {key: shown[name][key] for key in wanted} == {key: str(value) for key, value in wanted.items()}, name
    assert page.js(ROWS) == list(told), "in the same order: who needs a person first"
    assert page.js("document.querySelector('tr[data-host=calm] td[data-key=available]').textContent") == "60.0 GiB"


def test_hostile_names_stay_text_and_no_request_leaves(page: Browser, watched: Watched) -> None:
    page.click("tr[data-host=evil] button")
    page.until("document.querySelectorAll('#chart path.area').length > 0")
    page.until("document.querySelector('#jobs tbody').textContent.includes('<img src=http')")
    text = page.js("document.body.textContent")
    assert "</script><script>pwned=2</script>\\x1b[31m\\u202e{{7*7}}" in text
    assert page.js("window.pwned") is None
    assert page.js("document.images.length") == 0
    assert page.js("document.scripts.length") == 1
    assert (
        page.js(r"/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]/.test(document.body.innerText.replace(/\t/g,''))")
        is False
    )
    here = f"http://127.0.0.1:{watched.port}/"
    assert page.requests()
    assert all(url.startswith(here) for url in page.requests())
    assert page.complaints() == []
    page.click("#close")


def test_the_policy_holds_where_the_escaping_would_not(page: Browser) -> None:
    page.js(INJECTED)
    assert page.js("fetch('http://127.0.0.1:9/x').then(() => 'sent', () => 'forbidden')") == "forbidden"
    assert page.js("window.pwned") is None
    assert any("Content Security Policy" in said for said in page.complaints())


def test_a_kill_appears_within_two_seconds(page: Browser, watched: Watched) -> None:
    before = page.js("document.querySelector('tr[data-host=calm] td[data-key=kill]').dataset.value")
    assert before == ""
    event = status_host.kill("train.py")
    began = time.monotonic()
    watched.hosts["calm"].say(kill=event, events=[event])
    page.until("document.querySelector('tr[data-host=calm] td[data-key=kill]').textContent.includes('train.py')")
    assert time.monotonic() - began < 2
    needs = page.js("document.querySelector('tr[data-host=calm] td.needs').textContent")
    assert needs.startswith("act train.py was killed")
    watched.hosts["calm"].say(kill=None, events=[])
    page.until("document.querySelector('tr[data-host=calm] td[data-key=kill]').textContent === ''")


def test_memory_is_stacked_with_the_thresholds_and_the_events(page: Browser, watched: Watched) -> None:
    event = {**status_host.kill("train.py"), "at": time.time() - 1}
    page.click("tr[data-host=calm] button")
    page.until("document.querySelectorAll('#chart path.area').length === 3")
    assert page.js("[...document.querySelectorAll('#chart path.area')].map(a => a.dataset.owner)") == [
        "ann",
        "root",
        "",
    ]
    # Half of 120 GiB is in use: the topmost edge is in the middle.
    top = "Math.min(...[...document.querySelectorAll('#chart path.area')].map(a => a.getBBox().y))"
    box = page.js("(b => [b.width, b.height])(document.querySelector('#chart').getBoundingClientRect())")
    assert page.js(top) == pytest.approx(6 + (box[1] - 24) / 2, abs=1)
    limits = "[...document.querySelectorAll('#chart line')].map(l => [l.getAttribute('class'), l.dataset.value])"
    assert page.js(limits) == [["term", str(16 * GIB)], ["kill", str(8 * GIB)]]
    assert "ann 45.0 GiB" in page.js("document.querySelector('#legend').textContent")
    fills = page.js("[...document.querySelectorAll('#chart pattern')].map(p => p.innerHTML)")
    assert len(set(fills)) == len(fills), "colours and hatches both tell owners apart"
    watched.hosts["calm"].say(events=[event])
    page.until("document.querySelectorAll('#chart path.mark').length === 1")
    assert "train.py" in page.js("document.querySelector('#chart path.mark title').textContent")
    page.click("input[value=day]")
    page.until("!document.querySelector('#no-day').hidden")
    watched.hosts["calm"].say(
        history=[[time.time() - 60 * at, 60 * GIB, 20 * GIB, 40 * GIB] for at in range(90, 0, -1)]
    )
    time.sleep(1)
    page.click("#close")
    page.open(watched.address)
    page.until("document.querySelectorAll('#hosts tbody tr.up').length === 3")
    page.click("tr[data-host=calm] button")
    page.until("!document.querySelector('#detail').hidden")
    page.click("input[value=day]")
    page.until("document.querySelectorAll('#chart path.area').length === 2")
    watched.hosts["calm"].say(events=[], history=[])
    page.click("#close")


def test_the_audit_is_a_matrix(page: Browser) -> None:
    cells = "[...document.querySelectorAll('#matrix tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    found = page.js(cells)
    assert {row[0] for row in found} <= {"calm", "evil", "hot"}
    assert any("F" in row for row in found)
    assert page.js("document.querySelector('#matrix thead').textContent.includes('SPK-SWAP-01')")


def test_a_lost_host_greys_out_and_comes_back(page: Browser, watched: Watched) -> None:
    watched.hosts["hot"].silent.set()
    try:
        page.until("document.querySelector('tr[data-host=hot]').className === 'late'")
        page.until("document.querySelector('tr[data-host=hot]').className === 'gone'")
        assert "hot gone" in page.js("document.querySelector('tr[data-host=hot] button').textContent")
        grey = page.js("getComputedStyle(document.querySelector('tr[data-host=hot] td')).color")
        assert grey != page.js("getComputedStyle(document.querySelector('tr[data-host=calm] td')).color")
        assert page.js("document.querySelector('tr[data-host=hot] td[data-key=total]').textContent") == "120.0 GiB"
    finally:
        watched.hosts["hot"].silent.clear()
    page.until("document.querySelector('tr[data-host=hot]').className === 'up'")


def test_the_keyboard_does_all(page: Browser) -> None:
    for _ in range(8):
        page.press("Tab", 9)
        if page.js("document.activeElement.tagName") == "BUTTON":
            break
    focus = "document.activeElement.closest('tr').dataset.host"
    first, second = page.js(ROWS)[:2]
    assert page.js(focus) == first
    page.press("ArrowDown", 40)
    assert page.js(focus) == second
    page.press("Enter", 13, "\r")
    page.until("!document.querySelector('#detail').hidden")
    assert page.js("document.activeElement.id") == "detail"
    page.press("Escape", 27)
    page.until("document.querySelector('#detail').hidden")
    assert page.js(focus) == second


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction(width: int, page: Browser) -> None:
    page.size(width, 740, phone=True)
    page.click("tr[data-host=evil] button")
    page.until("!document.querySelector('#detail').hidden")
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.js("document.querySelector('#hosts').getBoundingClientRect().right") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(scheme: str, page: Browser) -> None:
    page.media(**{"prefers-color-scheme": scheme})
    page.click("tr[data-host=evil] button")
    page.until("document.querySelectorAll('#jobs tbody tr').length === 1")
    page.js("document.querySelectorAll('#chart text').forEach(t => t.remove())")  # of SVG: `fill`, not `color`
    seen, bad = page.js(CONTRAST)
    assert seen > 60
    assert bad == []
    page.click("#close")


def test_when_watch_ends_the_page_says_so(page: Browser, watched: Watched) -> None:
    """The last test: it ends what the others look at."""
    os.kill(watched.process.pid, signal.SIGINT)
    page.until("!document.querySelector('#lost').hidden")
    assert page.js("[...document.querySelectorAll('#hosts tbody tr')].every(r => r.className === 'gone')")
