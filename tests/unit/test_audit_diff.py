"""The difference of two runs: what got worse, what got better, and what it looks like."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from sparkfleet.audit.diff import Diff, Kind, diff, summary
from sparkfleet.audit.model import HostRun, Run, Status, Verdict
from sparkfleet.audit.report import diff_text
from sparkfleet.audit.waivers import Waiver, apply
from tests.unit.audit_runs import CONTROLS, HOSTILE, HOSTILE_CONTROLS, hostile, large, run, small, verdict

P, F, W, N, E, U = (
    Status.PASS, Status.FAIL, Status.WAIVED, Status.NOT_APPLICABLE, Status.ERROR, Status.UNREACHABLE,
)  # fmt: skip


def one(status: Status | None, **changes: Any) -> Run:
    """A run of one host and one control."""
    verdicts = () if status is None else (verdict("SPK-SWAP-01", "spark1", status, **changes),)
    return Run("20261124T121500Z-3f9c", "2026-11-24T12:15:00Z", "f.yaml", (HostRun("spark1", None),), verdicts)


def printed(found: Diff, width: int = 80, **options: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=width, **options).print(diff_text.render(found))
    return out.getvalue()


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (P, F, Kind.NEWLY_FAILING),
        (N, F, Kind.NEWLY_FAILING),
        (E, F, Kind.NEWLY_FAILING),
        (U, F, Kind.NEWLY_FAILING),
        (W, F, Kind.NEWLY_FAILING),
        (None, F, Kind.NEWLY_FAILING),
        (P, E, Kind.NO_LONGER_SEEN),
        (P, U, Kind.NO_LONGER_SEEN),
        (F, U, Kind.NO_LONGER_SEEN),
        (W, E, Kind.NO_LONGER_SEEN),
        (F, P, Kind.FIXED),
        (W, P, Kind.FIXED),
        (F, N, Kind.FIXED),
        (E, P, Kind.SEEN_AGAIN),
        (U, W, Kind.SEEN_AGAIN),
        (F, W, Kind.WAIVED),
        (P, W, Kind.WAIVED),
        (None, W, Kind.WAIVED),
        (P, N, Kind.OTHER),
        (E, U, Kind.OTHER),
        (P, P, None),
        (F, F, None),
        (W, W, None),
        (E, E, None),
        (None, P, None),
        (None, U, None),
    ],
)
def test_how_a_verdict_changes(old: Status | None, new: Status, kind: Kind | None) -> None:
    changes = diff(one(old, saw="x"), one(new, saw="x")).changes
    assert [change.kind for change in changes] == ([kind] if kind else [])


@pytest.mark.parametrize("status", [P, F, W])
def test_other_evidence_is_told_with_the_old(status: Status) -> None:
    found = diff(one(status, saw="16 GiB"), one(status, saw="8 GiB"), CONTROLS)
    (change,) = found.changes
    assert change.kind is Kind.EVIDENCE_CHANGED
    assert not found.worse
    assert f"    was     {status}: 16 GiB\n    is      {status}: 8 GiB\n" in printed(found)


def test_a_waiver_that_expired_since() -> None:
    waiver = Waiver("SPK-SWAP-01", "*", "why", "jd", date(2026, 11, 24), "w.yaml:2")
    raw = one(F)
    days = {day: replace(raw, verdicts=apply(raw.verdicts, [waiver], date(2026, 11, day))[0]) for day in (24, 25, 26)}
    assert [change.kind for change in diff(days[24], days[25]).changes] == [Kind.WAIVER_EXPIRED]
    assert [change.kind for change in diff(raw, days[25]).changes] == [Kind.WAIVER_EXPIRED]
    assert diff(days[25], days[26]).empty
    assert diff(days[24], days[25]).worse


def test_hosts_and_controls_come_and_go() -> None:
    old = run({"spark1": [P] * 5, "spark10": [P] * 5, "spark2": [P] * 5})
    new = run({"spark1": [P] * 4, "new": [F, P, P, P]}, CONTROLS[:4])
    found = diff(old, new, CONTROLS)
    assert (found.hosts_vanished, found.hosts_appeared) == (("spark2", "spark10"), ("new",))
    assert (found.controls_vanished, found.controls_appeared) == (("SPK-HOST-01",), ())
    assert [(change.kind, change.host) for change in found.changes] == [(Kind.NEWLY_FAILING, "new")]
    assert diff(new, old).controls_appeared == ("SPK-HOST-01",)
    text = printed(found)
    assert "\nHosts that have vanished\n  spark2, spark10\n" in text
    assert "\nControls that are no longer asked\n  SPK-HOST-01\n" in text
    assert "\nHosts that have appeared\n  new\n" in text


def test_the_worst_is_said_first() -> None:
    old = run({"spark1": [P, P, P, P, F], "spark2": [P] * 5})
    new = run({"spark1": [P, F, P, F, P], "spark2": [F, P, P, P, P]})
    found = diff(old, new, CONTROLS)
    assert [(c.control, c.host) for c in found.of(Kind.NEWLY_FAILING)] == [
        ("SPK-SWAP-01", "spark2"), ("SPK-SWAP-02", "spark1"), ("SPK-UV-01", "spark1"),
    ]  # fmt: skip
    assert summary(found) == "newly failing: SPK-SWAP-01 on spark2 (critical) and 2 more"
    text = printed(found)
    assert text.index("Newly failing") < text.index("Fixed")
    assert (
        "  SPK-SWAP-01 on spark2\n    critical: no swap is in use\n    was     pass: none\n"
        "    is      fail: /swap.img, 16 GiB\n"
    ) in text


def test_a_host_that_is_gone_is_told_once() -> None:
    made, controls = large(3, 60)
    hosts = tuple(HostRun(h.name, None, "no route", True) if h.name == "spark2" else h for h in made.hosts)
    verdicts = tuple(
        verdict(v.control, v.host, U, saw="", command="") if v.host == "spark2" else v for v in made.verdicts
    )
    found = diff(made, replace(made, hosts=hosts, verdicts=verdicts), controls)
    assert summary(found) == "no longer seen: spark2"
    assert printed(found).endswith("\nNo longer seen\n  spark2 cannot be reached (60 controls)\n")


def test_a_host_that_answers_garbage_is_told_once() -> None:
    old, new = run({"spark1": [P] * 5, "a": [P] * 5}), run({"spark1": [E] * 5, "a": [P, P, P, P, E]})
    assert printed(diff(old, new)).count("was     pass") == 1
    assert "\n  spark1 cannot be judged (5 controls)\n" in printed(diff(old, new))
    assert "\nSeen again\n" in printed(diff(new, old))
    assert "\n  spark1 could not be judged, and can be now (5 controls)\n" in printed(diff(new, old))


def test_a_run_differs_from_itself_in_nothing() -> None:
    for made, controls in (small(), CONTROLS), (hostile(), HOSTILE_CONTROLS):
        found = diff(made, made, controls)
        assert found.empty
        assert not found.worse
        assert summary(found) == "nothing got worse"


def test_better_is_not_worse() -> None:
    found = diff(one(F), one(P))
    assert not found.worse
    assert not found.empty
    assert summary(found) == "nothing got worse, 1 control fixed"


def test_json_has_all_of_it() -> None:
    found = diff(one(P, saw="none"), one(F, saw=HOSTILE), CONTROLS)
    written = diff_text.dumps(found)
    assert written.isascii()
    document = json.loads(written)
    assert document["format"] == "sparkfleet-audit-diff"
    assert document["worse"] is True
    assert document["summary"] == "newly failing: SPK-SWAP-01 on spark1 (critical)"
    (change,) = document["changes"]
    assert change["old"]["saw"] == "none"
    assert change["new"]["saw"] == HOSTILE
    assert change["kind"] == "newly failing"


def test_nothing_hostile_reaches_the_terminal() -> None:
    made = hostile()
    new = replace(
        made, hosts=made.hosts[1:], verdicts=tuple(replace(v, status=F, saw=v.saw + "!") for v in made.verdicts)
    )
    for found in diff(made, new, HOSTILE_CONTROLS), diff(new, made, HOSTILE_CONTROLS):
        for width in (20, 80):
            text = printed(found, width)
            assert all(char.isprintable() or char == "\n" for char in text)
            assert all(cell_len(line) <= width for line in text.splitlines())
        assert summary(found).isprintable()
        assert len(summary(found)) <= 300


statuses = st.sampled_from(Status)
verdicts = st.dictionaries(
    st.tuples(st.sampled_from(["SPK-SWAP-01", "SPK-UV-01"]), st.sampled_from(["a", "b", ""])),
    st.tuples(statuses, st.text()),
)


def made_of(given: dict[tuple[str, str], tuple[Status, str]]) -> Run:
    said = tuple(Verdict(control, host, status, "", saw, "") for (control, host), (status, saw) in given.items())
    hosts = tuple(HostRun(name, None) for name in dict.fromkeys(host for _, host in given) if name)
    return Run("20261124T121500Z-3f9c", "", "", hosts, said)


@settings(deadline=None)  # the machine may be busy
@given(verdicts, verdicts)
def test_any_two_runs_can_be_compared(old: Any, new: Any) -> None:
    found = diff(made_of(old), made_of(new), CONTROLS)
    printed(found)
    json.loads(diff_text.dumps(found))
    assert len(summary(found)) <= 300
    failing = {key for key, (status, _) in new.items() if status is F} - {k for k, (s, _) in old.items() if s is F}
    assert {(c.control, c.host) for c in found.of(Kind.NEWLY_FAILING, Kind.WAIVER_EXPIRED)} == failing
