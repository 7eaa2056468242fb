"""The ssh measure where sshd is started in another way than on the everyday hosts, and where it does not start."""

from __future__ import annotations

from pathlib import Path

from tests.integration.deploying import all_but, deploy, fleet
from tests.integration.lockout import is_as_before, logs_in
from tests.integration.sessions import KILLABLE, fresh_session, listener_score, memory_min
from tests.lab import Host, Lab

OTHERS = all_but("ssh")
SETTINGS = {**OTHERS, "ssh": {"confirm_within": "300s"}}


def test_a_socket_on_debian_12_and_a_service_on_debian_13(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    """Debian 12's ssh.socket starts an sshd for each connection (Accept=yes): no listener of its own to protect."""
    spark1.sudo("systemctl disable ssh.service; systemctl enable ssh.socket")
    spark2.sudo("systemctl disable ssh.socket; systemctl enable ssh.service")
    for host in (spark1, spark2):
        host.reboot()
    assert spark1.run("systemctl is-active ssh.socket ssh.service", check=False).stdout.split() == [
        "active",
        "inactive",
    ]
    assert spark2.run("systemctl is-active ssh.socket ssh.service", check=False).stdout.split() == [
        "inactive",
        "active",
    ]
    path = fleet(lab, (spark1, spark2), tmp_path / "fleet.yaml", SETTINGS)
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    for host in (spark1, spark2):
        for user in ("admin", "alice"):
            assert fresh_session(host, user) == KILLABLE
    assert listener_score(spark2) == -1000
    assert memory_min(spark2, "system.slice/ssh.service") == 512
    assert memory_min(spark1, "system.slice/system-ssh.slice") == 512
    again = deploy(lab, path)
    assert [again.changes(host.name) for host in (spark1, spark2)] == [{}, {}]


def test_an_sshd_that_does_not_start_again_is_replaced(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    """A drop-in of the site's keeps ssh.service from starting; the running one does not show it."""
    hosts = (spark1, spark2)
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
    lab: Lab, spark1: Host, spark2: Host, tmp_path: Path
) -> None:
    """sshd's own rules by address: the admin's is let in, and the trial, which has none, is not even tried."""
    hosts = (spark1, spark2)
    for host in hosts:
        host.sudo(
            "printf 'Match Address *,!10.0.2.2\\n  AllowUsers nobody\\n' >/etc/ssh/sshd_config.d/site.conf"
            " && systemctl restart ssh.service"
        )
    settings = {**OTHERS, "ssh": {"confirm_within": "300s"}}
    refused = deploy(lab, fleet(lab, hosts, tmp_path / "trial.yaml", settings))
    assert refused.rc == 1
    assert "a trial login failed" in refused.output
    settings = {**OTHERS, "ssh": {"confirm_within": "300s", "trial_login": False}}
    result = deploy(lab, fleet(lab, hosts, tmp_path / "none.yaml", settings))
    assert result.rc == 0, result.output
    for host in hosts:
        assert fresh_session(host, "alice") == KILLABLE
