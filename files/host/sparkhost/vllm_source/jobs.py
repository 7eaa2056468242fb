"""How many compilers may run at a time: MAX_JOBS, from what the kernel says now."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.cgroups import cgroup_of

CGROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
# What the kernel takes back by itself when a cgroup reaches its limit (memory.stat, cgroup-v2.rst).
RECLAIMABLE = ("inactive_file", "active_file")


@dataclass(frozen=True)
class Jobs:
    """MAX_JOBS, and why it is no more."""

    count: int
    why: str


def max_jobs(cpus: int, memory: int, per_job: int, bound: int) -> Jobs:
    """The least of processors, memory (bytes) over bytes a job, and the setting; 1 at least.

    One compiler must run whatever the memory is: a build of none would never end.
    """
    ways = [
        (cpus, f"{cpus} processors"),
        (memory // per_job, f"{max(memory, 0) / 2**30:.1f} GiB of memory for it"),
        (bound, f"vllm_source.max_jobs {bound}"),
    ]
    count, why = min(ways, key=lambda way: way[0])
    return Jobs(max(1, count), why)


def measured(per_job: int, bound: int, reserve: int) -> Jobs:
    """MAX_JOBS of this process, by its cgroup and this host's memory. `reserve`: bytes that stay available."""
    room = [available() - reserve, *left(cgroup_of(os.getpid()) or "/")]
    return max_jobs(len(os.sched_getaffinity(0)), min(room), per_job, bound)


def available() -> int:
    """MemAvailable, in bytes. Raises ValueError where the kernel does not say."""
    match = re.search(r"^MemAvailable: +(\d+) kB$", bounded.read_text(MEMINFO), re.MULTILINE)
    if not match:
        raise ValueError(f"{MEMINFO} has no MemAvailable")
    return int(match[1]) * 1024


def left(cgroup: str) -> Iterator[int]:
    """Bytes that a cgroup, and each above it that has a limit, can still take."""
    path = CGROUPS / cgroup.strip("/")
    while path != CGROUPS and path.is_relative_to(CGROUPS):
        limit = number(path / "memory.max")
        if limit is not None:
            yield limit - used(path)
        path = path.parent


def used(cgroup: Path) -> int:
    """Bytes that a cgroup holds and would not give back."""
    try:
        text = bounded.read_text(cgroup / "memory.stat")
    except OSError:
        text = ""
    given_back = sum(
        int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE) if name in RECLAIMABLE
    )
    return max(0, (number(cgroup / "memory.current") or 0) - given_back)


def number(path: Path) -> int | None:
    """A number in a file of the kernel's; None where it is `max`, or there is no such file."""
    try:
        text = bounded.read_text(path).strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
