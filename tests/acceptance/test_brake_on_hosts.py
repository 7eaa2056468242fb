"""The brake among real containers and a terminal: Docker's, Podman's, one that is paused, and a tmux session."""

from __future__ import annotations

import pytest

from tests.integration.watching import HOG, SAVED, denied, events, killed_by_the_kernel, prepare, until, victims
from tests.lab import Host, Lab

# From the mirror that the host's apt knows. The image is one static program; /usr is the host's.
INSTALL = """\
set -e
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io podman apparmor busybox-static
mkdir -p /image/bin /image/usr && cp /bin/busybox /image/bin/ && ln -sfn usr/lib /image/lib
ln -sfn usr/lib64 /image/lib64
tar -C /image -c . | docker import - box
tar -C /image -c . | podman import --quiet - box
"""
RUN = f"run -d --network none -v /usr:/usr:ro --name {{}} box /usr/bin/python3 {HOG}"
BEAT = "while :; do date +%s.%N >> ~/beat; sleep 0.2; done"


@pytest.fixture(scope="module")
def host(lab: Lab, spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    spark1.sudo("apt-get -qq update", timeout=180)
    spark1.sudo(INSTALL, timeout=580)
    prepare(lab, spark1, tmp_path_factory.mktemp("fleet"))
    spark1.restore(SAVED)
    return spark1


def docker(host: Host, name: str, arguments: str) -> str:
    """Starts the hog in a container; its number."""
    return host.console_run(f"docker {RUN.format(name)} {arguments}").stdout.strip()


def is_running(host: Host, program: str, name: str) -> bool:
    found = host.console_run(f"{program} inspect -f '{{{{.State.Running}}}} {{{{.State.Paused}}}}' {name}").stdout
    return found.split() == ["true", "false"]


def test_a_container_fills_memory_and_everybody_else_goes_on_as_before(host: Host) -> None:
    docker(host, "lives", "40")
    docker(host, "halted", "40")
    host.console_run("docker pause halted")
    host.console_run(f"podman --cgroup-manager=systemd {RUN.format('pod')} 40")
    host.run(f"tmux new-session -d -s work '{BEAT}'", user="alice")
    until(host, "test -s /home/alice/beat")
    grows = docker(host, "grows", "4000 ignore")
    until(host, "[ \"$(docker inspect -f '{{.State.Running}}' grows)\" = false ]")
    until(host, "awk '/MemAvailable/ {exit $2 < 262144}' /proc/meminfo")
    assert [cgroup.rpartition("/")[2] for cgroup in victims(host)] == [f"docker-{grows}.scope"]
    paused = [pause for event in events(host) if event["event"] == "paused" for pause in event["paused"]]
    said = host.console_run("journalctl -b --no-pager -o cat -t sparkfleet-watchdog -u sparkfleet-watchdog").stdout
    print(said)
    assert paused or "was paused for a moment" in said, "the brake was pulled: else this shows nothing"
    assert is_running(host, "docker", "lives")
    assert is_running(host, "podman", "pod")
    frozen = host.console_run("grep -l 'frozen 1' $(find /sys/fs/cgroup -name cgroup.events)", check=False).stdout
    assert [line.rpartition("docker-")[2][:12] for line in frozen.split()] == [
        host.console_run("docker inspect -f '{{.Id}}' halted").stdout[:12]
    ], "who was paused stays so, and nobody else"
    host.console_run("docker unpause halted")
    assert is_running(host, "docker", "halted")
    before = host.run("wc -l < ~/beat", user="alice").stdout
    until(host, f"[ $(wc -l < /home/alice/beat) -gt {int(before) + 3} ]")
    assert "kernel:" not in killed_by_the_kernel(host)
    assert denied(host) == ""
