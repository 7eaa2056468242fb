"""Hosts that never stop talking: how much memory one costs each command, beside a host that is as it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest

from sparkfleet.enrol.hostkey import HostKey
from sparkfleet.host_sources import unpacked
from tests.doubles import sshd

MOST = 64
"""MiB that one hostile host may cost."""
SAID = 200
"""MiB that it says in all, if it is let."""
MIB = 1024 * 1024
CLI = (sys.executable, "-m", "sparkfleet.cli")
# A child's peak begins with that of the process it was forked from: a small one in between.
PEAK = """\
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024))
sys.exit(done.returncode)
"""


def endless(chunk: bytes, *, stderr: bool = False) -> sshd.Command:
    """Says this again and again, and never ends by itself."""
    whole = chunk * (MIB // len(chunk))

    def act(line: str, text: str, channel: paramiko.Channel) -> None:
        with suppress(OSError, EOFError):  # who asked has heard enough
            for _ in range(SAID):
                (channel.sendall_stderr if stderr else channel.sendall)(whole)
            channel.close()

    return act


LINES = endless(b"y" * 99 + b"\n")


def busy(line: str, text: str, channel: paramiko.Channel) -> None:
    """Plans a change, and never ends to say who uses it."""
    if "training.slice" in line:
        LINES(line, text, channel)
    else:
        sshd.answer(channel, json.dumps(sshd.planned(unpacked(text), "swap")) + "\n")


def calm(line: str, text: str, channel: paramiko.Channel) -> None:
    """A host as it should be; it knows nothing of the audit's probe."""
    if sshd.PROBE in text:
        sshd.answer(channel, "", 1)
    else:
        sshd.clean(line, text, channel)


@dataclass(frozen=True)
class Seen:
    """A command's end. `peak`: MiB of the largest of its processes."""

    rc: int
    output: str
    peak: int


def seen(folder: Path, command: str, port: int, *more: str) -> Seen:
    """Runs a command of sparkfleet's on a fleet of one host."""
    path = sshd.fleet_of(folder, {} if command == "enrol" else {"one": port})
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder / "peak"), *CLI, command, *more, "--fleet", str(path)],
        env={
            **os.environ,
            "HOME": str(folder),
            "PYINFRA_PROGRESS": "off",
            "SPARKFLEET_SUDO_PASSWORD_COMMAND": "echo x",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )
    return Seen(done.returncode, done.stdout, int((folder / "peak").read_text()))


COMMANDS: dict[str, tuple[str, ...]] = {
    "drift": (),
    "deploy": ("--yes",),
    "audit": ("--no-store",),
    "rollout": ("--yes",),
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], int]:
    """What a host that is as it should be costs a command."""
    peaks: dict[str, int] = {}

    def peak(command: str) -> int:
        if command not in peaks:
            with sshd.serving(calm) as port:
                peaks[command] = seen(tmp_path_factory.mktemp("quiet"), command, port, *COMMANDS[command]).peak
        return peaks[command]

    return peak


def test_a_host_costs_a_look_no_more_than_that(quiet: Callable[[str], int], tmp_path: Path) -> None:
    """Lines without end; other kinds are in tests/acceptance."""
    with sshd.serving(LINES) as port:
        found = seen(tmp_path, "drift", port)
    assert found.peak - quiet("drift") <= MOST, found
    assert "the answer is longer than 2 MiB" in found.output
    assert "Traceback" not in found.output


@pytest.mark.parametrize("command", ["deploy", "audit", "rollout"])
def test_a_host_costs_other_commands_no_more_either(command: str, quiet: Callable[[str], int], tmp_path: Path) -> None:
    with sshd.serving(busy if command == "rollout" else LINES) as port:
        found = seen(tmp_path, command, port, *COMMANDS[command])
    assert found.peak - quiet(command) <= MOST, found
    assert (found.rc, "Traceback" in found.output) == (3, False), found.output


def test_enrolling_a_host_costs_no_more_either(tmp_path: Path) -> None:
    """ssh's own process aside: what a host that nobody has deployed to says reaches us through a pipe."""
    fingerprint = HostKey(sshd.HOST_KEY.get_name(), sshd.HOST_KEY.get_base64()).fingerprint
    found = {}
    for name, command in {"quiet": sshd.says("", rc=1), "endless": LINES}.items():
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "mine"], check=True)
        with sshd.serving(command) as port:
            where = ("new", "--address", "127.0.0.1", "--port", str(port), "--fingerprint", fingerprint)
            found[name] = seen(folder, "enrol", port, *where, "--key", str(folder / "mine.pub"), "--yes")
        assert "Traceback" not in found[name].output
    assert "the answer is longer than 1 MiB" in found["endless"].output
    assert found["endless"].peak - found["quiet"].peak <= MOST, found
