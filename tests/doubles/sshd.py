"""Doubles of hosts: SSH servers on loopback that answer, hang or break off as told. For what no host does on demand.

What a command on them answers is made up here; that a real host answers so is for the tests with hosts.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import yaml
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from sparkfleet.host_sources import unpacked

HOST_KEY = paramiko.ECDSAKey.generate()
EMPTY: dict[str, Any] = {"changes": [], "warnings": [], "refused": [], "error": None}
CHANGE = {"what": "/etc/x", "summary": "rewrite", "diff": "", "needs": []}

Command = Callable[[str, str, paramiko.Channel], None]
"""What a command does: its line, its standard input, and its channel."""


def answer(channel: paramiko.Channel, text: str = "", rc: int = 0, error: str = "") -> None:
    """Ends a command."""
    channel.sendall(text.encode())
    channel.sendall_stderr(error.encode())
    channel.send_exit_status(rc)
    channel.close()


def planned(request: dict[str, Any], *changing: str) -> dict[str, Any]:
    """A host's answer in which these measures change something."""
    names = [measure["name"] for measure in request["measures"]]
    plan = {name: {**EMPTY, "changes": [CHANGE] if name in changing else []} for name in names}
    return {"applied": None, "plan": plan, "history": {"measures": {}, "last": None}}


def clean(line: str, text: str, channel: paramiko.Channel) -> None:
    """A host as it should be; it takes the record of the deploy."""
    request = unpacked(text)
    answer(channel, json.dumps({"notes": [], **planned(request)}))


def hangs(line: str, text: str, channel: paramiko.Channel) -> None:
    """Reads, and never says a word."""


def reboots(line: str, text: str, channel: paramiko.Channel) -> None:
    """Plans a change, and is gone in the middle of it."""
    request = unpacked(text)
    if request["action"] == "plan":
        answer(channel, json.dumps(planned(request, request["measures"][0]["name"])))
    else:
        channel.get_transport().close()


def busy(line: str, text: str, channel: paramiko.Channel) -> None:
    """Another admin has its lock."""
    request = unpacked(text)
    found = planned(request, request["measures"][0]["name"]) if request["action"] == "plan" else {"busy": "ann has it"}
    answer(channel, json.dumps(found))


def says(text: str, *, rc: int = 0, error: str = "") -> Command:
    """Whatever it is asked, the same."""
    return lambda line, _, channel: answer(channel, text, rc, error)


class Server(paramiko.ServerInterface):
    """Lets everybody in, and runs one thing."""

    def __init__(self, command: Command) -> None:
        self.command = command

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(command.decode(), channel), daemon=True).start()
        return True

    def _run(self, line: str, channel: paramiko.Channel) -> None:
        text = b""
        while chunk := channel.recv(65536):
            text += chunk
            # The audit's standard input stays open: its probe may ask for a password.
            if text.endswith(b"}\n") and PROBE.encode() in text:
                break
        self.command(line, text.decode(errors="replace"), channel)


PROBE = '{"part": "user"'
"""How the audit's parameters begin, behind its packed program."""


@contextmanager
def serving(command: Command, key: paramiko.PKey = HOST_KEY, kind: type[Server] = Server) -> Iterator[int]:
    """An SSH server; yields its port."""
    transports: list[paramiko.Transport] = []

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transports.append(transport)
            transport.start_server(event=threading.Event(), server=kind(command))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for transport in transports:
        transport.close()


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing, as an sshd that has no memory left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def deaf() -> Iterator[int]:
    """A port that takes no connection and refuses none, as a host that is off: its queue is full (listen(2))."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(4):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
                waiting.append(one)
            yield listener.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


def fleet_of(folder: Path, ports: Mapping[str, int], unknown: Sequence[str] = ()) -> Path:
    """A fleet file for such hosts, with a key of the admin's; the keys of all but the `unknown` are pinned."""
    paramiko.ECDSAKey.generate().write_private_key_file(str(folder / "key"))
    key = f"{HOST_KEY.get_name()} {HOST_KEY.get_base64()}"
    pins = [f"[127.0.0.1]:{port} {key}\n" for name, port in ports.items() if name not in unknown]
    (folder / "known_hosts").write_text("".join(pins))
    host = {"address": "127.0.0.1", "user": "admin", "ssh_key": "key"}
    hosts = {name: {**host, "port": port} for name, port in ports.items()}
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump({"known_hosts": "known_hosts", "hosts": hosts}, sort_keys=False))
    return path
