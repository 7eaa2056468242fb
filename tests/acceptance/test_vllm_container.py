"""vLLM's container on a host with real Docker and a registry of its own. What the image holds is a double of vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.auditing import audit, verdicts
from tests.integration.deploying import all_but, deploy, fleet, reboot
from tests.integration.launching import MIB
from tests.integration.watching import until
from tests.lab import Host, Lab

ITS = ("--measure", "vllm_container")
IMAGE = "localhost:5000/nvidia/vllm"
SCOPE = "docker container inspect -f '{{.State.Pid}}' sparkfleet-vllm"
SERVES = "spark-vllm >/dev/null"
# Answers at /health on port 8000, as vLLM does; its arguments stay on its command line. PID 1 must ask for SIGTERM.
SERVER = """\
#!/bin/sh
mkdir -p /www && echo ok > /www/health
trap 'kill $!; exit 0' TERM
busybox httpd -f -p 8000 -h /www &
wait
"""
# From the mirror that the host's apt knows. Docker takes registries on this host's own addresses without TLS.
INSTALL = """\
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq install -y --no-install-recommends docker.io apparmor busybox-static docker-registry
# Debian's asks for a password.
cat > /etc/docker/registry/config.yml <<'END'
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: "127.0.0.1:5000"}
END
systemctl enable --quiet docker-registry
systemctl restart docker-registry
mkdir -p /image/bin /image/tmp && cp /bin/busybox /image/bin/ && ln -sf busybox /image/bin/sh
ln -sf busybox /image/bin/mkdir && ln -sf busybox /image/bin/sleep
cat > /image/bin/vllm && chmod 755 /image/bin/vllm
"""
# A new version of the image, known to the registry alone; prints its digest.
PUBLISH = f"""\
set -e
echo $1 > /image/version
tar -C /image -c . | docker import - {IMAGE} >/dev/null
docker push --quiet {IMAGE} >/dev/null
docker image inspect -f '{{{{index .RepoDigests 0}}}}' {IMAGE} | cut -d@ -f2
docker image rm --force {IMAGE} >/dev/null
"""


@pytest.fixture(scope="module")
def host(spark1: Host) -> Host:
    return spark1


@pytest.fixture(scope="module")
def digests(host: Host, without_docker: None) -> list[str]:
    """Of two images in the registry, neither of which Docker has."""
    host.sudo("apt-get -qq update", timeout=300)
    host.sudo(INSTALL, input=SERVER, timeout=900)
    found = [host.sudo(f"sh -s {version}", input=PUBLISH, timeout=300).stdout.strip() for version in ("one", "two")]
    assert host.sudo("docker image ls -q").stdout == ""
    assert len({*found}) == 2
    return found


def fleet_of(lab: Lab, host: Host, folder: Path, **settings: Any) -> Path:
    """A fleet file with this measure, and the slice that it needs."""
    chosen: Mapping[str, Any] = {
        "state": "present",
        "image": IMAGE,
        "model": "/models/a",
        "gpus": "none",
        "memory_max": "128MiB",
        "space": "64MiB",
        **settings,
    }
    path = folder / "fleet.yaml"
    return fleet(lab, [host], path, {**all_but("training_slice", "vllm_container"), "vllm_container": chosen})


@pytest.fixture(scope="module")
def without_docker(lab: Lab, host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Looked at first, while the host has none."""
    path = fleet_of(lab, host, tmp_path_factory.mktemp("none"), digest=f"sha256:{'0' * 64}")
    result = deploy(lab, path)
    assert result.rc == 1
    assert "vllm_container: Docker is not installed: install docker.io" in result.output
    assert "Traceback" not in result.output
    assert host.run("ls /etc/systemd/system/sparkfleet-vllm.service", check=False).rc != 0


def serving(host: Host) -> bool:
    return host.sudo("spark-vllm", check=False).rc == 0


