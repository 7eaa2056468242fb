"""Signals victims. Nothing here waits, starts a process, or reads what a victim's mmap lock guards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from sparkhost.watchdog.hunt import Hunt, Tracker, leaves
from sparkhost.watchdog.model import Member
from sparkhost.watchdog.process import Processes

__all__ = ["Executioner", "Hunt", "lineage"]

# While a pass finds processes that the one before did not, they fork faster than they end; the next look goes on.
MOST_PASSES = 10
# Seconds after which a pass is left, to go on at the next look: a look at memory is due.
LONGEST = 0.1


class Executioner(Tracker):
    """Sends signals. `never`: processes that get none, whatever they are said to be part of."""

    def press(self, hunt: Hunt) -> int:
        """Signals everybody of the victim who has not had the hunt's signal yet, new children too.

        Each gets its signal as soon as it is found, after its children were asked for.

        Returns:
            how many were signalled now. Afterwards `alive` says who is left.
        """
        end = time.monotonic() + LONGEST
        killed = self._kill_cgroups(hunt) if hunt.stage == "KILL" else 0
        sent = 0
        for _ in range(MOST_PASSES):
            before = sent
            for member in self.walk(hunt, end):
                if hunt.known.get(member) != hunt.stage and self._signal(hunt, member):
                    hunt.known[member] = hunt.stage
                    sent += 1
            if sent == before or time.monotonic() > end:
                break
        return max(sent, killed)

    def is_alive(self, hunt: Hunt) -> bool:
        """Whether the victim still has a process. Zombies have given back their memory."""
        return next(self.walk(hunt), None) is not None or self._out_of_reach(hunt) > 0

    def alive(self, hunt: Hunt) -> int:
        """How many processes the victim still has, about: one for a cgroup with somebody out of a walk's reach."""
        return sum(1 for _ in self.walk(hunt)) or self._out_of_reach(hunt)

    def _out_of_reach(self, hunt: Hunt) -> int:
        whole = (leaf.cgroup for leaf in leaves(hunt.victim) if not leaf.roots)
        return sum(1 for cgroup in whole if self.cgroups.is_populated(cgroup))

    def _kill_cgroups(self, hunt: Hunt) -> int:
        """Has the kernel kill whatever is a whole cgroup, at once and frozen or not. Says how many that were, about."""
        return sum(leaf.processes for leaf in leaves(hunt.victim) if not leaf.roots and self._kill_cgroup(leaf.cgroup))

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
            if self.processes.start_of(member.pid) != member.start:
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL if hunt.stage == "KILL" else signal.SIGTERM)
            if hunt.stage == "TERM":
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)  # a stopped one could not obey
            return True
        except Exception:
            return False
        finally:
            os.close(descriptor)


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
