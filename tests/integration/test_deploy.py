"""All measures together: deployed, audited, broken, found, repaired, rebooted; and what goes wrong meanwhile.

The order of the tests is the order of the story.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.compliance.standins import PREPARE, SYNCHRONISE
from tests.integration.auditing import DIFFERENT, SETTINGS, audit, break_hosts, verdicts
from tests.integration.deploying import deploy, fleet, reboot, sparkfleet
from tests.integration.sessions import KILLABLE, fresh_session, listener_score, memory_min
from tests.lab import Host, Lab


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    return fleet(lab, hosts, path, {"ssh": {"confirm_within": "300s"}}, SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def prepared(hosts: tuple[Host, Host]) -> None:
    """What lab hosts lack of a Spark."""
    for host in hosts:
        host.sudo(PREPARE)


def test_a_full_disk_is_one_line_and_nothing_is_half_written(
    lab: Lab, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    host = hosts[0]
    before = host.sudo("md5sum /etc/fstab; ls -A /etc/systemd/system").stdout
    # Root may use the reserved blocks as well, so all of them are taken, the last ones in small pieces.
    host.sudo(
        "i=0; for size in 512M 64M 8M 1M 64K 4K; do while fallocate -l $size /full.$i 2>/dev/null; do i=$((i+1)); done;"
        " rm -f /full.$i; done"
    )
    try:
        result = deploy(lab, fleet_file, "--limit", host.name)
        assert result.rc == 1
        assert any(
            "No space left on device" in line and "free some space" in line for line in result.output.splitlines()
        )
        assert "Traceback" not in result.output
        assert host.sudo("md5sum /etc/fstab").stdout == before.splitlines(keepends=True)[0]
        assert host.sudo("find / -xdev -name '*.sparkfleet-new'").stdout == ""
    finally:
        host.sudo("rm -f /full.*")


def test_jobs_and_terminals_survive_the_first_deploy(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path) -> None:
    for host in hosts:
        host.run("tmux new-session -d -s work 'sleep 86400'", user="alice")
    before = [host.run("pgrep -u alice -x 'sleep|tmux: server' | sort", user="alice").stdout for host in hosts]
    assert all(len(pids.split()) == 2 for pids in before), before
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    assert all(result.changes(host.name) for host in hosts)
    assert [host.run("awk 'NR>1' /proc/swaps").stdout for host in hosts] == ["", ""]
    after = [host.run("pgrep -u alice -x 'sleep|tmux: server' | sort", user="alice").stdout for host in hosts]
    assert after == before
    assert host.run("tmux list-sessions", user="alice").stdout.startswith("work:")


def test_the_audit_is_green(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path) -> None:
    green = audit(lab, fleet_file)
    assert green.returncode == 0, green.stdout + green.stderr
    assert verdicts(green) == {DIFFERENT}
    assert verdicts(green, "error") == set()


def test_every_break_is_named_by_a_dry_run_and_by_the_audit_and_repaired(
    lab: Lab, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    expected = break_hosts(*hosts)
    planned = sparkfleet(lab, fleet_file, "drift")
    assert (planned.rc, planned.states()) == (2, {"spark1": "drift", "spark2": "drift"}), planned.errors
    for host in hosts:
        assert set(planned.changes(host.name)) >= {"swap", "cuda_env", "uv", "training_slice", "watchdog", "ssh"}
    red = audit(lab, fleet_file)
    assert red.returncode == 1, red.stdout + red.stderr
    assert expected <= verdicts(red), red.stderr
    real = sparkfleet(lab, fleet_file, "deploy", "--yes")
    assert (real.rc, real.states()) == (0, {"spark1": "changed", "spark2": "changed"}), real.errors
    for host in hosts:
        assert real.changes(host.name) == planned.changes(host.name), "a dry run tells the truth"
        host.sudo(f"rm -f /usr/local/bin/other-uvx; {SYNCHRONISE}")
    green = audit(lab, fleet_file)
    assert green.returncode == 0, green.stdout + green.stderr
    again = deploy(lab, fleet_file)
    assert again.rc == 0, again.output
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def test_one_host_of_two_unreachable(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path, tmp_path: Path) -> None:
    """The other converges, the exit code is not 0, and the summary names the one that was not reached."""
    data = yaml.safe_load(fleet_file.read_text())
    data["hosts"]["gone"] = {**data["hosts"][hosts[1].name], "port": 1}
    del data["hosts"][hosts[1].name]
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(data))
    hosts[0].sudo("rm /etc/systemd/system/swap.d/zz-sparkfleet.conf")
    result = sparkfleet(lab, path, "deploy", "--yes")
    assert (result.rc, result.states()) == (3, {hosts[0].name: "changed", "gone": "unreachable"})
    assert "Unable to connect" in result.hosts["gone"]["reason"]
    assert "Traceback" not in result.errors
    assert "/etc/systemd/system/swap.d/zz-sparkfleet.conf: create" in result.changes(hosts[0].name)["swap"]


def test_everything_holds_after_a_reboot(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path) -> None:
    """Asked of the hosts themselves first; a deploy then finds nothing to do."""
    boots = [host.boot_id() for host in hosts]
    reboot(*hosts)
    for host, boot in zip(hosts, boots, strict=True):
        assert host.boot_id() != boot
        assert host.run("awk 'NR>1' /proc/swaps").stdout == ""
        # A unit whose condition does not hold is skipped, not failed.
        assert "swap" not in host.run("systemctl list-units --failed --plain --no-legend").stdout
        assert host.run("echo $TORCH_CUDA_ARCH_LIST", user="alice", fresh=True).stdout.strip() == "12.1a"
        assert host.run("uv --version", user="bob").stdout.startswith("uv ")
        assert listener_score(host) == -1000
        assert memory_min(host, "system.slice/ssh.service") == 512
        assert [fresh_session(host, user) for user in ("admin", "alice")] == [KILLABLE, KILLABLE]
        host.sudo(SYNCHRONISE)
    green = audit(lab, fleet_file)
    assert green.returncode == 0, green.stdout + green.stderr
    result = sparkfleet(lab, fleet_file, "deploy", "--yes")
    assert (result.rc, result.states()) == (0, {"spark1": "clean", "spark2": "clean"}), result.errors
