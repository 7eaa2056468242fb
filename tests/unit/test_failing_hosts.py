"""Hosts that fail in every way, in one run of the real pyinfra: each is named once, with its state; none harms another.

The hosts are doubles (tests/doubles/sshd.py); the deploy is this project's own, but for its limits of time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paramiko
import pytest

from sparkfleet.deploy.outcome import Outcome, State, exit_code, outcomes
from sparkfleet.deploy.report import summary
from sparkfleet.exit_codes import ExitCode
from sparkfleet.host_sources import unpacked
from tests.doubles import sshd

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = """\
from tasks import swap, uv
from tasks.lib import converge

converge.PLAN_TIMEOUT = converge.APPLY_TIMEOUT = 8
converge.deploy(swap, uv)
"""
EXPIRED = "sudo: Account or password is expired, reset your password and try again\n"
PLAN = '{"applied": null, "history": {"measures": {}, "last": null}, "plan": %s}'
EXPECTED = {
    "good": (State.CLEAN, ""),
    "off": (State.UNREACHABLE, "timed out"),
    "no_banner": (State.UNREACHABLE, "banner"),
    "refused": (State.UNREACHABLE, "Unable to connect"),
    "other_key": (State.UNREACHABLE, "does not match"),
    "unknown_key": (State.UNREACHABLE, "known_hosts"),
    "hangs": (State.LOST, "nothing was heard for 8 s"),
    "reboots": (State.LOST, "the connection broke"),
    "expired_sudo": (State.FAILED, "Account or password is expired"),
    "wrong_sudo": (State.FAILED, "sudo refused the password of this run"),
    "busy": (State.FAILED, "ann has it"),
    "no_python": (State.FAILED, "/usr/bin/python3: not found"),
    "says_nothing": (State.FAILED, "no answer"),
    "not_json": (State.FAILED, "the answer is not JSON"),
    "a_list": (State.FAILED, "the answer has another form than this version's"),
    "no_plan": (State.FAILED, "the answer has another form than this version's"),
    "short_plan": (State.FAILED, "the answer has no plan for it"),
    "odd_plan": (State.FAILED, "the answer has another form than this version's"),
    "odd_change": (State.FAILED, "the answer has another form than this version's"),
    "odd_history": (State.FAILED, "the answer has another form than this version's"),
    "deep": (State.FAILED, "not JSON: nested without end"),
    "deep_history": (State.FAILED, "the answer is nested more than 16 deep"),
    "no_utf8": (State.FAILED, "the answer is not JSON"),
    "no_end": (State.LOST, "nothing was heard for 8 s"),
    "no_start": (State.LOST, "nothing was heard for 8 s"),
    "escapes": (State.FAILED, "swap: \\x1b[2J\\x1b]0;OWNED\\x07\\u202eall good"),
    "last": (State.CLEAN, ""),
}


def no_utf8(line: str, text: str, channel: paramiko.Channel) -> None:
    channel.sendall(b"\xff\xfe\n")
    sshd.answer(channel)


def no_end(line: str, text: str, channel: paramiko.Channel) -> None:
    """Answers, and never says how the command ended."""
    channel.sendall(b"{}\n")
    channel.shutdown_write()


class NoStart(sshd.Server):
    """Neither runs a command nor refuses it."""

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        time.sleep(60)
        return False


NASTY = "\x1b[2J\x1b]0;OWNED\x07\u202eall good"


def escapes(line: str, text: str, channel: paramiko.Channel) -> None:
    """A plan of the right form; every text is for a terminal to obey."""
    change = {"what": NASTY, "summary": NASTY, "diff": f"+{NASTY}\n-{NASTY}\tb", "needs": []}
    nasty = {"changes": [change], "warnings": [NASTY], "refused": [NASTY], "error": NASTY}
    request, found = unpacked(text), dict[str, Any]()
    if request["action"] == "plan":
        plan = {measure["name"]: nasty for measure in request["measures"]}
        found = {"applied": None, "plan": plan, "history": {"measures": {NASTY: {"at": NASTY}}, "last": None}}
    else:
        found = {"applied": nasty, "plan": {}, "notes": [NASTY], "unproved": False, "history": None}
    channel.sendall_stderr(f"{NASTY}\n".encode())
    sshd.answer(channel, json.dumps(found) + "\n")


def wrong_password(line: str, text: str, channel: paramiko.Channel) -> None:
    """As sudo asks: -n says that it wants one, -S does not like it."""
    asked = "sudo: a password is required\n" if " -n " in line else "Sorry, try again.\n"
    sshd.answer(channel, "", 1, asked)


COMMANDS: dict[str, sshd.Command] = {
    "good": sshd.clean,
    "last": sshd.clean,
    "hangs": sshd.hangs,
    "reboots": sshd.reboots,
    "expired_sudo": sshd.says("", rc=1, error=EXPIRED),
    "wrong_sudo": wrong_password,
    "busy": sshd.busy,
    "no_python": sshd.says("", rc=127, error="sh: 1: /usr/bin/python3: not found\n"),
    "says_nothing": sshd.says(""),
    "not_json": sshd.says("Welcome to spark1!\n"),
    "a_list": sshd.says("[1]\n"),
    "no_plan": sshd.says('{"applied": null}\n'),
    "short_plan": sshd.says(PLAN % "{}"),
    "odd_plan": sshd.says(PLAN % '{"swap": 1}'),
    "odd_change": sshd.says(PLAN % '{"swap": {"changes": [1], "warnings": [], "refused": [], "error": null}}'),
    "odd_history": sshd.says('{"applied": null, "plan": {}, "history": {"measures": {}, "last": {"measures": [1]}}}'),
    "deep": sshd.says("[" * 40_000 + "\n"),
    "deep_history": sshd.says('{"history": {"measures": {"a": {"b": %s}}}}\n' % ('{"c":' * 200 + "1" + "}" * 200)),
    "no_utf8": no_utf8,
    "no_end": no_end,
    "no_start": sshd.hangs,
    "escapes": escapes,
    "other_key": sshd.clean,
    "unknown_key": sshd.clean,
}


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with ExitStack() as stack:
        found = {}
        for name in EXPECTED:
            if name in COMMANDS:
                key = paramiko.ECDSAKey.generate() if name == "other_key" else sshd.HOST_KEY
                kind = NoStart if name == "no_start" else sshd.Server
                found[name] = stack.enter_context(sshd.serving(COMMANDS[name], key, kind))
            elif name == "refused":
                with sshd.silent() as port:
                    found[name] = port
            else:
                found[name] = stack.enter_context(sshd.deaf() if name == "off" else sshd.silent())
        yield found


@pytest.fixture(scope="module")
def found(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Outcome], str, float]:
    """What became of all of them in one real run; pyinfra's output; and how long it took."""
    folder = tmp_path_factory.mktemp("fleet")
    path = sshd.fleet_of(folder, ports, ["unknown_key"])
    (folder / "deploy.py").write_text(DEPLOY)
    (folder / "journal").touch()
    given = {
        "FLEET": str(path),
        "SPARKFLEET_JOURNAL": str(folder / "journal"),
        "SPARKFLEET_SUDO_PASSWORD_COMMAND": "echo wrong",
        "PYINFRA_PROGRESS": "off",
        "HOME": str(folder),
    }
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "inventory.py", str(folder / "deploy.py"), "-y"],
        cwd=ROOT,
        env={**os.environ, **given},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    lines = (folder / "journal").read_text().splitlines()
    return outcomes(list(EXPECTED), lines, dry=False), done.stdout, time.monotonic() - began


