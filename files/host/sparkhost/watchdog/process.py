"""The table of processes, from /proc/PID/{stat,status,cgroup} only.

Never cmdline, environ, maps, smaps or exe: the kernel takes the process's mmap lock for them, and a process that is
filling memory holds it (fs/proc/base.c, task_mmu.c). A process's name is what its owner chose, so `stat` is read from
its last `)` on (proc_pid_stat(5)).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base import cgroups, small_files
from sparkhost.watchdog.model import MIB

PAGE = os.sysconf("SC_PAGE_SIZE")
# Kernel threads have no memory of their own (PF_KTHREAD, include/linux/sched.h).
PF_KTHREAD = 0x00200000
# Below that what a process holds is taken from `stat` alone, as if all of it were anonymous: one file less to read.
SMALL = 4 * MIB
KIB = 1024
# User number -1, which no process has (setuid(2)).
NOBODY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Process:
    """A process as one scan saw it. Sizes in bytes."""

    pid: int
    start: int
    """In ticks since boot: with the number, it names this process and no later one."""
    parent: int
    session: int
    terminal: int
    """Device number of its controlling terminal, 0 without one."""
    name: str
    """At most 15 bytes, chosen by its owner."""
    owner: int
    cgroup: str
    anonymous: int
    shared: int

    @property
    def leads_terminal(self) -> bool:
        """A shell that somebody types into, or what runs in place of it."""
        return self.pid == self.session and self.terminal != 0


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/PID/stat says."""

    name: str
    state: str
    parent: int
    session: int
    terminal: int
    flags: int
    threads: int
    start: int
    rss: int

    @property
    def ended(self) -> bool:
        """A zombie without threads. One whose first thread alone has ended goes on, or still gives back its memory."""
        return self.state in "ZX" and self.threads <= 1


def parse_stat(text: bytes) -> Stat:
    """Reads /proc/PID/stat; a name may hold blanks, parentheses and newlines.

    Raises:
        ValueError: it is something else.
    """
    open_, close = text.index(b"("), text.rindex(b")")
    fields = text[close + 2 :].split()
    if len(fields) < 22:
        raise ValueError("a short stat")
    return Stat(
        name=text[open_ + 1 : close].decode(errors="replace"),
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        flags=int(fields[6]),
        threads=int(fields[17]),
        start=int(fields[19]),
        rss=int(fields[21]) * PAGE,
    )


def parse_status(text: bytes, rss: int = 0) -> tuple[int, int, int]:
    """Real user number, RssAnon and RssShmem of /proc/PID/status. The name in it is escaped by the kernel.

    `rss`: what counts as anonymous where a file that was cut does not say it. Without a user number, NOBODY.
    """
    found: dict[bytes, int] = {}
    for line in text.split(b"\n"):
        name, _, rest = line.partition(b":")
        if name in (b"Uid", b"RssAnon", b"RssShmem"):
            with contextlib.suppress(ValueError, IndexError):
                found[name] = int(rest.split()[0])
        if name == b"RssShmem":
            break
    anonymous = found[b"RssAnon"] * KIB if b"RssAnon" in found else rss
    return found.get(b"Uid", NOBODY), anonymous, found.get(b"RssShmem", 0) * KIB


class Processes:
    """Reads the table. `proc`: /proc, or a fixture."""

    def __init__(self, proc: Path) -> None:
        self.proc = str(proc)

    def read(self, pid: int, name: str) -> bytes:
        return small_files.read(f"{self.proc}/{pid}/{name}")

    def numbers(self) -> Iterator[int]:
        for entry in os.listdir(self.proc):  # noqa: PTH208 - a Path for each process would cost as much as the rest
            if entry.isascii() and entry.isdigit():
                yield int(entry)

    def table(self) -> list[Process]:
        """All processes but kernel threads and zombies. One that ends meanwhile is left out."""
        found = []
        for pid in self.numbers():
            # Whatever one process brings about must not hide the others.
            with contextlib.suppress(Exception):
                if process := self.process(pid):
                    found.append(process)
        return found

    def stat(self, pid: int) -> Stat | None:
        """What `stat` says of a process; None for a kernel thread or a zombie.

        Raises:
            OSError, ValueError: it has ended, or says nothing that can be read.
        """
        stat = parse_stat(self.read(pid, "stat"))
        return None if stat.flags & PF_KTHREAD or stat.ended else stat

    def process(self, pid: int, stat: Stat | None = None) -> Process | None:
        """One process; None for a kernel thread or a zombie. Without `status` it counts as what `stat` says.

        Raises:
            OSError, ValueError: it has ended, or its `stat` cannot be read.
        """
        stat = stat or self.stat(pid)
        if stat is None:
            return None
        owner, anonymous, shared = self._sizes(pid, stat)
        return Process(
            pid,
            stat.start,
            stat.parent,
            stat.session,
            stat.terminal,
            stat.name,
            owner,
            self._cgroup(pid),
            anonymous,
            shared,
        )

    def _sizes(self, pid: int, stat: Stat) -> tuple[int, int, int]:
        """Owner, anonymous and shared memory: as well as the process lets itself be read."""
        owner, anonymous, shared = NOBODY, stat.rss, 0
        with contextlib.suppress(Exception):
            if stat.state == "Z":
                owner, anonymous, shared = self._of_a_thread(pid)
            elif stat.rss >= SMALL:
                owner, anonymous, shared = parse_status(self.read(pid, "status"), stat.rss)
        if owner == NOBODY:
            with contextlib.suppress(OSError):
                owner = Path(f"{self.proc}/{pid}").stat().st_uid
        return owner, anonymous, shared

    def _cgroup(self, pid: int) -> str:
        """Its cgroup; "/" where the file is there and cannot be read.

        Raises:
            OSError: the process has ended.
        """
        try:
            return cgroups.parse(self.read(pid, "cgroup"))
        except (FileNotFoundError, ProcessLookupError):
            raise
        except OSError:
            return "/"

    def _of_a_thread(self, pid: int) -> tuple[int, int, int]:
        """As `parse_status`, of a process whose first thread has ended: that one's own files show no memory."""
        found = parse_status(self.read(pid, "status"))
        for thread in os.listdir(f"{self.proc}/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                found = parse_status(self.read(pid, f"task/{thread}/status"))
            if found[1] or found[2]:
                break  # threads share their memory
        return found

    def start_of(self, pid: int) -> int | None:
        """When a process started, or None where it has ended (a zombie has)."""
        try:
            stat = parse_stat(self.read(pid, "stat"))
        except (OSError, ValueError):
            return None
        return None if stat.ended else stat.start

    def cgroup_of(self, pid: int) -> str | None:
        return cgroups.cgroup_of(pid, self.proc)
