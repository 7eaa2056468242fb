"""One ssh a host, whose lines are read within bounds; connects again when it ends.

All of it happens in one thread, which never waits for a host. A host that is slow, gone or hostile
costs its own line: what it says is read in small pieces, a line and the lines of a second have a bound,
and a host beyond one is left alone for a while.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sparkfleet import child, foreign
from sparkfleet.enrol.ssh import Route
from sparkfleet.status import program, shape
from sparkfleet.status.shape import HostSays, NotAStatus

PIECE = 1 << 16
AT_ONCE, STARTING = 24, 3.0
"""Connections that are begun within so many seconds: each costs this machine a key exchange. Not all that are being
made: hosts that are off would keep the others waiting."""
FIRST_WITHIN = 60.0
"""Seconds from the start of ssh to the first line; an emulated host needs 5."""
LATE, GONE = 4.0, 15.0
"""Seconds without a line after which a host is late, and gone."""
AGAIN, AGAIN_MOST, AGAIN_BROKEN = 1.0, 30.0, 60.0
"""Seconds until a host is asked again: after a failure, doubled up to a bound; after nonsense."""
RATE, BURST = 3.0, 40.0
"""Lines a second that a host may say."""
NOISE = 1 << 13
"""Bytes that login scripts may print before the first line."""
ERRORS = 4096
MINUTES = 1440
SSH = {"BatchMode": "yes", "ConnectTimeout": "20", "ServerAliveInterval": "5", "ServerAliveCountMax": "3"}


class Link(StrEnum):
    """How a host's line stands."""

    ASKED = "asked"
    """Nothing was heard yet."""
    UP = "up"
    LATE = "late"
    GONE = "gone"
    BROKEN = "broken"
    """It answers, and what it says is none of the reader's."""


class Day:
    """A host's samples of the last day, a minute each, as it has told them; compact: 46 KB of numbers."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def add(self, minutes: Iterable[shape.Minute]) -> None:
        """What is newer than the last one."""
        for at, available, cpu, gpu in minutes:
            if not self._numbers or at > self._numbers[-4]:
                self._numbers.extend((at, available, cpu, math.nan if gpu is None else gpu))
        del self._numbers[: -4 * MINUTES]

    def rows(self) -> list[tuple[float, int, int, int | None]]:
        """Time, available, CPU side, GPU side (None where it was not known)."""
        numbers = iter(self._numbers.tolist())
        four = zip(numbers, numbers, numbers, numbers, strict=True)
        return [(at, int(free), int(cpu), None if math.isnan(gpu) else int(gpu)) for at, free, cpu, gpu in four]


@dataclass(frozen=True)
class Heard:
    """What was last heard of a host. `at`: of this machine's monotonic clock."""

    link: Link = Link.ASKED
    says: HostSays | None = None
    at: float | None = None
    problem: str = ""
    day: Day = field(default_factory=Day)

    def seen_at(self, now: float) -> Heard:
        """The same, as late as it is by now."""
        if self.link is not Link.UP or self.at is None or now - self.at < LATE:
            return self
        if now - self.at < GONE:
            return replace(self, link=Link.LATE, problem=f"silent for {now - self.at:.0f} s")
        return replace(self, link=Link.GONE, problem=f"silent for {now - self.at:.0f} s")


@dataclass
class Connection:
    """One host's ssh, or the time when there is to be one again."""

    route: Route
    heard: Heard = field(default_factory=Heard)
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    began: float = 0.0
    failures: int = 0
    waiting: memoryview = field(default_factory=lambda: memoryview(b""))
    line: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    noise: int = 0
    lines: float = BURST
    counted: float = 0.0
    first: bool = True


