"""What became of each host of a run, by the lines in its journal; and what `drift` and `deploy` print and return."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.deploy.outcome import CODES, State, exit_code, outcomes
from sparkfleet.deploy.report import as_json, details, summary
from sparkfleet.exit_codes import ExitCode
from tasks.lib import journal
from tests.doubles import sshd

CHANGE = {"what": "/etc/x", "summary": "rewrite", "diff": "-a\n+b\n"}


def line(host: str, event: str, **facts: Any) -> str:
    return json.dumps({"host": host, "event": event, **facts})


def of_measure(host: str, event: str, *changes: dict[str, str], refused: str = "", error: str | None = None) -> str:
    refusals = [refused] if refused else []
    return line(host, event, measure="swap", changes=[*changes], refused=refusals, error=error)


PLANNED, EXECUTED = line("a", "planned"), line("a", "executed")
CASES = [
    ("dry", State.CLEAN, [of_measure("a", "plan"), PLANNED]),
    ("dry", State.DRIFT, [of_measure("a", "plan", CHANGE), PLANNED]),
    ("dry", State.FAILED, [of_measure("a", "plan", CHANGE, refused="too little memory"), PLANNED]),
    ("dry", State.UNFINISHED, [of_measure("a", "plan", CHANGE)]),
    ("real", State.CLEAN, [of_measure("a", "applied"), EXECUTED]),
    ("real", State.CHANGED, [of_measure("a", "plan", CHANGE), PLANNED, of_measure("a", "applied", CHANGE), EXECUTED]),
    ("real", State.DECLINED, [of_measure("a", "plan", CHANGE), PLANNED]),
    ("real", State.CLEAN, [of_measure("a", "plan"), PLANNED]),
    ("real", State.FAILED, [of_measure("a", "applied", error="no space"), EXECUTED]),
    ("real", State.FAILED, [of_measure("a", "applied"), line("a", "trouble", measure="ssh", problem="taken back")]),
    ("real", State.UNFINISHED, [of_measure("a", "applied", CHANGE)]),
    ("real", State.LOST, [of_measure("a", "applied", CHANGE), line("a", "lost", measure="uv", problem="gone")]),
    ("real", State.UNREACHABLE, [line("a", "unreachable", problem="no route to host")]),
    ("real", State.UNREACHABLE, []),
]


@pytest.mark.parametrize(("kind", "state", "lines"), CASES)
def test_the_state_of_a_host(kind: str, state: State, lines: list[str]) -> None:
    (found,) = outcomes(["a"], lines, dry=kind == "dry")
    assert found.state == state
    assert bool(found.reason) == (state not in (State.CLEAN, State.CHANGED, State.DRIFT))


def test_a_plan_that_was_carried_out_is_not_counted_twice() -> None:
    (found,) = outcomes(["a"], CASES[5][2], dry=False)
    assert found.changes() == 1


def test_every_host_is_there_once_and_a_line_cut_short_is_passed_over() -> None:
    lines = [of_measure("b", "plan"), line("b", "planned"), '{"host": "a", "event": "pl']
    found = outcomes(["a", "b"], lines, dry=True)
    assert [(one.host, one.state) for one in found] == [("a", State.UNREACHABLE), ("b", State.CLEAN)]
    assert set(json.loads(as_json(found, exit_code(found)))["hosts"]) == {"a", "b"}
    assert [text.split()[0] for text in summary(found)] == ["b", "a"]


@pytest.mark.parametrize("state", State)
def test_every_state_has_an_exit_code_and_the_highest_counts(state: State) -> None:
    (clean,) = outcomes(["a"], [of_measure("a", "applied"), EXECUTED], dry=False)
    clean.state = state
    (other,) = outcomes(["b"], [line("b", "unreachable", problem="x")], dry=False)
    assert exit_code([clean]) == CODES[state]
    assert exit_code([clean, other]) == ExitCode.UNREACHABLE


def test_no_host_is_not_clean() -> None:
    assert exit_code([]) == ExitCode.BAD_CONFIGURATION


def test_what_a_host_says_does_not_reach_the_terminal_raw() -> None:
    evil = {"what": "/etc/\x1b[2J", "summary": "rewrite\nspark9  clean", "diff": "+\x1b]0;x\x07"}
    (found,) = outcomes(["a"], [of_measure("a", "plan", evil, refused="\x1b[1m"), PLANNED], dry=True)
    text = "\n".join([*details(found, diff=True), *summary([found])])
    assert "\x1b" not in text
    assert "\nspark9" not in text


def test_the_journal_is_written_only_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(journal.JOURNAL, raising=False)
    journal.note("a", "planned")
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv(journal.JOURNAL, str(path))
    journal.note("a", "planned")
    journal.note("b", "unreachable", problem="x")
    assert [json.loads(text)["host"] for text in path.read_text().splitlines()] == ["a", "b"]


def sparkfleet(*words: str, cwd: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "sparkfleet.cli", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Two hosts at a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "known_hosts").touch()
    path = tmp_path / "fleet.yaml"
    hosts = "".join(f"  gone{number}: {{address: 127.0.0.{number}, port: {port}, user: nobody}}\n" for number in (1, 2))
    path.write_text(f"known_hosts: known_hosts\nhosts:\n{hosts}")
    return path


def test_a_host_that_is_off_hides_no_other(tmp_path: Path) -> None:
    """pyinfra asks whether to go on without it."""
    with sshd.serving(sshd.clean) as good:
        path = sshd.fleet_of(tmp_path, {"off": 1, "good": good})
        done = sparkfleet("drift", "--fleet", str(path), cwd=tmp_path)
    assert done.stdout.splitlines()[0] == "good  clean", done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("off   unreachable: Could not connect")
    assert done.returncode == ExitCode.UNREACHABLE


def test_hosts_that_are_not_reached_are_named_with_the_reason(fleet: Path, tmp_path: Path) -> None:
    """The real pyinfra, which would leave them out of its JSON."""
    done = sparkfleet("drift", "--fleet", str(fleet), "--json", "-", cwd=tmp_path)
    assert done.returncode == ExitCode.UNREACHABLE, done.stderr
    hosts = json.loads(done.stdout)["hosts"]
    assert {name: host["state"] for name, host in hosts.items()} == {"gone1": "unreachable", "gone2": "unreachable"}
    assert "Unable to connect" in hosts["gone1"]["reason"]
    real = sparkfleet("deploy", "--yes", "--fleet", str(fleet), "--limit", "gone2", cwd=tmp_path)
    assert real.returncode == ExitCode.UNREACHABLE
    assert real.stdout.splitlines()[-1].startswith("gone2  unreachable: ")
    assert "Traceback" not in done.stderr + real.stderr + real.stdout


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, "sparkfleet: no temporary directory: "),
        # The first line fits, the second one not.
        (200, "is full or cannot be written, so what came of the hosts is not known: free some space there"),
    ],
)
def test_a_full_disk_of_the_controller_is_one_line_and_says_nothing_of_hosts(
    fleet: Path, tmp_path: Path, size: int, told: str
) -> None:
    """A limit on the size of files, in bytes, stands in for the end of a disk: write(2) fails in the same way."""
    done = sparkfleet("drift", "--fleet", str(fleet), cwd=tmp_path, before=["prlimit", f"--fsize={size}", "--"])
    assert done.returncode == ExitCode.FAILURE
    (text,) = done.stderr.splitlines()
    assert told in text
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["drift", "--limit", "gonee"], "--limit 'gonee' fits no host or group: there are gone1, gone2"),
        (["deploy", "--limit", "gone1"], "there is no terminal to confirm on: give --yes"),
        (["drift", "@local"], "leave out --limit, --fleet and $FLEET"),
        (["drift", "@loacl"], "invalid choice: '@loacl'"),
    ],
)
def test_a_wrong_call_is_one_line_and_4(words: list[str], problem: str, fleet: Path, tmp_path: Path) -> None:
    done = sparkfleet(*words, "--fleet", str(fleet), cwd=tmp_path)
    assert done.returncode == ExitCode.BAD_CONFIGURATION
    (text,) = done.stderr.splitlines()
    assert problem in text


def test_mistakes_in_the_fleet_file_are_4(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("hosts:\n  a: {adress: b}\n")
    done = sparkfleet("deploy", "--yes", "--fleet", str(path), cwd=tmp_path)
    assert done.returncode == ExitCode.BAD_CONFIGURATION
    assert "hosts.a.adress: unknown key" in done.stderr
