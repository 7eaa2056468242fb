"""Looks into the cgroup v2 tree: what a unit is charged with, who is in it, and what root has marked it with.

Users make cgroups below theirs, as many, as deep and by such names as they like. So a walk goes from directory to
directory (a path may be longer than PATH_MAX), keeps one descriptor, and ends after MOST_WALKED cgroups. What lies
beyond is not listed; `cgroup.kill` of the unit reaches it, and `is_populated` knows of it.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base import small_files

# Cgroups of one unit that are walked. A container with a systemd of its own has about 50; a unit may be 1,500 levels
# deep, of which only the last holds a process.
MOST_WALKED = 2_000
# Process numbers of one cgroup: 4 MiB are half a million.
LONGEST_LIST = 1 << 22
# Cgroups that are asked for their charge when the heaviest are looked for.
MOST_WEIGHED = 512
CHARGED = (b"anon ", b"shmem ", b"unevictable ")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Charge:
    """What a cgroup with all below it is charged with, of memory.stat. Bytes."""

    anonymous: int
    shared: int
    """Shared memory and tmpfs, also what no process has mapped."""
    limit: int | None = None
    """Its own `memory.max`; None without one."""
    unevictable: int = 0
    """What is locked, of `anonymous`, `shared` and the page cache."""


class Cgroups:
    """Reads a cgroup tree. `root`: /sys/fs/cgroup, or a fixture."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def path(self, cgroup: str) -> str:
        return f"{self.root}/{cgroup.strip('/')}".rstrip("/")

    def read(self, cgroup: str, name: str, limit: int = 1 << 16) -> bytes:
        return small_files.read(f"{self.path(cgroup)}/{name}", limit)

    def charge(self, cgroup: str) -> Charge | None:
        """None where the memory controller is off there, or the cgroup has gone."""
        try:
            lines = self.read(cgroup, "memory.stat").splitlines()
            values = {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(CHARGED)}
        except (OSError, ValueError, IndexError):
            return None
        if not values:
            return None
        anonymous, shared, unevictable = (values.get(name.strip(), 0) for name in CHARGED)
        return Charge(anonymous, shared, self.limit(cgroup), unevictable)

    def limit(self, cgroup: str) -> int | None:
        """Its `memory.max` in bytes; None without one, or where it cannot be read."""
        return self._number(cgroup, "memory.max")

    def current(self, cgroup: str) -> int | None:
        """What it is charged with in all, page cache included: cheaper to read than `charge` (no sum is made)."""
        return self._number(cgroup, "memory.current")

    def _number(self, cgroup: str, name: str) -> int | None:
        try:
            return int(self.read(cgroup, name, 64))
        except (OSError, ValueError):
            return None

    def is_populated(self, cgroup: str) -> bool | None:
        """Whether there are live processes in it or anywhere below (cgroup.events); None where that is not known."""
        try:
            text = self.read(cgroup, "cgroup.events", 4096)
        except FileNotFoundError:
            return False if not Path(self.path(cgroup)).exists() else None
        except OSError:
            return None
        return None if b"populated " not in text else b"populated 1" in text

    def walk(self, cgroup: str, most: int = MOST_WALKED) -> Iterator[int]:
        """A descriptor of the cgroup, then of each below it, `most` in all. Each is good until the next is asked for.

        The way up is `..`, which holds in a directory that is removed meanwhile as well; a cgroup cannot be moved.
        """
        try:
            here = os.open(self.path(cgroup), DIRECTORY)
        except OSError:
            return
        try:
            yield here
            names = _below(here, most - 1)
            pending, waiting = [names], len(names)
            most -= 1 + waiting
            while waiting:
                if not pending[-1]:
                    pending.pop()
                    here = _moved(here, "..")
                    continue
                waiting -= 1
                with contextlib.suppress(OSError):  # gone meanwhile
                    here = _moved(here, pending[-1].pop())
                    yield here
                    pending.append(_below(here, most))
                    waiting += len(pending[-1])
                    most -= len(pending[-1])
        except OSError:
            return  # the way up is gone
        finally:
            os.close(here)

    def members(self, cgroup: str, most: int = MOST_WALKED) -> list[int]:
        """The processes in it and in all below it, as far as a walk of `most` cgroups goes."""
        found: list[int] = []
        for folder in self.walk(cgroup, most):
            # Gone meanwhile, or threaded: its processes are then listed above it (EOPNOTSUPP).
            with contextlib.suppress(OSError, ValueError):
                found += map(int, small_files.read("cgroup.procs", LONGEST_LIST, folder=folder).split())
        return [pid for pid in found if pid > 0]  # 0: of another PID namespace

    def heaviest(self) -> Iterator[int]:
        """Numbers of processes, of the cgroups that are charged most first: where a hog is, whoever it was before.

        Nothing where the memory controller is off. Of each cgroup with cgroups below it the heaviest is followed first.
        """
        asked = 0
        waiting: list[tuple[int, str]] = [(0, "")]
        while waiting:
            _, cgroup = heapq.heappop(waiting)
            with contextlib.suppress(OSError, ValueError):
                yield from map(int, self.read(cgroup, "cgroup.procs", small_files.LARGEST).split())
            with contextlib.suppress(OSError), os.scandir(self.path(cgroup) or "/") as entries:
                for entry in entries:
                    if asked >= MOST_WEIGHED:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        asked += 1
                        if charge := self.current(f"{cgroup}/{entry.name}"):
                            heapq.heappush(waiting, (-charge, f"{cgroup}/{entry.name}"))

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


def _below(folder: int, most: int) -> list[str]:
    """Names of the directories in a directory, `most` at most."""
    found: list[str] = []
    if os.fstat(folder).st_nlink == 2:
        return found  # its own and its parent's link: a list of its files would take as long as all the rest
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(found) >= most:
                break
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
    return found


def _moved(folder: int, name: str) -> int:
    """Opens a directory beside or below another, and closes that one.

    Raises:
        OSError: it cannot be opened; the other is still open then.
    """
    moved = os.open(name, DIRECTORY, dir_fd=folder)
    os.close(folder)
    return moved
