"""Follows a victim: by number and start time, whatever its processes do with their cgroup, name, session and parent.

A member is followed from when it was first seen; its children are asked of the kernel, process by process, so that
the first signals need no pass over the host. Whoever is a child only of a member that has ended meanwhile (fork and
exit, between two looks) hangs on PID 1 by then, on an ancestor that has made itself the reaper of its descendants
(PR_SET_CHILD_SUBREAPER), or on the member's own parent (CLONE_PARENT). Such a one is a member where it is younger than
the hunt, of the same owner, and in the victim's `user-UID.slice`, out of which no user can move a process. Gone is a
victim when none of these is alive.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparkhost.base import small_files
from sparkhost.watchdog.cgroup import MOST_WALKED, Cgroups
from sparkhost.watchdog.model import MIB, Candidate, Member, Stage
from sparkhost.watchdog.places import USER_MANAGER, user_slice
from sparkhost.watchdog.process import Processes, Stat, parse_stat

TICKS = os.sysconf("SC_CLK_TCK")
# Of a victim, so many members are asked for their owner and what they descend from: enough to know a child of theirs.
MOST_ASKED = 64
# A copy of a process that holds less than this is no way to keep what it held.
LARGE = 64 * MIB
# Seconds after which the numbers of strangers are looked at again: they may have been given away anew.
RENEW = 1.0
# Whoever is left behind is looked for at the next look: nobody was, before the first signal.
FIRST_SEARCH = 0.02
# Seconds that a search may take while there are members: a look at memory is due.
LONGEST_SEARCH = 0.05


def now() -> int:
    """Ticks since boot, as in /proc/PID/stat."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


def leaves(victim: Candidate) -> Iterator[Candidate]:
    """The units of work that a victim is made of."""
    if not victim.parts:
        yield victim
    for part in victim.parts:
        yield from leaves(part)


@dataclass
class Hunt:
    """A victim on its way out: whom of it we have seen, and how we have signalled them."""

    victim: Candidate
    stage: Stage = "TERM"
    known: dict[Member, Stage | None] = field(default_factory=dict)
    """Everybody that was found to be part of it and is alive, with the last signal that they got."""
    since: int = field(default_factory=now)
    owners: set[int] = field(default_factory=set)
    sessions: set[int] = field(default_factory=set)
    reapers: set[int] = field(default_factory=lambda: {1})
    shells: set[int] = field(default_factory=set)
    strangers: dict[int, int] = field(default_factory=dict)
    """Others in the same place, by number, with their start."""
    asked: int = 0
    renew: float = 0.0
    next_search: float = field(default_factory=lambda: time.monotonic() + FIRST_SEARCH)
    before: frozenset[int] | None = None
    """Numbers that were there when it began; whoever is left behind later has another, until numbers run out."""
    left: list[int] = field(default_factory=list)
    """Which of these this round of the search has still to look at, as they may have been given away anew."""


