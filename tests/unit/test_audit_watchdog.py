"""The watchdogs' judges where recorded evidence has one case only: old words, another process's, no GPU, oomd."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sparkfleet.audit.controls import watchdog_judges as judges
from sparkfleet.audit.controls.host_judges import one_killer
from sparkfleet.audit.model import Evidence, NoEvidence, Observation, Status
from sparkfleet.settings import HostSettings
from tests.compliance.doubles import TIMER_UNIT

SETTINGS = HostSettings()
UNITS = (
    "Id=sparkfleet-watchdog.service\nActiveState=active\nMainPID=7\nWatchdogUSec=10s\nUnitFileState=enabled\n"
    "NeedDaemonReload=no\n\nId=sparkfleet.slice\nNeedDaemonReload=no\n"
)
SPARK = Evidence({"memory": Observation("head -1 /proc/meminfo", "MemTotal:       125829120 kB\n")})
POLICY = judges.expected(SETTINGS, SPARK)


def state(**changes: Any) -> Evidence:
    """A daemon that runs as it should, but for the changes."""
    value = {"age": 3.0, "pid": 7, "dry_run": False, "refused": "", "policy": POLICY, "protect": [], "prefer": []}
    return evidence(
        watchdog_units=UNITS,
        watchdog_check="accepted\n",
        watchdog_state=json.dumps({**value, **changes}),
        memory=SPARK.text("memory"),
    )


def evidence(**texts: str) -> Evidence:
    return Evidence({name: Observation(name, text) for name, text in texts.items()})


@pytest.mark.parametrize("judge", [judges.answers, judges.in_force, judges.signals, judges.configuration_sound])
def test_a_daemon_as_the_fleet_file_has_it_passes(judge: Any) -> None:
    assert judge(state(), SETTINGS).status is Status.PASS


@pytest.mark.parametrize(
    ("changes", "judge", "saw"),
    [
        ({"age": 600.0}, judges.answers, "its last word is 600 s old"),
        ({"pid": 8}, judges.answers, "it does not run: its last word is of process 8"),
        ({"age": 600.0}, judges.in_force, "its last word is 600 s old"),
        ({"policy": {**POLICY, "kill_below": 2**30}}, judges.in_force, "kill_below is 1GiB"),
        ({"policy": {**POLICY, "grace": 9.0}}, judges.in_force, "grace is 9.0"),
        ({"protect": ["*.service"]}, judges.in_force, 'protect is ["*.service"]'),
        ({"dry_run": True}, judges.signals, "a dry run: it signals nobody"),
        ({"refused": "f: x: unknown key"}, judges.configuration_sound, "it runs with an older one: f: x: unknown key"),
    ],
)
def test_what_is_not_as_set_fails(changes: dict[str, Any], judge: Any, saw: str) -> None:
    verdict = judge(state(**changes), SETTINGS)
    assert (verdict.status, verdict.saw) == (Status.FAIL, saw)


@pytest.mark.parametrize("changes", [{"age": "x"}, {"pid": None}, {"policy": 1}, {"dry_run": "no"}])
def test_words_of_another_shape_are_no_evidence(changes: dict[str, Any]) -> None:
    with pytest.raises(NoEvidence):
        judges.signals(state(**changes), SETTINGS)


@pytest.mark.parametrize(
    ("text", "status", "saw"),
    [
        ('{"age": 3.0, "alarms": []}', Status.PASS, "heard of 3 s ago"),
        ('{"age": 99.0, "alarms": []}', Status.FAIL, "its last word is 99 s old: systemctl status sparkfleet-observer"),
        ("no file\n", Status.FAIL, "it has written nothing: systemctl status sparkfleet-observer"),
        ('{"age": 3.0, "alarms": [{"text": "a", "remedy": "b"}]}', Status.FAIL, "a: b"),
    ],
)
def test_what_the_observer_warns_of_or_its_silence_is_red(text: str, status: Status, saw: str) -> None:
    verdict = judges.warned_of(evidence(observer_state=text), SETTINGS)
    assert (verdict.status, verdict.saw) == (status, saw)


@pytest.mark.parametrize("text", ["[]", "{}", '{"age": 1, "alarms": 1}', '{"age": 1, "alarms": [1]}', '{"age": "x"}'])
def test_another_shape_of_the_observers_words_is_no_evidence(text: str) -> None:
    with pytest.raises(NoEvidence):
        judges.warned_of(evidence(observer_state=text), SETTINGS)


def test_without_a_gpu_there_are_no_figures_to_have() -> None:
    seen = evidence(gpus="0 NVIDIA GPUs\n", gpu_sample='{"age": 1.0, "error": "no library", "devices": []}')
    verdict = judges.gpu_figures(seen, SETTINGS)
    assert verdict.status is Status.NOT_APPLICABLE
    assert verdict.saw.endswith("it is no Spark; no library")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("runtime 60000000\npanic 30\n1 timers\nwatchdog0 active\n", Status.PASS),
        ("runtime 60000000\npanic 30\n1 timers\nwatchdog0 inactive\n", Status.FAIL),
        ("runtime 60000000\npanic 0\n1 timers\nwatchdog0 active\n", Status.FAIL),
        ("runtime 0\npanic 30\n0 timers\n", Status.FAIL),
        ("runtime 18446744073709551615\npanic 30\n0 timers\n", Status.FAIL),
    ],
)
def test_a_timer_is_armed_only_if_the_kernel_says_that_it_counts(text: str, status: Status) -> None:
    settings = HostSettings.model_validate({"hardware_watchdog": {"armed": True}})
    assert judges.timer_armed(evidence(hardware_timer=text), settings).status is status
    assert judges.timer_armed(evidence(hardware_timer=text), SETTINGS).status is Status.NOT_APPLICABLE


def test_the_last_line_decides_what_the_next_boot_arms() -> None:
    settings = HostSettings.model_validate({"hardware_watchdog": {"armed": True}})
    off, on = "2 lines\n60s\noff\n", "1 lines\n60s\n"
    seen = evidence(hardware_timer_configured=off, hardware_timer_unit=TIMER_UNIT)
    assert judges.timer_at_boot(seen, settings).saw.startswith("RuntimeWatchdogSec=off, ")
    seen = evidence(hardware_timer_configured=on, hardware_timer_unit=TIMER_UNIT)
    assert judges.timer_at_boot(seen, settings).status is Status.PASS
    seen = evidence(hardware_timer_configured=on, hardware_timer_unit=TIMER_UNIT.replace("enabled", "disabled"))
    assert judges.timer_at_boot(seen, settings).status is Status.FAIL


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("1 timers\nwatchdog0 0\n", Status.PASS),
        ("2 timers\nwatchdog0 0\nwatchdog1 32\n", Status.FAIL),
        ("1 timers\nwatchdog0 33\n", Status.FAIL),  # other bits beside it
        ("1 timers\nwatchdog0 1\n", Status.PASS),
        ("0 timers\n", Status.NOT_APPLICABLE),
    ],
)
def test_a_reset_by_the_timer_is_told(text: str, status: Status) -> None:
    assert judges.not_reset(evidence(hardware_timer_boot=text), SETTINGS).status is status


def test_systemds_own_killer_is_named_where_it_is_there_beside_ours() -> None:
    seen = evidence(killers="systemd-oomd.service active enabled\nearlyoom.service inactive -\n")
    assert one_killer(seen, SETTINGS).saw == "systemd-oomd.service is active, enabled"
