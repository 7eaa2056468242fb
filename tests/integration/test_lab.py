"""The lab itself: if a host is not what the tests believe, the tests prove nothing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import CommandError, Host, Lab


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


def active_swaps(host: Host) -> set[str]:
    return {line.split()[0] for line in host.run("cat /proc/swaps").stdout.splitlines()[1:]}


def test_swap_is_on_from_every_source(hosts: tuple[Host, Host]) -> None:
    """A file in fstab, a zram generator, a GPT partition that only systemd knows of, and a .swap unit."""
    assert active_swaps(hosts[0]) == {"/swap.img", "/dev/zram0", "/var/swap/second"}
    assert active_swaps(hosts[1]) == {"/dev/vda3", "/var/swap/second"}
    assert "vda3" not in hosts[1].run("cat /etc/fstab").stdout
    made_by = hosts[1].run("grep -h generated /run/systemd/generator.late/*.swap").stdout
    assert "systemd-gpt-auto-generator" in made_by


def test_hosts_are_real_machines(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        assert host.run("ps -o comm= -p 1").stdout.strip() == "systemd"
        assert "memory" in host.run("cat /sys/fs/cgroup/cgroup.controllers").stdout.split()
    kernels = {host.run("uname -r; cat /proc/sys/kernel/random/boot_id").stdout for host in hosts}
    assert len(kernels) == 2


def test_ssh_is_a_service_on_one_and_a_socket_on_the_other(hosts: tuple[Host, Host]) -> None:
    states = [host.run("systemctl is-enabled ssh.service ssh.socket", check=False).stdout.split() for host in hosts]
    assert states == [["enabled", "disabled"], ["disabled", "enabled"]]


def test_sudo_asks_on_one_host_only_and_users_have_none(hosts: tuple[Host, Host]) -> None:
    assert hosts[0].run("sudo -n id -u").stdout.strip() == "0"
    asked = hosts[1].run("sudo -n id -u", check=False)
    assert asked.rc != 0
    assert "password is required" in asked.stderr
    assert hosts[1].sudo("id -u").stdout.strip() == "0"
    for host in hosts:
        for user in ("alice", "bob"):
            assert host.run("sudo -n id -u", user=user, check=False).rc != 0


def test_users_log_in_by_key_and_root_does_not(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        shells = [host.run("echo $0", user=user).stdout.strip().lstrip("-") for user in ("alice", "bob")]
        assert shells == ["bash", "zsh"]
        refused = host.run("true", user="root", fresh=True, check=False)
        assert refused.rc == 255
        assert "Permission denied" in refused.stderr


def test_a_host_is_settled_with_nothing_failed(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        assert host.run("systemctl is-system-running").stdout.strip() == "running"
        assert host.run("systemctl show --value -p NRestarts 'serial-getty@*'").stdout.strip() == "0"
        assert host.run("test -d /var/log/journal && findmnt '/mnt/scratch space'").rc == 0


def test_each_host_has_its_own_name_and_identity(hosts: tuple[Host, Host]) -> None:
    assert [host.run("hostname").stdout.strip() for host in hosts] == ["spark1", "spark2"]
    assert len({host.run("cat /etc/machine-id").stdout for host in hosts}) == 2


def test_the_clock_is_right_after_a_restore(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        assert abs(float(host.run("date +%s").stdout) - time.time()) < 10


def test_a_wrong_host_key_is_refused(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    known = lab.known_hosts.read_text().splitlines()
    (other,) = [line.split(None, 1)[1] for line in known if str(hosts[1].port) in line and "ed25519" in line]
    wrong = tmp_path / "known_hosts"
    wrong.write_text(f"[127.0.0.1]:{hosts[0].port} {other}\n")
    result = subprocess.run(
        ["ssh", "-F", lab.ssh_config, "-o", f"UserKnownHostsFile={wrong}", "-o", "ControlPath=none", "spark1", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 255
    assert "Host key verification failed" in result.stderr


def test_the_console_works_and_clean_restores_a_broken_host(hosts: tuple[Host, Host]) -> None:
    host = hosts[0]
    host.sudo("rm /etc/fstab && touch /etc/broken")
    host.console_run("systemctl stop ssh.service && pkill -x sshd; true")
    with pytest.raises(CommandError):
        host.run("true", fresh=True, timeout=8)
    assert host.console_run("id -u; test -e /etc/broken").stdout.strip() == "0"
    host.stop()  # and even off
    host.clean()
    assert host.run("test -s /etc/fstab && ! test -e /etc/broken", fresh=True).rc == 0
