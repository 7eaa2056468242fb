"""A deploy from end to end: the real pyinfra, and the host's own code behind a double of its sshd.

What it costs in commands, what it leaves on the host about itself, and who may change the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import paramiko
import pytest

from sparkfleet.deploy.outcome import Outcome, State, outcomes
from sparkfleet.host_sources import unpacked
from sparkhost.base import converge, deploylock, files, history
from sparkhost.base.deploylock import Holder
from sparkhost.ssh import unproved
from tests.doubles import sshd

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = """\
import grp, os, pwd
from types import ModuleType

from sparkhost.base.files import File, NoFile
from tasks.lib.converge import deploy

owner = (pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name)
for name in ("swap", "uv"):
    module = ModuleType("tasks." + name)
    path = {folder!r} + name
    module.apply = lambda _, path=path: (File(path, "managed by sparkfleet\\n", 0o644, *owner),)
    module.remove = lambda _, path=path: (NoFile(path),)
    globals()["_" + name] = module
deploy(_swap, _uv)
"""


@dataclass
class Machine:
    """The host and its controller's folder."""

    folder: Path
    actions: list[str] = field(default_factory=list)
    """Of the commands that it got."""
    working: threading.Lock = field(default_factory=threading.Lock)

    def command(self, line: str, text: str, channel: paramiko.Channel) -> None:
        with self.working:
            request = unpacked(text)
            self.actions.append(request["action"])
            sshd.answer(channel, json.dumps(converge.run(request)))

    def deploy(self, *, dry: bool = False, leaves: bool = False) -> Outcome:
        """One run; what became of the host."""
        self.actions.clear()
        journal = self.folder / "journal"
        journal.write_text("")
        given = {
            "FLEET": str(self.folder / "fleet.yaml"),
            "SPARKFLEET_JOURNAL": str(journal),
            "PYINFRA_PROGRESS": "off",
        }
        done = subprocess.run(
            [sys.executable, "-m", "pyinfra", "inventory.py", self.folder / "deploy.py", "--dry" if dry else "-y"],
            cwd=ROOT,
            env={**os.environ, **given, "SPARKFLEET_REMOVE": "spark" if leaves else "", "PYINFRA_PROGRESS": "off"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stdout, done.stdout
        (one,) = outcomes(["spark"], journal.read_text().splitlines(), dry=dry)
        return one


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(deploylock, "LOCK", tmp_path / "deploy.lock")
    monkeypatch.setattr(history, "APPLIED", tmp_path / "applied.json")
    monkeypatch.setattr(files, "BACKUPS", tmp_path / "backup")
    monkeypatch.setattr(unproved, "DIRECTORY", tmp_path / "rollback")
    one = Machine(tmp_path)
    (tmp_path / "deploy.py").write_text(DEPLOY.format(folder=f"{tmp_path}/made-"))
    with sshd.serving(one.command) as port:
        sshd.fleet_of(tmp_path, {"spark": port})
        yield one


def causes(one: Outcome) -> dict[str, str]:
    return {name: str(measure.cause) for name, measure in one.measures.items()}


def test_the_life_of_a_host(machine: Machine) -> None:
    dry = machine.deploy(dry=True)
    assert (dry.state, causes(dry)) == (State.DRIFT, {"swap": "never-applied", "uv": "never-applied"})
    assert not deploylock.LOCK.exists(), "a dry run takes no lock"
    assert not history.APPLIED.exists()

    first = machine.deploy()
    assert (first.state, machine.actions) == (State.CHANGED, ["plan", "apply", "apply", "record"])
    (entry,) = history.read()["deploys"]
    assert entry["ended"]
    assert entry["fleet_file"] == str(machine.folder / "fleet.yaml")
    assert deploylock.LOCK.read_text() == "", "the lock is given back"

    before = history.APPLIED.read_bytes()
    again = machine.deploy()
    assert (again.state, machine.actions) == (State.CLEAN, ["plan"])
    assert history.APPLIED.read_bytes() == before

    (machine.folder / "made-uv").write_text("edited\n")
    found = history.read()
    for one in (*found["measures"].values(), *found["deploys"]):
        one["version"] = "v0"
    history.save(found)
    dry = machine.deploy(dry=True)
    assert causes(dry) == {"uv": "other-version"}
    assert {one["version"] for one in dry.applied.values()} == {"v0"}
    (machine.folder / "made-uv").write_text("managed by sparkfleet\n")
    newer = machine.deploy()
    assert (newer.state, machine.actions) == (State.CLEAN, ["plan", "record"]), "recorded, and no change"
    assert "v0" not in {one["version"] for one in history.read()["measures"].values()}

    left = machine.deploy(leaves=True)
    assert (left.state, list(left.measures)) == (State.CHANGED, ["uv", "swap"]), "the last one first"
    assert not list(machine.folder.glob("made-*"))
    assert not history.APPLIED.exists()
    assert (machine.deploy(leaves=True).state, machine.actions) == (State.CLEAN, ["plan"])


def test_a_host_that_another_admin_is_changing(machine: Machine) -> None:
    me = os.getpid()
    holder = Holder("t", "ann@laptop", time.time(), time.time(), me, deploylock.start_of(me) or 0, False)
    deploylock.LOCK.write_text(json.dumps(asdict(holder)))
    refused = machine.deploy()
    assert refused.state == State.FAILED
    assert "ann@laptop has been deploying to this host for " in refused.reason
    assert not list(machine.folder.glob("made-*"))
    assert machine.actions == ["plan", "apply"]
