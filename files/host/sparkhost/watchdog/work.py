"""Makes units of work of processes: what can be ended as one. Pure.

A job of training.slice, a container and a system unit are whole cgroups. A login is none: tmux, editors and the shell
live in the same scope as what was started from them. There, the shells that somebody types into, what serves a login,
and everything above them stay (`anchors`); what hangs below them is ended with all its descendants. An anchor that
holds much itself is a unit of work too, alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from sparkhost.containers import container
from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.model import Candidate, Kind, Member
from sparkhost.watchdog.process import Process

# Units that are never ended, whatever they hold: without them the host is lost although it runs.
PROTECTED_UNITS = (
    "init.scope",
    "ssh.service",
    "sshd.service",
    "ssh@*.service",
    "sshd@*.service",
    "sshd-unix-local@*.service",
    "systemd-*.service",
    "dbus.service",
    "dbus-broker.service",
    "NetworkManager.service",
    "networking.service",
    "wpa_supplicant.service",
    "sparkfleet-*.service",
)
# Background work of ours in training.slice: nobody waits for it, and it goes on where it was ended.
FIRST_UNITS = ("sparkfleet-vllm-source.service",)
# The user's systemd itself: without it all of the user's sessions break.
USER_MANAGER = re.compile(r"/user\.slice/user-\d+\.slice/user@\d+\.service/init\.scope")
UNIT = re.compile(r"[^/]+\.(service|scope)")
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
class Place:
    """Where a process belongs, by its cgroup."""

    kind: Kind
    cgroup: str
    """The unit's: its processes may be in cgroups below it."""
    name: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the site says of units; shell patterns of unit names."""

    protect: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()


def place_of(cgroup: str) -> Place:
    """The unit that a cgroup is part of."""
    parts = cgroup.strip("/").split("/")
    for end, part in enumerate(parts, 1):
        above = f"{parts[end - 2]}/{part}" if end > 1 else part
        if container(part) or container(above):
            return Place("container", "/" + "/".join(parts[:end]), part)
    if parts[0] == "user.slice":
        unit = next((part for part in reversed(parts) if UNIT.fullmatch(part)), parts[-1])
        return Place("session", cgroup, unit)
    for end, part in enumerate(parts, 1):
        if UNIT.fullmatch(part):
            kind: Kind = "job" if parts[0] == "training.slice" else "system"
            return Place(kind, "/" + "/".join(parts[:end]), part)
    # No unit: a machine without systemd, or a cgroup that somebody made by hand.
    return Place("process", cgroup, parts[-1])


def is_protected(place: Place, preferences: Preferences) -> bool:
    """Whether a unit is on the closed list or the site's; by names that users choose for theirs, none is."""
    if place.cgroup.startswith("/user.slice/"):
        return bool(USER_MANAGER.fullmatch(place.cgroup))
    return (place.kind == "system" and matches(place.name, PROTECTED_UNITS)) or matches(place.name, preferences.protect)


def is_preferred(place: Place, preferences: Preferences) -> bool:
    """Whether a unit is ended before all others. No user can name one of training.slice: the launcher does."""
    return matches(place.name, preferences.prefer) or (place.kind == "job" and place.name in FIRST_UNITS)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def whole_units(processes: Iterable[Process]) -> set[str]:
    """The cgroups that are ended whole: their charge is worth reading."""
    cgroups = {process.cgroup for process in processes}
    places = map(place_of, cgroups)
    return {place.cgroup for place in places if place.kind in ("job", "container", "system")}


def candidates(
    processes: Collection[Process],
    gpu: Mapping[int, int],
    charges: Mapping[str, Charge],
    preferences: Preferences,
    *,
    never: Collection[int] = (),
    omitted: Collection[str] = (),
    avoided: Collection[str] = (),
) -> tuple[Candidate, ...]:
    """All units of work.

    Args:
        gpu: bytes by process number, of GPUs that take them from the host's memory.
        charges: by cgroup, for those of `whole_units` where it is known.
        never: processes that are nobody's victim: the watchdog's own and those that it came from.
        omitted: cgroups that root has taken out (`ManagedOOMPreference=omit`).
        avoided: those that are ended only when nothing else is left.
    """
    places: dict[str, Place] = {}
    members: dict[Place, list[Process]] = {}
    for process in processes:
        place = places.get(process.cgroup) or places.setdefault(process.cgroup, place_of(process.cgroup))
        members.setdefault(place, []).append(process)
    found: list[Candidate] = []
    for place, inside in members.items():
        made = (
            [whole(place, inside, gpu, charges.get(place.cgroup))]
            if place.kind in ("job", "container", "system")
            else subtrees(place, inside, gpu, never)
        )
        kept = is_protected(place, preferences) or place.cgroup in omitted
        for candidate in made:
            numbers = {root.pid for root in candidate.roots} or {process.pid for process in inside}
            found.append(
                replace(
                    candidate,
                    protected=kept or 1 in numbers or bool(numbers.intersection(never)),
                    preferred=is_preferred(place, preferences),
                    avoided=place.cgroup in avoided,
                )
            )
    return tuple(found)


