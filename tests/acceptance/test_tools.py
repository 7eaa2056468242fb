"""The tools for training users on a real host: they answer, find what is wrong, and profile by real jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.auditing import audit, verdicts
from tests.integration.deploying import Deployed, all_but, deploy, fleet
from tests.lab import Host, Lab

MEASURES = ("swap", "training_slice", "tools")
OTHERS = all_but(*MEASURES)
TOOLS = (
    "spark",
    "spark-doctor",
    "spark-estimate",
    "spark-field-report",
    "spark-profile",
    "spark-preflight",
    "spark-run",
)


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(request: pytest.FixtureRequest) -> Host:
    """Debian 12, then Debian 13."""
    chosen: Host = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet(lab, [host], tmp_path_factory.mktemp("fleet") / "fleet.yaml", OTHERS)


@pytest.fixture(scope="module")
def first(lab: Lab, fleet_file: Path) -> Deployed:
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    return result


def test_every_tool_says_how_it_is_used(first: Deployed, host: Host) -> None:
    for name in TOOLS:
        said = host.run(f"{name} --help", user="bob").stdout
        assert said.startswith((f"usage: {name}", f"{name} [OPTIONS]")), said
        assert "xample" in said or name == "spark-run"


def test_a_second_deploy_changes_nothing(lab: Lab, first: Deployed, host: Host, fleet_file: Path) -> None:
    again = deploy(lab, fleet_file)
    assert again.rc == 0, again.output
    assert again.changes(host.name) == {}


def test_the_doctor_finds_swap_that_is_back(first: Deployed, host: Host) -> None:
    assert '"swap-on"' not in host.run("spark-doctor --host --json", user="alice", check=False).stdout
    host.sudo(
        "fallocate -l 16M /by-hand.img && chmod 600 /by-hand.img && mkswap -q /by-hand.img && swapon /by-hand.img"
    )
    try:
        done = host.run("spark-doctor --host --json", user="alice", check=False)
        found = {finding["id"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert done.rc == 1
        assert "/by-hand.img" in found["swap-on"]["saw"]
        assert "the measure swap" in found["swap-on"]["fix"]
    finally:
        host.sudo("swapoff /by-hand.img; rm /by-hand.img")


def test_a_profile_is_made_of_real_jobs_and_recommends_what_fitted(first: Deployed, host: Host) -> None:
    words = "--recipe allocate --vary batch=1,2,4 --set mib=40 --headroom 300M --time 2min --json"
    done = host.run(f"rm -rf spark-profile; spark-profile {words}", user="alice", check=False, timeout=300)
    assert done.rc == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["recommended"] == 4, done.stdout
    # Each run was a job of alice's, in the slice.
    jobs = host.run("spark-run ps --all", user="alice").stdout
    assert jobs.count("allocate.py") == 3, jobs
    again = host.run(f"spark-profile {words}", user="alice", check=False, timeout=300)
    assert json.loads(again.stdout)["summary"]["recommended"] == 4
    later = host.run("spark-run ps --all", user="alice").stdout
    assert later.count("allocate.py") == 3, "it goes on where it stopped: nothing was left to run"


def test_the_report_from_the_field_names_nobody(first: Deployed, host: Host) -> None:
    said = host.run("spark-field-report --no-gpu", user="alice", timeout=180).stdout
    assert "not a Spark" in said or "no NVIDIA GPU" in said or "swap" in said
    for secret in (host.name, "alice", host.run("cat /etc/machine-id").stdout.strip()):
        assert secret not in said


def test_what_was_broken_is_red_then_green(lab: Lab, first: Deployed, host: Host, fleet_file: Path) -> None:
    host.sudo("rm /usr/local/bin/spark-doctor; chmod o+w /opt/sparkfleet/lib/tools/current/sparkhost")
    red = audit(lab, fleet_file, "--measure", "tools")
    assert verdicts(red) == {("SPK-TOOLS-01", host.name), ("SPK-TOOLS-02", host.name)}
    planned = deploy(lab, fleet_file, "--dry")
    real = deploy(lab, fleet_file)
    assert planned.changes(host.name) == real.changes(host.name) != {}
    assert verdicts(audit(lab, fleet_file, "--measure", "tools")) == set()


def test_removal_leaves_nothing(lab: Lab, first: Deployed, host: Host, tmp_path: Path) -> None:
    absent = fleet(lab, [host], tmp_path / "absent.yaml", {**OTHERS, "tools": {"state": "absent"}})
    result = deploy(lab, absent)
    assert result.rc == 0, result.output
    paths = "/usr/local/bin/spark-doctor /usr/local/bin/spark-profile /opt/sparkfleet/share /opt/sparkfleet/lib/tools"
    assert host.run(f"ls -d {paths}", check=False).stdout == ""
    assert deploy(lab, absent).changes(host.name) == {}
