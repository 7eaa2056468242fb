"""A deploy as a whole: all measures together, and what goes wrong around them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.deploying import PYINFRA, ROOT, deploy, environment, fleet, reboot, wait_for
from tests.lab import Host, Lab


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml")


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
        host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")  # stands in for the toolkit
        host.run("tmux new-session -d -s work 'sleep 86400'", user="alice")
    before = [host.run("pgrep -u alice -x 'sleep|tmux: server' | sort", user="alice").stdout for host in hosts]
    assert all(len(pids.split()) == 2 for pids in before), before
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    assert all(result.changes(host.name) for host in hosts)
    after = [host.run("pgrep -u alice -x 'sleep|tmux: server' | sort", user="alice").stdout for host in hosts]
    assert after == before
    assert host.run("tmux list-sessions", user="alice").stdout.startswith("work:")


def test_one_host_of_two_unreachable(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path, tmp_path: Path) -> None:
    """The other converges, the exit code is not 0, and the summary names the one that was not reached."""
    data = yaml.safe_load(fleet_file.read_text())
    data["hosts"]["gone"] = {**data["hosts"][hosts[1].name], "port": 1}
    del data["hosts"][hosts[1].name]
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(data))
    hosts[0].sudo("rm /etc/systemd/system/swap.d/zz-sparkfleet.conf")
    result = deploy(lab, path)
    assert result.rc == 1
    assert "[gone] Could not connect" in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert "/etc/systemd/system/swap.d/zz-sparkfleet.conf: create" in result.changes(hosts[0].name)["swap"]


def test_a_killed_controller_leaves_nothing_that_the_next_run_cannot_finish(
    lab: Lab, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """SIGKILL at moments spread over the run: the host stays whole, and a rerun converges."""
    host = hosts[0]
    path = fleet(lab, hosts[:1], tmp_path / "fleet.yaml")
    for moment in ("Connected", "Starting operation: swap", "Starting operation: systemd"):
        host.sudo(
            "sed -i 's/^# swapped off by sparkfleet: //' /etc/fstab;"
            " rm -f /etc/systemd/system/swap.d/zz-sparkfleet.conf /etc/sparkfleet/cuda.env /usr/local/bin/uv"
        )
        process = subprocess.Popen(
            [PYINFRA, "inventory.py", "deploy.py", "-y"],
            cwd=ROOT,
            env=environment(lab, path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        else:
            pytest.fail(f"the run ended before {moment!r}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert host.run("findmnt --verify --tab-file /etc/fstab >/dev/null; test -s /etc/fstab").rc == 0
    # What the last killed run had started on the host may still be at work.
    wait_for(host, "! pgrep -f '[p]ython3 -I -S -B' >/dev/null")
    assert deploy(lab, path).rc == 0
    started = time.monotonic()
    again = deploy(lab, path)
    print(f"converged rerun, one host: {time.monotonic() - started:.1f} s")
    assert again.rc == 0
    assert again.changes(host.name) == {}


def test_everything_holds_after_a_reboot(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path) -> None:
    """Asked of the hosts themselves first; a deploy then finds nothing to do."""
    reboot(*hosts)
    for host in hosts:
        assert host.run("awk 'NR>1' /proc/swaps").stdout == ""
        # A unit whose condition does not hold is skipped, not failed.
        assert "swap" not in host.run("systemctl list-units --failed --plain --no-legend").stdout
        assert host.run("echo $TORCH_CUDA_ARCH_LIST", user="alice", fresh=True).stdout.strip() == "12.1a"
        assert host.run("uv --version", user="bob").stdout.startswith("uv ")
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    for host in hosts:
        assert result.changes(host.name) == {}
