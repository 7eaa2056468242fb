"""The observer on a real host: its hardened unit sees all that it must, and a loop is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.watching import SAVED, active, denied, prepare, until
from tests.lab import Host, Lab

UNIT = "sparkfleet-observer"
STATE = "/run/sparkfleet/observer/state.json"
CONTAINER = f"docker-{'0a' * 32}.scope"


@pytest.fixture(scope="module")
def deployed(lab: Lab, spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    prepare(lab, spark1, tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def host(spark1: Host, deployed: None) -> Host:
    spark1.restore(SAVED)
    return spark1


def state(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.console_run(f"cat {STATE}").stdout)
    return found


def test_the_hardened_unit_sees_all_that_it_must(host: Host) -> None:
    """The kernel's log with CAP_SYSLOG alone, systemd's answer, cgroups; nothing of what it tried was denied."""
    host.console_run(f"systemctl restart {UNIT}")
    host.console_run("sleep 45")  # systemd is asked at the second look
    found = state(host)
    assert not {"memory", "kernel_log", "containers", "systemd"} & set(found["problems"]), found
    assert found["alarms"] == []
    assert active(host, UNIT) == ["active"]
    print(host.console_run(f"grep -E 'Vm(RSS|HWM)|CapEff' /proc/$(systemctl show -P MainPID {UNIT})/status").stdout)
    assert denied(host) == ""


def test_a_container_that_starts_for_ever_is_told_to_whoever_asks(host: Host) -> None:
    for _ in range(5):
        host.console_run(f"systemd-run --scope --unit={CONTAINER} sleep 15", timeout=120)
    until(host, f'grep -q \'"kind": "restarts"\' {STATE}')
    said = "container 0a0a0a0a0a0a was started again 4 times within an hour"
    assert said in host.console_run("spark-why").stdout
    assert said in host.console_run(f"journalctl -b --no-pager -u {UNIT} -p warning").stdout


def test_a_line_that_a_process_writes_into_the_log_is_not_the_drivers(host: Host) -> None:
    for _ in range(5):
        host.console_run("echo '<3>NVRM: Out of memory [NV_ERR_NO_MEMORY]' > /dev/kmsg")
    host.console_run("touch /run/now")
    until(host, f"[ {STATE} -nt /run/now ]")
    assert state(host)["figures"]["driver_refused"] == 0


def test_without_a_watchdog_spark_why_says_so(host: Host) -> None:
    assert "no memory watchdog" not in host.console_run("spark-why").stdout
    host.console_run("systemctl stop sparkfleet-watchdog")
    assert "no memory watchdog runs on this host" in host.console_run("spark-why").stdout
