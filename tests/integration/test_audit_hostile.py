"""Hosts that answer garbage, without end, or not at all: one line each, the right exit code, and no wait for ever."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml

from sparkfleet.audit.probe import program
from sparkfleet.audit.probe.frame import PASSWORD, framed
from tests.integration.hostile import Answer, server

SPARKFLEET = Path(sys.executable).with_name("sparkfleet")
NASTY = "\x1b[2J\x1b]0;owned\x07</script><script>alert(1)</script>\u202e"


def token_of(channel: paramiko.Channel) -> str:
    """Reads the program and its parameters, as a host does."""
    stream = channel.makefile("rb")
    stream.read(len(program.source()))
    match = re.search(r'"token": "([0-9a-f]+)"', stream.readline().decode())
    assert match
    return match[1]


def garbage(channel: paramiko.Channel, command: str) -> None:
    channel.sendall(f"{NASTY}\n\x00\xff not JSON".encode() * 50)
    channel.send_exit_status(0)


def endless(channel: paramiko.Channel, command: str) -> None:
    with suppress(OSError, EOFError):  # whoever asked has heard enough
        for _ in range(100):
            channel.sendall(b"x" * 1024**2)
        channel.send_exit_status(0)


def hang(channel: paramiko.Channel, command: str) -> None:
    time.sleep(60)


def cut(channel: paramiko.Channel, command: str) -> None:
    channel.sendall(framed(token_of(channel), {"observations": {}}).encode()[:-40])
    channel.send_exit_status(0)


def lies(channel: paramiko.Channel, command: str) -> None:
    """A document of the right form whose every part is for a terminal or a page to choke on."""
    nasty = {
        "command": NASTY,
        "output": f"Filename Type Size Used Priority\n{NASTY} p 1 1 1\n",
        "rc": 0,
        "error": NASTY,
    }
    names = ("swaps", "swap_units", "session_score", "session", NASTY)
    document = {"version": 1, "boot_id": NASTY, "problem": NASTY, "observations": dict.fromkeys(names, nasty)}
    channel.sendall(framed(token_of(channel), document).encode())
    channel.send_exit_status(0)


def forms(channel: paramiko.Channel, command: str) -> None:
    document = {"boot_id": "x", "problem": "", "observations": {"swaps": ["no", "object"]}}
    channel.sendall(framed(token_of(channel), document).encode())
    channel.send_exit_status(0)


def greedy(channel: paramiko.Channel, command: str) -> None:
    """Asks for the password again and again; it is given once, and not to one who does not know the token."""
    token = token_of(channel)
    channel.sendall(f"\n{PASSWORD} wrong\n\n{PASSWORD} {token}\n".encode())
    time.sleep(1)
    channel.sendall(f"\n{PASSWORD} {token}\n".encode())
    channel.recv(10_000)
    channel.send_exit_status(1)


def dies(channel: paramiko.Channel, command: str) -> None:
    channel.sendall_stderr(f"{NASTY} python3: not found\n".encode())
    channel.send_exit_status(127)


HOSTS: dict[str, tuple[Answer, str]] = {
    "garbage": (garbage, "no document of the probe in the answer"),
    "endless": (endless, "the answer is longer than 2 MiB"),
    "hang": (hang, "no answer within 8 s"),
    "cut": (cut, "the probe's document is cut or garbled"),
    "forms": (forms, "an observation is no object"),
    "dies": (dies, "python3: not found"),
    "greedy": (greedy, "no document of the probe in the answer"),
}


@pytest.fixture(scope="module")
def fleet_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("hostile")
    known_hosts, key = directory / "known_hosts", directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    hosts: dict[str, dict[str, object]] = {}
    with ExitStack() as stack:
        for name, (answer, _) in {**HOSTS, "lies": (lies, "")}.items():
            port = stack.enter_context(server(answer, known_hosts))
            hosts[name] = {"address": "127.0.0.1", "port": port, "user": "eve", "ssh_key": str(key)}
        stranger = stack.enter_context(server(garbage, directory / "other_known_hosts"))
        hosts["stranger"] = {"address": "127.0.0.1", "port": stranger, "user": "eve", "ssh_key": str(key)}
        hosts["gone"] = {"address": "127.0.0.1", "port": 1, "user": "eve", "ssh_key": str(key)}
        path = directory / "fleet.yaml"
        path.write_text(yaml.safe_dump({"version": 1, "known_hosts": str(known_hosts), "hosts": hosts}))
        yield path


def audit(fleet_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SPARKFLEET, "audit", "--fleet", fleet_file, "--no-store", "--timeout", "8", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def report(fleet_file: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """An audit, and its JSON report; the terminal's goes to stderr then."""
    done = audit(fleet_file, "--json", "-", *arguments)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert plain(done.stdout + done.stderr)
    return done, json.loads(done.stdout)


def plain(text: str) -> bool:
    """Whether a terminal would only print it."""
    return all(line.isprintable() for line in text.split("\n"))


def test_each_is_one_line_and_none_holds_the_audit_up(fleet_file: Path) -> None:
    began = time.monotonic()
    _, found = report(fleet_file, "--control", "SPK-SWAP-01")
    assert time.monotonic() - began < 40
    for name, (_, said) in HOSTS.items():
        (note,) = [note for note in found["run"]["notes"] if note.startswith(f"{name}: ")]
        assert said in note
    # A document of lies is judged: whatever it says, it is one line of plain text.
    (verdict,) = [verdict for verdict in found["verdicts"] if verdict["host"] == "lies"]
    assert verdict["status"] in ("fail", "error")


@pytest.mark.parametrize(
    ("name", "said"), [("gone", "Connection refused"), ("stranger", "Host key verification failed")]
)
def test_a_host_that_is_not_reached_or_not_known_is_unreachable(fleet_file: Path, name: str, said: str) -> None:
    done, found = report(fleet_file, "--limit", name)
    about = {verdict["status"] for verdict in found["verdicts"] if verdict["host"] == name}
    assert about == {"unreachable"}
    assert said in " ".join(done.stderr.split())


def test_lies_are_judged_by_every_control_and_pass_none(fleet_file: Path) -> None:
    _, found = report(fleet_file, "--limit", "lies")
    assert found["run"]["totals"]["pass"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "nobody"], "--limit 'nobody' fits no host or group"),
        (["--control", "SPK-NO-01"], "there is no control 'SPK-NO-01'"),
        (["--threshold", "awful"], "got 'awful', expected one of critical, high, medium, low"),
        (["--timeout", "0"], "got '0', expected 1 to 3600 seconds"),
        (["--fleet", "/nonexistent.yaml"], "there is no such file"),
        (["--json", "/nonexistent/x.json"], "--json"),
    ],
)
def test_a_wrong_call_is_bad_configuration(fleet_file: Path, arguments: list[str], said: str) -> None:
    done = audit(fleet_file, *arguments)
    assert (done.returncode, done.stdout) == (4, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
