"""`sparkfleet remove`: the fleet file without a host, and what becomes of hosts that cannot be reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.enrol.fleet_text import inserted
from sparkfleet.enrol.fleet_without import draft_without, without
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.host_sources import unpacked
from tests.doubles import sshd
from tests.unit.test_deploy_outcome import fleet as fleet

LAST = {"version": "v1", "settings": "s", "ended": "x", "measures": {}}

CASES = {
    "the last of a block": (
        "hosts:\n  a: {port: 1}\n  gone:\n    port: 2  # why\n\n# end\nversion: 1\n",
        "hosts:\n  a: {port: 1}\n\n# end\nversion: 1\n",
    ),
    "the first, with settings": (
        "hosts:\n  gone:\n    settings:\n      swap: {mode: keep}\n    groups: [x]\n  # about a\n  a: {}\n",
        "hosts:\n  # about a\n  a: {}\n",
    ),
    "only a name": ("hosts:\n  gone:\n  a:\n", "hosts:\n  a:\n"),
    "only a name, at the end of the file": ("hosts:\n  a:\n  gone:", "hosts:\n  a:\n"),
    "a comment above stays": ("hosts:\n  a:\n  # the noisy one\n  gone:\n", "hosts:\n  a:\n  # the noisy one\n"),
    "braces, in the middle": ("hosts: {a: {}, gone: {port: 1}, b: {}}\n", "hosts: {a: {}, b: {}}\n"),
    "braces, at the end": ("hosts: {a: {port: 2}, gone: {port: 1}}  # x\n", "hosts: {a: {port: 2}}  # x\n"),
    "braces, at the beginning": ("hosts: {gone: {port: 1}, a: {}}\n", "hosts: {a: {}}\n"),
    "Windows' line ends and a mark": (
        "\ufeffhosts:\r\n  gone:\r\n    port: 1\r\n  a:\r\n",
        "\ufeffhosts:\r\n  a:\r\n",
    ),
    "a quoted name": ('hosts:\n  "gone": {port: 1}\n  a: {}\n', "hosts:\n  a: {}\n"),
    "an anchor that another host needs": ("hosts:\n  gone: &x {port: 1}\n  a: *x\n", None),
    "an alias": ("defaults: &d {}\nhosts:\n  a: {}\n  gone: *d\n", "defaults: &d {}\nhosts:\n  a: {}\n"),
    "a key on a line of its own": ("hosts:\n  ? gone\n  : {port: 1}\n  a: {}\n", None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_host_is_cut_out_and_the_rest_stays(case: str) -> None:
    before, after = CASES[case]
    assert without(before, "gone") == after


@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.booleans())
def test_what_was_put_in_is_taken_out_again(names: list[str], braces: bool) -> None:
    hosts = ", ".join(f"{name}: {{port: 1}}" for name in names)
    text = f"hosts: {{{hosts}}}\n" if braces else "hosts:\n" + "".join(f"  {name}:\n    port: 1\n" for name in names)
    more = inserted(text, "gone", {"address": "x", "port": 2})
    assert more is not None
    assert without(more, "gone") == text


def test_the_only_host_is_not_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("hosts:\n  a: {}\n")
    with pytest.raises(CommandFailed, match="a is its only host"):
        draft_without(path, "a")


def remove(*words: str, fleet: Path, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sparkfleet.cli", "remove", *words, "--fleet", str(fleet)],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=fleet.parent,
    )


def test_a_host_that_is_not_reached_stays_in_the_fleet(fleet: Path) -> None:
    before = fleet.read_text()
    done = remove("gone1", "--yes", fleet=fleet)
    assert done.returncode == ExitCode.UNREACHABLE, done.stderr
    assert done.stdout.splitlines()[-1].startswith("gone1  unreachable: ")
    assert "gone2" not in done.stdout
    assert fleet.read_text() == before


def test_hosts_leave_one_by_one(tmp_path: Path) -> None:
    """Doubles: one has nothing of sparkfleet left, another one is at work, a third only remembers that it was there."""
    told: list[str] = []

    def remembers(line: str, text: str, channel: paramiko.Channel) -> None:
        request = unpacked(text)
        told.append(request["action"])
        states = {measure["state"] for measure in request.get("deploy", {}).get("measures", {}).values()}
        told.extend(states)
        history: dict[str, Any] = {
            "measures": {} if "record" in told else {"uv": {}},
            "last": None if "record" in told else LAST,
        }
        sshd.answer(channel, json.dumps({"notes": [], **sshd.planned(request), "history": history}))

    with sshd.serving(sshd.clean) as good, sshd.serving(sshd.busy) as busy, sshd.serving(remembers) as old:
        path = sshd.fleet_of(tmp_path, {"good": good, "busy": busy, "old": old, "stays": good + 1})
        done = remove("busy", "old", "good", "--yes", fleet=path)
    assert done.returncode == ExitCode.FAILURE, done.stdout + done.stderr
    assert list(yaml.safe_load(path.read_text())["hosts"]) == ["busy", "stays"]
    assert "ann has it" in done.stdout
    assert "stays" not in done.stdout
    assert told == ["plan", "plan", "record", "absent", "plan"]


def test_a_machine_that_is_no_more_is_taken_out_of_the_file(fleet: Path) -> None:
    done = remove("gone1", "--yes", "--entry-only", fleet=fleet)
    assert (done.returncode, done.stdout) == (ExitCode.CLEAN, f"gone1: taken out of {fleet}\n"), done.stderr
    assert list(yaml.safe_load(fleet.read_text())["hosts"]) == ["gone2"]
    last = remove("gone2", "--yes", "--entry-only", fleet=fleet)
    assert last.returncode == ExitCode.BAD_CONFIGURATION
    assert "gone2 is its only host" in last.stderr


def test_what_nobody_confirms_leaves_the_file_as_it_is(fleet: Path) -> None:
    before = fleet.read_text()
    ours, theirs = os.openpty()
    os.write(ours, b"n\n")
    done = remove("gone1", "--entry-only", fleet=fleet, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == ExitCode.FAILURE
    assert done.stderr == f"sparkfleet: {fleet} was not changed: it still has gone1\n"
    assert fleet.read_text() == before


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["gone1"], "there is no terminal to confirm on: give --yes"),
        (["gone*", "--yes"], "has no host 'gone*': there are gone1, gone2"),
        (["gone1", "--yes", "--keep-entry", "--entry-only"], "leave nothing to do"),
        (["--yes"], "the following arguments are required: HOST"),
    ],
)
def test_a_wrong_call_is_one_line_and_4(words: list[str], problem: str, fleet: Path) -> None:
    done = remove(*words, fleet=fleet)
    assert done.returncode == ExitCode.BAD_CONFIGURATION
    (text,) = done.stderr.splitlines()
    assert problem in text
