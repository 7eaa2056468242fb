"""The hardware's timer on a host that has one: qemu's i6300esb. PID 1 is stopped, and the host is really reset.

Its driver is deny-listed first, as Ubuntu's kernels do with a Spark's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet, wait_for
from tests.lab import Host, Lab
from tests.lab.errors import LabError

pytestmark = pytest.mark.acceptance
TIMEOUT = 30
ACTIVE = "grep -qx active /sys/class/watchdog/watchdog0/state"
KEPT = "/var/lib/sparkfleet/hardware-watchdog.json"


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """A host of its own: with the timer, a kernel that has its driver, and a line that keeps it from being loaded."""
    before = os.environ.get("SPARKFLEET_LAB_TIMER")
    os.environ["SPARKFLEET_LAB_TIMER"] = "1"
    made = lab.host("spark5")
    made.clean()
    made.console_run("echo 'blacklist i6300esb' > /etc/modprobe.d/a-distribution.conf; modprobe -r i6300esb || true")
    yield made
    made.delete()
    os.environ.pop("SPARKFLEET_LAB_TIMER")
    if before:
        os.environ["SPARKFLEET_LAB_TIMER"] = before


def chosen(lab: Lab, host: Host, folder: Path, **settings: object) -> Path:
    defaults = {**all_but("hardware_watchdog"), "hardware_watchdog": settings}
    return fleet(lab, [host], folder / "fleet.yaml", defaults=defaults)


def boots(host: Host) -> list[int]:
    """bootstatus of the timer at each boot that was kept."""
    found = json.loads(host.console_run(f"cat {KEPT}").stdout)
    return [one["timers"][0]["bootstatus"] for one in found["boots"]]


def test_modules_load_d_would_not_load_what_is_deny_listed(host: Host) -> None:
    host.console_run("echo i6300esb > /etc/modules-load.d/a.conf; systemctl restart systemd-modules-load || true")
    assert host.console_run("ls -d /sys/module/i6300esb", check=False).rc != 0
    host.console_run("rm /etc/modules-load.d/a.conf")


def test_a_module_that_the_kernel_lacks_is_refused(lab: Lab, host: Host, tmp_path: Path) -> None:
    done = deploy(lab, chosen(lab, host, tmp_path, armed=True, timeout=f"{TIMEOUT}s", driver="no_wdt"))
    assert done.rc != 0
    assert "no module no_wdt" in done.output
    assert host.console_run("ls /etc/systemd/system.conf.d", check=False).stdout == ""


def test_it_is_loaded_armed_and_a_second_deploy_changes_nothing(lab: Lab, host: Host, tmp_path: Path) -> None:
    path = chosen(lab, host, tmp_path, armed=True, timeout=f"{TIMEOUT}s", driver="i6300esb")
    first = deploy(lab, path)
    assert first.rc == 0, first.output
    wait_for(host, ACTIVE)
    assert boots(host) == [0]
    assert deploy(lab, path).changes(host.name) == {}


def test_pid_1_stopped_is_a_reset_and_armed_again_and_told(host: Host) -> None:
    before = host.boot_id()
    # PID 1 takes no SIGSTOP; its cgroup can be frozen.
    host.console_run("sync; nohup sh -c 'sleep 2; echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze' >/dev/null 2>&1 &")
    began = time.monotonic()
    after = before
    while after == before and time.monotonic() - began < 10 * TIMEOUT:
        time.sleep(5)
        try:
            after = host.boot_id()
        except LabError:
            continue
    assert after != before, "the host was not reset"
    print(f"reset, and back after {time.monotonic() - began:.0f} s with a timer of {TIMEOUT} s")
    wait_for(host, ACTIVE, 2 * TIMEOUT)
    wait_for(host, "systemctl is-active -q sparkfleet-hardware-watchdog.service", 60)
    assert boots(host) == [0, 32]
    said = host.console_run("journalctl -b --no-pager -o cat -u sparkfleet-hardware-watchdog").stdout
    assert "it has reset this host before this boot (bootstatus 0x20)" in said


def test_absent_disarms_it_and_leaves_what_was_kept(lab: Lab, host: Host, tmp_path: Path) -> None:
    done = deploy(lab, chosen(lab, host, tmp_path, state="absent"))
    assert done.rc == 0, done.output
    wait_for(host, "grep -qx inactive /sys/class/watchdog/watchdog0/state")
    left = "ls -d /etc/systemd/system/sparkfleet-hardware-watchdog* /opt/sparkfleet/lib/hardware* 2>/dev/null"
    assert host.console_run(left, check=False).stdout == ""
    assert boots(host) == [0, 32]
