"""The ssh measure interrupted at every step of its change, in every way: both hosts are as before, and let people in.

ssh.service on one host, ssh.socket on the other. Each test finds the hosts as the one before left them, which is the
proof that they were as before. In the last step a change may be proved and kept: then it is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet, wait_for
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

OTHERS = all_but("ssh")


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Host]:
    made = lab.host(request.param)
    made.clean()
    yield made
    made.cut_network(False)


def fleet_for(lab: Lab, host: Host, tmp_path: Path, seconds: int, state: str = "present") -> Path:
    ssh = {"confirm_within": f"{seconds}s", "state": state}
    return fleet(lab, [host], tmp_path / f"{state}-{seconds}.yaml", {**OTHERS, "ssh": ssh})


def check(lab: Lab, host: Host, tmp_path: Path, step: str) -> None:
    """Everybody gets in, and nothing half-made is there."""
    wait_until_settled(host)
    assert logs_in(host)
    assert fresh_session(host, "alice") == KILLABLE
    assert is_as_before(host) or step == STEPS[-1]
    if step == STEPS[-1]:
        assert deploy(lab, fleet_for(lab, host, tmp_path, 300, "absent")).rc == 0
        assert is_as_before(host)


@pytest.mark.parametrize("step", ["Starting operation: ssh", *STEPS])
def test_the_controller_is_killed(lab: Lab, host: Host, tmp_path: Path, step: str) -> None:
    deploy_until(lab, fleet_for(lab, host, tmp_path, 45), step).kill()
    # What the killed run had started on the host may still be at work.
    wait_for(host, "! pgrep -f '[p]ython3 -I -S -B' >/dev/null", timeout=120)
    check(lab, host, tmp_path, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_network_is_cut(lab: Lab, host: Host, tmp_path: Path, step: str) -> None:
    process = deploy_until(lab, fleet_for(lab, host, tmp_path, 45), step)
    host.cut_network(True)
    host.console_run(f"timeout 120 sh -c 'while test -e {ARMED}; do sleep 0.2; done'", timeout=150)
    process.kill()
    host.cut_network(False)
    check(lab, host, tmp_path, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_host_is_reset(lab: Lab, host: Host, tmp_path: Path, step: str) -> None:
    process = deploy_until(lab, fleet_for(lab, host, tmp_path, 600), step)
    host.hard_reset()
    process.kill()
    check(lab, host, tmp_path, step)


def test_the_next_deploy_tells_what_was_taken_back(lab: Lab, host: Host, tmp_path: Path) -> None:
    deploy_until(lab, fleet_for(lab, host, tmp_path, 45), STEPS[1]).kill()
    wait_until_settled(host)
    assert is_as_before(host)
    again = deploy(lab, fleet_for(lab, host, tmp_path, 300))
    assert again.rc == 0, again.output
    assert "was taken back: no login proved it in time" in again.output
    assert deploy(lab, fleet_for(lab, host, tmp_path, 300, "absent")).rc == 0
    assert is_as_before(host)


def test_after_all_that_a_deploy_goes_through(lab: Lab, host: Host, tmp_path: Path) -> None:
    result = deploy(lab, fleet_for(lab, host, tmp_path, 300))
    assert result.rc == 0, result.output
    assert fresh_session(host, "alice") == KILLABLE