@pytest.mark.parametrize("name", EXPECTED)
def test_each_host_has_its_state_and_its_reason(name: str, found: tuple[list[Outcome], str, float]) -> None:
    (one,) = (one for one in found[0] if one.host == name)
    state, reason = EXPECTED[name]
    assert (one.state, reason in one.reason) == (state, True), f"{one}\n{found[1]}"


def test_every_host_is_named_once_and_the_whole_is_3(found: tuple[list[Outcome], str, float]) -> None:
    lines = summary(found[0])
    assert sorted(line.split()[0] for line in lines) == sorted(EXPECTED)
    assert exit_code(found[0]) == ExitCode.UNREACHABLE
    assert "Traceback" not in found[1]


def test_nothing_of_a_host_reaches_the_terminal_as_an_escape(found: tuple[list[Outcome], str, float]) -> None:
    """pyinfra's own colours are left out where no terminal is; what else there is would be a host's."""
    assert "OWNED" in found[1]
    assert all(line.isprintable() for line in found[1].replace("\t", "").split("\n"))


def test_no_host_holds_the_others_up_for_longer_than_its_own_limits(found: tuple[list[Outcome], str, float]) -> None:
    """Connecting is given up after 20 s, here a command after 8; the rest is room for a busy machine."""
    assert found[2] < 120
