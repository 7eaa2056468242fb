"""From crossing `term_below` to the signal, again and again: in peace, and with all that is told to in trouble.

In trouble: journald's socket is not read, the disk for post-mortems is full, and the owner's terminal takes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.guards import GIB, Limits, major_faults_of, meminfo, rss_of, watchdog

MIB = 2**20
CHUNK = 16 * MIB
PIECE = 64 * MIB
JOURNAL = Path("/run/systemd/journal/socket")
# Between the memory at rest and the threshold: more than what the rest of a machine uses more at one time than another.
ROOM = min(768 * MIB, meminfo("MemTotal") // 8)
LONGEST = 30.0
"""Seconds that one crossing may take, its recovery included."""


def crossings(folder: Path, count: int) -> None:
    """Prints the latencies and the daemon's major faults of `count` crossings, in peace and in trouble."""
    with held() as ballast:
        term = min(meminfo() - ROOM, meminfo("MemTotal") // 2)
        limits = Limits(term, term // 4)
        print(f"crossings of {term / GIB:.1f} GiB, with {len(ballast) * PIECE / GIB:.1f} GiB held", flush=True)
        print(told("in peace", *run(limits, folder, count, ballast)), flush=True)
        with contextlib.ExitStack() as stack:
            what = [stack.enter_context(trouble) for trouble in (deaf_journal(), full_disk(folder), stopped_terminal())]
            print(told(f"in trouble ({', '.join(what)})", *run(limits, folder, count, ballast)), flush=True)


@contextlib.contextmanager
def held() -> Iterator[list[mmap.mmap]]:
    """Holds so much that the threshold, which may be half of the memory at most, is near. Yields it in pieces."""
    size = max(0, meminfo() - ROOM - meminfo("MemTotal") * 48 // 100)
    pieces = [piece(PIECE) for _ in range(size // PIECE)]
    try:
        yield pieces
    finally:
        pieces.clear()


def piece(size: int) -> mmap.mmap:
    """Memory that is really there."""
    memory = mmap.mmap(-1, size)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, size)
    return memory


@contextlib.contextmanager
def deaf_journal() -> Iterator[str]:
    """A socket in journald's place that nobody reads; not where there is a journald."""
    if JOURNAL.exists():
        yield "journald as it is"
        return
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(JOURNAL))
        try:
            yield "journald's socket is not read"
        finally:
            JOURNAL.unlink()


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[str]:
    """A file system of 64 KiB, full, where the daemon keeps its state; not where mounting is refused."""
    state = folder / "state"
    state.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", state], check=False, capture_output=True
    )
    if mounted.returncode:
        yield "the disk as it is"
        return
    try:
        with contextlib.suppress(OSError), (state / "full").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        yield "the disk is full"
    finally:
        subprocess.run(["umount", "--lazy", state], check=False)


@contextlib.contextmanager
def stopped_terminal() -> Iterator[str]:
    """A terminal of this user's whose flow is stopped."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    try:
        yield "the owner's terminal takes nothing"
    finally:
        os.close(slave)
        os.close(master)


def run(limits: Limits, folder: Path, count: int, ballast: list[mmap.mmap]) -> tuple[list[float], int, int]:
    """Seconds from each crossing to the signal, the daemon's major faults meanwhile, and bytes that it holds."""
    found: list[float] = []
    with watchdog(limits, folder) as daemon:
        # What the daemon has not locked is read from the disk again when it is needed.
        with contextlib.suppress(OSError):
            Path("/proc/sys/vm/drop_caches").write_text("1")
        before = major_faults_of(daemon.pid)
        for _ in range(count):
            recovered(limits, ballast)
            found.append(cross(limits))
        return found, major_faults_of(daemon.pid) - before, rss_of(daemon.pid)


def recovered(limits: Limits, ballast: list[mmap.mmap]) -> None:
    """Waits for room to fill; gives up some of what is held where it does not come.

    A virtual machine's memory may go back to its host when it is freed, and is then no more free here.

    Raises:
        SystemExit: nothing more is held, and something else has taken the memory for good.
    """
    until = time.monotonic() + 0.5
    while meminfo() < limits.term_below + ROOM // 2:
        if time.monotonic() > until:
            if not ballast:
                raise SystemExit(f"something else holds the memory now: MemAvailable {meminfo() / GIB:.2f} GiB")
            ballast.pop()
        time.sleep(0.01)


def cross(limits: Limits) -> float:
    """Lets a small job fill until it is signalled. Seconds; 0 where the signal came before the crossing."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        fill(writer)
    os.close(writer)
    try:
        until, crossed = time.monotonic() + LONGEST, 0.0
        os.set_blocking(reader, False)
        while time.monotonic() < until:
            now = time.monotonic()
            if not crossed and meminfo() < limits.term_below:
                crossed = now
            with contextlib.suppress(BlockingIOError):
                if said := os.read(reader, 64):
                    return max(0.0, float(said) - crossed) if crossed else 0.0
            time.sleep(0.0005)
        raise SystemExit(f"no signal within {LONGEST:g} s: MemAvailable {meminfo() / GIB:.2f} GiB")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)


def fill(writer: int) -> None:
    """In the child: about 2 GiB a second until SIGTERM, whose time it says. Never returns."""

    def obey(number: int, frame: object) -> None:
        os.write(writer, f"{time.monotonic():.6f}".encode())
        os._exit(0)

    signal.signal(signal.SIGTERM, obey)
    kept: list[mmap.mmap] = []
    while len(kept) * CHUNK < 4 * ROOM:
        kept.append(piece(CHUNK))
        time.sleep(0.004)
    signal.pause()
    sys.exit(1)


def told(where: str, seconds: list[float], faults: int, resident: int) -> str:
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    return (
        f"{where}: {len(ordered)} crossings, to SIGTERM p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms, at most"
        f" {1000 * ordered[-1]:.1f} ms; {faults} major faults, RSS {resident / MIB:.1f} MiB"
    )
