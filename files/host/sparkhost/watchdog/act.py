"""Signals victims. Nothing here waits, starts a process, or reads what a victim's mmap lock guards."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from sparkhost.watchdog.cgroup import Cgroups
from sparkhost.watchdog.model import Candidate, Member, Stage
from sparkhost.watchdog.process import Processes
from sparkhost.watchdog.subtrees import anchors
from sparkhost.watchdog.work import place_of

# While a pass finds processes that the one before did not, they fork faster than they end; the next look goes on.
MOST_PASSES = 10


@dataclass
class Hunt:
    """A victim on its way out: whom of it we have signalled, and how."""

    victim: Candidate
    stage: Stage = "TERM"
    known: dict[Member, Stage] = field(default_factory=dict)
    """Everybody that was found to be part of it, with the last signal that they got."""


class Executioner:
    """Sends signals. `never`: processes that get none, whatever they are said to be part of."""

    def __init__(self, processes: Processes, cgroups: Cgroups, never: Collection[int]) -> None:
        self.processes = processes
        self.cgroups = cgroups
        self.never = frozenset((*never, 0, 1))

    def press(self, hunt: Hunt) -> int:
        """Signals everybody of the victim who has not had the hunt's signal yet, new children too.

        Returns:
            how many were signalled now. Afterwards `alive` says who is left.
        """
        sent = 0
        if hunt.stage == "KILL" and not hunt.victim.roots and self._kill_cgroup(hunt.victim.cgroup):
            return len(self.members(hunt))
        for _ in range(MOST_PASSES):
            fresh = [member for member in self.members(hunt) if hunt.known.get(member) != hunt.stage]
            if not fresh:
                break
            for member in fresh:
                hunt.known[member] = hunt.stage
                sent += self._signal(hunt, member)
        return sent

    def alive(self, hunt: Hunt) -> int:
        """How many processes the victim still has. Zombies have given back their memory."""
        return len(self.members(hunt))

    def members(self, hunt: Hunt) -> list[Member]:
        if hunt.victim.roots:
            return self._descendants(hunt)
        found = []
        for pid in self.cgroups.members(hunt.victim.cgroup):
            start = self.processes.start_of(pid)
            if start is not None and pid not in self.never:
                found.append(Member(pid, start))
        return found

    def _descendants(self, hunt: Hunt) -> list[Member]:
        """Who is left of the roots, of those known before, and of all that any of them has started since."""
        stats = {}
        for pid in self.processes.numbers():
            with contextlib.suppress(OSError, ValueError):
                process = self.processes.process(pid)
                if process is not None and place_of(process.cgroup).cgroup == hunt.victim.cgroup:
                    stats[pid] = process
        wanted = {*hunt.victim.roots, *hunt.known}
        found = {pid for pid, process in stats.items() if Member(pid, process.start) in wanted}
        if not hunt.victim.alone:
            fixed = anchors(stats, self.never)
            children: dict[int, list[int]] = {}
            for pid, process in stats.items():
                children.setdefault(process.parent, []).append(pid)
            pending = list(found)
            while pending:
                for child in children.get(pending.pop(), ()):
                    if child not in found and child not in fixed:
                        found.add(child)
                        pending.append(child)
        return [Member(pid, stats[pid].start) for pid in sorted(found - self.never)]

    def _kill_cgroup(self, cgroup: str) -> bool:
        """Has the kernel kill all of a cgroup, children that are born meanwhile included; False where it cannot."""
        if cgroup in ("", "/"):
            return False
        try:
            descriptor = os.open(f"{self.cgroups.path(cgroup)}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(descriptor, b"1")
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _signal(self, hunt: Hunt, member: Member) -> bool:
        """Signals one process, after asking anew who it is: the number may belong to another one by now."""
        try:
            descriptor = os.pidfd_open(member.pid)
        except OSError:
            return False
        try:
            # From here on the number cannot be given away without the signal failing.
            if self.processes.start_of(member.pid) != member.start or not self._belongs(hunt, member.pid):
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL if hunt.stage == "KILL" else signal.SIGTERM)
            if hunt.stage == "TERM":
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)  # a stopped one could not obey
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _belongs(self, hunt: Hunt, pid: int) -> bool:
        cgroup = self.processes.cgroup_of(pid)
        wanted = hunt.victim.cgroup.rstrip("/")
        return cgroup is not None and (cgroup.rstrip("/") == wanted or cgroup.startswith(f"{wanted}/"))


def lineage(processes: Processes, pid: int) -> Iterable[int]:
    """A process and all from which it descends, as far as /proc shows them."""
    seen = []
    while pid > 0 and pid not in seen:
        seen.append(pid)
        try:
            process = processes.process(pid)
        except (OSError, ValueError):
            break
        if process is None:
            break
        pid = process.parent
    return seen
