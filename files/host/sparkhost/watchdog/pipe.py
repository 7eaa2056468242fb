"""From the loop to the teller: a queue that never blocks, and a process that may."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparkhost.watchdog.trace import encode

# Messages that wait in our memory while the teller does not read; the oldest is given up for the newest.
MOST_WAITING = 128
# The kernel takes a message of a SOCK_SEQPACKET whole or not at all; larger ones are not sent.
LARGEST = 128 * 1024


class Pipe:
    """Hands messages to a process that runs `work` on the other end of a socket."""

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        self._work = work
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self.lost = 0
        self.child = 0
        self._socket: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Forks the teller. Never while memory is short."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        child = os.fork()
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
        data = json.dumps({**message, "lost": self.lost}, default=encode).encode()
        if len(data) > LARGEST:
            self.lost += 1
            return
        if len(self._waiting) == MOST_WAITING:
            self.lost += 1
        self._waiting.append(data)
        self.flush()

    def flush(self) -> None:
        while self._waiting and self._socket is not None:
            try:
                self._socket.send(self._waiting[0])
            except OSError:
                return  # it does not read, or is gone: `tend` sees to that
            self._waiting.popleft()

    def tend(self) -> None:
        """Starts the teller anew where it has gone. For calm times."""
        try:
            pid, _ = os.waitpid(self.child, os.WNOHANG)
        except ChildProcessError:
            pid = self.child
        if pid == self.child:
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
