"""From the loop to the teller: a queue that never blocks, and a process that may.

Where the teller does not keep up, something must be given up: notices before what was done to whom, and of that the
oldest of the owner who has the most waiting, so that nobody's many events cost anybody else theirs. Each message says
how many were given up before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.watchdog.trace import encode

# Messages that wait in our memory while the teller does not read.
MOST_WAITING = 128
# What is given up last: signals and what became of them.
DONE = frozenset(("term", "kill", "landed", "paused", "resumed"))
# The kernel takes a message of a SOCK_SEQPACKET whole or not at all; larger ones are not sent.
LARGEST = 128 * 1024


class Waiting(NamedTuple):
    """A message that has not been sent."""

    data: bytes
    is_done: bool
    """Whether it tells of something that was done."""
    owner: int | None


class Pipe:
    """Hands messages to a process that runs `work` on the other end of a socket."""

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        self._work = work
        self._waiting: list[Waiting] = []
        self.lost = 0
        self.child = 0
        self._socket: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Forks the teller. Never while memory is short.

        Raises:
            OSError: there is no descriptor, or no process to be had.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            child = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not child:
            code = 1
            try:
                ours.close()
                calm_down()
                self._work(theirs)
                code = 0
            finally:
                os._exit(code)
        theirs.close()
        if self._socket is not None:
            self._socket.close()
        self.child, self._socket = child, ours

    def tell(self, message: dict[str, Any]) -> None:
        """Hands a message over, or keeps it for the next time. Returns at once."""
        data = self._encode(message)
        if len(data) > LARGEST and "candidates" in message:
            data = self._encode({**message, "candidates": []})
        if len(data) > LARGEST:
            self.lost += 1
            return
        self.flush()
        is_done = message.get("do", "event") == "event" and message.get("event") in DONE
        victim = message.get("victim") or {}
        self._waiting.append(Waiting(data, is_done, victim.get("owner")))
        if len(self._waiting) > MOST_WAITING:
            self.lost += 1
            del self._waiting[self._least()]
        self.flush()

    def _encode(self, message: dict[str, Any]) -> bytes:
        return json.dumps({**message, "lost": self.lost}, default=encode).encode()

    def _least(self) -> int:
        """Where the message is that can be missed the most."""
        for place, waiting in enumerate(self._waiting):
            if not waiting.is_done:
                return place
        (owner, _), *_ = Counter(waiting.owner for waiting in self._waiting).most_common(1)
        return next(place for place, waiting in enumerate(self._waiting) if waiting.owner == owner)

    def flush(self) -> None:
        sent = 0
        for waiting in self._waiting:
            if self._socket is None:
                break
            try:
                self._socket.send(waiting.data)
            except OSError:
                break  # it does not read, or is gone: `tend` sees to that
            sent += 1
        del self._waiting[:sent]

    def tend(self) -> None:
        """Starts the teller anew where it has gone. For calm times."""
        try:
            pid, _ = os.waitpid(self.child, os.WNOHANG)
        except ChildProcessError:
            pid = self.child
        if pid == self.child:
            # No descriptor or no process is to be had: the old socket stays, and the next time may do.
            with contextlib.suppress(OSError):
                self.start()
        self.flush()

    def close(self) -> None:
        """Lets the teller finish what it has; it ends by itself."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def calm_down() -> None:
    """In the teller: no better than any other process, and not out of the kernel's reach."""
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as file:
        file.write("0")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the watchdog's end of the socket is closed
