"""The ssh measure interrupted at every step of its change, in every way: both hosts are as before, and let people in.

ssh.service on one host, ssh.socket on the other. Each test finds the hosts as the one before left them, which is the
proof that they were as before. In the last step a change may be proved and kept: then it is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.deploying import deploy, fleet
from tests.integration.lockout import (
    ARMED,
    STEPS,
    deploy_until,
    is_as_before,
    logs_in,
    wait_until_settled,
)
from tests.integration.sessions import KILLABLE, fresh_session
from tests.lab import Host, Lab

OTHERS = {name: {"state": "unmanaged"} for name in ("swap", "cuda_env", "uv")}


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> Iterator[tuple[Host, Host]]:
    made = spark1, spark2
    yield made
    for host in made:
        host.cut_network(False)


def fleet_for(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path, seconds: int, state: str = "present") -> Path:
    ssh = {"confirm_within": f"{seconds}s", "state": state}
    return fleet(lab, hosts, tmp_path / f"{state}-{seconds}.yaml", {**OTHERS, "ssh": ssh})


def check(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path, step: str) -> None:
    """Everybody gets in, and nothing half-made is there."""
    for host in hosts:
        wait_until_settled(host)
        assert logs_in(host)
        assert fresh_session(host, "alice") == KILLABLE
        assert is_as_before(host) or step == STEPS[-1]
    if step == STEPS[-1]:
        assert deploy(lab, fleet_for(lab, hosts, tmp_path, 300, "absent")).rc == 0
        assert all(is_as_before(host) for host in hosts)


@pytest.mark.parametrize("step", ["Starting operation: ssh", *STEPS])
def test_the_controller_is_killed(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path, step: str) -> None:
    waited_for = hosts if step in STEPS else ()
    deploy_until(lab, fleet_for(lab, hosts, tmp_path, 20), waited_for, step).kill()
    check(lab, hosts, tmp_path, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_network_is_cut(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path, step: str) -> None:
    process = deploy_until(lab, fleet_for(lab, hosts, tmp_path, 20), hosts, step)
    for host in hosts:
        host.cut_network(True)
    for host in hosts:
        host.console_run(f"timeout 120 sh -c 'while test -e {ARMED}; do sleep 0.2; done'", timeout=150)
    process.kill()
    for host in hosts:
        host.cut_network(False)
    check(lab, hosts, tmp_path, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_host_is_restarted(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path, step: str) -> None:
    process = deploy_until(lab, fleet_for(lab, hosts, tmp_path, 600), hosts, step)
    for host in hosts:
        host.hard_reset()
        process.kill()
    check(lab, hosts, tmp_path, step)


def test_after_all_that_a_deploy_goes_through(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    result = deploy(lab, fleet_for(lab, hosts, tmp_path, 300))
    assert result.rc == 0, result.output
    assert "was taken back: " in result.output, "a deploy tells what the host has done by itself"
    for host in hosts:
        assert fresh_session(host, "alice") == KILLABLE
