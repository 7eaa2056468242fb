"""Runs the real `pyinfra inventory.py deploy.py` against lab hosts, as an admin does, and reads what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparkfleet.settings import HostSettings
from tests.lab import Host, Lab

ROOT = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).with_name("pyinfra")
SPARKFLEET = Path(sys.executable).with_name("sparkfleet")
LAB_SETTINGS: dict[str, dict[str, Any]] = {
    "swap": {"margin": "128MiB"},
    "training_slice": {
        "memory_max": "600MiB",
        "reserve": "200MiB",
        "session_memory_max": "300MiB",
        "need": "100MiB",
        "members": ["alice", "bob"],
    },
    "stack": {"profile": "lab"},
    "ssh": {"confirm_within": "5min"},
    "watchdog": {
        "term_below": "256MiB",
        "kill_below": "128MiB",
        "smallest_victim": "16MiB",
        "system_unit_above": "256MiB",
        "fastest_fill": "512MiB",
    },
}
"""Settings of every lab host, which has 1.5 GiB of memory: measure to settings; inventories/lab.yaml has them too."""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Deployed:
    """What a run of pyinfra answered."""

    rc: int
    output: str
    """Standard output and error together, without colours."""

    def lines(self, host: str, measure: str) -> list[str]:
        """What the run said about a measure of a host, such as "/etc/fstab: comment out …"."""
        pattern = re.compile(rf"^\s*\[{re.escape(host)}\] {re.escape(measure)}: (.*)$", re.MULTILINE)
        return [match.strip() for match in pattern.findall(self.output)]

    def changes(self, host: str) -> dict[str, list[str]]:
        """Measure → what was changed (or, in a dry run, would be), in order; "would " is taken off."""
        found: dict[str, list[str]] = {}
        # "armed: …" and "kept: …" tell the steps of a guarded change.
        pattern = rf"^\s*\[{re.escape(host)}\] (\w+): (?!armed: |kept: |taken back: )(/?\S+: .*)$"
        for measure, line in re.findall(pattern, self.output, re.MULTILINE):
            found.setdefault(measure, []).append(line.replace(": would ", ": ", 1).strip())
        return found


def fleet(
    lab: Lab,
    hosts: Sequence[Host],
    path: Path,
    defaults: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Writes a fleet file for these lab hosts: `defaults` for all, over the lab's own; `settings` by host name."""
    given = dict(defaults or {})
    data = {
        "version": 1,
        "known_hosts": str(lab.known_hosts),
        "defaults": {name: {**LAB_SETTINGS.get(name, {}), **given.get(name, {})} for name in {**LAB_SETTINGS, **given}},
        "hosts": {
            host.name: {
                "address": "127.0.0.1",
                "port": host.port,
                "user": "admin",
                "ssh_key": str(lab.admin_key),
                "settings": dict((settings or {}).get(host.name, {})),
            }
            for host in hosts
        },
    }
    path.write_text(yaml.safe_dump(data))
    return path


def all_but(*measures: str) -> dict[str, dict[str, Any]]:
    """Settings that leave every measure alone but these: what a test of one measure deploys."""
    return {name: {"state": "unmanaged"} for name in HostSettings.model_fields if name not in measures}


def environment(lab: Lab, fleet_file: Path | str) -> dict[str, str]:
    """What an admin has set in the shell: the fleet file, and where the sudo password comes from."""
    return {
        **os.environ,
        "FLEET": str(fleet_file),
        "SPARKFLEET_SUDO_PASSWORD_COMMAND": f"cat {lab.admin_password_file}",
        "PYINFRA_PROGRESS": "off",
    }


def deploy(lab: Lab, fleet_file: Path, *arguments: str, timeout: float = 900.0) -> Deployed:
    """`pyinfra inventory.py deploy.py -y ARGUMENTS` from the project's root; without -y for a dry run."""
    confirm = () if "--dry" in arguments else ("-y",)
    result = subprocess.run(
        [PYINFRA, "inventory.py", "deploy.py", *confirm, *arguments],
        cwd=ROOT,
        env=environment(lab, fleet_file),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Deployed(result.returncode, ESCAPE.sub("", result.stdout))


@dataclass(frozen=True)
class Outcome:
    """What `sparkfleet deploy` or `sparkfleet drift` answered, as JSON."""

    rc: int
    hosts: dict[str, Any]
    errors: str

    def states(self) -> dict[str, str]:
        return {name: host["state"] for name, host in self.hosts.items()}

    def changes(self, host: str) -> dict[str, list[str]]:
        """As `Deployed.changes`."""
        measures = self.hosts[host]["measures"].items()
        found = {name: [f"{c['what']}: {c['summary']}" for c in measure["changes"]] for name, measure in measures}
        return {name: lines for name, lines in found.items() if lines}


def sparkfleet(lab: Lab, fleet_file: Path, *words: str, timeout: float = 900.0) -> Outcome:
    """`sparkfleet deploy --yes`, or `sparkfleet drift`; with a variable set that blinds pyinfra's own dry run."""
    done = subprocess.run(
        [SPARKFLEET, *words, "--json", "-"],
        cwd=ROOT,
        env={**environment(lab, fleet_file), "PYINFRA_YES": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, json.loads(done.stdout)["hosts"], done.stderr)


def wait_for(host: Host, condition: str, timeout: float = 60.0) -> None:
    """Waits on the host until a shell condition holds. Raises where it does not within `timeout` seconds."""
    script = f"until {condition}; do sleep 0.2; done"
    host.run(f"timeout {timeout} sh -c {shlex.quote(script)}", timeout=timeout + 30)


def reboot(*hosts: Host) -> None:
    """Reboots the hosts one after the other (emulated ones starve each other), until each answers from a new boot."""
    for host in hosts:
        host.reboot()
