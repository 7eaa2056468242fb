"""Looks at /proc/meminfo and /proc/pressure/memory through descriptors that are opened once.

Opening a file allocates in the kernel, and can wait when memory is short; reading an open one of procfs does not.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

from sparkhost.watchdog.model import Look

KIB = 1024
# Seconds over which the slope is taken: shorter is noise (the kernel batches its counters per processor).
SLOPE_OVER = 0.2
KEPT = 64
# Far more than the file has: about 50 lines of 28 bytes.
LONGEST = 8192


class NoMemAvailable(Exception):
    """/proc/meminfo does not say what is available."""


def field(text: bytes, name: bytes) -> int:
    """A value of /proc/meminfo in bytes.

    Raises:
        NoMemAvailable: there is no such line, or it is cut.
    """
    start = 0 if text.startswith(name + b":") else text.find(b"\n" + name + b":") + 1
    number, unit, _ = text[start + len(name) + 1 : start + len(name) + 41].partition(b" kB")
    if (not start and not text.startswith(name + b":")) or not unit or not number.strip().isdigit():
        raise NoMemAvailable(f"meminfo has no {name.decode()}")
    return int(number) * KIB


def stalled(text: bytes) -> int:
    """Microseconds since boot in which all tasks waited for memory (Documentation/accounting/psi.rst)."""
    start = text.find(b"full ")
    total = text.find(b"total=", start)
    return int(text[total + 6 : text.index(b"\n", total)]) if start >= 0 and total >= 0 else 0


class Memory:
    """Looks, and remembers enough of them to know the slope."""

    def __init__(self, proc: Path) -> None:
        self._meminfo = os.open(proc / "meminfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._pressure: int | None = os.open(proc / "pressure" / "memory", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._pressure = None  # booted with psi=0
        self._seen: deque[tuple[float, int]] = deque(maxlen=KEPT)
        self._stalled: tuple[float, int] | None = None

    def look(self) -> Look:
        now = time.monotonic()
        text = os.pread(self._meminfo, LONGEST, 0)
        available = field(text, b"MemAvailable")
        slope = self._slope(now, available)
        self._seen.append((now, available))
        return Look(
            time=now,
            total=field(text, b"MemTotal"),
            available=available,
            free=field(text, b"MemFree"),
            slope=slope,
            stall=self._stall(now),
        )

    def forget(self) -> None:
        """Begins the slope anew with the next look."""
        self._seen.clear()

    def _slope(self, now: float, available: int) -> float:
        """Against the youngest look that is old enough, else the oldest."""
        slope = 0.0
        for then, was in reversed(self._seen):
            if now > then:
                slope = (available - was) / (now - then)
            if now - then >= SLOPE_OVER:
                break
        return slope

    def _stall(self, now: float) -> float:
        if self._pressure is None:
            return 0.0
        try:
            total = stalled(os.pread(self._pressure, 512, 0))
        except (OSError, ValueError):
            return 0.0
        before, self._stalled = self._stalled, (now, total)
        if before is None or now <= before[0]:
            return 0.0
        return min((total - before[1]) / 1e6 / (now - before[0]), 1.0)

    def close(self) -> None:
        for descriptor in (self._meminfo, self._pressure):
            if descriptor is not None:
                os.close(descriptor)
