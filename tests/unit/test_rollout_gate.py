"""Whether a batch may pass: what the deploy said, whether SSH answers, and the critical controls."""

from __future__ import annotations

import pytest

from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.model import Evidence, HostRun, Run, Severity, Status, Verdict
from sparkfleet.deploy.outcome import Outcome, State
from sparkfleet.exit_codes import ExitCode
from sparkfleet.rollout.gate import refused, summary
from sparkfleet.rollout.state import Progress

CRITICAL = next(control.id for control in CONTROLS if control.severity is Severity.CRITICAL)
LESS = next(control.id for control in CONTROLS if control.severity is Severity.HIGH)


def gate(status: Status, *, control: str = CRITICAL, state: State = State.CHANGED, answers: bool = True) -> str:
    verdicts = (
        Verdict(CRITICAL, "a", Status.PASS, "", "", ""),
        Verdict(control, "a", status, "", "saw this", ""),
    )
    host = HostRun("a", Evidence({}) if answers else None, "" if answers else "no route", not answers)
    run = Run("id", "now", "fleet.yaml", (host,), verdicts)
    found = refused(["a"], [Outcome("a", state, "why", {})], run, CONTROLS)
    assert all(refusal.code for refusal in found.values())
    return found["a"].reason if found else ""


@pytest.mark.parametrize("status", [Status.FAIL, Status.ERROR, Status.UNREACHABLE])
def test_a_critical_control_that_does_not_hold_closes_the_gate(status: Status) -> None:
    assert CRITICAL in gate(status)


@pytest.mark.parametrize("status", [Status.PASS, Status.WAIVED, Status.NOT_APPLICABLE])
def test_one_that_holds_or_is_waived_leaves_it_open(status: Status) -> None:
    assert gate(status) == ""


def test_a_control_of_less_weight_leaves_it_open() -> None:
    assert gate(Status.FAIL, control=LESS) == ""


def test_a_host_that_answers_no_more_closes_it() -> None:
    assert "no route" in gate(Status.PASS, answers=False)


@pytest.mark.parametrize("state", [s for s in State if s not in (State.CLEAN, State.CHANGED)])
def test_a_deploy_that_did_not_finish_closes_it(state: State) -> None:
    assert "why" in gate(Status.PASS, state=state)


def test_what_was_not_seen_has_another_code_than_what_failed() -> None:
    outcome = [Outcome("a", State.CHANGED, "", {})]
    for status, code in ((Status.FAIL, ExitCode.FAILURE), (Status.ERROR, ExitCode.UNREACHABLE)):
        verdict = Verdict(CRITICAL, "a", status, "", "", "")
        run = Run("id", "now", "f", (HostRun("a", Evidence({}), "", False),), (verdict,))
        assert refused(["a"], outcome, run, CONTROLS)["a"].code is code
    assert refused(["a"], outcome, None, CONTROLS)["a"].code is ExitCode.UNREACHABLE


def test_a_host_of_which_nothing_was_heard_closes_it() -> None:
    assert set(refused(["a"], [], Run("id", "now", "f", (), ()), CONTROLS)) == {"a"}


def test_the_summary_names_every_host_once() -> None:
    lines = summary({"a": Progress.DONE, "bb": Progress.FAILED, "c": Progress.UNTOUCHED}, {"bb": "why"})
    assert lines == ["a   done", "bb  failed: why", "c   untouched"]
