"""The judges of the measure tools."""

from __future__ import annotations

import pytest

from sparkfleet.audit.controls.tools import CONTROLS, NAMES
from sparkfleet.audit.model import Evidence, NoEvidence, Observation, Status
from sparkfleet.audit.probe import as_user
from sparkfleet.settings import HostSettings

ANSWER, OWNER = (control.judge for control in CONTROLS)
GOOD = "".join(f"{name} 0 usage: {name} [-h]\n" for name in NAMES)


def seen(name: str, output: str, rc: int = 0, error: str = "") -> Evidence:
    return Evidence({name: Observation("command", output, rc, error)})


def test_the_probe_asks_for_the_tools_that_are_judged() -> None:
    assert as_user.TOOLS == NAMES


def test_tools_that_answer_pass() -> None:
    assert ANSWER(seen("tools_answer", GOOD), HostSettings()).status == Status.PASS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("spark-doctor 0 usage: spark-doctor [-h]", "spark-doctor 127 No such file or directory"),
        ("spark-profile 0 usage: spark-profile [-h]", "spark-profile 1 Traceback (most recent call last):"),
        ("spark-profile 0 usage: spark-profile [-h]", "spark-profile 0 "),
    ],
)
def test_one_that_does_not_answer_fails(old: str, new: str) -> None:
    assert old in GOOD
    judgement = ANSWER(seen("tools_answer", GOOD.replace(old, new)), HostSettings())
    assert judgement.status == Status.FAIL
    assert new.split()[0] in judgement.saw


@pytest.mark.parametrize("output", ["", " \n", "Segmentation fault\n", GOOD[:-40], GOOD + GOOD])
def test_evidence_that_is_cut_short_is_none(output: str) -> None:
    with pytest.raises(NoEvidence):
        ANSWER(seen("tools_answer", output), HostSettings())


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("0 0755 /usr/local/bin/spark-doctor", True),
        ("0 2775 /usr/local/bin", True),
        ("0 0775 /opt/sparkfleet", False),
        ("0 0777 /usr/local/bin", False),
        ("1000 0755 /opt/sparkfleet/lib", False),
    ],
)
def test_who_can_replace_a_tool_is_judged_by_every_path(line: str, holds: bool) -> None:
    judgement = OWNER(seen("tools_owner", f"0 0755 /usr\n{line}\n"), HostSettings())
    assert judgement.status == (Status.PASS if holds else Status.FAIL)


def test_a_tool_that_is_not_there_fails_and_nonsense_is_no_evidence() -> None:
    assert OWNER(seen("tools_owner", "", 127, "not in PATH"), HostSettings()).status == Status.FAIL
    with pytest.raises(NoEvidence):
        OWNER(seen("tools_owner", "drwx root\n"), HostSettings())
