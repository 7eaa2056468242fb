"""One request to the root helper, and its answer. What a start need not wait for is imported where it is used."""

from __future__ import annotations

import struct

# The C module below the public one, whose imports take longer than asking for a job does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from sparkhost.launcher.request import Request
else:
    import _socket as socket

SOCKET = "/run/sparkfleet/launcher.sock"
TIMEOUT = 60.0
"""Seconds; longer than the helper gives itself for a request."""


class Trouble(Exception):
    """Why there is no job. One line for the user, with the remedy where one is known."""


class Busy(Trouble):
    """The helper has too many requests now: nothing is wrong, and another try may help."""


def start_message(
    memory: int | None,
    time: int | None,
    name: str | None,
    host_ipc: bool,
    wait: bool = False,
    ticket: str | None = None,
) -> bytes:
    """What `request.encode` makes of a `Start`, without the modules that it needs. A name has nothing to be escaped."""
    words = {
        "memory": memory, "time": time, "name": f'"{name}"' if name else None, "host_ipc": str(host_ipc).lower(),
        "wait": str(wait).lower(), "ticket": f'"{ticket}"' if ticket else None,
    }  # fmt: skip
    rest = "".join(f', "{key}": {"null" if value is None else value}' for key, value in words.items())
    return f'{{"version": 1, "action": "start"{rest}}}'.encode("ascii")


def send(message: bytes, fds: list[int], path: str = "") -> socket.socket:
    """Sends a request; the connection, on which the answer will come.

    Raises:
        Trouble: the helper does not answer.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    try:
        # With a timeout of Python's, connect(2) does not wait where others are in front of it (unix(7): EAGAIN).
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(TIMEOUT), 0))
        connection.connect(path or SOCKET)
        connection.settimeout(TIMEOUT)
        try:
            connection.sendmsg([message], passed)
        except BrokenPipeError:
            return connection  # refused unread: the answer, or a reset, says why
    except OSError as error:
        connection.close()
        raise silent(error) from error
    return connection


def receive(connection: socket.socket) -> dict[str, Any]:
    """The answer, or a place in the queue (`wait`), and closes the connection.

    Raises:
        Trouble: the helper refused, or does not answer; Busy: it has too many requests.
    """
    import json

    try:
        try:
            data = connection.recv(8192)
        except ConnectionResetError:  # closed there before our request was read: its answer comes after that news
            data = connection.recv(8192)
    except ConnectionResetError as error:
        raise Busy("the launcher's helper has too many requests at a time: try again") from error
    except OSError as error:
        raise silent(error) from error
    finally:
        connection.close()
    try:
        told = json.loads(data)
        if told["ok"] is True or "wait" in told:
            return dict(told)
        raise (Busy if told.get("busy") else Trouble)(str(told["error"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble("the launcher's helper gave no answer: journalctl -u sparkfleet-launcher.service") from error


def silent(error: OSError) -> Trouble:
    return Trouble(
        f"the launcher's helper does not answer ({error.strerror or error}): is the measure training_slice "
        "deployed on this host? systemctl status sparkfleet-launcher.socket"
    )


def ask(request: Request, fds: list[int] | None = None, path: str = "") -> dict[str, Any]:
    """The helper's answer to a request.

    Raises:
        Trouble: it refused, or does not answer.
    """
    from sparkhost.launcher.request import encode

    return receive(send(encode(request), fds or [], path))
