"""What of a login, or of a unit that starts work for others, is work, and what it hangs on. Pure.

The shells that somebody types into, what serves a login, and everything above them stay (`anchors`); what hangs below
them is ended with all its descendants. An anchor is a unit of work as well, alone. It need not be what it says: a
program chooses its name, and may lead a terminal. So a person's anchors in one place are spared only together up to a
size, the smallest first; what is beyond it is work like any other, with all that hangs on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sparkhost.watchdog.model import Candidate, Kind, Member
from sparkhost.watchdog.places import Place
from sparkhost.watchdog.process import Process

# What serves a login or holds terminals. A program that only calls itself so gains nothing: it is ended alone.
SERVES_LOGINS = frozenset(
    (
        "sshd",
        "sshd-session",
        "login",
        "tmux: server",
        "screen",
        "SCREEN",
        "systemd",
        "(sd-pam)",
        "mosh-server",
        "su",
        "sudo",
    )
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known beside the processes."""

    gpu: Mapping[int, int]
    never: Collection[int] = ()
    above: int = 1 << 30
    """Bytes: what a process or a group of them may hold at most, to count as part of the host or of a login."""

    def held(self, process: Process) -> int:
        return self.gpu.get(process.pid, 0) + process.anonymous + process.shared

    def largest(self, inside: Iterable[Process]) -> Process:
        return max(inside, key=lambda p: (self.held(p), p.pid))

    def affordable(self, processes: Iterable[Process], limit: int, *, init_first: bool = False) -> set[int]:
        """As many of them as hold so much together, the smallest first; `init_first`: before them PID 1's children."""
        found = set()
        for process in sorted(processes, key=lambda p: (init_first and p.parent != 1, self.held(p), p.pid)):
            if self.held(process) <= limit:
                limit -= self.held(process)
                found.add(process.pid)
        return found


def anchors(inside: Mapping[int, Process], never: Collection[int]) -> set[int]:
    """The processes of a login that its work hangs on."""
    found: set[int] = set()
    for process in inside.values():
        serves = process.leads_terminal or process.name in SERVES_LOGINS
        if not (serves or process.pid in never or process.pid == 1):
            continue
        pid = process.pid
        while pid in inside and pid not in found:
            found.add(pid)
            pid = inside[pid].parent
    return found


def kept_anchors(groups: Iterable[Mapping[int, Process]], seen: Seen) -> set[int]:
    """The anchors of one person's logins that stay anchors.

    One that is beyond the size takes with it what hangs on it: it is the root of a unit of work then.
    """
    found: dict[int, set[int]] = {}
    everybody: dict[int, Process] = {}
    for inside in groups:
        everybody.update(inside)
        for pid in anchors(inside, seen.never):
            found.setdefault(inside[pid].owner, set()).add(pid)
    kept: set[int] = set()
    for numbers in found.values():
        kept |= seen.affordable((everybody[pid] for pid in numbers), seen.above)
    kept |= {pid for pid in everybody if pid in seen.never or pid == 1}
    dropped = set().union(*found.values()) - kept
    if not dropped:
        return kept
    return {pid for pid in kept if pid in seen.never or not hangs_on(pid, everybody, dropped)}


def hangs_on(pid: int, inside: Mapping[int, Process], those: Collection[int]) -> bool:
    """Whether one of a process's ancestors is among those. A table may hold a circle: it is read piece by piece."""
    walked: set[int] = set()
    while pid in inside and pid not in walked:
        walked.add(pid)
        pid = inside[pid].parent
        if pid in those:
            return True
    return False


def subtrees(place: Place, inside: Mapping[int, Process], fixed: Collection[int], seen: Seen) -> list[Candidate]:
    """What hangs on the anchors (`fixed`), each with its descendants; and each anchor alone.

    Processes whose parent has gone are taken together where they are of one session (setsid(2)): the rest of a
    program that forked and left.
    """
    groups: dict[tuple[str, int], list[Process]] = {}
    for process in inside.values():
        key = ("alone", process.pid) if process.pid in fixed else root_of(process, inside, fixed)
        groups.setdefault(key, []).append(process)
    return [unit(place, members, seen, alone=kind == "alone") for (kind, _), members in groups.items()]


def root_of(process: Process, inside: Mapping[int, Process], fixed: Collection[int]) -> tuple[str, int]:
    """What names the subtree of a process: its topmost ancestor below the anchors, or the session of orphans."""
    walked = {process.pid}
    while process.parent in inside and process.parent not in fixed and process.parent not in walked:
        process = inside[process.parent]
        walked.add(process.pid)
    return ("below", process.pid) if process.parent in fixed else ("session", process.session)


def unit(place: Place, members: list[Process], seen: Seen, *, alone: bool, kind: Kind | None = None) -> Candidate:
    """A unit of work of processes. `alone`: each of them, without its descendants."""
    numbers = {process.pid for process in members}
    top = members if alone else [p for p in members if p.parent not in numbers] or members
    largest, oldest = seen.largest(members), min(members, key=lambda p: (p.start, p.pid))
    return Candidate(
        key=f"{place.cgroup}:{min(p.pid for p in top)}:{min(p.start for p in top)}{':alone' if alone else ''}",
        name=f"{largest.name} ({largest.pid}) in {place.name or '/'}",
        kind=kind or ("process" if place.kind == "process" else "session"),
        cgroup=place.cgroup,
        roots=tuple(Member(process.pid, process.start) for process in top),
        alone=alone,
        owner=largest.owner,
        processes=len(members),
        gpu=sum(seen.gpu.get(p.pid, 0) for p in members),
        anonymous=sum(p.anonymous for p in members),
        shared=max(p.shared for p in members),
        first=Member(oldest.pid, oldest.start),
    )


def manager_of(inside: Mapping[int, Process]) -> list[Process]:
    """The user's systemd and its `(sd-pam)`, of what is in the manager's cgroup, which its user may move others to.

    systemd(1) starts the one, which starts the other before anything else: so the oldest that descend so.
    """

    def oldest(found: Iterable[Process]) -> list[Process]:
        return sorted(found, key=lambda p: (p.start, p.pid))[:1]

    manager = oldest(p for p in inside.values() if p.parent == 1)
    helper = oldest(p for p in inside.values() if manager and p.parent == manager[0].pid and p.name == "(sd-pam)")
    return manager + helper
