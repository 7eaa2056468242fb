"""The HTML report as text; tests/integration/test_audit_html.py has it in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkfleet.audit.model import Evidence, HostRun, Observation, Run, Status, WaiverNote
from sparkfleet.audit.report import html
from tests.unit.audit_runs import CONTROLS, HOSTILE_CONTROLS, control, hostile, large, run, small, verdict


class Reader(HTMLParser):
    """The elements of a page, and the texts of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and self.cdata_elem:
            self.raw.append((self.elements[-1][0], data))
        else:
            self.text += data


def shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
    """The elements of a page with the names of their attributes."""
    return [(tag, tuple(attributes)) for tag, attributes in Reader(page).elements]


def told(text: str) -> tuple[Run, Any]:
    """A run that has a text in every place."""
    note = WaiverNote(text, text, date(2027, 1, 1), "in force")
    c = control("SPK-SWAP-01", title=text, why="y" + text, source="s" + text, manual_fix="m" + text, measure="d" + text)
    verdicts = (
        verdict(c.id, "h" + text, Status.FAIL, wanted=text, saw=text, command=text, waiver=note),
        verdict(c.id, "g" + text, Status.UNREACHABLE, wanted=text, saw=text, command=text),
    )
    hosts = (
        HostRun("h" + text, Evidence({c.id: Observation(text, text, 1, text)})),
        HostRun("g" + text, None, text, True),
    )
    return Run("r" + text, "s" + text, "f" + text, hosts, verdicts, ("n" + text,)), [c]


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=[])) | st.text("<>&\"'/!-=script{}%#`\\"))
def test_no_text_changes_the_shape_of_the_page(text: str) -> None:
    page = html.dumps(*told(text))
    assert shape(page) == shape(html.dumps(*told("")))
    # A page that holds anything else could be turned round by it, or not be written as UTF-8.
    assert all(char.isprintable() or char == "\n" for char in page)
    page.encode()


def test_no_text_ends_the_block_of_data() -> None:
    page = html.dumps(hostile(), HOSTILE_CONTROLS)
    assert len(re.findall("<script", page)) == 2
    assert len(re.findall("</script", page)) == 2
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    assert not set("<>&") & set(block[1])
    data = json.loads(block[1])
    assert set(data) == {"controls", "hosts", "texts"}
    assert all("\x1b" not in text and "\u202e" not in text for text in data["texts"])


@pytest.mark.parametrize(("made", "controls"), [(small(), CONTROLS), (hostile(), HOSTILE_CONTROLS), (run({}), ())])
def test_the_policy_allows_this_script_and_this_style_only(made: Run, controls: Any) -> None:
    reader = Reader(html.dumps(made, controls))
    (policy,) = (a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, text in (reader.raw[0], reader.raw[-1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_nothing_refers_to_another_place() -> None:
    for tag, attributes in Reader(html.dumps(hostile(), HOSTILE_CONTROLS)).elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "style", "srcset", "action", "formaction")
            if name == "href":
                assert (tag, value) in {("link", "data:,"), ("a", "#findings")}


def test_a_megabyte_is_cut_and_says_so() -> None:
    page = html.dumps(hostile(), HOSTILE_CONTROLS)
    assert len(page) < 200_000
    assert re.search(r"\[cut here: 98\d{4} more characters are in the JSON report\]", page)


def test_evidence_of_what_passes_is_cut_shorter() -> None:
    output = "x" * 20_000
    made = run({}, verdicts=(verdict("SPK-SWAP-01", "a", Status.PASS),))
    seen = Evidence({"SPK-SWAP-01": Observation("c", output)})
    made = Run(made.id, made.started, made.fleet_file, (HostRun("a", seen),), made.verdicts)
    assert "[cut here: 19000 more characters" in html.dumps(made, CONTROLS)


def test_controls_that_fail_come_first_the_severe_ones_before() -> None:
    made, controls = large(20, 12)
    heads = re.findall(r"<span><bdi>(SPK-[A-Z]+-\d+)</bdi>", html.dumps(made, controls))
    assert len(heads) == 12
    severity = {c.id: c.severity.rank for c in controls}
    failing = {v.control for v in made.verdicts if v.status is Status.FAIL}
    first = heads[: len(failing)]
    assert set(first) == failing
    assert [severity[id] for id in first] == sorted(severity[id] for id in first)


def test_a_run_without_anything_is_a_page() -> None:
    text = Reader(html.dumps(run({}), ())).text
    assert "0 hosts, 0 controls" in text
    assert "Nothing: no control fails" in text
