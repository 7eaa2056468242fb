"""Whether a job's promise fits, and who is next: what the helper decides by, under one lock for all starts.

    room = MemTotal - kept - others - sum over jobs of max(promise, use)

`kept` is what jobs leave to the host: `reserve` or the watchdog's term_below, the larger one.
`others` is all that is in use (MemTotal - MemAvailable) less what jobs use, so sessions, services,
containers. A job's promise is the memory.max of its cgroup, its use what the kernel counts for it
and NVML names of it; where nobody knows the GPU's side, a job counts as one that uses its whole
promise. And all promises together stay below the slice's memory_max.

The lock is held until a started job has its cgroup, so that the next look sees its promise: two
starts at once cannot both fit into one gap. The queue is a file in /run, root's; a place that its
owner does not ask for again is forgotten.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base import gpu_sample
from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.headroom import CONFIG as WATCHDOG
from sparkhost.base.headroom import term_below
from sparkhost.base.units import show_size
from sparkhost.launcher.config import Config
from sparkhost.launcher.gpu import STALE as STALE_SAMPLE
from sparkhost.launcher.gpu import within
from sparkhost.launcher.holders import held, meminfo, promised
from sparkhost.launcher.unit import SLICE

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
STALE = 15.0
"""Seconds without a question after which a place in the queue is forgotten; launchers ask every two."""
PATIENCE = 10.0
"""Seconds that a start waits for others that are under way."""
PLACES = 400
"""Jobs that wait at most, of all users."""
LARGEST = 1 << 16
"""Bytes of the queue's file that are read: more than so many places take."""


class Late(Exception):
    """Other starts are under way for too long."""


class Room(NamedTuple):
    """Bytes. `total`: MemTotal; `taken`: the larger of promise and use of each job, summed up;
    `promised`: the promises alone.
    """

    total: int
    kept: int
    others: int
    taken: int
    promised: int
    jobs: int

    def lacks(self, asked: int, slice_max: int) -> str:
        """Why a promise does not fit, in figures; "" where it does."""
        left = max(0, min(self.total - self.kept - self.others - self.taken, slice_max - self.promised))
        if asked <= left:
            return ""
        return (
            f"{show_size(asked)} are promised, but {show_size(left)} are left: {self.jobs} jobs have "
            f"{show_size(self.taken)} of {show_size(self.total)}, all else uses {show_size(self.others)}, and "
            f"{show_size(self.kept)} stay free"
        )


class Ticket(NamedTuple):
    """A place in the queue. `seen`: when its owner asked last, seconds since boot."""

    id: str
    uid: int
    seen: float


def look(config: Config) -> Room:
    """What is there now."""
    memory = meminfo(PROC / "meminfo")
    total = memory.get("MemTotal", 0)
    found = gpu_sample.read(gpu_sample.PATH, STALE_SAMPLE)
    places = {pid: cgroup_of(pid, str(PROC)) for pid in found.unified}
    taken = promises = used = jobs = 0
    for cgroup in sorted((CGROUPS / SLICE).glob("spark-job-*.service")):
        jobs += 1
        promise = promised(cgroup)
        promise = config.memory_max if promise is None else min(promise, config.memory_max)
        use = held(cgroup)
        if found.problem:
            use = max(use, promise)
        else:
            inside = f"/{SLICE}/{cgroup.name}"
            use += sum(size for pid, size in found.unified.items() if within(places[pid], inside))
        promises += promise
        used += use
        taken += max(promise, use)
    others = max(0, total - memory.get("MemAvailable", 0) - used)
    kept = max(config.reserve, term_below()) if WATCHDOG.exists() else config.reserve
    return Room(total, kept, others, taken, promises, jobs)


@contextlib.contextmanager
def lock(run: Path, patience: float = PATIENCE) -> Iterator[None]:
    """One start at a time.

    Raises:
        Late: not within `patience` seconds.
    """
    until = time.monotonic() + patience
    descriptor = os.open(run / "admission.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Late from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def queue(run: Path, now: float) -> list[Ticket]:
    """Who waits, first come first: those whose owner has asked lately. A file that is no queue is an empty one."""
    try:
        with (run / "queue.json").open("rb") as stream:
            value: Any = json.loads(stream.read(LARGEST))
        found = [Ticket(str(id_), int(uid), float(seen)) for id_, uid, seen in value]
    except (OSError, ValueError, TypeError, RecursionError, OverflowError):
        return []
    return [ticket for ticket in found if 0 <= now - ticket.seen < STALE]


def write_queue(run: Path, tickets: Sequence[Ticket]) -> None:
    """Replaces the queue.

    Raises:
        OSError: /run is full, say; the old queue stays.
    """
    new = run / "queue.json.new"
    new.write_text(json.dumps(tickets))
    new.replace(run / "queue.json")


def await_cgroup(name: str, over: Path, patience: float) -> None:
    """Waits until a started unit's promise can be read, or it is `over` already, or `patience` seconds have passed."""
    cgroup = CGROUPS / SLICE / name
    until = time.monotonic() + patience
    while promised(cgroup) is None and not over.exists() and time.monotonic() < until:
        time.sleep(0.002)
