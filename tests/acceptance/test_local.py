"""One Spark and no controller: `pyinfra @local deploy.py` on the machine itself."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet.settings import UvSettings
from sparkhost.resource import Need
from tasks.lib import wheels
from tests.integration.deploying import ESCAPE, ROOT
from tests.lab import Host

UV = Path(sys.executable).with_name("uv")
# What a deploy needs of the repository.
PARTS = ("sparkfleet", "tasks", "files", "config.py", "deploy.py")


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
    return spark1


def local(host: Host, *arguments: str, prefix: str = "") -> tuple[int, str]:
    """Runs pyinfra on the host as the admin, or with a prefix such as sudo."""
    # PIP_NO_INDEX: lab hosts may reach the controller's index, and this is about those that cannot.
    command = f"cd sparkfleet && {prefix} env PYTHONPATH=site:files/host PIP_NO_INDEX=1 PYINFRA_PROGRESS=off"
    command += f" python3 -m pyinfra @local deploy.py {' '.join(arguments)} 2>&1"
    result = host.run(command, check=False, timeout=300)
    return result.rc, ESCAPE.sub("", result.stdout)


def test_it_protects_the_machine_it_runs_on(host: Host) -> None:
    host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")
    rc, output = local(host, "--dry")
    assert rc == 0, output
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
    assert f"uv {settings.version} " in host.run("uv --version", user="alice").stdout
    rc, output = local(host, "-y", prefix="sudo")
    assert (rc, output.count("No changes")) == (0, 5), output
