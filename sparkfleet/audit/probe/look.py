"""Runs the fixed commands of the probe on a host, each within a limit of time and of output."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 30.0
"""Most that one command may take."""
BYTES = 64 * 1024
"""Most that one command may print; the answers that count are far shorter."""
# Few programs at a time: a host that trains must not feel an audit.
AT_ONCE = 3
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLAIN = {"PATH": PATH, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
"""The environment of commands that are not about environments."""


class Seen(NamedTuple):
    """What one command answered. `error`: its standard error, or why it did not run."""

    command: str
    output: str
    rc: int = 0
    error: str = ""


Parameters = Mapping[str, Any]
"""What the fleet file says about where to look: paths, variables, units."""
Looks = Callable[[Parameters], Mapping[str, Seen]]
"""Looks at something, and names what it saw."""


def text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def run(
    words: Sequence[str],
    *,
    seconds: float = SECONDS,
    limit: int = BYTES,
    env: Mapping[str, str] | None = PLAIN,
    data: bytes = b"",
    shown: str = "",
) -> Seen:
    """Runs a program. `shown`: the command as a person would type it; `data` goes to its standard input.

    It is killed, with what it started, after `seconds` or `limit` bytes; rc is then 124, and `error` says which. 127:
    it is not installed.
    """
    command = shown or shlex.join(words)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if data else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        return Seen(command, "", 127, error.strerror or str(error))
    with process:
        parts, over = _talk(process, seconds, limit, data)
        if over:
            # sudo is root's: it cannot be killed, but ends with its pipes, and its own program has an alarm.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            return Seen(command, text(parts[0]), 124, over)
    return Seen(command, text(parts[0]), process.returncode, text(parts[1]).strip()[:2000])


def _talk(process: subprocess.Popen[bytes], seconds: float, limit: int, data: bytes) -> tuple[tuple[bytes, bytes], str]:
    """Its output and error, and why it must be ended ("": it has closed both)."""
    parts = {1: bytearray(), 2: bytearray()}
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for number, stream in ((1, process.stdout), (2, process.stderr), (0, process.stdin)):
            if stream:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ if number else selectors.EVENT_WRITE, number)
        while any(key.data for key in selector.get_map().values()):
            left = until - time.monotonic()
            if left <= 0:
                return (bytes(parts[1]), bytes(parts[2])), f"no end within {seconds:g} s"
            for key, _ in selector.select(left):
                if not key.data:
                    data = _write(key.fd, data)
                    if not data and process.stdin:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                parts[key.data] += chunk
                if len(parts[key.data]) > limit:
                    return (bytes(parts[1][:limit]), bytes(parts[2])), f"printed more than {limit} bytes"
    left = until - time.monotonic()
    try:
        process.wait(max(left, 0.1))
    except subprocess.TimeoutExpired:
        return (bytes(parts[1]), bytes(parts[2])), f"no end within {seconds:g} s"
    return (bytes(parts[1]), bytes(parts[2])), ""


def _write(descriptor: int, data: bytes) -> bytes:
    """Writes what fits; what is left, nothing where the reader is gone."""
    try:
        return data[os.write(descriptor, data[:65536]) :]
    except BlockingIOError:
        return data
    except OSError:
        return b""


def read(path: str, command: str = "", limit: int = BYTES) -> Seen:
    """A file of /proc, /sys or /etc."""
    command = command or f"cat {path}"
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        return Seen(command, "", 1, f"{path}: {error.strerror}")
    if len(data) > limit:
        return Seen(command, text(data[:limit]), 124, f"{path} has more than {limit} bytes")
    return Seen(command, text(data))


def look(looks: Mapping[str, Looks], parameters: Parameters) -> dict[str, dict[str, Any]]:
    """All observations by name, as JSON has them. A look that fails is its observation's error, never the probe's."""

    def one(item: tuple[str, Looks]) -> Mapping[str, Seen]:
        name, function = item
        try:
            return function(parameters)
        except Exception as error:
            return {name: Seen(name, "", 1, f"the probe cannot look: {type(error).__name__}: {error}")}

    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for seen in pool.map(one, looks.items()):
            found.update({name: answer._asdict() for name, answer in seen.items()})
    return found
