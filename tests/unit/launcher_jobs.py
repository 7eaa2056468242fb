"""Real stubs for tests, without a systemd around them: the socket pair and processes are what they are on a host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sparkhost.launcher import inherit, run, stay
from sparkhost.launcher.attach import Ending, attend

HOST = Path(__file__).resolve().parents[2] / "files" / "host"
STUB = f"import sys; sys.path.insert(0, {str(HOST)!r}); from sparkhost.launcher.stub import main; sys.exit(main())"
CLEAN = {"PATH": "/usr/bin:/bin", "INVOCATION_ID": "0123456789abcdef0123456789abcdef"}


def pair() -> tuple[socket.socket, socket.socket]:
    """The launcher's own, as sockets that a `with` closes."""
    ours, theirs = (socket.socket(fileno=end.detach()) for end in run.pair())
    return ours, theirs


def stub(theirs: socket.socket, user: int | None = None) -> subprocess.Popen[bytes]:
    """The stub as systemd would start it: the socket as standard input and output, an environment of systemd's."""
    with theirs:
        return subprocess.Popen(
            ["/usr/bin/python3", "-IS", "-c", STUB],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env=CLEAN,
            cwd="/",
            user=user,
        )


def job(
    *argv: str, environment: Sequence[tuple[str, str]] = (("PATH", "/usr/bin:/bin"),), detached: bool = False
) -> tuple[int, bytes, bytes, Ending, int]:
    """Runs a command as a job with pipes: exit code, standard output and error, how it ended, the unit's exit code."""
    ours, theirs = pair()
    out, err = os.memfd_create("out"), os.memfd_create("err")
    process = stub(theirs)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        with ours:
            stay.hand_over(ours, inherit.gather(argv, list(environment)), [nothing, out, err], detached)
            ending = attend(ours)
        status = process.wait(timeout=30)
        texts = [os.pread(descriptor, 1 << 20, 0) for descriptor in (out, err)]
    finally:
        process.kill()
        process.wait()
        for descriptor in (nothing, out, err):
            os.close(descriptor)
    return ending.code if ending.code is not None else -1, texts[0], texts[1], ending, status


def python(script: str) -> list[str]:
    """A command that runs a script in the tests' own interpreter."""
    return [sys.executable, "-c", script]
