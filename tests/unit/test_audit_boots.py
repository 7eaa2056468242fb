"""Ends of earlier boots: how the probe reads them of the journal, and how they are judged."""

from __future__ import annotations

import json

import pytest

from sparkfleet.audit.controls.host_judges import ended_in_order
from sparkfleet.audit.model import Evidence, NoEvidence, Observation, Status
from sparkfleet.audit.probe import as_root_boots
from sparkfleet.settings import HostSettings

SETTINGS = HostSettings()


def judge(text: str) -> tuple[Status, str]:
    verdict = ended_in_order(Evidence({"boot_ends": Observation("x", text)}), SETTINGS)
    return verdict.status, verdict.saw


@pytest.mark.parametrize(
    ("text", "status", "saw"),
    [
        ("0 ends in 7 days\n", Status.PASS, "0, all in order"),
        ("1 ends in 7 days\n2026-12-01T02:43:00Z shut\n", Status.PASS, "1, all in order"),
        (
            "3 ends in 7 days\n2026-12-01T02:43:00Z cut\n2026-12-01T03:43:00Z shut\n2026-12-01T04:43:00Z cut\n",
            Status.FAIL,
            "2 of 3 were none: started again 2026-12-01T04:43:00Z; 2026-12-01T02:43:00Z",
        ),
        ("no journal on disk\n", Status.NOT_APPLICABLE, "the journal is kept in memory only"),
    ],
)
def test_an_end_without_a_shutdown_is_red(text: str, status: Status, saw: str) -> None:
    found = judge(text)
    assert found[0] is status
    assert found[1].startswith(saw)


@pytest.mark.parametrize("text", ["", "1 ends in 7 days\nx\n", "no entries\n", "1 ends in 7 days\nx maybe\n"])
def test_other_words_are_no_evidence(text: str) -> None:
    with pytest.raises(NoEvidence):
        judge(text)


def test_boots_are_read_of_the_journal_in_order() -> None:
    """Five boots: too old, cut, shut, cut, and the one that runs."""
    now, day = 1796093015.0, 86400.0
    began, shut = as_root_boots.JOURNAL_STARTED, as_root_boots.UNIT_STARTED

    def entry(boot: str, before: float, kind: str) -> str:
        moment = str(int((now - before) * 1e6))
        return json.dumps({"_BOOT_ID": boot, "MESSAGE_ID": kind, "__REALTIME_TIMESTAMP": moment})

    lines = [
        entry("a", 20 * day, began),
        entry("b", 10 * day, began),
        entry("c", 3 * day, began),
        entry("c", 3 * day - 5, began),
        entry("c", 2 * day + 9, shut),
        entry("d", 2 * day, began),
        entry("e", 1 * day, began),
    ]
    found = as_root_boots.told("\n".join(lines), now)
    assert found == ["2026-11-28T02:43:35Z cut", "2026-11-29T02:43:35Z shut", "2026-11-30T02:43:35Z cut"]