def whole(place: Place, inside: list[Process], gpu: Mapping[int, int], charge: Charge | None) -> Candidate:
    """A whole cgroup. Shared memory is counted once, as charged; without a charge, its largest user's view of it."""
    sums = [sum(p.anonymous for p in inside), max(p.shared for p in inside)]
    if charge is not None:
        sums = [max(sums[0], charge.anonymous), max(sums[1], charge.shared)]
    return Candidate(
        key=place.cgroup,
        name=place.name,
        kind=place.kind,
        cgroup=place.cgroup,
        owner=largest(inside, gpu).owner,
        processes=len(inside),
        gpu=sum(gpu.get(p.pid, 0) for p in inside),
        anonymous=sums[0],
        shared=sums[1],
    )


def largest(inside: Iterable[Process], gpu: Mapping[int, int]) -> Process:
    return max(inside, key=lambda p: (gpu.get(p.pid, 0) + p.anonymous + p.shared, p.pid))


def anchors(inside: Mapping[int, Process], never: Collection[int]) -> set[int]:
    """The processes of a login that its work hangs on."""
    found: set[int] = set()
    for process in inside.values():
        if not (process.leads_terminal or process.name in SERVES_LOGINS or process.pid in never or process.pid == 1):
            continue
        pid = process.pid
        while pid in inside and pid not in found:
            found.add(pid)
            pid = inside[pid].parent
    return found


def subtrees(
    place: Place, processes: Iterable[Process], gpu: Mapping[int, int], never: Collection[int]
) -> list[Candidate]:
    """What hangs on the anchors, each with its descendants; and each anchor alone.

    Processes whose parent has gone are taken together where they are of one session (setsid(2)): the rest of a
    program that forked and left.
    """
    inside = {process.pid: process for process in processes}
    fixed = anchors(inside, never)
    groups: dict[tuple[str, int], list[Process]] = {}
    for process in inside.values():
        if process.pid in fixed:
            groups.setdefault(("alone", process.pid), []).append(process)
        else:
            groups.setdefault(root_of(process, inside, fixed), []).append(process)
    return [_subtree(place, kind == "alone", members, inside, gpu) for (kind, _), members in groups.items()]


def root_of(process: Process, inside: Mapping[int, Process], fixed: Collection[int]) -> tuple[str, int]:
    """What names the subtree of a process: its topmost ancestor below the anchors, or the session of orphans."""
    seen = {process.pid}
    while process.parent in inside and process.parent not in fixed and process.parent not in seen:
        process = inside[process.parent]
        seen.add(process.pid)  # a table that was read while processes came and went may hold a circle
    return ("below", process.pid) if process.parent in fixed else ("session", process.session)


def _subtree(
    place: Place, alone: bool, members: list[Process], inside: Mapping[int, Process], gpu: Mapping[int, int]
) -> Candidate:
    numbers = {process.pid for process in members}
    top = [process for process in members if process.parent not in numbers] or members
    first = largest(members, gpu)
    return Candidate(
        key=f"{place.cgroup}:{min(p.pid for p in top)}:{min(p.start for p in top)}{':alone' if alone else ''}",
        name=f"{first.name} ({first.pid}) in {place.name or '/'}",
        kind="session" if place.kind == "session" else "process",
        cgroup=place.cgroup,
        roots=tuple(Member(process.pid, process.start) for process in top),
        alone=alone,
        owner=first.owner,
        processes=len(members),
        gpu=sum(gpu.get(p.pid, 0) for p in members),
        anonymous=sum(p.anonymous for p in members),
        shared=max(p.shared for p in members),
    )
