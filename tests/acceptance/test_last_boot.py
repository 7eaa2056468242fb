"""`spark-why --last-boot` on a real host, after each kind of end: made, not described."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.integration.watching import SAVED, active, denied, prepare, until
from tests.lab import Host, Lab

RING = "/var/lib/sparkfleet/observer/ring"
PRINT = "/opt/sparkfleet/bin/sparkfleet-observer --print seconds"
CALM = 5.0
SLACK = 4.0
"""Seconds that an emulated host may take for a sample and a write, beside the 5 s between two syncs."""


@pytest.fixture(scope="module")
def deployed(lab: Lab, spark2: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    prepare(lab, spark2, tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def host(spark2: Host, deployed: None) -> Host:
    """Up for a while, by what its ring says."""
    spark2.restore(SAVED)
    spark2.console_run("systemctl restart sparkfleet-observer; sleep 25", timeout=120)
    return spark2


def why(host: Host) -> dict[str, Any]:
    print(host.console_run("spark-why --last-boot", timeout=120).stdout)
    found: dict[str, Any] = json.loads(host.console_run("spark-why --last-boot --json", timeout=120).stdout)
    return found


def clock(host: Host) -> float:
    return float(host.console_run("date +%s.%N").stdout)


def test_it_records_with_little_wear_and_nothing_is_denied(host: Host) -> None:
    """Bytes as the block device counts them, of all of the host: what the observer writes cannot be more."""
    sectors = "awk '{print $7}' /sys/block/vda/stat"
    host.console_run("sync; sleep 5")
    before = int(host.console_run(sectors).stdout)
    host.console_run("sleep 60", timeout=200)
    written = (int(host.console_run(sectors).stdout) - before) * 512
    print(f"written to the disk in 60 s: {written / 1024:.0f} KiB by the whole host")
    rows = json.loads(host.console_run(PRINT).stdout)["rows"]
    assert len(rows) > 60
    assert written < 2**20
    assert host.console_run(f"stat -c '%s %a' {RING}").stdout == "618496 600\n"
    assert active(host, "sparkfleet-observer") == ["active"]
    print(
        host.console_run("grep -E 'Vm(RSS|Lck)' /proc/$(systemctl show -P MainPID sparkfleet-observer)/status").stdout
    )
    assert "pages can be taken away" not in host.console_run("journalctl -b -u sparkfleet-observer").stdout
    assert denied(host) == ""


def test_a_shutdown_was_a_persons(host: Host) -> None:
    host.reboot()
    found = why(host)
    assert (found["how"], found["why"]) == ("clean", "a person")
    assert found["traces"]["asked"]
    assert found["traces"]["samples"][-1]["kind"] == 2


def test_a_power_cut_leaves_all_but_the_last_seconds(host: Host) -> None:
    at = clock(host)
    host.stop()
    host.up()
    found = why(host)
    assert (found["how"], found["why"]) == ("cut", "power or firmware")
    assert found["certainty"] == "likely"
    last = found["traces"]["samples"][-1]
    print(f"the last sample is {at - last['time']:.1f} s older than the cut")
    assert at - last["time"] < CALM + SLACK
    assert len(found["traces"]["samples"]) > 10
    assert last["available"]
    assert last["holders"]


def test_a_crash_by_hand_is_told_by_what_the_panic_left(host: Host) -> None:
    """pstore in memory of a device, which outlives the reset as a Spark's firmware store does."""
    monitor = host.monitor()
    monitor.command("object-add", **{"qom-type": "memory-backend-ram", "id": "kept", "size": 1 << 20, "share": True})
    monitor.command("device_add", driver="ivshmem-plain", id="kept0", memdev="kept")
    host.console_run(RAMOOPS, timeout=60)
    before = host.boot_id()
    host.console_run("sync; (sleep 2; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &")
    host.wait_boot(before)
    host.console_run(f"{RAMOOPS}; systemctl restart systemd-pstore; ls -R /var/lib/systemd/pstore", timeout=60)
    found = why(host)
    assert (found["how"], found["why"], found["certainty"]) == ("panic", "a person", "sure")
    assert "sysrq triggered crash" in " ".join(found["traces"]["panic"])


RAMOOPS = (
    "set -e; for d in /sys/bus/pci/devices/*; do"
    " if [ $(cat $d/device) = 0x1110 ]; then echo 1 > $d/enable; a=$(sed -n '3s/ .*//p' $d/resource); fi; done;"
    " modprobe ramoops mem_address=$a mem_size=0x100000 record_size=0x10000 mem_type=1;"
    " mount -t pstore - /sys/fs/pstore || :"
)
"""Memory of the device (its BAR 2) becomes the kernel's place for what a panic leaves."""


def test_the_hardware_timers_reset_is_told(host: Host) -> None:
    """PID 1 is frozen, and qemu's emulated timer (i6300esb) resets the host."""
    host.monitor().command("device_add", driver="i6300esb", id="timer")
    host.console_run("modprobe i6300esb; sleep 1; cat /sys/class/watchdog/watchdog0/identity")
    manager = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    host.console_run(f"busctl set-property {manager} RuntimeWatchdogUSec t 20000000")
    before = host.boot_id()
    host.console_run("echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze")
    host.wait_boot(before)
    host.console_run("modprobe i6300esb")
    found = why(host)
    assert found["how"] == "watchdog reset"
    assert found["why"] == "unsure"
    assert found["traces"]["timer"] == 0x20


def test_a_frozen_host_that_is_reset_much_later_is_not_explained_away(host: Host) -> None:
    """Frozen: its processors stand still. It could as well have been without power."""
    before = host.boot_id()
    host.monitor().command("stop")
    time.sleep(150)
    host.monitor().command("system_reset")
    host.monitor().command("cont")
    host.wait_boot(before)
    found = why(host)
    assert (found["how"], found["why"], found["certainty"]) == ("cut", "unsure", "open")
    assert len(found["traces"]["samples"]) > 10


def test_whoever_is_not_root_is_told_what_was_not_seen(host: Host) -> None:
    host.reboot()
    said = host.run("spark-why --last-boot", user="alice").stdout
    assert f"not seen: the ring ({RING}): Permission denied" in said
    until(host, "systemctl is-active -q sparkfleet-observer")
