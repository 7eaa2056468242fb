"""A double of a host that streams its status: an SSH server on loopback that says what a test tells it to say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paramiko

from tests.doubles import sshd

GIB = 2**30


def says(**more: Any) -> dict[str, Any]:
    """A calm Spark with one job, as the reader's first line has it."""
    return {
        "v": 1,
        "at": time.time(),
        "up": 86400 * 3,
        "memory": {
            "total": 120 * GIB,
            "available": 60 * GIB,
            "free": 20 * GIB,
            "cpu": 25 * GIB,
            "gpu": 35 * GIB,
            "gpu_own": 0,
        },
        "floor": {"term": 16 * GIB, "kill": 8 * GIB, "problem": ""},
        "release": {
            "version": "0.1.0+1a2b3c4",
            "at": "2026-11-20T10:00:00Z",
            "result": "ok",
            "system": "Ubuntu 24.04.3 LTS",
            "kernel": "6.14.0-1013-nvidia",
        },
        "jobs": [
            {"id": "0a1b2c3d", "owner": "ann", "name": "sft", "promise": 60 * GIB, "cpu": 10 * GIB, "gpu": 35 * GIB}
        ],
        "owners": [{"owner": "ann", "cpu": 10 * GIB, "gpu": 35 * GIB}, {"owner": "root", "cpu": 3 * GIB, "gpu": 0}],
        "waiting": [],
        "gpus": [{"name": "NVIDIA GB10", "clock": 2100, "most": 3003, "temperature": 61}],
        "temperature": 58,
        "kill": None,
        "events": [],
        "events_readable": True,
        "warnings": [],
        "reboot": "",
        "links": [{"name": "roceP2p1s0f0", "state": "active", "gbits": 200}],
        "cost": 0.001,
        **more,
    }


def kill(name: str = "job 0a1b2c3d (python)", owner: str = "bob") -> dict[str, Any]:
    """A kill of a moment ago, as an event."""
    return {
        "at": time.time(),
        "event": "kill",
        "name": name,
        "owner": owner,
        "size": 50 * GIB,
        "reason": "it took 30.0 GiB that others needed",
        "dry_run": False,
        "text": f"memory watchdog: {name} (50.0 GiB) killed (SIGKILL); 7.0 GiB of memory are available",
        "why": ["This host shares its memory with the GPU."],
    }


class Server(sshd.Server):
    """Runs its command as soon as the program has come: standard input stays open."""

    def _run(self, line: str, channel: paramiko.Channel) -> None:
        got = b""
        while not got.endswith(b"\n") and (piece := channel.recv(65536)):
            got += piece
        with suppress(OSError, EOFError):
            self.command(line, got.decode(errors="replace"), channel)


class Host:
    """Says its state at once, then a line every `every` seconds, with what `say` was given in between."""

    def __init__(self, first: dict[str, Any] | None = None, every: float = 0.5) -> None:
        self.state = says() if first is None else first
        self.every = every
        self.silent = threading.Event()
        self.connections = 0
        self._said = threading.Condition()
        self._version = 0
        self._changed: dict[str, tuple[int, Any]] = {}

    def say(self, **changes: Any) -> None:
        """Part of the next line."""
        with self._said:
            self.state |= changes
            self._version += 1
            self._changed |= {name: (self._version, value) for name, value in changes.items()}
            self._said.notify_all()

    def command(self, line: str, text: str, channel: paramiko.Channel) -> None:
        self.connections += 1
        with self._said:
            seen, told = self._version, dict(self.state)
        while True:
            channel.sendall(json.dumps({**told, "v": 1, "at": time.time()}).encode() + b"\n")
            with self._said:
                self._said.wait(self.every)
                told = {name: value for name, (version, value) in self._changed.items() if version > seen}
                seen = self._version
            while self.silent.is_set():
                time.sleep(0.05)
            if channel.closed:
                return


Command = Callable[[str, str, paramiko.Channel], None]


def endless_line(line: str, text: str, channel: paramiko.Channel) -> None:
    """Says one line that has no end."""
    while True:
        channel.sendall(b"x" * 65536)


def endless_lines(line: str, text: str, channel: paramiko.Channel) -> None:
    """Says good lines as fast as it can."""
    data = json.dumps(says()).encode() + b"\n"
    while True:
        channel.sendall(data)


def nonsense(line: str, text: str, channel: paramiko.Channel) -> None:
    """Is another program."""
    channel.sendall(b'{"v":1,"memory":"\\u001b[2J"}\n')
    time.sleep(60)
