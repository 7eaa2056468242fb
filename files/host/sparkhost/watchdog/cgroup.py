"""Looks into the cgroup v2 tree: what a unit is charged with, who is in it, and what root has marked it with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Charge:
    """What a cgroup with all below it is charged with, of memory.stat. Bytes."""

    anonymous: int
    shared: int
    """Shared memory and tmpfs, also what no process has mapped."""
    limit: int | None = None
    """Its own `memory.max`; None without one."""


class Cgroups:
    """Reads a cgroup tree. `root`: /sys/fs/cgroup, or a fixture."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def path(self, cgroup: str) -> str:
        return f"{self.root}/{cgroup.strip('/')}".rstrip("/")

    def read(self, cgroup: str, name: str, limit: int = 1 << 16) -> bytes:
        descriptor = os.open(f"{self.path(cgroup)}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while limit > 0 and (part := os.read(descriptor, min(limit, 1 << 16))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def charge(self, cgroup: str) -> Charge | None:
        """None where the memory controller is off there, or the cgroup has gone."""
        try:
            text = self.read(cgroup, "memory.stat")
        except OSError:
            return None
        values = dict(line.split() for line in text.splitlines() if line.startswith((b"anon ", b"shmem ")))
        return Charge(int(values.get(b"anon", 0)), int(values.get(b"shmem", 0)), self.limit(cgroup))

    def limit(self, cgroup: str) -> int | None:
        """What a cgroup may be charged with at most, by its own `memory.max`."""
        try:
            return int(self.read(cgroup, "memory.max"))
        except (OSError, ValueError):  # "max", or the cgroup has gone
            return None

    def tree(self, cgroup: str) -> Iterator[str]:
        """The cgroup and all below it."""
        yield cgroup
        try:
            with os.scandir(self.path(cgroup)) as entries:
                below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for name in below:
            yield from self.tree(f"{cgroup.rstrip('/')}/{name}")

    def members(self, cgroup: str) -> list[int]:
        """The processes in it and in all below it."""
        found = []
        for path in self.tree(cgroup):
            try:
                found += [int(line) for line in self.read(path, "cgroup.procs", 1 << 22).split()]
            except OSError:
                continue  # gone meanwhile, or threaded: its processes are listed above it (EOPNOTSUPP)
        return [pid for pid in found if pid > 0]  # 0: of another PID namespace

    def marked(self, cgroup: str, mark: str) -> bool:
        """Whether root has set `ManagedOOMPreference=` of a unit to `omit` or `avoid` (systemd.resource-control(5)).

        systemd keeps it as an extended attribute of the cgroup, which the cgroup's owner can set: on one that a user
        owns (a delegated one) it counts for nothing.
        """
        path = self.path(cgroup)
        try:
            return Path(path).stat().st_uid == 0 and os.getxattr(path, f"user.oomd_{mark}") == b"1"
        except OSError:
            return False
