"""The root helper: socket-activated, answers one request a connection, knows who asks from the kernel alone.

Each connection has a process of its own: what a caller sends may hang whoever receives it (a file descriptor of a FUSE
file can block on close(2)), and that is then the caller's own connection, ended by its deadline, and nobody else's.
That process finds out whether the caller is a training user before it reads anything. Until then the caller is a
stranger, and strangers have few places of their own: whoever is no member cannot keep members out by being silent.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparkhost.launcher import config as configuration
from sparkhost.launcher.acts import Denied, Unknown, answer, authorize, peer_of
from sparkhost.launcher.config import BadConfig
from sparkhost.launcher.request import LONGEST

IDLE = 120.0
"""Seconds without a request after which the helper ends; systemd holds the socket and starts it again."""
DEADLINE = 30.0
"""Seconds that a connection may take, answers of PID 1 and of a directory service included."""
CONNECTIONS, PER_USER = 32, 4
"""Places of training users: in all, and of one."""
STRANGERS, PER_STRANGER = 16, 4
"""Places of those who are not known to be training users: in all, and of one account or of its sub-uids."""
TRIES = 10
"""How often in a second a stranger is given one."""
COURTESY = 1.0
"""Seconds that a denied caller's request is waited for, so that the answer is not lost to its send(2)."""
SUBUIDS = Path("/etc/subuid")
LARGEST_SUBUIDS = 1 << 20
CURRENT = "/opt/sparkfleet/lib/launcher/current"
"""The link to the release of the launcher that is in force."""
LISTENER = 3
"""The first passed file descriptor (sd_listen_fds(3))."""


def handle(connection: socket.socket, uid: int, let_in: Callable[[], Any] = bool) -> None:
    """Answers the one request of a connection. `let_in`: called once the caller is known to be a training user."""
    with contextlib.ExitStack() as held:
        try:
            config = configuration.read()
            authorize(uid, config)
        except (BadConfig, Denied) as error:
            print(f"uid {uid}: refused: {error}", file=sys.stderr)
            told = {"ok": False, "error": str(error)}
            connection.settimeout(0 if isinstance(error, Unknown) else COURTESY)
            with contextlib.suppress(OSError):
                connection.recv(LONGEST + 1)
        else:
            let_in()
            connection.settimeout(5)
            data, fds, flags, _ = socket.recv_fds(connection, LONGEST + 1, 1, socket.MSG_CMSG_CLOEXEC)
            if flags & socket.MSG_CTRUNC:
                data = b""  # more file descriptors than a request has
            told = answer(data, fds, uid, config, held)
        connection.send(json.dumps(told).encode())


def owner_of(uid: int, path: Path | None = None) -> str:
    """Whose places a stranger takes: its own, or those of the account whose sub-uid it is (subuid(5))."""
    try:
        with (path or SUBUIDS).open("rb") as stream:
            lines = stream.read(LARGEST_SUBUIDS).decode(errors="replace").splitlines()
    except OSError:
        return str(uid)
    for line in lines:
        name, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if first.isdecimal() and count.isdecimal() and 0 <= uid - int(first) < int(count):
            return f"sub-uids of {name}"
    return str(uid)


class Child:
    """A connection's process. `until`: the moment (time.monotonic) at which it is ended; `owner`: see `owner_of`."""

    def __init__(self, uid: int, owner: str, until: float) -> None:
        self.uid, self.owner, self.until = uid, owner, until
        self.pid = 0
        self._let_in = mmap.mmap(-1, 1)

    def let_in(self) -> None:
        """Says, from the child's process to the parent's, that the caller is a training user."""
        self._let_in[0] = 1

    @property
    def is_member(self) -> bool:
        return self._let_in[0] == 1


class Places:
    """The connections that are served. The listening process never receives what callers send."""

    def __init__(self, listener: socket.socket, deadline: float) -> None:
        self.listener, self.deadline = listener, deadline
        self.children: dict[int, Child] = {}  # by pidfd
        # Who was let in the last time. Who is let in is found out anew each time.
        self.members: set[int] = set()
        # How often a stranger was given a place within this second: a process for each try is too much for a flood.
        self.second, self.tries = 0, dict[str, int]()

    def has_one(self, uid: int, owner: str) -> bool:
        """Whether one more connection may be taken from this caller."""
        if uid in self.members:
            inside = [child for child in self.children.values() if child.uid in self.members]
            return len(inside) < CONNECTIONS and sum(child.uid == uid for child in inside) < PER_USER
        if self.second != (second := int(time.monotonic())):
            self.second, self.tries = second, {}
        outside = [child for child in self.children.values() if child.uid not in self.members]
        has = len(outside) < STRANGERS and sum(child.owner == owner for child in outside) < PER_STRANGER
        has = has and self.tries.get(owner, 0) < TRIES
        if has:
            self.tries[owner] = self.tries.get(owner, 0) + 1
        return has

    def accept(self) -> None:
        """Takes one connection and gives it a process, unless there are too many."""
        connection, _ = self.listener.accept()
        with connection:
            uid = peer_of(connection)
            owner = str(uid) if uid in self.members else owner_of(uid)
            if not self.has_one(uid, owner):
                told = {"ok": False, "error": "too many requests at a time: try again", "busy": True}
                with contextlib.suppress(OSError):
                    connection.setblocking(False)
                    connection.send(json.dumps(told).encode())
                return
            child = Child(uid, owner, time.monotonic() + self.deadline)
            child.pid = os.fork()
            if child.pid == 0:
                status = 1
                try:
                    self.listener.close()
                    handle(connection, uid, child.let_in)
                    status = 0
                except OSError as error:
                    print(f"uid {uid}: {error}", file=sys.stderr)
                finally:
                    os._exit(status)
            self.children[os.pidfd_open(child.pid)] = child

    def reap(self) -> None:
        """Takes note of who was let in, buries who has ended, and ends who is late."""
        for pidfd, child in list(self.children.items()):
            if child.is_member:
                self.members.add(child.uid)
            if time.monotonic() >= child.until:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                child.until += self.deadline  # it may not die at once: asked again later
            if os.waitpid(child.pid, os.WNOHANG)[0]:
                if not child.is_member:
                    self.members.discard(child.uid)
                os.close(pidfd)
                del self.children[pidfd]


def serve(
    listener: socket.socket,
    idle: float = IDLE,
    deadline: float = DEADLINE,
    replaced: Callable[[], bool] = lambda: False,
) -> None:
    """Serves until nobody has asked for `idle` seconds.

    `replaced`: whether a deploy has installed another helper. Then this one finishes what it has, and ends: systemd
    starts the new one for whoever waits.
    """
    places = Places(listener, deadline)
    listener.setblocking(False)
    while True:
        retiring = replaced()
        if retiring and not places.children:
            return
        poll = select.poll()
        if not retiring:
            poll.register(listener, select.POLLIN)
        for pidfd in places.children:
            poll.register(pidfd, select.POLLIN)
        now = time.monotonic()
        wait = min((child.until - now for child in places.children.values()), default=idle)
        events = poll.poll(max(0, wait) * 1000)
        if not events and not places.children:
            return
        places.reap()
        if retiring or replaced():
            continue
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            places.accept()


def main() -> int:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("spark-helper: is started by sparkfleet-launcher.socket only", file=sys.stderr)
        return 2
    os.umask(0o022)
    ours = os.path.realpath(CURRENT)
    with socket.socket(fileno=LISTENER) as listener:
        serve(listener, replaced=lambda: os.path.realpath(CURRENT) != ours)
    return 0
