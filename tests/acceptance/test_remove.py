"""`sparkfleet remove`: a host leaves the fleet by one command, and is the same as before it came."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.compliance.standins import PREPARE
from tests.integration.auditing import SETTINGS
from tests.integration.deploying import ROOT, SPARKFLEET, deploy, environment, fleet, sparkfleet
from tests.integration.host_state import state_of
from tests.integration.sessions import KILLABLE, fresh_session
from tests.lab import Host, Lab

SSH = {"confirm_within": "300s"}
# What stays, on purpose: the account that the deploy has made, locked, with its group, its home and the note about it.
CAROL = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid")
KEPT = (*CAROL, "/var/lib/sparkfleet/training-people.json")


def test_a_host_leaves_by_one_command(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    hosts = (spark1, spark2)
    for host in hosts:
        host.clean()
        host.sudo(PREPARE)
    before = state_of(spark1)
    people = {"members": ["alice", "bob"], "users": {"carol": []}}
    path = fleet(lab, hosts, tmp_path / "fleet.yaml", {"ssh": SSH, "training_slice": people}, SETTINGS)
    assert deploy(lab, path).rc == 0
    spark1.sudo("echo mine >/home/carol/kept; chown carol: /home/carol/kept")
    other = state_of(spark2)
    words: list[Path | str] = [SPARKFLEET, "remove", "spark1", "--yes", "--fleet", path]
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=environment(lab, path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spark1: nothing of sparkfleet is left there" in done.stdout
    plan = done.stdout[: done.stdout.index("spark1  drift: ")]
    assert plan.index("  ssh: ") < plan.index("  watchdog: ") < plan.index("  uv: ") < plan.index("  swap: ")
    changed = {line for line in state_of(spark1) ^ before if not any(f" {kept} " in f"{line} " for kept in KEPT)}
    assert sorted(changed) == []
    assert spark1.sudo("cat /home/carol/kept").stdout == "mine\n"
    assert spark1.sudo("getent shadow carol | cut -d: -f8").stdout == "1\n"
    assert spark1.run("sudo -n true", check=False).rc == 0
    assert fresh_session(spark1, "alice") == KILLABLE
    assert spark1.sudo("test -e /var/lib/sparkfleet/applied.json", check=False).rc == 1
    assert list(yaml.safe_load(path.read_text())["hosts"]) == ["spark2"]
    assert state_of(spark2) == other
    assert sparkfleet(lab, path, "drift").states() == {"spark2": "clean"}