class Streams:
    """All hosts' connections. `count`: lines that are wanted of each; 0 for no end."""

    def __init__(self, routes: Iterable[Route], count: int = 0, changed: Callable[[str], None] | None = None) -> None:
        self.connections = {route.name: Connection(route) for route in routes}
        self.count, self.changed = count, changed or (lambda name: None)
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Streams:
        self._thread = threading.Thread(target=self.run, name="streams", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(10)

    def heard(self) -> dict[str, Heard]:
        """By host what was last heard; each value is whole."""
        now = time.monotonic()
        return {name: one.heard.seen_at(now) for name, one in self.connections.items()}

    def settled(self) -> bool:
        """Whether every host has said something, or failed."""
        return all(one.heard.link is not Link.ASKED for one in self.connections.values())

    def run(self) -> None:
        """Until it is told to stop; then no ssh is left."""
        try:
            while not self._stop.is_set():
                self.turn(0.2)
        finally:
            for one in self.connections.values():
                self._end(one)
            self._selector.close()

    def turn(self, seconds: float) -> None:
        """Starts what is due, reads what is there, ends what is over time."""
        now = time.monotonic()
        young = [one for one in self.connections.values() if one.process and one.first and now - one.began < STARTING]
        starting = len(young)
        for one in self.connections.values():
            if one.process is None and one.due <= now and starting < AT_ONCE:
                starting += 1
                self._start(one, now)
            elif one.process is not None and self._over(one, now):
                self._failed(one, Link.GONE, f"no answer within {FIRST_WITHIN if one.first else GONE:.0f} s")
        for key, events in self._selector.select(seconds):
            one, name = key.data
            if one.process is None:
                continue  # ended a moment ago, by what stood before it in this list
            try:
                self._carry(one, name, events)
            except NotAStatus as problem:
                self._failed(one, Link.BROKEN, str(problem))
            except Exception as error:  # this host's line only
                self._failed(one, Link.BROKEN, f"{type(error).__name__}: {foreign.line(str(error), 200)}")

    def _over(self, one: Connection, now: float) -> bool:
        since = one.began if one.first else max(one.began, one.heard.at or 0.0)
        return now - since > (FIRST_WITHIN if one.first else GONE)

    def _start(self, one: Connection, now: float) -> None:
        words = [*one.route.with_options(**SSH).words(), program.command()]
        try:
            one.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            self._failed(one, Link.GONE, f"ssh cannot be started: {error.strerror}")
            return
        one.waiting, one.began, one.first = memoryview(program.source(self.count)), now, True
        one.line.clear()
        one.errors.clear()
        one.noise, one.lines, one.counted = 0, BURST, now
        pipes = (("stdin", one.process.stdin), ("stdout", one.process.stdout), ("stderr", one.process.stderr))
        for name, stream in pipes:
            assert stream
            os.set_blocking(stream.fileno(), False)
            event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
            self._selector.register(stream, event, (one, name))

    def _carry(self, one: Connection, name: str, events: int) -> None:
        assert one.process
        assert one.process.stdin
        assert one.process.stdout
        assert one.process.stderr
        if name == "stdin":
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                one.waiting = one.waiting[os.write(one.process.stdin.fileno(), one.waiting[:PIECE]) :]
            if not one.waiting:
                self._selector.unregister(one.process.stdin)  # open: its end would end the reader
            return
        stream = one.process.stdout if name == "stdout" else one.process.stderr
        piece = os.read(stream.fileno(), PIECE)
        if name == "stderr":
            one.errors += piece
            del one.errors[:-ERRORS]
            if not piece:
                self._selector.unregister(stream)
        elif piece:
            self._take(one, piece)
        elif self.count and not one.first:
            self._end(one)
            one.due = float("inf")
        else:
            self._failed(one, Link.GONE, self._reason(one))

    def _reason(self, one: Connection) -> str:
        """Why ssh has ended, in its own words."""
        if one.process and one.process.stderr:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                one.process.wait(0.2)
                one.errors += os.read(one.process.stderr.fileno(), ERRORS)
        lines = [line.strip() for line in one.errors.decode(errors="replace").splitlines() if line.strip()]
        return foreign.line("; ".join(lines[-2:]), 300) or "the connection has ended"

    def _take(self, one: Connection, piece: bytes) -> None:
        """Raises NotAStatus."""
        *whole, rest = piece.split(b"\n")
        for part in whole:
            self._line(one, bytes(one.line) + part)
            one.line.clear()
        one.line += rest
        if len(one.line) > shape.LINE:
            raise NotAStatus(f"a line of it is longer than {shape.LINE // 1024} KiB")

    def _line(self, one: Connection, line: bytes) -> None:
        now = time.monotonic()
        one.lines = min(BURST, one.lines + (now - one.counted) * RATE) - 1
        one.counted = now
        if one.lines < 0:
            raise NotAStatus(f"it says more than {RATE:.0f} lines a second")
        if len(line) > shape.LINE:
            raise NotAStatus(f"a line of it is longer than {shape.LINE // 1024} KiB")
        if one.first and not line.startswith(b"{"):
            one.noise += len(line)
            if one.noise > NOISE:
                raise NotAStatus("it says something else than the reader")
            return
        says = shape.merged(None if one.first else one.heard.says, line)
        one.first, one.failures = False, 0
        one.heard.day.add(says.history)
        one.heard = Heard(Link.UP, says, now, day=one.heard.day)
        self.changed(one.route.name)

    def _failed(self, one: Connection, link: Link, problem: str) -> None:
        """What it said last stays to be seen, as old as it is."""
        self._end(one)
        one.failures += 1
        again = AGAIN_BROKEN if link is Link.BROKEN else min(AGAIN_MOST, AGAIN * 2 ** (one.failures - 1))
        one.due = time.monotonic() + again
        one.heard = replace(one.heard, link=link, problem=problem)
        self.changed(one.route.name)

    def _end(self, one: Connection) -> None:
        if one.process is None:
            return
        for stream in (one.process.stdin, one.process.stdout, one.process.stderr):
            if stream is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(stream)
        process, one.process = one.process, None
        child.end(process, group=True)


def once(routes: Sequence[Route], seconds: float) -> dict[str, Heard]:
    """The first line of every host, within a time: for callers that need no second one."""
    until = time.monotonic() + seconds
    with Streams(routes, count=1) as streams:
        while not streams.settled() and time.monotonic() < until:
            time.sleep(0.05)
        found = {name: one.heard for name, one in streams.connections.items()}
    late = f"no answer within {seconds:g} s"
    return {
        name: replace(heard, link=Link.GONE, problem=late) if heard.link is Link.ASKED else heard
        for name, heard in found.items()
    }
