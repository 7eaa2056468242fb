"""How the audit reaches hosts, asked of ssh itself; and the sudo password, which no command line has."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from sparkfleet.audit.backend import Broken, Conversation, OverSsh
from sparkfleet.audit.collect import collect, one_line, read_document, target_of
from sparkfleet.audit.probe.frame import PASSWORD, BadFrame
from sparkfleet.settings import FleetHost, HostSettings


def backend(address: str, conversation: Conversation, port: int | None = 2222) -> OverSsh:
    host = FleetHost("spark1", address, port, "admin", Path("/keys/a b"), (), HostSettings())
    route = target_of(host, Path("/fleet/known hosts")).route
    assert route
    return OverSsh(route, conversation)


def talk(request: bytes = b"", seconds: float = 10.0) -> Conversation:
    return Conversation(request, "t", seconds, lambda: "s3cret")


@pytest.mark.parametrize("address", ["192.168.10.11", "fd00:10::13", "spark4.lab.example.com", "fe80::1%eth0"])
def test_ssh_understands_the_way_to_a_host(address: str) -> None:
    command, words = backend(address, talk())._build_ssh_command("true")
    line = " ".join(command) % tuple(map(shlex.quote, words))
    ssh, *rest = shlex.split(line)
    assert (ssh, rest[-2:]) == ("ssh", [address, "true"])
    done = subprocess.run([ssh, "-G", *rest[:-1]], capture_output=True, text=True, check=True)
    found = dict(entry.split(" ", 1) for entry in done.stdout.splitlines() if " " in entry)
    assert found["hostname"] == address
    assert (found["port"], found["user"]) == ("2222", "admin")
    assert found["stricthostkeychecking"] == "true"
    assert "/fleet/known hosts" in found["userknownhostsfile"]
    assert found["controlmaster"] == "false", "a shared connection would not be a fresh session"
    assert found["batchmode"] == "yes"
    assert "forwardagent no" in done.stdout


def test_the_password_is_written_once_to_who_asks_with_the_token() -> None:
    script = (
        f"printf '\\n{PASSWORD} other\\n'; read -t 1 no; printf '\\n{PASSWORD} t\\n'; read -r got; echo \"got $got\";"
        f" printf '\\n{PASSWORD} t\\n'; read -t 1 again; echo \"then [$again]\""
    )
    rc, output, _ = talk().run(f"bash -c {shlex.quote(script)}")
    assert rc == 0
    assert b"got s3cret\n" in output
    assert output.endswith(b"then []\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [("sleep 60 & sleep 60", "no answer within 0.5 s"), ("yes", "the answer is longer than 2 MiB|no answer within")],
)
def test_limits_hold_and_nothing_is_left_running(command: str, said: str) -> None:
    with pytest.raises(Broken, match=said):
        talk(b"x" * 300_000, 0.5).run(command)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"observations": [], "boot_id": "", "problem": ""},
        {"observations": {}, "boot_id": 1, "problem": ""},
        {"observations": {"a": {"command": "c", "output": "o", "rc": True, "error": ""}}, "boot_id": "", "problem": ""},
        {"observations": {str(n): {} for n in range(501)}, "boot_id": "", "problem": ""},
    ],
)
def test_a_document_of_another_form_is_no_evidence(document: dict[str, object]) -> None:
    with pytest.raises(BadFrame):
        read_document(document)


def test_one_line_is_one_plain_line() -> None:
    assert one_line("a\n\x1b[2Jb\u202e") == "a \\x1b[2Jb\\u202e"
    assert len(one_line("x" * 1000)) == 300


def test_no_ssh_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    host = FleetHost("a", "127.0.0.1", 1, None, None, (), HostSettings())
    (run,) = collect([target_of(host, Path("/nonexistent"))])
    assert run.evidence is None
    assert "ssh: not found" in run.problem