@pytest.fixture(scope="module")
def path(lab: Lab, host: Host, digests: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deployed, and serving."""
    path = fleet_of(lab, host, tmp_path_factory.mktemp("fleet"), digest=digests[0])
    planned = deploy(lab, path, "--dry")
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    assert planned.changes(host.name) == result.changes(host.name)
    until(host, SERVES, 120)
    return path


def test_it_serves_under_the_slice_and_a_second_deploy_changes_nothing(
    lab: Lab, host: Host, path: Path, digests: list[str]
) -> None:
    pid = host.sudo(SCOPE).stdout.strip()
    cgroup = host.run(f"cat /proc/{pid}/cgroup").stdout.strip().removeprefix("0::")
    assert cgroup.startswith("/training.slice/docker-")
    assert host.run(f"cat /sys/fs/cgroup{cgroup}/memory.max").stdout.strip() == str(128 * MIB)
    assert host.run(f"cat /proc/{pid}/oom_score_adj").stdout.strip() == "500"
    words = host.sudo(f"tr '\\0' ' ' < /proc/{pid}/cmdline").stdout
    assert "vllm serve /models/a --host 0.0.0.0 --port 8000 --gpu-memory-utilization 0.4 --load-format" in words
    told = host.sudo("spark-vllm").stdout
    assert f"image    {IMAGE}@{digests[0]}" in told
    assert "running, answers at http://127.0.0.1:8000" in told
    again = deploy(lab, path)
    assert (again.rc, again.changes(host.name)) == (0, {}), again.output
    assert host.sudo(SCOPE).stdout.strip() == pid


def test_each_break_is_named_repaired_and_survives_a_reboot(lab: Lab, host: Host, path: Path) -> None:
    names = {f"SPK-SERVER-0{number}" for number in (1, 2, 3, 4)}
    green = audit(lab, path, *ITS)
    assert {control for control, _ in verdicts(green, "pass")} == names, green.stdout
    host.sudo(
        "systemctl disable --quiet --now sparkfleet-vllm; docker image rm --force $(docker image ls -q) >/dev/null;"
        f"tar -C /image -c . | docker import - {IMAGE}:other >/dev/null;"
        f"docker run --detach --name sparkfleet-vllm --cgroup-parent system.slice {IMAGE}:other"
        " vllm serve /models/a --gpu-memory-utilization 0.95",
        timeout=180,
    )
    red = audit(lab, path, *ITS)
    assert {control for control, _ in verdicts(red)} == names, red.stdout
    repaired = deploy(lab, path)
    assert repaired.rc == 0, repaired.output
    host.sudo(f"docker image rm --force {IMAGE}:other")  # what somebody else brought is theirs to remove
    until(host, SERVES, 120)
    assert {control for control, _ in verdicts(audit(lab, path, *ITS), "pass")} == names
    reboot(host)
    until(host, SERVES, 180)
    assert {control for control, _ in verdicts(audit(lab, path, *ITS), "pass")} == names


def test_a_new_digest_replaces_image_and_server(
    lab: Lab, host: Host, path: Path, digests: list[str], tmp_path: Path
) -> None:
    newer = fleet_of(lab, host, tmp_path, digest=digests[1])
    result = deploy(lab, newer)
    assert result.rc == 0, result.output
    until(host, SERVES, 120)
    assert host.sudo("docker exec sparkfleet-vllm busybox cat /version").stdout.strip() == "two"
    settled = deploy(lab, newer)
    assert settled.rc == 0, settled.output
    assert host.sudo("docker image ls --digests --format '{{.Digest}}'").stdout.split() == [digests[1]]
    assert deploy(lab, newer).changes(host.name) == {}


def test_an_image_that_cannot_be_had_leaves_the_server_as_it_is(
    lab: Lab, host: Host, path: Path, tmp_path: Path
) -> None:
    pid = host.sudo(SCOPE).stdout
    unknown = deploy(lab, fleet_of(lab, host, tmp_path, digest=f"sha256:{'0' * 64}"))
    assert unknown.rc == 1
    assert any("docker pull: " in line for line in unknown.lines(host.name, "vllm_container")), unknown.output
    full = deploy(lab, fleet_of(lab, host, tmp_path, digest=f"sha256:{'1' * 64}", space="1TiB"))
    assert full.rc == 1
    assert "1024 GiB are needed to pull" in full.output
    assert "Traceback" not in unknown.output + full.output
    assert (host.sudo(SCOPE).stdout, serving(host)) == (pid, True)


def test_it_can_be_taken_off_again(lab: Lab, host: Host, path: Path, tmp_path: Path) -> None:
    host.sudo("touch /var/cache/sparkfleet-vllm/kept")
    gone = fleet(
        lab, [host], tmp_path / "fleet.yaml", {**all_but("vllm_container"), "vllm_container": {"state": "absent"}}
    )
    result = deploy(lab, gone)
    assert result.rc == 0, result.output
    assert host.sudo("docker image ls -q; docker ps -aq").stdout == ""
    look = (
        "ls -d /etc/systemd/system/sparkfleet-vllm.service /usr/local/bin/spark-vllm /opt/sparkfleet/lib/vllm_container"
    )
    assert host.run(look, check=False).stdout == ""
    assert host.run("ls /var/cache/sparkfleet-vllm").stdout == "kept\n"
    assert deploy(lab, gone).changes(host.name) == {}
