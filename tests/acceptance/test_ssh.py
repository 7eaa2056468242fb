"""The ssh measure on ssh.service (spark1) and ssh.socket (spark2): what it protects, what it repairs, what it refuses.

One cycle for many breaks; the order of the tests is the order of the story. What a change does that locks people out is
in test_ssh_lockout.py, what a reboot and a removal leave is shown for all measures at once in test_deploy.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deploying import Deployed, all_but, deploy, fleet, wait_for
from tests.integration.sessions import KILLABLE, MIB, fresh_session, listener_score, memory_current, memory_min, shown
from tests.lab import Host, Lab

OTHERS = all_but("ssh")
DROP_IN = "/etc/systemd/system/ssh.service.d/oom.conf"
HOOK = "/opt/sparkfleet/lib/killable-session"
AGENT = 200
"""MiB that the protected service of the site may keep."""
HOLD = f'import signal; held = b"x" * {150 * MIB}; signal.pause()'


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    defaults = {**OTHERS, "ssh": {"confirm_within": "300s"}}
    protect = {hosts[0].name: {"ssh": {"protect": {"agent.service": f"{AGENT}MiB"}}}}
    return fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml", defaults, protect)


@pytest.fixture(scope="module")
def first(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path) -> Deployed:
    """The first deploy; before it, two services of the site that are alike, of which one is to be protected."""
    unit = f"[Service]\nExecStart=/usr/bin/python3 -c '{HOLD}'\n"
    for name in ("agent", "twin"):
        hosts[0].sudo(f"cat >/etc/systemd/system/{name}.service", input=unit)
    hosts[0].sudo("systemctl daemon-reload && systemctl start agent twin")
    return deploy(lab, fleet_file)


def test_the_drop_in_alone_would_make_every_session_unkillable(hosts: tuple[Host, Host]) -> None:
    """Why there is a hook: what the recipe that people copy does, on a clean host."""
    host = hosts[1]
    directory = DROP_IN.rpartition("/")[0]
    host.sudo(
        f"mkdir {directory} && printf '[Service]\\nOOMScoreAdjust=-1000\\n' >{DROP_IN}"
        " && systemctl daemon-reload && systemctl restart ssh.service"
    )
    assert fresh_session(host, "alice").child == -1000
    host.sudo(f"rm -r {directory} && systemctl daemon-reload && systemctl restart ssh.service")
    assert fresh_session(host, "alice") == KILLABLE


def test_sshd_is_protected_and_its_sessions_can_be_killed(first: Deployed, hosts: tuple[Host, Host]) -> None:
    assert first.rc == 0, first.output
    for host in hosts:
        assert "kept: a new login works" in "".join(first.lines(host.name, "ssh"))
        assert listener_score(host) == -1000
        assert fresh_session(host, "admin") == KILLABLE
        assert fresh_session(host, "alice") == KILLABLE
        assert memory_min(host, "system.slice/ssh.service") == 512
        assert host.run("ls /var/lib/sparkfleet/rollback/record.*", check=False).rc != 0
    assert [memory_min(host, "system.slice") for host in hosts] == [512 + AGENT, 512]
    assert memory_min(hosts[0], "system.slice/agent.service") == AGENT
    score = "cat /proc/$(systemctl show -p MainPID --value {})/oom_score_adj"
    assert [hosts[0].run(score.format(unit)).stdout.strip() for unit in ("agent", "twin")] == ["-1000", "0"]


def test_a_second_deploy_changes_nothing_and_says_so(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    before = [shown(host, "ssh.service", "MainPID") for host in hosts]
    second = deploy(lab, fleet_file)
    assert second.rc == 0, second.output
    assert [second.changes(host.name) for host in hosts] == [{}, {}]
    assert [shown(host, "ssh.service", "MainPID") for host in hosts] == before


def test_memory_pressure_leaves_a_protected_service_its_pages(first: Deployed, hosts: tuple[Host, Host]) -> None:
    """Two services of 150 MiB each, one protected; a job takes the memory, and the kernel takes from the other."""
    host = hosts[0]
    size = int(host.run("awk '/MemAvailable/{print int($2/1024)}' /proc/meminfo").stdout) + 100
    assert memory_current(host, "system.slice/agent.service") > 140
    assert memory_current(host, "system.slice/twin.service") > 140
    host.sudo(f"systemd-run --unit=pressure stress-ng --vm 1 --vm-bytes {size}M --vm-keep --vm-hang 0")
    try:
        wait_for(host, f"test $(cat /sys/fs/cgroup/system.slice/twin.service/memory.current) -lt {75 * MIB}", 180)
        assert memory_current(host, "system.slice/agent.service") > 140
    finally:
        host.sudo("systemctl stop pressure agent twin")


def test_drift_is_named_by_a_dry_run_and_repaired(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    """Missing, not executable, taken out of PAM, changed at run time only, deleted."""
    hosts[0].sudo(f"rm {HOOK}; pam-auth-update --package --remove sparkfleet-ssh")
    hosts[0].sudo("systemctl set-property --runtime ssh.service MemoryMin=0")
    hosts[1].sudo(f"chmod a-x {HOOK}; rm {DROP_IN}")
    hosts[1].sudo("systemctl set-property --runtime system.slice MemoryMin=0")
    for host in hosts:
        assert fresh_session(host, "alice").own == -1000
    planned = deploy(lab, fleet_file, "--dry")
    real = deploy(lab, fleet_file)
    assert real.rc == 0, real.output
    named = [{line.partition(": ")[0] for line in planned.changes(host.name)["ssh"]} for host in hosts]
    assert {HOOK, "/etc/pam.d/common-session", "ssh.service"} <= named[0]
    assert {HOOK, DROP_IN} <= named[1]
    for host in hosts:
        assert fresh_session(host, "alice") == KILLABLE
        assert memory_min(host, "system.slice/ssh.service") == 512
        assert memory_min(host, "system.slice") >= 512
    again = deploy(lab, fleet_file, "--dry")
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def refusal(result: Deployed, host: Host) -> str:
    """The one line that tells why ssh was not applied on a host; the summary has it once more."""
    assert "Traceback" not in result.output
    lines = {line for line in result.lines(host.name, "ssh") if ": would " not in line}
    (line,) = lines
    return line


def test_what_would_make_it_ineffective_is_refused_in_one_line(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    no_pam, later = "/etc/ssh/sshd_config.d/no-pam.conf", "/etc/systemd/system/ssh.service.d/zz-local.conf"
    hosts[0].sudo(f"echo 'UsePAM no' >{no_pam} && systemctl reload ssh")
    hosts[1].sudo(f"printf '[Service]\\nMemoryMin=0\\n' >{later} && systemctl daemon-reload")
    result = deploy(lab, fleet_file)
    assert result.rc == 1
    assert "sshd has UsePAM no" in refusal(result, hosts[0])
    assert later in refusal(result, hosts[1])
    assert [host.sudo(f"cat {DROP_IN}").rc for host in hosts] == [0, 0]
    hosts[0].sudo(f"rm {no_pam} && systemctl reload ssh")
    hosts[1].sudo(f"rm {later} && systemctl daemon-reload")
    assert deploy(lab, fleet_file, "--dry").changes(hosts[0].name) == {}
