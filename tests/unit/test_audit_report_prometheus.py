"""The audit's metrics: what fails is there, what passes is counted, and nothing that a host says breaks a line."""

from __future__ import annotations

import re

from sparkfleet.audit.model import Severity, Status
from sparkfleet.audit.report.prometheus import dumps
from tests.unit.audit_runs import HOSTILE, control, run

CRITICAL, LOW = control("SPK-SWAP-01", Severity.CRITICAL), control("SPK-UV-01", Severity.LOW)
# A sample of the exposition format: a name, labels with escaped values, a number.
LABEL = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"[a-z_]+(?:\{{{LABEL}(?:,{LABEL})*\}})? [0-9]+")


def test_what_does_not_pass_is_told_by_control_and_host() -> None:
    made = run({"one": [Status.FAIL, Status.PASS], "two": [Status.PASS, Status.ERROR]}, [CRITICAL, LOW])
    lines = dumps(made, [CRITICAL, LOW]).splitlines()
    assert [line for line in lines if line.startswith("sparkfleet_audit_red{")] == [
        'sparkfleet_audit_red{host="one",control="SPK-SWAP-01",severity="critical",status="fail"} 1',
        'sparkfleet_audit_red{host="two",control="SPK-UV-01",severity="low",status="error"} 1',
    ]
    assert 'sparkfleet_audit_verdicts{host="two",severity="critical",status="pass"} 1' in lines


def test_a_hostile_name_stays_in_its_label() -> None:
    text = dumps(run({HOSTILE: [Status.FAIL]}, [CRITICAL]), [CRITICAL])
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line.startswith("# ") or SAMPLE.fullmatch(line), line
