"""The lab's root console on a host: works without network and without sshd (see guest/agent.py)."""

from __future__ import annotations

import json
import socket
import time
import uuid
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.ssh import CommandError, Completed


def run(host: str, path: Path, cmd: str, *, check: bool, timeout: float, input: str | None) -> Completed:
    """Run `cmd` as root in bash on the host behind the agent socket `path`.

    Raises CommandError on rc != 0 (with `check`), LabError where the host does not answer within `timeout`
    seconds and 10 more.
    """
    ident = uuid.uuid4().hex
    request = {"id": ident, "cmd": cmd, "input": input, "timeout": timeout}
    reply = _ask(host, path, json.dumps(request).encode() + b"\n", ident, timeout + 10)
    result = Completed(int(reply["rc"]), str(reply["out"]), str(reply["err"]))
    if check and result.rc:
        last = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise CommandError(f"{host}: console: rc {result.rc}: {cmd}: {last}", result)
    return result


def _ask(host: str, path: Path, line: bytes, ident: str, timeout: float) -> dict[str, str | int]:
    until = time.monotonic() + timeout
    waiting = b""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(str(path))
            sock.sendall(line)
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                chunk = sock.recv(65536)
                if not chunk:
                    raise LabError(f"{host}: qemu closed the console")
                waiting += chunk
                while b"\n" in waiting:
                    first, waiting = waiting.split(b"\n", 1)
                    reply = _parse(first)
                    if reply is not None and reply.get("id") == ident:
                        return reply
    except TimeoutError:
        pass
    except OSError as error:
        raise LabError(f"{host}: its console does not answer (is it up?): {error}") from error
    raise LabError(f"{host}: its console did not answer in {timeout:.0f} s")


def _parse(line: bytes) -> dict[str, str | int] | None:
    """A reply, or None for the tail of one that an earlier caller did not wait for."""
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None
