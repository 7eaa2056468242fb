"""The ssh measure where sshd is started in another way than on the everyday hosts, and where it does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet, reboot
from tests.integration.lockout import is_as_before, logs_in
from tests.integration.sessions import KILLABLE, fresh_session, listener_score, memory_min
from tests.lab import Host, Lab

OTHERS = all_but("ssh")
SETTINGS = {**OTHERS, "ssh": {"confirm_within": "300s"}}
# As Debian 11 and Ubuntu 22.04 have it, and as a site may have kept it.
ACCEPT = """\
set -e
mkdir -p /etc/systemd/system/ssh.socket.d
printf '[Socket]\\nAccept=yes\\n' >/etc/systemd/system/ssh.socket.d/site.conf
cat >/etc/systemd/system/ssh@.service <<'UNIT'
[Service]
ExecStart=-/usr/sbin/sshd -i
StandardInput=socket
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
UNIT
systemctl daemon-reload
systemctl disable ssh.service
systemctl enable ssh.socket
"""


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    """Both as the lab made them, for each test."""
    made = lab.host("spark1"), lab.host("spark2")
    for host in made:
        host.clean()
    return made


def converges(lab: Lab, hosts: tuple[Host, Host], path: Path) -> None:
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    for host in hosts:
        assert [fresh_session(host, user) for user in ("admin", "alice")] == [KILLABLE, KILLABLE]
    again = deploy(lab, path)
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def test_a_socket_on_debian_12_and_a_service_on_debian_13(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    hosts[0].sudo("systemctl disable ssh.service; systemctl enable ssh.socket")
    hosts[1].sudo("systemctl disable ssh.socket; systemctl enable ssh.service")
    reboot(*hosts)
    for host, started in zip(hosts, ("active", "inactive"), strict=True):
        assert host.run("systemctl is-active ssh.socket", check=False).stdout.split() == [started]
    converges(lab, hosts, fleet(lab, hosts, tmp_path / "fleet.yaml", SETTINGS))
    for host in hosts:
        assert listener_score(host) == -1000
        assert memory_min(host, "system.slice/ssh.service") == 512


def test_a_socket_that_starts_an_sshd_for_each_connection(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Accept=yes: there is no listener to protect, and each sshd is a unit of its own, in a slice of its own."""
    for host in hosts:
        host.sudo(ACCEPT)
    reboot(*hosts)
    for host in hosts:
        states = host.run("systemctl is-active ssh.socket ssh.service", check=False).stdout.split()
        assert states == ["active", "inactive"]
    converges(lab, hosts, fleet(lab, hosts, tmp_path / "fleet.yaml", SETTINGS))
    for host in hosts:
        assert memory_min(host, "system.slice/system-ssh.slice") == 512


def test_an_sshd_that_does_not_start_again_is_replaced(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """A drop-in of the site's keeps ssh.service from starting; the running one does not show it."""
    for host in hosts:
        directory = "/etc/systemd/system/ssh.service.d"
        host.sudo(f"mkdir {directory}; printf '[Service]\\nExecStartPre=/bin/false\\n' >{directory}/site.conf")
        host.sudo("systemctl daemon-reload")
    result = deploy(lab, fleet(lab, hosts, tmp_path / "fleet.yaml", SETTINGS))
    assert result.rc == 1
    assert "Traceback" not in result.output
    for host in hosts:
        assert "sparkfleet-emergency-sshd.service" in "".join(result.lines(host.name, "ssh"))
        assert logs_in(host)
        assert is_as_before(host)


def test_without_a_trial_login_a_refused_login_is_still_taken_back(
    lab: Lab, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """Who logs in only from a certain address (`AllowUsers`): the trial login comes from none, and is refused."""
    for host in hosts:
        host.sudo("echo 'AllowUsers *@10.0.2.2' >/etc/ssh/sshd_config.d/site.conf && systemctl restart ssh.service")
    settings = {**OTHERS, "ssh": {"confirm_within": "300s"}}
    refused = deploy(lab, fleet(lab, hosts, tmp_path / "trial.yaml", settings))
    assert refused.rc == 1
    assert "a trial login failed" in refused.output
    settings = {**OTHERS, "ssh": {"confirm_within": "300s", "trial_login": False}}
    result = deploy(lab, fleet(lab, hosts, tmp_path / "none.yaml", settings))
    assert result.rc == 0, result.output
    for host in hosts:
        assert fresh_session(host, "alice") == KILLABLE


def test_a_configuration_that_sshd_has_not_read_is_not_brought_into_force(
    lab: Lab, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """A broken file that was there before, and one that lets nobody in: both are named, nothing is changed."""
    broken, nobody = "/etc/ssh/sshd_config.d/broken.conf", "/etc/ssh/sshd_config.d/nobody.conf"
    hosts[0].sudo(f"echo 'PermitRootLogin perhaps' >{broken}")
    hosts[1].sudo(f"echo 'AllowUsers nobody' >{nobody}")
    result = deploy(lab, fleet(lab, hosts, tmp_path / "fleet.yaml", SETTINGS))
    assert result.rc == 1
    assert "Traceback" not in result.output
    lines = ["".join(result.lines(host.name, "ssh")) for host in hosts]
    assert "sshd -t fails" in lines[0]
    assert broken in lines[0]
    assert f"{nobody} was changed after sshd read it" in lines[1]
    for host in hosts:
        assert is_as_before(host)
        assert logs_in(host)
