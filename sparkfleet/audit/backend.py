"""testinfra's connections, with a standard input, and with limits of time and size for what comes back.

testinfra's ssh backend is the system's own ssh, so aliases, ProxyJump and agents work as the admin expects. Its
`run_local` gives a command no input, waits for ever, and keeps whatever is printed; its paramiko backend verifies no
host keys, and is not used.
"""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Callable
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.backend.local import LocalBackend
from testinfra.backend.ssh import SshBackend

from sparkfleet import child
from sparkfleet.audit.probe.frame import PASSWORD
from sparkfleet.enrol.ssh import Route
from sparkfleet.foreign import ANSWER_BYTES

CONNECT_SECONDS = 30


class Broken(Exception):
    """There is no usable answer. One line."""


class Conversation:
    """What is said to the probe on its standard input, and within which limits."""

    def __init__(self, request: bytes, token: str, seconds: float, password: Callable[[], str]) -> None:
        self.request = request
        self.limits = child.Limits(seconds, ANSWER_BYTES)
        self._asks = f"\n{PASSWORD} {token}\n".encode()
        self._password = password
        self._answered = False

    def run(self, command: str) -> tuple[int, bytes, bytes]:
        """Runs a shell command line here. Returns its exit status, output and error.

        Raises:
            Broken: the time or the size is over; nothing of it is left running.
        """
        try:
            # Standard input stays open: the probe may ask for the password.
            done = child.run(command, self.limits, self.request, self._reply)
        except child.OutOfBounds as error:
            raise Broken(str(error)) from error
        return done.rc, done.stdout, done.stderr

    def _reply(self, output: bytes | bytearray) -> bytes | None:
        if self._answered or not output.endswith(self._asks):
            return None
        self._answered = True
        return self._password().encode() + b"\n"


class OverSsh(SshBackend):  # type: ignore[misc] # testinfra is not typed for strict checks
    """testinfra's ssh backend for one conversation."""

    def __init__(self, route: Route, conversation: Conversation) -> None:
        self.conversation = conversation
        # Its own connection, never a shared one: the session must be a fresh one.
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
        }
        words = route.with_options(**options).words()
        # Options of the command line, not of a generated ssh_config: that one would hold for jump hosts as well.
        extra = shlex.join(words[1 : words.index("--")])
        name = urllib.parse.quote(route.address, safe=":")
        super().__init__(f"[{name}]", ssh_extra_args=extra, controlpersist=0)

    def run_local(self, command: str, *args: str) -> CommandResult:
        rc, output, errors = self.conversation.run(self.quote(command, *args))
        return self.result(rc, command.encode(), output, errors)


class Here(LocalBackend):  # type: ignore[misc] # testinfra is not typed for strict checks
    """testinfra's local backend for one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        super().__init__()

    def run_local(self, command: str, *args: str) -> CommandResult:
        rc, output, errors = self.conversation.run(self.quote(command, *args))
        return self.result(rc, command.encode(), output, errors)


def answer_of(backend: Any, command: str) -> tuple[int, bytes, bytes]:
    """Exit status, output and error of a command; 255: ssh's own failure.

    Raises:
        Broken: the limits were passed.
    """
    try:
        result = backend.run(command)
    except RuntimeError as error:  # testinfra's word for ssh's 255
        result = error.args[0]
    return result.rc, result.stdout_bytes, result.stderr_bytes
