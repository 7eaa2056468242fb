"""`sparkfleet rollout` by its command line: the real pyinfra and ssh; hosts are doubles (tests/doubles/sshd.py).

What a host answers the audit is what a lab host once answered (tests/compliance/evidence).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml

from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.model import Severity
from sparkfleet.audit.probe.frame import framed
from sparkfleet.exit_codes import ExitCode
from sparkfleet.host_sources import unpacked
from sparkfleet.rollout.reboot import JOBS_AGAIN, NEXT_KERNEL, NO_NEW_JOBS, PENDING, REBOOT
from tests.compliance import fixtures
from tests.doubles import sshd

CRITICAL = [control.id for control in CONTROLS if control.severity is Severity.CRITICAL]
BREAKS = "SPK-SWAP-01"


def observations(case: str = "pass", *, reboot: bool = False) -> dict[str, Any]:
    """What a host answers on which every critical control holds; `fail`: but for one. `reboot`: it asks for one."""
    found: dict[str, Any] = {}
    kinds = {BREAKS: case, PENDING: "fail" if reboot else "pass"}
    for control in [*CRITICAL, BREAKS, PENDING, *NEXT_KERNEL]:
        found |= next(iter(fixtures.load(fixtures.path_of(control, kinds.get(control, "pass"))).hosts.values()))
    return found


def settings() -> dict[str, Any]:
    """Those of the host that once answered."""
    found: dict[str, Any] = {}
    for control in CRITICAL:
        found |= fixtures.load(fixtures.path_of(control, "pass")).settings
    return found


@dataclass
class Machine:
    """A host. `case`: what its audit sees after the deploy; `job`: who uses it."""

    case: str = "pass"
    job: str = ""
    reboot: bool = False
    as_root: list[str] = field(default_factory=list)
    changed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def command(self, line: str, text: str, channel: paramiko.Channel) -> None:
        if "training.slice" in line:
            sshd.answer(channel, self.job)
        elif "boot_id" in line:
            sshd.answer(channel, "one boot\n")
        elif "id -u" in line:
            sshd.answer(channel, "root\n")
        elif "systemctl" in line and not text:
            self.as_root.append(line)
            refused = "reboot" in line
            sshd.answer(channel, "", int(refused), "Failed to start transient timer unit\n" if refused else "")
        elif sshd.PROBE in text:
            token = json.loads(text[text.index(sshd.PROBE) :])["token"]
            document = {"observations": observations(self.case, reboot=self.reboot), "boot_id": "b", "problem": ""}
            sshd.answer(channel, framed(token, document))
        else:
            with self.lock:
                self.deployed(unpacked(text), channel)

    def deployed(self, request: dict[str, Any], channel: paramiko.Channel) -> None:
        """One measure would change, until it is told to."""
        plan = sshd.planned(request, *([] if self.changed else ["swap"]))
        if request["action"] == "apply":
            self.changed += 1
            plan = {**plan, "unproved": False, "applied": sshd.EMPTY | {"changes": [sshd.CHANGE]}}
        sshd.answer(channel, json.dumps({"notes": [], **plan}))


@dataclass
class Fleet:
    machines: dict[str, Machine]
    path: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "sparkfleet.cli", "rollout", "--yes", "--fleet", str(self.path), *words]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            # Whoever starts the tests may ignore SIGINT, as a shell does for what it runs in the background.
            ["env", "--default-signal=INT", *self.command(*words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path.parent,
        )

    def rollout(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=self.path.parent,
        )

    def states(self, done: subprocess.CompletedProcess[str]) -> dict[str, str]:
        return {name: host["state"] for name, host in json.loads(done.stdout)["hosts"].items()}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    machines = {name: Machine() for name in ("one", "two", "three", "four")}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(sshd.serving(machine.command)) for name, machine in machines.items()}
        path = sshd.fleet_of(tmp_path, ports)
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "defaults": settings()}, sort_keys=False))
        yield Fleet(machines, path)


def test_the_canary_goes_first_and_a_bad_batch_ends_it_and_the_rest_is_resumed(fleet: Fleet) -> None:
    fleet.machines["two"].case = "fail"
    fleet.machines["three"].job = "spark-job-1000-00c0ffee.service\n"
    done = fleet.rollout("--canary", "four", "--batch", "1", "--json", "-")
    assert done.returncode == ExitCode.FAILURE, done.stderr
    assert fleet.states(done) == {"one": "done", "two": "failed", "three": "untouched", "four": "done"}, done.stdout
    assert done.stderr.index("batch: four") < done.stderr.index("batch: one") < done.stderr.index("batch: two")
    assert f"audit: {BREAKS} fail" in json.loads(done.stdout)["hosts"]["two"]["reason"]
    assert [machine.changed for machine in fleet.machines.values()] == [1, 1, 0, 1]
    fleet.machines["two"].case = "pass"
    again = fleet.rollout("--resume", "--json", "-")
    assert fleet.states(again) == {"one": "done", "two": "done", "three": "skipped", "four": "done"}
    assert "in use: job 00c0ffee of uid 1000" in json.loads(again.stdout)["hosts"]["three"]["reason"]
    assert again.returncode == ExitCode.FAILURE
    last = fleet.rollout("--resume", "--busy", "force", "--json", "-")
    assert (last.returncode, set(fleet.states(last).values())) == (ExitCode.CLEAN, {"done"}), last.stderr
    assert [machine.changed for machine in fleet.machines.values()] == [1, 1, 1, 1]
    nothing = fleet.rollout("--resume")
    assert (nothing.returncode, "nothing is left" in nothing.stdout) == (ExitCode.CLEAN, True)
    fleet.path.write_text(fleet.path.read_text() + "# changed\n")
    other = fleet.rollout("--resume")
    assert other.returncode == ExitCode.BAD_CONFIGURATION
    assert "the fleet file is another than when the run began" in other.stderr


def test_a_host_in_use_is_waited_for_so_long_as_was_said(fleet: Fleet) -> None:
    fleet.machines["one"].job = "docker-0.scope\n"
    done = fleet.rollout("--limit", "one", "--limit", "two", "--busy", "wait", "--wait-up-to", "1s")
    assert done.returncode == ExitCode.FAILURE
    assert "one: in use: docker-0.scope: waiting" in done.stdout
    assert done.stdout.splitlines()[-3:] == [
        "one  skipped: in use: docker-0.scope",
        "two  done",
        "1 to do: sparkfleet rollout --resume goes on with them",
    ]
    assert "one  drift: 1 change\n" in done.stdout


def test_the_fleet_file_says_how_and_options_win(fleet: Fleet) -> None:
    raw = yaml.safe_load(fleet.path.read_text())
    raw["rollout"] = {"canary": ["two", "four"], "batch": 1, "busy": "wait", "wait_up_to": "1s"}
    fleet.path.write_text(yaml.safe_dump(raw, sort_keys=False))
    fleet.machines["two"].job = "docker-0.scope\n"
    done = fleet.rollout("--limit", "one", "--limit", "two")
    assert "batch: two" in done.stdout, "the other canary is not in this run"
    assert "two: in use: docker-0.scope: waiting" in done.stdout
    assert done.stdout.splitlines()[-3:-1] == ["one  done", "two  skipped: in use: docker-0.scope"]
    done = fleet.rollout("--resume", "--busy", "force")
    assert "going on all the same (busy: force)" in done.stdout
    assert done.stdout.splitlines()[-1] == "two  done"


def test_ctrl_c_is_told_as_such_and_nothing_more_is_touched(fleet: Fleet) -> None:
    fleet.machines["one"].job = "docker-0.scope\n"
    process = fleet.begin("--busy", "wait", "--json", "-")
    assert process.stderr is not None
    assert process.stdout is not None
    assert any("one: in use: docker-0.scope: waiting" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    document = json.loads(process.stdout.read())
    assert process.wait() == document["exit_code"] == ExitCode.INTERRUPTED
    assert {host["state"] for host in document["hosts"].values()} == {"untouched"}
    assert not any(machine.changed for machine in fleet.machines.values())


def test_who_is_not_rebooted_can_start_jobs_again(fleet: Fleet) -> None:
    """Drained before the look at who uses it: what begins between the two would be lost."""
    one, two = fleet.machines["one"], fleet.machines["two"]
    one.reboot = two.reboot = True
    one.changed, one.job = 1, "docker-0.scope\n"
    done = fleet.rollout(
        "--limit", "one", "--limit", "two", "--batch", "2", "--canary", "one", "--canary", "two", "--reboot"
    )
    assert done.returncode == ExitCode.UNREACHABLE
    assert "one  skipped: deployed, and not rebooted: in use: docker-0.scope" in done.stdout
    assert "two  failed: not rebooted: Failed to start transient timer unit" in done.stdout
    assert one.as_root == [NO_NEW_JOBS, JOBS_AGAIN]
    assert two.as_root == [NO_NEW_JOBS, REBOOT, JOBS_AGAIN]


def test_hosts_that_are_off_are_left_out_and_told(fleet: Fleet) -> None:
    raw = yaml.safe_load(fleet.path.read_text())
    raw["hosts"]["one"]["port"] = 1
    fleet.path.write_text(yaml.safe_dump(raw, sort_keys=False))
    done = fleet.rollout("--limit", "one", "--limit", "two", "--json", "-")
    assert done.returncode == ExitCode.UNREACHABLE
    assert fleet.states(done) == {"one": "unreachable", "two": "done"}, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--canary", "nobody"], "--canary 'nobody' is not among the hosts of this run: one, two, three, four"),
        (["--batch", "0"], "--batch '0': expected a number of hosts from 1, or a share from 1% to 100%"),
        (["--busy", "ask"], "--busy ask: expected one of skip, wait, force"),
        (["--wait-up-to", "5"], "--wait-up-to 5: expected a duration such as 500ms, 30s, 5min or 2h"),
        (["--resume"], "--resume: no rollout of this fleet file was begun: leave --resume out"),
        (["--resume", "--limit", "one"], "--resume takes the hosts of the last rollout: leave --limit out"),
        (["--json", "nowhere/out.json"], "--json nowhere/out.json: there is no such directory"),
    ],
)
def test_a_wrong_call_is_one_line_and_4(words: list[str], problem: str, fleet: Fleet) -> None:
    done = fleet.rollout(*words)
    assert done.returncode == ExitCode.BAD_CONFIGURATION
    assert done.stderr.splitlines()[-1].removeprefix("sparkfleet: ") == problem
    assert not any(machine.changed for machine in fleet.machines.values())
