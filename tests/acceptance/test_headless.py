"""The desktop off and back on a host whose display manager is a double: a service of that name which holds 200 MiB."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet
from tests.lab import Host, Lab

pytestmark = pytest.mark.acceptance
DOUBLE = """\
[Unit]
Description=a double of a display manager
[Service]
ExecStart=/usr/bin/python3 -c "import time; held = b'x' * (200 << 20); time.sleep(1e6)"
[Install]
WantedBy=graphical.target
Alias=display-manager.service
"""


@pytest.fixture(scope="module")
def host(spark1: Host) -> Host:
    """A host that boots to its desktop."""
    spark1.console_run("cat > /etc/systemd/system/gdm.service; systemctl daemon-reload", input=DOUBLE)
    spark1.console_run("systemctl enable --quiet --now gdm.service; rm -f /etc/systemd/system/default.target; sleep 5")
    spark1.console_run("systemd-run --quiet --unit=a-job sleep 1d")
    return spark1


def state(host: Host) -> list[str]:
    words = "systemctl get-default; systemctl is-active gdm.service; ls /etc/systemd/system/default.target 2>&1"
    return host.console_run(words, check=False).stdout.split("\n")


def chosen(lab: Lab, host: Host, folder: Path, state_: str) -> Path:
    defaults = {**all_but("headless"), "headless": {"state": state_}}
    return fleet(lab, [host], folder / "fleet.yaml", defaults=defaults)


def test_the_desktop_ends_and_its_memory_comes_back(lab: Lab, host: Host, tmp_path: Path) -> None:
    assert state(host)[:2] == ["graphical.target", "active"]
    path = chosen(lab, host, tmp_path, "present")
    done = deploy(lab, path)
    assert done.rc == 0, done.output
    told = re.search(r"(\d+) MiB of memory came back", done.output)
    assert told, done.output
    assert 150 <= int(told[1]) <= 400
    assert state(host)[:2] == ["multi-user.target", "inactive"]
    assert host.console_run("systemctl is-active a-job").stdout == "active\n"  # no job has ended with it
    assert deploy(lab, path).changes(host.name) == {}


def test_it_is_off_after_a_boot(host: Host) -> None:
    host.reboot()
    assert state(host)[:2] == ["multi-user.target", "inactive"]


def test_absent_brings_it_back_now_and_at_boot(lab: Lab, host: Host, tmp_path: Path) -> None:
    done = deploy(lab, chosen(lab, host, tmp_path, "absent"))
    assert done.rc == 0, done.output
    host.console_run("timeout 30 sh -c 'until systemctl is-active -q gdm.service; do sleep 1; done'")
    assert state(host)[:2] == ["graphical.target", "active"]
    assert "No such file" in state(host)[2]
    assert host.console_run("ls /var/lib/sparkfleet/headless.json", check=False).rc != 0
    host.reboot()
    assert state(host)[:2] == ["graphical.target", "active"]
