"""One request to the root helper, and its answer."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from sparkhost.launcher.request import Request, encode

SOCKET = "/run/sparkfleet/launcher.sock"
TIMEOUT = 60.0
"""Seconds; longer than the helper gives itself for a request."""


class Trouble(Exception):
    """Why there is no job. One line for the user, with the remedy where one is known."""


def ask(request: Request, fds: list[int] | None = None, path: str = "") -> dict[str, Any]:
    """The helper's answer to a request.

    Raises:
        Trouble: it refused, or does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path or SOCKET)
            with contextlib.suppress(BrokenPipeError):  # refused unread: the answer, or a reset, says why
                socket.send_fds(connection, [encode(request)], fds or [])
            data = connection.recv(8192)
    except ConnectionResetError as error:  # closed there before our request was read
        raise Trouble("the launcher's helper has too many requests at a time: try again") from error
    except OSError as error:
        raise Trouble(
            f"the launcher's helper does not answer ({error.strerror or error}): is the measure training_slice "
            "deployed on this host? systemctl status sparkfleet-launcher.socket"
        ) from error
    try:
        told = json.loads(data)
        if told["ok"] is True:
            return dict(told)
        raise Trouble(str(told["error"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble("the launcher's helper gave no answer: journalctl -u sparkfleet-launcher.service") from error
