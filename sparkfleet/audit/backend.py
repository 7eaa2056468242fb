"""testinfra's connections, with a standard input, and with limits of time and size for what comes back.

testinfra's ssh backend is the system's own ssh, so aliases, ProxyJump and agents work as the admin expects. Its
`run_local` gives a command no input, waits for ever, and keeps whatever is printed; its paramiko backend verifies no
host keys, and is not used.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.backend.local import LocalBackend
from testinfra.backend.ssh import SshBackend

from sparkfleet.audit.probe.frame import PASSWORD
from sparkfleet.enrol.ssh import Route

ANSWER_BYTES = 8 * 1024 * 1024
"""Most that a host may answer; an answer has some 20 KiB."""
ERROR_BYTES = 64 * 1024
CONNECT_SECONDS = 30


class Broken(Exception):
    """There is no usable answer. One line."""


class Conversation:
    """What is said to the probe on its standard input, and within which limits."""

    def __init__(self, request: bytes, token: str, seconds: float, password: Callable[[], str]) -> None:
        self.request = request
        self.seconds = seconds
        self._asks = f"\n{PASSWORD} {token}\n".encode()
        self._password = password
        self._answered = False

    def run(self, command: str) -> tuple[int, bytes, bytes]:
        """Runs a shell command line here. Returns its exit status, output and error.

        Raises:
            Broken: the time or the size is over; nothing of it is left running.
        """
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, errors = self._talk(process)
            return process.wait(timeout=10), output, errors
        except subprocess.TimeoutExpired as error:
            raise Broken("ssh does not end") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()
            process.wait()

    def _talk(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        if not (process.stdin and process.stdout and process.stderr):
            raise Broken("no pipes to ssh")
        output, errors, waiting = bytearray(), bytearray(), memoryview(self.request)
        until = time.monotonic() + self.seconds
        with selectors.DefaultSelector() as selector:
            for stream, event in ((process.stdin, 2), (process.stdout, 1), (process.stderr, 1)):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event)
            while any(key.events == selectors.EVENT_READ for key in selector.get_map().values()):
                left = until - time.monotonic()
                if left <= 0:
                    raise Broken(f"no answer within {self.seconds:g} s")
                for key, _ in selector.select(left):
                    if key.fileobj is process.stdin:
                        waiting = _write(key.fd, waiting)
                        if not waiting:
                            selector.unregister(process.stdin)  # open still: the probe may ask for the password
                        continue
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        errors += chunk[: ERROR_BYTES - len(errors)]
                    else:
                        output += chunk
                if len(output) > ANSWER_BYTES:
                    raise Broken(f"the answer is longer than {ANSWER_BYTES // 1024**2} MiB")
                if not self._answered and output.endswith(self._asks):
                    self._answered = True
                    asked = time.monotonic()
                    waiting = memoryview(self._password().encode() + b"\n")
                    until += time.monotonic() - asked  # a person may have been asked
                    selector.register(process.stdin, selectors.EVENT_WRITE)
        return bytes(output), bytes(errors)


def _write(descriptor: int, data: memoryview) -> memoryview:
    try:
        return data[os.write(descriptor, data[:65536]) :]
    except BlockingIOError:
        return data
    except OSError:  # its reader has gone; why, is told by its exit status
        return data[:0]


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
