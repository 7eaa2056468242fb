"""The JSON report: its schema, and that what is written is what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkfleet.audit.model import Evidence, HostRun, Observation, Run, Severity, Status, Verdict, WaiverNote
from sparkfleet.audit.report import json_file
from sparkfleet.audit.report.json_file import NotAReport
from tests.unit.audit_runs import CONTROLS, HOSTILE_CONTROLS, control, hostile, large, small

UNTIMED = settings(deadline=None)  # the machine may be busy

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "audit-report.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# Any text that a host may answer, with the lone surrogates that Python makes of bytes that are no UTF-8.
undecodable = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, exclude_categories=())
decodable = st.characters(exclude_categories=["Cs"])
text = st.text(decodable | undecodable, max_size=20)
names = text.filter(bool)
observations = st.builds(Observation, text, text, st.integers(-255, 255), text)
evidences = st.none() | st.builds(Evidence, st.dictionaries(text, observations, max_size=3))
hosts = st.builds(HostRun, names, evidences, text, st.booleans(), text, st.floats(0, 1e6))
notes = st.builds(WaiverNote, text, text, st.dates(date(2000, 1, 1)), st.sampled_from(["in force", "expired", "stale"]))
verdicts = st.builds(Verdict, names, text, st.sampled_from(Status), text, text, text, st.none() | notes)
runs = st.builds(
    Run,
    text,
    text,
    text,
    st.lists(hosts, max_size=3).map(tuple),
    st.lists(verdicts, max_size=4).map(tuple),
    st.lists(text, max_size=2).map(tuple),
)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["status"]["enum"] == [str(status) for status in Status]
    assert SCHEMA["$defs"]["severity"]["enum"] == [str(severity) for severity in Severity]
    assert SCHEMA["properties"]["version"]["const"] == json_file.VERSION
    assert SCHEMA["properties"]["format"]["const"] == json_file.FORMAT


@UNTIMED
@given(runs)
def test_what_is_written_is_valid_and_is_read_again(run: Run) -> None:
    written = json_file.dumps(run, CONTROLS)
    assert written.isascii()
    assert json_file.loads(written) == run
    VALIDATOR.validate(json.loads(written))
    assert json_file.head(written)["id"] == run.id


@pytest.mark.parametrize(
    ("run", "controls"),
    [(small(), CONTROLS), (hostile(), HOSTILE_CONTROLS), large(20, 10)],
    ids=["small", "hostile", "many"],
)
def test_reports_as_they_come(run: Run, controls: Any) -> None:
    written = json_file.dumps(run, controls)
    VALIDATOR.validate(json.loads(written))
    assert json_file.loads(written) == run
    assert "\x1b" not in written


def test_controls_are_described_and_totals_count() -> None:
    document = json.loads(json_file.dumps(small(), CONTROLS))
    assert [found["id"] for found in document["controls"]] == [found.id for found in CONTROLS]
    assert document["controls"][0]["manual_fix"] == "mend SPK-SWAP-01 by hand"
    assert document["run"]["totals"] == {
        "pass": 10, "fail": 3, "waived": 1, "not-applicable": 1, "error": 1, "unreachable": 5,
    }  # fmt: skip


def test_a_control_that_exists_no_more_is_still_reported() -> None:
    document = json.loads(json_file.dumps(small(), CONTROLS[1:]))
    assert document["controls"][-1]["id"] == "SPK-SWAP-01"
    assert document["controls"][-1]["title"] == "(this control exists no more)"


def test_one_line_a_verdict() -> None:
    run = small()
    lines = json_file.dumps(run, CONTROLS).splitlines()
    assert sum('"status"' in line for line in lines) == len(run.verdicts)


BASE = json.loads(json_file.dumps(small(), CONTROLS))


def changed(path: tuple[str | int, ...], value: Any) -> str:
    document = json.loads(json.dumps(BASE))
    here = document
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("3", "has no mapping where format should stand"),
        ("{}", "format is missing"),
        (changed(("format",), "x"), "is no sparkfleet-audit-report"),
        (changed(("version",), 2), "is of version 2 of the format, this program reads 1"),
        (changed(("version",), True), "version is of the wrong type"),
        (changed(("hosts",), {}), "hosts is of the wrong type"),
        (changed(("hosts", 0), None), "has no mapping where name should stand"),
        (changed(("hosts", 0, "evidence", "SPK-SWAP-01"), 1), "has no mapping where command should stand"),
        (changed(("hosts", 0, "unreachable"), 1), "unreachable is of the wrong type"),
        (changed(("verdicts", 0, "status"), "fine"), "status is 'fine', expected one of pass, fail"),
        (changed(("verdicts", 7, "waiver", "expires"), "soon"), "expires is no day"),
    ],
)
def test_what_is_no_report_is_said_in_one_line(given: str, said: str) -> None:
    with pytest.raises(NotAReport) as caught:
        json_file.loads(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_passed_over() -> None:
    assert json_file.loads(changed(("later",), 1)) == small()


@pytest.mark.parametrize("given", ["", "{}", "{\n", '{\n"format": "x",\n"version": 1,\n"run": {},\n'])
def test_a_head_that_is_none(given: str) -> None:
    with pytest.raises(NotAReport):
        json_file.head(given)


def test_a_number_is_written_as_a_number_is() -> None:
    run = replace(small(), hosts=(HostRun("a", None, seconds=1.0),))
    assert json_file.loads(json_file.dumps(run, [control("SPK-A-01")]).replace('"seconds": 1.0', '"seconds": 1')) == run
