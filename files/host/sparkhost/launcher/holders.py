"""Who holds the memory now: jobs, sessions, containers and services; CPU side (cgroups) and GPU side (samples)."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.containers import container
from sparkhost.base.units import show_size
from sparkhost.launcher.gpu import within

CGROUPS = Path("/sys/fs/cgroup")
JOB = re.compile(r"spark-job-([0-9]+)-([0-9a-f]{8})\.service")
USER = re.compile(r"user-([0-9]+)\.slice")


class Holder(NamedTuple):
    """One who holds memory; bytes. `gpu` is None where nobody knows."""

    user: str
    what: str
    cpu: int
    gpu: int | None
    promise: int | None = None
    """What a job was started with: memory.max of its cgroup; None for all else."""

    @property
    def total(self) -> int:
        return self.cpu + (self.gpu or 0)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def held(cgroup: Path) -> int:
    """Memory of a cgroup that cannot be had back by dropping clean cache: anonymous, shared and the kernel's, bytes."""
    try:
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    names = ("anon", "shmem", "kernel_stack", "pagetables", "percpu", "sock", "slab_unreclaimable")
    return sum(int(stat.get(name, 0)) for name in names)


def promised(cgroup: Path) -> int | None:
    """What a job's cgroup was promised, bytes; None where that is not known (yet)."""
    try:
        return int((cgroup / "memory.max").read_text())
    except (OSError, ValueError):
        return None


def owners(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Cgroups that are somebody, with the user's name and what it is; none is inside another."""
    for directory in sorted(root.glob("*.slice/*")) + sorted(root.glob("*.slice")):
        name = directory.name
        if not directory.is_dir():
            continue
        if match := JOB.fullmatch(name):
            yield directory, user_name(int(match[1])), f"job {match[2]}"
        elif id_ := container(name):
            yield directory, "-", f"container {id_}"
        elif match := USER.fullmatch(name):
            yield directory, user_name(int(match[1])), "sessions"
        elif name.endswith((".service", ".scope")):
            yield directory, "root", name


def holders(root: Path = CGROUPS, samples: dict[int, int] | None = None, proc: Path = Path("/proc")) -> list[Holder]:
    """All who hold something, the largest first. `samples`: PID → GPU bytes, None where there are none."""
    places = {pid: cgroup_of(pid, str(proc)) for pid in samples or {}}
    rest = dict(samples or {})
    found = []
    for directory, user, what in owners(root):
        inside = [pid for pid in rest if within(places[pid], f"/{directory.relative_to(root)}")]
        bytes_ = None if samples is None else sum(rest.pop(pid) for pid in inside)
        promise = promised(directory) if JOB.fullmatch(directory.name) else None
        found.append(Holder(user, what, held(directory), bytes_, promise))
    if sum(rest.values()):
        found.append(Holder("?", "processes outside all of these", 0, sum(rest.values())))
    return sorted((holder for holder in found if holder.total), key=lambda holder: -holder.total)


def meminfo(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """/proc/meminfo in bytes (proc_meminfo(5))."""
    result = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        result[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return result


def table(found: Iterable[Holder], least: int = 0) -> list[str]:
    """Lines for a person. `least`: who holds less in all is left out, but for jobs, which people look for by name."""
    rows = [("USER", "WHAT", "PROMISE", "USE", "CPU", "GPU")]
    for holder in found:
        if holder.total >= least or holder.what.startswith("job "):
            gpu_bytes = "unknown" if holder.gpu is None else show_size(holder.gpu)
            promise = "-" if holder.promise is None else show_size(holder.promise)
            sizes = (promise, show_size(holder.total), show_size(holder.cpu), gpu_bytes)
            rows.append((holder.user, holder.what, *sizes))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
