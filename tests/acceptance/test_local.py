"""One Spark and no controller: `pyinfra @local deploy.py` on the machine itself, and its audit by a timer there."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet.settings import UvSettings
from sparkhost.base.resource import Need
from tasks.lib import wheels
from tests.integration.deploying import ESCAPE, ROOT
from tests.lab import Host

UV = Path(sys.executable).with_name("uv")
# What a deploy and an audit need of the repository.
PARTS = ("sparkfleet", "tasks", "files", "deploy.py")
# What `make setup` makes, without the network: a venv is a directory with these.
VENV = """\
set -e
cd sparkfleet
mkdir -p .venv/bin .venv/lib/python3.11
mv site .venv/lib/python3.11/site-packages
ln -s /usr/bin/python3 .venv/bin/python3
echo 'home = /usr/bin' >.venv/pyvenv.cfg
printf '%s\\n' "$PWD" "$PWD/files/host" >.venv/lib/python3.11/site-packages/sparkfleet.pth
"""
PYTHON = "sparkfleet/.venv/bin/python3"


@pytest.fixture(scope="module")
def host(spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with the project on it. Its dependencies come from here: a lab host needs no internet."""
    directory = tmp_path_factory.mktemp("local")
    requirements = directory / "requirements.txt"
    export = ["export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--output-file", str(requirements)]
    subprocess.run([UV, *export], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    target = directory / "site"
    install = ["pip", "install", "--quiet", "--target", str(target), "--only-binary", ":all:", "--require-hashes"]
    # Debian 12's own Python, whatever runs the tests.
    install += ["--python-version", "3.11", "--python-platform", f"{platform.machine()}-manylinux_2_28"]
    subprocess.run([UV, *install, "--requirement", str(requirements)], check=True)
    archive = directory / "project.tar.gz"
    subprocess.run(["tar", "-C", ROOT, "-czf", archive, *PARTS, "-C", directory, "site"], check=True)
    ssh, *words = spark1.client.words("admin")
    with archive.open("rb") as stream:
        unpack = "mkdir -p sparkfleet && tar -C sparkfleet -xz"
        subprocess.run([ssh, *words, unpack], stdin=stream, check=True)
    spark1.run(VENV)
    return spark1


def local(host: Host, *arguments: str, prefix: str = "") -> tuple[int, str]:
    """Runs pyinfra on the host as the admin, or with a prefix such as sudo."""
    # PIP_NO_INDEX: lab hosts may reach the controller's index, and this is about those that cannot.
    command = f"cd sparkfleet && {prefix} env PIP_NO_INDEX=1 PYINFRA_PROGRESS=off"
    command += f" .venv/bin/python3 -m pyinfra @local deploy.py {' '.join(arguments)} 2>&1"
    result = host.run(command, check=False, timeout=300)
    return result.rc, ESCAPE.sub("", result.stdout)


def test_it_protects_the_machine_it_runs_on(host: Host) -> None:
    host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")
    rc, output = local(host, "--dry")
    assert rc == 0, output
    assert "more than half of this host's" not in output
    assert "would comment out the swap entry" in output
    rc, output = local(host, "-y")
    assert rc == 1, output
    assert "[@local] not applied: uv: cannot download uv==" in output
    assert "without internet, put the wheel into /home/admin/.cache/sparkfleet/wheels/" in output
    assert "Traceback" not in output
    assert host.run("awk 'NR>1' /proc/swaps").stdout == ""
    assert host.run("bash -lc 'echo $TORCH_CUDA_ARCH_LIST'", user="alice").stdout.strip() == "12.1a"


def test_the_wheel_put_where_it_says_is_taken_and_root_needs_no_sudo(host: Host) -> None:
    settings, machine = UvSettings(), platform.machine()
    sha256 = {str(name): value for name, value in settings.sha256.items()}[machine]
    wheel = wheels.fetch(Need(sha256, f"uv=={settings.version}", machine))
    ssh, *words = host.client.words("admin")
    directory = f"/root/.cache/sparkfleet/wheels/{sha256}"
    place = f"sudo sh -c 'mkdir -p {directory} && cat > {directory}/{wheel.name}'"
    with wheel.open("rb") as stream:
        subprocess.run([ssh, *words, place], stdin=stream, check=True)
    rc, output = local(host, "-y", prefix="sudo")
    assert rc == 0, output
    assert "not applied" not in output, output
    assert f"uv {settings.version} " in host.run("uv --version", user="alice").stdout
    rc, output = local(host, "-y", prefix="sudo")
    assert rc == 0, output
    assert "not applied" not in output, output
    assert output.count("No changes") == output.count("Starting operation:"), output


HOOK = """\
#!/bin/sh
cat >/root/worse.json
"""


def test_its_audit_runs_on_a_timer_of_the_machine_and_the_hook_is_told(host: Host) -> None:
    """After the tests above, which have deployed. What a lab host lacks of a Spark may fail, the same in both runs."""
    host.sudo(f"printf %s {shlex.quote(HOOK)} >/root/hook && chmod 755 /root/hook")
    schedule = f"{PYTHON} -m sparkfleet.cli audit schedule --system"
    installed = host.sudo(f"{schedule} --local --hourly --hook /root/hook --install -- --measure swap", timeout=120)
    assert "installed /etc/systemd/system/sparkfleet-audit.timer" in installed.stdout
    assert "sparkfleet-audit.service" in host.run("systemctl list-timers --no-pager sparkfleet-audit.timer").stdout
    assert host.run("systemctl is-enabled sparkfleet-audit.timer").stdout == "enabled\n"
    first = host.sudo(
        "systemctl start sparkfleet-audit.service; systemctl show -P Result sparkfleet-audit", timeout=300
    )
    assert first.stdout == "success\n", host.sudo("journalctl -u sparkfleet-audit --no-pager").stdout
    host.sudo("fallocate -l 64M /more && chmod 600 /more && mkswap /more && swapon /more")
    again = host.sudo("systemctl start sparkfleet-audit.service", check=False, timeout=300)
    assert again.rc != 0
    assert "SPK-SWAP-01" in host.sudo("journalctl -u sparkfleet-audit --no-pager").stdout
    worse = json.loads(host.sudo("cat /root/worse.json").stdout)
    assert {change["control"] for change in worse["changes"]} >= {"SPK-SWAP-01"}
    runs = host.sudo(f"{PYTHON} -m sparkfleet.cli audit runs --store /var/lib/sparkfleet/audit", timeout=120)
    assert len([line for line in runs.stdout.splitlines() if line.strip()]) >= 2
    host.sudo("swapoff /more && rm /more")
    removed = host.sudo(f"{schedule} --remove", timeout=120)
    assert "removed /etc/systemd/system/sparkfleet-audit" in removed.stdout
    assert host.run("systemctl cat sparkfleet-audit.timer", check=False).rc != 0


def test_its_audit_runs_on_a_timer_of_a_user(host: Host) -> None:
    """The admin's own systemd, which has neither the shell's PATH nor a terminal."""
    schedule = f"{PYTHON} -m sparkfleet.cli audit schedule"
    assert host.run(f"{schedule} --local --install -- --measure swap", timeout=120).rc == 0
    start = "systemctl --user start sparkfleet-audit.service; systemctl --user show -P Result sparkfleet-audit"
    assert host.run(start, timeout=300).stdout == "success\n", host.run("journalctl --user --no-pager").stdout
    assert "@local" in host.run("journalctl --user -u sparkfleet-audit --no-pager").stdout
    assert host.run(f"{PYTHON} -m sparkfleet.cli audit runs", timeout=120).stdout.strip() != ""
    assert "removed" in host.run(f"{schedule} --remove", timeout=120).stdout
