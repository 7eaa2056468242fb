"""A host that is reset in the middle of a deploy: it is named, the others are done, and a rerun goes on from there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.integration.deploying import ROOT, SPARKFLEET, all_but, environment, fleet, sparkfleet, wait_for
from tests.lab import Host, Lab


def test_a_reset_harms_no_other_host(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    for host in (spark1, spark2):
        host.clean()
        host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")
    path = fleet(lab, [spark1, spark2], tmp_path / "fleet.yaml", all_but("swap", "cuda_env", "uv"))
    report = tmp_path / "report.json"
    with subprocess.Popen(
        [SPARKFLEET, "deploy", "--yes", "--json", report],
        cwd=ROOT,
        env=environment(lab, path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_for(spark1, "test -e /etc/systemd/system/swap.d/zz-sparkfleet.conf", timeout=120)
        spark1.hard_reset()
        assert process.wait(timeout=600) == 3
    hosts = json.loads(report.read_text())["hosts"]
    assert {name: one["state"] for name, one in hosts.items()} == {"spark1": "lost", "spark2": "changed"}
    rerun = sparkfleet(lab, path, "deploy", "--yes")
    assert rerun.rc == 0, rerun.hosts
    assert rerun.states()["spark2"] == "clean"
    assert sparkfleet(lab, path, "drift").states() == {"spark1": "clean", "spark2": "clean"}
