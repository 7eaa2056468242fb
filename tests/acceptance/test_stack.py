"""The stack on hosts, with the profile `lab`: first, again, tampered with, replaced under a job, cut, no room."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from sparkfleet.stack.profile import load
from tests.integration.deploying import PYINFRA, ROOT, Deployed, all_but, deploy, environment, fleet
from tests.lab import Host, Lab

STACKS = "/opt/sparkfleet/stacks"
OTHERS = {**all_but("uv", "stack"), "stack": {"profile": "lab"}}
RELEASE = load("lab").locks()["x86_64"].release
OLD = "lab-000000000000"


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml", defaults=OTHERS)


@pytest.fixture(scope="module")
def first(lab: Lab, fleet_file: Path) -> Deployed:
    return deploy(lab, fleet_file)


def test_everybody_gets_the_stack_without_internet(first: Deployed, hosts: tuple[Host, Host]) -> None:
    assert first.rc == 0, first.output
    for host in hosts:
        answer = host.run("spark-python -c 'import tqdm, psutil, sys; print(sys.prefix)'", user="alice")
        assert answer.stdout.strip() == f"{STACKS}/{RELEASE}"
        assert f"* {RELEASE}  3 packages" in host.run("spark-stack list", user="bob").stdout
        assert host.run("spark-stack verify", user="bob").rc == 0
        assert host.run(f"touch {STACKS}/current/x", user="alice", check=False).rc != 0
        login = host.run("bash -lc 'echo $UV_CONSTRAINT'", user="alice", fresh=True).stdout
        assert login.strip().endswith("cuda-constraints.txt")
        assert host.run("ls -A .cache/sparkfleet-uploads").stdout == ""


def test_a_second_deploy_changes_nothing(lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path) -> None:
    again = deploy(lab, fleet_file)
    assert again.rc == 0, again.output
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def test_what_was_tampered_with_is_planned_named_and_repaired(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    site = f"{STACKS}/current/lib/python3*/site-packages"
    hosts[0].sudo(f"sh -c 'echo import os > $(echo {site})/zz.pth'")
    hosts[1].sudo(f"sh -c 'sed -i s/a/b/ {site}/tqdm/__init__.py; chmod o+w {site}/psutil'")
    assert hosts[0].run("spark-stack verify", user="alice", check=False).rc == 1
    planned = deploy(lab, fleet_file, "--dry")
    real = deploy(lab, fleet_file)
    assert real.rc == 0, real.output
    assert "zz.pth: was added" in str(planned.changes(hosts[0].name))
    assert "tqdm/__init__.py: was changed" in str(planned.changes(hosts[1].name))
    for host in hosts:
        assert planned.changes(host.name) == real.changes(host.name)
        assert host.run("spark-stack verify", user="alice").rc == 0


def test_a_job_keeps_the_release_that_is_replaced_under_it(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path, tmp_path: Path
) -> None:
    """An older release in use by a job: the new one is switched to, the old one stays until the job ends."""
    host = hosts[0]
    # Renamed as a whole, it is what an earlier deploy would have left.
    host.sudo(f"mv {STACKS}/{RELEASE} {STACKS}/{OLD}; ln -sfn {OLD} {STACKS}/current")
    host.sudo(f"systemd-run --quiet --unit=stack-job {STACKS}/{OLD}/bin/python -c 'import time; time.sleep(10**6)'")
    keep = fleet(lab, hosts, tmp_path / "keep.yaml", defaults={**OTHERS, "stack": {"profile": "lab", "keep": 1}})
    result = deploy(lab, keep)
    assert result.rc == 0, result.output
    assert f"{STACKS}/{OLD} stays: 1 processes use it" in result.output
    assert host.run(f"readlink {STACKS}/current").stdout.strip() == RELEASE
    assert host.sudo("systemctl is-active stack-job").stdout.strip() == "active"
    host.sudo("systemctl stop stack-job")
    assert "remove the old stack" in str(deploy(lab, keep).changes(host.name))
    assert host.run(f"ls {STACKS}").stdout.split() == ["current", RELEASE]
    assert deploy(lab, fleet_file).rc == 0


def test_going_back_is_a_setting(lab: Lab, first: Deployed, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    pinned = fleet(lab, hosts[:1], tmp_path / "p.yaml", {**OTHERS, "stack": {"profile": "lab", "release": RELEASE}})
    again = deploy(lab, pinned)
    assert (again.rc, again.changes(hosts[0].name)) == (0, {}), again.output
    gone = fleet(lab, hosts[:1], tmp_path / "g.yaml", {**OTHERS, "stack": {"profile": "lab", "release": OLD}})
    refused = deploy(lab, gone)
    assert refused.rc == 1
    assert f"stack.release: {OLD} is not installed on this host (there is: {RELEASE})" in refused.output
    assert hosts[0].run(f"readlink {STACKS}/current").stdout.strip() == RELEASE


def test_a_full_disk_is_refused_with_the_figures_and_the_old_stack_stays(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    host = hosts[1]
    host.sudo(f"rm {STACKS}/current/sparkfleet.json")
    host.sudo("sh -c 'fallocate -l $(($(stat -fc \"%a * %S\" /opt) - 100 * 1024 * 1024)) /full.img'")
    try:
        result = deploy(lab, fleet_file)
        assert result.rc == 1
        assert "GiB are free: free some space there" in result.output
        assert "Traceback" not in result.output
        assert host.run("spark-python -c 'import tqdm'", user="alice").rc == 0
    finally:
        host.sudo("rm /full.img")
    assert deploy(lab, fleet_file).rc == 0


def test_a_killed_controller_leaves_the_old_stack_and_the_next_deploy_goes_on(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    host = hosts[0]
    host.sudo(f"rm {STACKS}/current/sparkfleet.json")
    with subprocess.Popen(
        [PYINFRA, "inventory.py", "deploy.py", "-y", "--limit", host.name],
        cwd=ROOT,
        env=environment(lab, fleet_file),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as controller:
        assert controller.stdout
        for line in controller.stdout:
            if "install the stack" in line:
                controller.send_signal(signal.SIGKILL)
    assert host.run("spark-python -c 'import tqdm'", user="alice").rc == 0
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    assert host.run("spark-stack verify", user="alice").rc == 0
    assert host.run(f"ls -A {STACKS}").stdout.split() == [".building", "current", RELEASE]


def test_removal_leaves_nothing(lab: Lab, first: Deployed, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    absent = fleet(lab, hosts, tmp_path / "absent.yaml", defaults={**OTHERS, "stack": {"state": "absent"}})
    result = deploy(lab, absent)
    assert result.rc == 0, result.output
    paths = f"{STACKS} /usr/local/bin/spark-python /usr/local/bin/spark-stack /etc/profile.d/zz-sparkfleet-stack.sh"
    for host in hosts:
        assert host.run(f"ls -d {paths} /opt/sparkfleet/lib/stack", check=False).stdout == ""
    again = deploy(lab, absent)
    assert [again.changes(host.name) for host in hosts] == [{}, {}]
