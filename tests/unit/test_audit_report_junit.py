"""The JUnit report: well-formed whatever hosts say, and its counts are those of its elements."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkfleet.audit.model import Run, Status
from sparkfleet.audit.report import junit
from tests.unit.audit_runs import CONTROLS, HOSTILE_CONTROLS, hostile, large, run, small, verdict

UNTIMED = settings(deadline=None)  # the machine may be busy

REQUIRED = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "timestamp", "time"},
    "testcase": {"classname", "name", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
}
CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "skipped"}}


def parsed(run: Run, controls: Any = CONTROLS) -> ET.Element:
    return ET.fromstring(junit.dumps(run, controls).encode())


@pytest.mark.parametrize(
    ("made", "controls"),
    [(small(), CONTROLS), (hostile(), HOSTILE_CONTROLS), large(10, 10), (run({}), CONTROLS)],
    ids=["small", "hostile", "many", "none"],
)
def test_it_has_what_readers_need(made: Run, controls: Any) -> None:
    root = parsed(made, controls)
    for element in root.iter():
        assert REQUIRED[element.tag] <= set(element.attrib)
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
    for suite in root:
        inside = Counter(child.tag for case in suite for child in case)
        said = {
            kind: int(suite.attrib[kind + plural])
            for kind, plural in (("failure", "s"), ("error", "s"), ("skipped", ""))
        }
        assert said == {"failure": inside["failure"], "error": inside["error"], "skipped": inside["skipped"]}
        assert int(suite.attrib["tests"]) == len(suite)
    about_hosts = [suite for suite in root if suite.attrib["name"] != "notes"]
    assert int(root.attrib["tests"]) == sum(len(suite) for suite in about_hosts) == len(made.verdicts)


def test_statuses_are_mapped() -> None:
    root = parsed(small())
    assert [suite.attrib["name"] for suite in root] == ["spark2", "spark3", "(fleet)", "spark10", "spark1", "notes"]
    found = {(s.attrib["name"], c.attrib["name"][:11]): [e.tag for e in c] for s in root for c in s}
    assert found["spark2", "SPK-SWAP-01"] == ["failure"]
    assert found["spark2", "SPK-SSH-01 "] == ["skipped"]
    assert found["spark2", "SPK-HOST-01"] == ["error"]
    assert found["spark3", "SPK-SWAP-01"] == ["error"]
    assert found["spark1", "SPK-HOST-01"] == ["skipped"]
    assert found["spark1", "SPK-SWAP-01"] == []


def test_a_failure_says_what_to_do() -> None:
    (failure,) = parsed(small()).findall("testsuite[@name='spark2']/testcase/failure")
    assert failure.attrib == {
        "message": "fail (critical): wanted no swap; saw /swap.img, 16 GiB",
        "type": "critical fail",
    }
    assert failure.text == (
        "wanted: no swap\nsaw: /swap.img, 16 GiB\nseen by: cat /proc/swaps\n"
        "by hand: mend SPK-SWAP-01 by hand\nmended by: a deploy of the measure swap"
    )


def test_names_of_cases_are_unique_in_a_suite() -> None:
    for suite in parsed(*large(3, 60)):
        names = [case.attrib["name"] for case in suite]
        assert len(names) == len(set(names))


def test_long_text_is_cut_and_says_so() -> None:
    made = run({}, verdicts=(verdict("SPK-SWAP-01", "a", Status.FAIL, saw="x" * 1_000_000),))
    written = junit.dumps(made, CONTROLS)
    assert len(written) < 40_000
    assert "(cut here: 990000 more characters)" in written


@UNTIMED
@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_well_formed(text: str) -> None:
    made = run({}, verdicts=(verdict("SPK-SWAP-01", text or "a", Status.FAIL, saw=text, wanted=text, command=text),))
    (suite,) = parsed(replace(made, started=text))
    assert all(char.isprintable() for char in suite.attrib["name"])


def test_no_control_character_is_left() -> None:
    written = junit.dumps(hostile(), HOSTILE_CONTROLS)
    assert all(char.isprintable() or char == "\n" for char in written)
    written.encode()
