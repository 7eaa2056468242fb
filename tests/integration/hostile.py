"""An SSH server that lets anyone in and then misbehaves: a double for a host that somebody has taken over."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

Answer = Callable[[paramiko.Channel, str], None]
"""Answers a command on its channel; the channel is closed afterwards."""


class _Anyone(paramiko.ServerInterface):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def act() -> None:
            # The client hangs up, which is what it should do: paramiko tells of it in either way.
            with suppress(OSError, EOFError), closing(channel):
                self.answer(channel, command.decode())

        threading.Thread(target=act, daemon=True).start()
        return True


@contextmanager
def server(answer: Answer, known_hosts: Path) -> Iterator[int]:
    """Serves on a port of 127.0.0.1, which it yields; its host key is added to `known_hosts`."""
    key = paramiko.ECDSAKey.generate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with known_hosts.open("a") as stream:
            stream.write(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
        transports: list[paramiko.Transport] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                transports.append(transport)
                transport.start_server(event=threading.Event(), server=_Anyone(answer))

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield port
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for transport in transports:
                transport.close()
