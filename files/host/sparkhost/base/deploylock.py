"""One deploy at a time changes a host: who does is in a file, and holds it as long as their session to it lives.

A deploy is several commands (plan, apply, prove, record), so no process of it lives from beginning to end, but for the
one that serves its SSH connection: while that one is there, and its controller is heard of, the lock is held. Whoever
loses a controller, a connection or the host has lost the lock as well. A command at work holds the file with flock(2)
besides: it may outlive its controller. ADR 11.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparkhost.base import bounded
from sparkhost.base.resource import Failed
from sparkhost.deployhold import hold

LOCK = Path("/run/sparkfleet-deploy.lock")
PROC = Path("/proc")
SERVERS = ("sshd", "sshd-session")
SILENT = 180.0
"""Seconds without a packet from the controller, which sends one every 30 s, after which it counts as gone."""
UNKNOWN_LIVES = 600.0
"""Seconds that the lock is held after the last command of a deploy whose session cannot be told (another server)."""


class Busy(Exception):
    """Another deploy is at work on this host. One line, with its owner and age."""


@dataclass(frozen=True)
class Holder:
    """Who changes this host."""

    token: str
    """Of one run of a deploy."""
    by: str
    """`admin@controller`."""
    since: float
    """Seconds since the epoch."""
    used: float
    """When its last command began, in seconds since the epoch."""
    pid: int
    """The process that serves its session, or the controller itself where it runs here; 0: it cannot be told."""
    started: int
    """When that process started, in clock ticks since boot: another one may get its number later."""
    over_ssh: bool

    def line(self) -> str:
        """For the admin who has to wait."""
        age = max(0, round(time.time() - self.since))
        shown = f"{age} s" if age < 120 else f"{age // 60} min"
        end = f"; if that run is dead: sudo kill {self.pid} there" if self.pid else ""
        return f"{self.by} has been deploying to this host for {shown}: deploy again when that has ended{end}"

    def lives(self) -> bool:
        """Whether its session is there and its controller is heard of."""
        if not self.pid:
            return 0 <= time.time() - self.used < UNKNOWN_LIVES
        if start_of(self.pid) != self.started:
            return False
        silent = silence(self.pid) if self.over_ssh else None
        return silent is None or silent < SILENT


@contextlib.contextmanager
def held(deploy: dict[str, Any], *, release: bool = False) -> Iterator[None]:
    """Takes the lock for a deploy, or keeps it; at the end of the block it stays with the deploy, unless `release`.

    `deploy`: `token`, `by`, and `pid` of the controller where that runs on this host itself, else None.

    Raises:
        Busy: another deploy has it.
    """
    # Not for others to open: whoever can open a file can flock(2) it.
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as stream:
        holder = read(stream.read())
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(holder.line() if holder else "another deploy to this host has just begun") from error
        stream.seek(0)
        holder = read(stream.read())  # what was there before the lock may be old
        ours = holder is not None and holder.token == deploy["token"]
        if holder and not ours and holder.lives():
            raise Busy(holder.line())
        if not ours and (kept := hold.read()):
            raise Busy(kept.line())
        pid = deploy["pid"] or session()
        now = time.time()
        since = holder.since if holder and ours else now
        new = Holder(deploy["token"], deploy["by"], since, now, pid, start_of(pid) or 0, not deploy["pid"])
        write(stream, json.dumps(asdict(new)))
        yield
        if release:
            write(stream, "")


def write(stream: Any, text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()


def read(text: str) -> Holder | None:
    """The holder that a text names; None where it names none, or was cut short."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def session() -> int:
    """The process that serves the SSH connection over which this command came; 0: none is among its ancestors."""
    pid = os.getpid()
    while pid > 1:
        fields = stat_of(pid)
        if fields is None:
            return 0
        name, rest = fields
        if name in SERVERS:
            return pid
        pid = int(rest[1])
    return 0


def start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where it is not there any more."""
    fields = stat_of(pid)
    return None if fields is None or fields[1][0] in "ZX" else int(fields[1][19])


def stat_of(pid: int) -> tuple[str, list[str]] | None:
    """Name and further fields of /proc/PID/stat, from the state on (proc(5))."""
    try:
        text = bounded.read_text(PROC / str(pid) / "stat")
    except (Failed, OSError):
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()


def silence(pid: int) -> float | None:
    """Seconds since the last data came in over a TCP connection of a process; None where that cannot be told."""
    try:
        words = ["ss", "-H", "-O", "-t", "-n", "-i", "-p", "state", "established"]
        answer = bounded.call(words, seconds=10, limit=bounded.LARGEST_TABLE)
    except (OSError, Failed):
        return None
    lines = [line for line in answer.stdout.splitlines() if f"pid={pid}," in line]
    found = [int(match[1]) / 1000 for line in lines if (match := re.search(r"\blastrcv:(\d+)", line))]
    return min(found, default=None)
