"""Nobody is locked out: a change that would do so is refused, or taken back, with a controller or without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet
from tests.integration.lockout import (
    ARMED,
    DROP_IN,
    STEPS,
    deploy_until,
    is_as_before,
    logs_in,
    site_check,
    wait_until_settled,
)
from tests.integration.sessions import KILLABLE, fresh_session
from tests.lab import Host, Lab

OTHERS = all_but("ssh")


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    defaults = {**OTHERS, "ssh": {"confirm_within": "300s"}}
    return fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml", defaults)


def test_a_state_that_refuses_logins_is_taken_back_at_once(
    lab: Lab, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    """On one host the trial login finds it; on the other only a login over the network, after sshd's restart."""
    site_check(hosts[0], f"test ! -e {DROP_IN}")
    site_check(hosts[1], f'test -z "$PAM_RHOST" || test ! -e {DROP_IN}')
    assert all(logs_in(host) for host in hosts)
    result = deploy(lab, fleet_file)
    assert result.rc == 1
    assert "Traceback" not in result.output
    reports = [[line for line in result.lines(host.name, "ssh") if "taken back: " in line] for host in hosts]
    assert "a trial login failed" in reports[0][0]
    assert "a trial login failed" not in reports[1][0]
    for host, lines in zip(hosts, reports, strict=True):
        assert "logins work as before" in lines[0]
        assert is_as_before(host)
        assert logs_in(host)
        host.sudo("sed -i '/site-check/d' /etc/pam.d/sshd")


def test_a_dead_controller_leaves_the_taking_back_to_the_host(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    """SIGKILL while the host waits for the proof. What the next deploy says: acceptance/test_ssh_interrupted.py."""
    soon = {**OTHERS, "ssh": {"confirm_within": "20s"}}
    deploy_until(lab, fleet(lab, [spark1], tmp_path / "soon.yaml", soon), STEPS[1]).kill()
    assert spark1.console_run(f"test -e {ARMED}").rc == 0
    wait_until_settled(spark1)
    assert is_as_before(spark1)
    assert logs_in(spark1)
    assert fresh_session(spark1, "alice") == KILLABLE
