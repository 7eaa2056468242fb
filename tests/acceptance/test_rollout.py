"""`sparkfleet rollout` on lab hosts: the gate by the audit of a real host, jobs that run, and a reboot."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compliance.standins import PREPARE
from tests.integration.deploying import LAB_SETTINGS, ROOT, SPARKFLEET, all_but, deploy, environment, fleet, wait_for
from tests.integration.launching import detached
from tests.lab import Host, Lab

# A kernel without an initrd: critical, and nothing that a deploy mends.
BAD_KERNEL = "/boot/vmlinuz-99.0.0-broken"
MEASURES = {**all_but("cuda_env", "training_slice"), "training_slice": LAB_SETTINGS["training_slice"]}
DRIFT = "rm -f /etc/profile.d/zz-sparkfleet-cuda.sh"


@dataclass(frozen=True)
class Rolled:
    """What a rollout answered."""

    rc: int
    hosts: dict[str, Any]
    said: str

    def states(self) -> dict[str, str]:
        return {name: host["state"] for name, host in self.hosts.items()}


@pytest.fixture
def both(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both hosts as a deploy leaves them, and then with something to repair."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for host in (spark1, spark2):
        host.sudo(PREPARE)  # among other things an initrd: without it no lab host passes the gate
        host.sudo(f"rm -f {BAD_KERNEL} /run/reboot-required")
    path = fleet(lab, [spark1, spark2], tmp_path / "fleet.yaml", MEASURES)
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    for host in (spark1, spark2):
        host.sudo(DRIFT)
    return path


def rollout(lab: Lab, path: Path, *words: str) -> Rolled:
    done = subprocess.run(
        [SPARKFLEET, "rollout", "--yes", "--json", "-", *words],
        cwd=ROOT,
        env=environment(lab, path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.stdout, done.stderr
    return Rolled(done.returncode, json.loads(done.stdout)["hosts"], f"{done.stdout}\n{done.stderr}")


def repaired(host: Host) -> bool:
    return host.run("test -e /etc/profile.d/zz-sparkfleet-cuda.sh", check=False).rc == 0


def test_a_bad_canary_ends_it_and_the_rest_is_resumed(lab: Lab, both: Path, spark1: Host, spark2: Host) -> None:
    spark2.sudo(f"touch {BAD_KERNEL}")
    first = rollout(lab, both, "--canary", "spark2")
    assert first.states() == {"spark1": "untouched", "spark2": "failed"}, first.said
    assert first.hosts["spark2"]["reason"].startswith("audit: SPK-HOST-13 fail: 99.0.0-broken")
    assert (first.rc, repaired(spark1), repaired(spark2)) == (1, False, True)
    spark2.sudo(f"rm {BAD_KERNEL}")
    again = rollout(lab, both, "--resume")
    assert (again.rc, again.states()) == (0, {"spark1": "done", "spark2": "done"}), again.said
    assert repaired(spark1)


def test_a_host_with_a_job_is_skipped_or_waited_for(lab: Lab, both: Path, spark1: Host, spark2: Host) -> None:
    job = detached(spark1, "sleep 1000")
    first = rollout(lab, both)
    assert (first.rc, first.states()) == (1, {"spark1": "skipped", "spark2": "done"}), first.said
    assert f"in use: job {job} of uid" in first.hosts["spark1"]["reason"]
    assert not repaired(spark1)
    assert job in spark1.run("spark-run ps", user="alice").stdout
    waiting = subprocess.Popen(
        [SPARKFLEET, "rollout", "--yes", "--resume", "--busy", "wait", "--json", "-"],
        cwd=ROOT,
        env=environment(lab, both),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr
    for line in waiting.stderr:
        if line.endswith(": waiting\n"):
            break
    assert not repaired(spark1)
    spark1.run(f"spark-run stop {job}", user="alice")
    told, said = waiting.communicate(timeout=900)
    assert waiting.returncode == 0, said
    assert {host["state"] for host in json.loads(told)["hosts"].values()} == {"done"}
    assert repaired(spark1)


def test_a_host_that_asks_for_a_reboot_gets_one_when_no_job_runs(
    lab: Lab, both: Path, spark1: Host, spark2: Host
) -> None:
    for host in (spark1, spark2):
        host.sudo("echo '*** System restart required ***' > /run/reboot-required")
    job = detached(spark1, "sleep 1000")
    boots = [boot_id(host) for host in (spark1, spark2)]
    first = rollout(lab, both, "--canary", "spark2", "--reboot")
    assert first.states() == {"spark1": "skipped", "spark2": "done"}, first.said
    assert boot_id(spark1) == boots[0]
    assert boot_id(spark2) != boots[1]
    spark1.run(f"spark-run stop {job}", user="alice")
    wait_for(spark1, "! systemctl --quiet is-active 'spark-job-*'")
    again = rollout(lab, both, "--resume", "--reboot", "--busy", "wait")
    assert (again.rc, again.states()) == (0, {"spark1": "done", "spark2": "done"}), again.said
    assert boot_id(spark1) != boots[0]
    assert detached(spark1, "true")  # the launcher is back


def boot_id(host: Host) -> str:
    return host.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()
