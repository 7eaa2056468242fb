"""The sudo password is asked for at the terminal, once, also where pyinfra's own output is not shown."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest

from tests.doubles import sshd

ASKED = b"sudo password"


def guarded(line: str, text: str, channel: paramiko.Channel) -> None:
    """A host whose sudo wants a password, which is `secret`."""
    given, _, rest = text.partition("\n")
    if "sudo -n true" in line or " -n " in line:
        sshd.answer(channel, "", 1, "sudo: a password is required\n")
    elif " -S " in line and given != "secret":
        sshd.answer(channel, "", 1, "Sorry, try again.\n")
    elif rest.strip():
        sshd.clean(line, rest, channel)
    else:
        sshd.answer(channel)


def at_a_terminal(words: list[str], folder: Path) -> tuple[int, str]:
    """Runs it at a terminal of its own, and answers each question for the password."""
    kept = {key: value for key, value in os.environ.items() if key != "SPARKFLEET_SUDO_PASSWORD_COMMAND"}
    main, side = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "sparkfleet.cli", *words],
        cwd=folder,
        env={**kept, "XDG_STATE_HOME": str(folder / "state")},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    output, answered = b"", 0
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:  # the last process has closed the terminal
            break
        output += chunk
        if output.count(ASKED) > answered:
            answered = output.count(ASKED)
            os.write(main, b"secret\n")
    os.close(main)
    return process.wait(), output.decode(errors="replace")


@pytest.mark.parametrize("command", ["drift", "rollout"])
def test_it_is_asked_for_once(command: str, tmp_path: Path) -> None:
    with sshd.serving(guarded) as one, sshd.serving(guarded) as two:
        path = sshd.fleet_of(tmp_path, {"one": one, "two": two})
        words = [command, "--fleet", str(path), *(["--yes", "--batch", "1"] if command == "rollout" else [])]
        _, output = at_a_terminal(words, tmp_path)
    assert output.count(ASKED.decode()) == 1, output
    assert "one  clean" in output
    assert "two  clean" in output
    assert "secret" not in output