class Tracker:
    """Finds the members of victims. `never`: processes that are nobody's."""

    def __init__(self, processes: Processes, cgroups: Cgroups, never: Collection[int]) -> None:
        self.processes = processes
        self.cgroups = cgroups
        self.never = frozenset((*never, 0, 1))
        own = Path(processes.proc, str(os.getpid()), "task", str(os.getpid()), "children")
        self.tells_children = own.exists()
        """Whether this kernel does (CONFIG_PROC_CHILDREN). Else all are searched for children of members."""

    def members(self, hunt: Hunt) -> list[Member]:
        """Everybody who is alive."""
        return list(self.walk(hunt))

    def walk(self, hunt: Hunt, until: float = math.inf) -> Iterator[Member]:
        """Everybody who is alive, each once: before its children, which have been asked for by then.

        Those who have not had the hunt's signal come first, so that a walk that ends at `until` gets on next time.
        """
        if hunt.before is None:
            hunt.before = frozenset(self.field(hunt)) if self.tells_children else frozenset()
        alone = {m for leaf in leaves(hunt.victim) if leaf.alone for m in leaf.roots}
        seen: set[Member] = set()
        due = [member for member, stage in hunt.known.items() if stage != hunt.stage]
        done = [member for member, stage in hunt.known.items() if stage == hunt.stage]
        waiting = itertools.chain(due, self.begin(hunt, done), done)
        pending: list[Member] = []
        searched = False
        while time.monotonic() < until:
            member = pending.pop() if pending else next(waiting, None)
            if member is None:
                if searched:
                    return
                searched = True
                pending += self.search(hunt, {member.pid: member not in alone for member in seen})
                continue
            if member in seen or member.pid in self.never:
                continue
            stat = self.stat(member.pid)
            if stat is None or stat.ended or stat.start != member.start:
                hunt.known.pop(member, None)
                continue
            seen.add(member)
            children = self.children(member.pid)
            if member not in hunt.known:
                hunt.known[member] = None
                self.ask(hunt, member.pid, stat)
                if member in alone:  # ended without those that it has now
                    hunt.strangers.update((child.pid, child.start) for child in children)
            pending += [child for child in children if hunt.strangers.get(child.pid) != child.start]
            yield member

    def begin(self, hunt: Hunt, done: Iterable[Member]) -> Iterator[Member]:
        """Whom a victim begins with: its roots, and all who are in its cgroups now. `done`: who is known to be."""
        numbers = {member.pid for member in done}
        for leaf in leaves(hunt.victim):
            yield from leaf.roots
            if leaf.roots:
                continue
            for pid in self.cgroups.members(leaf.cgroup):
                member = self.member(pid) if pid not in numbers else None
                # Once it is known it may go where it likes; until then the number must be of who is in there.
                if member is not None and (member in hunt.known or self.is_in(pid, leaf.cgroup)):
                    yield member

    def is_in(self, pid: int, cgroup: str) -> bool:
        found = self.processes.cgroup_of(pid)
        return found is not None and f"{found}/".startswith(f"{cgroup.rstrip('/')}/")

    def stat(self, pid: int) -> Stat | None:
        try:
            return parse_stat(self.processes.read(pid, "stat"))
        except Exception:
            return None

    def member(self, pid: int) -> Member | None:
        stat = self.stat(pid)
        return None if stat is None or stat.ended else Member(pid, stat.start)

    def children(self, pid: int) -> list[Member]:
        """The children of all threads of a process (proc_pid_task(5); kernels without that file are searched)."""
        found = []
        try:
            for thread in os.listdir(f"{self.processes.proc}/{pid}/task"):  # noqa: PTH208
                text = small_files.read(f"{self.processes.proc}/{pid}/task/{thread}/children")
                found += [member for child in text.split() if (member := self.member(int(child)))]
        except (OSError, ValueError):
            pass  # it ends meanwhile
        return found

    def ask(self, hunt: Hunt, pid: int, stat: Stat) -> None:
        """Remembers what tells a child of this member later: owner, session, and on whom it would hang."""
        hunt.sessions.add(stat.session)
        if hunt.asked >= MOST_ASKED:
            return
        hunt.asked += 1
        hunt.owners.add(self.owner(pid))
        parent = stat.parent
        while parent > 1 and parent not in hunt.reapers:
            above = self.stat(parent)
            if above is None:
                break
            if parent == above.session and above.terminal:
                hunt.shells.add(parent)
                break
            hunt.reapers.add(parent)
            parent = above.parent

    def owner(self, pid: int) -> int:
        """The real user number. Not that of its directory in /proc, which is root's where it is not dumpable."""
        try:
            text = small_files.read(f"{self.processes.proc}/{pid}/status", 4096)
            return int(text[text.index(b"\nUid:") + 5 :].split(None, 1)[0])
        except (OSError, ValueError, IndexError):
            return -1

    def search(self, hunt: Hunt, members: Mapping[int, bool]) -> list[Member]:
        """Who was left behind by members that are gone: of those who came since the hunt began.

        Those who were there before are looked at in turn, as their numbers may have been given away anew: for
        LONGEST_SEARCH, going on at the next look.

        Args:
            members: those that are alive, by number; whether their children are members as well.
        """
        started = time.monotonic()
        if not hunt.asked or (members and started < hunt.next_search):
            return []
        if started >= hunt.renew:
            hunt.renew = started + RENEW
            hunt.strangers = {pid: start for pid, start in hunt.strangers.items() if pid in (hunt.before or ())}
        numbers, before = list(self.field(hunt)), hunt.before or frozenset()
        fresh = [pid for pid in numbers if pid not in before]
        found = [member for pid in fresh if (member := self.left_behind(hunt, pid, members))]
        hunt.left = hunt.left or [pid for pid in numbers if pid in before]
        until = time.monotonic() + LONGEST_SEARCH
        while hunt.left and time.monotonic() < until:
            if member := self.left_behind(hunt, hunt.left.pop(), members):
                found.append(member)
        hunt.next_search = time.monotonic() + 4 * (time.monotonic() - started)
        return found

    def left_behind(self, hunt: Hunt, pid: int, members: Mapping[int, bool]) -> Member | None:
        """The process of a number, where it is the victim's and none of its members that are known."""
        if pid in members or pid in self.never:
            return None
        stat = self.stat(pid)
        if stat is None or stat.ended or hunt.strangers.get(pid) == stat.start:
            return None
        if members.get(stat.parent) or self.is_left(hunt, pid, stat):
            return Member(pid, stat.start)
        if stat.start < hunt.since or stat.parent in hunt.strangers:
            hunt.strangers[pid] = stat.start
        return None

    def is_left(self, hunt: Hunt, pid: int, stat: Stat) -> bool:
        """Whether a process is of the victim's family although its parent is not, any more."""
        if stat.start < hunt.since:
            return False
        # What somebody types into the shell now is none of the victim's, and begins small; a copy of a hog does not.
        if stat.parent not in hunt.reapers and not (stat.parent in hunt.shells and stat.rss >= LARGE):
            return False
        if pid == stat.session and stat.terminal:
            return False  # a new window
        if stat.parent == 1 and USER_MANAGER.fullmatch(self.processes.cgroup_of(pid) or ""):
            return False  # a login's systemd has just been started: orphans from there are adopted by the one before
        owner = self.owner(pid)
        # Root does not hide, and PID 1 starts much that is root's: there the session must be one of the victim's.
        return owner in hunt.owners and (owner != 0 or stat.session in hunt.sessions)

    def field(self, hunt: Hunt) -> Iterator[int]:
        """The processes among which the victim's can be: those of its user's slice or of its unit; else all."""
        regions = set()
        for leaf in leaves(hunt.victim):
            user = user_slice(leaf.cgroup)
            if user or leaf.roots:
                regions.add(user[0] if user else leaf.cgroup)
        for region in regions:
            inside = self.cgroups.members(region) if self.is_walked_whole(region) else []
            if not inside:
                yield from self.processes.numbers()
                return
            yield from inside

    def is_walked_whole(self, cgroup: str) -> bool:
        """Whether a walk gets to all of a cgroup: users make as many below theirs as they like (cgroup.stat)."""
        try:
            values = dict(line.split() for line in self.cgroups.read(cgroup, "cgroup.stat").splitlines())
            return cgroup != "/" and int(values[b"nr_descendants"]) < MOST_WALKED
        except (OSError, ValueError, KeyError):
            return False
