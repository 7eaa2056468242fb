"""Real Docker on a lab host: new containers are under the cap of training jobs, and those that run live on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet
from tests.integration.launching import MIB, deployed, training
from tests.integration.watching import STATE, killed_by_the_kernel, until, victims
from tests.lab import Host, Lab

# From the mirror that the host's apt knows; the image is one static program.
INSTALL = """\
set -e
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io apparmor busybox-static
mkdir -p /image/bin && cp /bin/busybox /image/bin/ && ln -sf busybox /image/bin/sleep
tar -C /image -c . | docker import - box
"""


@pytest.fixture(scope="module")
def host(spark1: Host) -> Host:
    """With Docker, and somebody's own setting in its configuration."""
    spark1.sudo("apt-get -qq update", timeout=180)
    spark1.sudo('mkdir -p /etc/docker && echo \'{"log-level": "warn"}\' > /etc/docker/daemon.json')
    spark1.sudo(INSTALL, timeout=580)
    return spark1


def parent_of(host: Host, container: str) -> str:
    pid = host.sudo(f"docker inspect -f '{{{{.State.Pid}}}}' {container}").stdout.strip()
    return host.run(f"cat /proc/{pid}/cgroup").stdout.strip().rpartition("/")[0]


def test_containers_live_on_and_new_ones_are_under_the_cap(lab: Lab, host: Host, tmp_path: Path) -> None:
    host.sudo("docker run -d --name old box /bin/sleep 6000")
    assert parent_of(host, "old") == "0::/system.slice"
    before = host.sudo("docker inspect -f '{{.State.Pid}}' old").stdout
    result = deployed(lab, host, tmp_path)
    assert "1 containers run outside of training.slice until they are started anew" in result.output
    assert host.sudo("docker inspect -f '{{.State.Pid}} {{.State.Running}}' old").stdout == f"{before.strip()} true\n"
    config = json.loads(host.run("cat /etc/docker/daemon.json").stdout)
    assert config == {"log-level": "warn", "cgroup-parent": "training.slice", "live-restore": True}
    host.sudo("docker run -d --name new box /bin/sleep 6000")
    assert parent_of(host, "new") == "0::/training.slice"
    assert host.run("cat /sys/fs/cgroup/training.slice/memory.max").stdout.strip() == str(600 * MIB)
    host.sudo("docker run -d --name server --cgroup-parent=serving.slice box /bin/sleep 6000")
    assert parent_of(host, "server") == "0::/serving.slice"
    assert deploy(lab, tmp_path / "fleet.yaml").changes(host.name) == {}


def test_a_container_that_fills_the_host_is_ended_whole(lab: Lab, host: Host, tmp_path: Path) -> None:
    """By the watchdog: the slice that it was started in has no cap. All others live on."""
    others = "docker inspect -f '{{.State.Pid}}' old new server"
    before = host.sudo(others).stdout
    path = fleet(lab, [host], tmp_path / "watched.yaml", all_but("swap", "training_slice", "watchdog"))
    watched = deploy(lab, path)
    assert watched.rc == 0, watched.output
    until(host, f"test -s {STATE}")
    host.sudo("docker run -d --name hog --cgroup-parent=serving.slice box /bin/busybox tail /dev/zero")
    until(host, "[ $(docker inspect -f '{{.State.Running}}' hog) = false ]")
    (victim,) = victims(host)
    assert victim.startswith("/serving.slice/docker-")
    assert host.sudo(others).stdout == before
    assert "kernel:" not in killed_by_the_kernel(host)


def test_what_was_there_before_comes_back(lab: Lab, host: Host, tmp_path: Path) -> None:
    running = "docker inspect -f '{{.State.Pid}}' old new server"
    before = host.sudo(running).stdout
    removed = deploy(lab, training(lab, host, tmp_path, state="absent"))
    assert removed.rc == 0, removed.output
    assert json.loads(host.run("cat /etc/docker/daemon.json").stdout) == {"log-level": "warn"}
    assert host.sudo(running).stdout == before
