"""Who deploys, what was applied, and a controller that is lost: by the hosts' own word."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deploying import all_but, fleet, sparkfleet, wait_for
from tests.integration.lockout import deploy_until
from tests.lab import Host, Lab

APPLIED = "/var/lib/sparkfleet/applied.json"
MEASURES = all_but("swap", "cuda_env")


def fresh(*hosts: Host) -> None:
    """Nobody has deployed to them; a directory stands in for the CUDA toolkit."""
    for host in hosts:
        host.clean()
        host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")


def history(host: Host) -> Any:
    return json.loads(host.run(f"cat {APPLIED}").stdout)


def test_two_admins_at_once(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    fresh(spark1, spark2)
    one = fleet(lab, [spark1], tmp_path / "one.yaml", MEASURES)
    both = fleet(lab, [spark1, spark2], tmp_path / "both.yaml", MEASURES)
    first = deploy_until(lab, one, "Starting operation: cuda_env")
    first.send_signal(signal.SIGSTOP)  # as a laptop that is shut
    try:
        second = sparkfleet(lab, both, "deploy", "--yes")
        assert second.states() == {"spark1": "failed", "spark2": "changed"}
        assert " has been deploying to this host for " in second.hosts["spark1"]["reason"]
        assert second.rc == 1
        assert sparkfleet(lab, both, "drift").states() == {"spark1": "drift", "spark2": "clean"}
    finally:
        first.kill()
        first.wait()
    wait_for(spark1, "! pgrep -f '[p]ython3 -I -S -B' >/dev/null", timeout=120)
    third = sparkfleet(lab, both, "deploy", "--yes")
    assert third.states() == {"spark1": "changed", "spark2": "clean"}
    assert [bool(entry["ended"]) for entry in history(spark1)["deploys"]] == [False, True]


def test_a_silent_controller_is_taken_over(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    """Its connection stays open, as that of a laptop that is shut; nothing is heard of it for three minutes."""
    fresh(spark1)
    path = fleet(lab, [spark1], tmp_path / "fleet.yaml", MEASURES)
    first = deploy_until(lab, path, "Starting operation: cuda_env")
    first.send_signal(signal.SIGSTOP)
    try:
        until = time.monotonic() + 400
        while (states := sparkfleet(lab, path, "deploy", "--yes").states()) == {"spark1": "failed"}:
            assert time.monotonic() < until
        assert states == {"spark1": "changed"}
    finally:
        first.kill()
        first.wait()


def test_drift_says_why(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    fresh(spark1)
    path = fleet(lab, [spark1], tmp_path / "fleet.yaml", MEASURES)

    def causes() -> dict[str, str]:
        measures = sparkfleet(lab, path, "drift").hosts["spark1"]["measures"]
        return {name: measure["cause"] for name, measure in measures.items() if measure["changes"]}

    assert {causes()[name] for name in ("swap", "cuda_env")} == {"never-applied"}
    assert sparkfleet(lab, path, "deploy", "--yes").rc == 0
    once = spark1.run(f"sha256sum {APPLIED}").stdout
    assert sparkfleet(lab, path, "deploy", "--yes").states() == {"spark1": "clean"}
    assert spark1.run(f"sha256sum {APPLIED}").stdout == once
    spark1.sudo("sed -i 's/12.1a/9.0/' /etc/profile.d/zz-sparkfleet-cuda.sh")
    assert causes() == {"cuda_env": "drift"}
    spark1.sudo(f'sed -i \'s/"version": ".*"/"version": "v0.0.1"/\' {APPLIED}')
    assert causes() == {"cuda_env": "other-version"}
    repaired = sparkfleet(lab, path, "deploy", "--yes")
    assert repaired.states() == {"spark1": "changed"}
    assert {one["version"] for one in history(spark1)["measures"].values()} != {"v0.0.1"}
    path = fleet(lab, [spark1], tmp_path / "other.yaml", {**MEASURES, "cuda_env": {"arch_list": "9.0"}})
    assert causes() == {"cuda_env": "settings"}


def test_a_new_version_that_changes_nothing_is_recorded_and_is_no_change(
    lab: Lab, spark1: Host, tmp_path: Path
) -> None:
    """After the test above."""
    path = fleet(lab, [spark1], tmp_path / "fleet.yaml", MEASURES)
    assert sparkfleet(lab, path, "deploy", "--yes").rc == 0
    spark1.sudo(f'sed -i \'s/"version": ".*"/"version": "v0.0.1"/\' {APPLIED}')
    rerun = sparkfleet(lab, path, "deploy", "--yes")
    assert (rerun.rc, rerun.states()) == (0, {"spark1": "clean"})
    assert {one["version"] for one in history(spark1)["measures"].values()} != {"v0.0.1"}


def test_a_second_laptop_takes_over_from_the_repository_and_the_hosts_alone(
    lab: Lab, spark1: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first one's home nothing is left: no cache, no kept audits, no file of host keys but the fleet's own."""
    path = fleet(lab, [spark1], tmp_path / "fleet.yaml")
    assert sparkfleet(lab, path, "deploy", "--yes").rc == 0
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    taken_over = sparkfleet(lab, path, "deploy", "--yes")
    assert (taken_over.rc, taken_over.states(), taken_over.changes("spark1")) == (0, {"spark1": "clean"}, {})
