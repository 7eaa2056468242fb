"""Makes units of work of processes: what can be ended as one. Pure.

A job of training.slice, a container and a system unit are whole cgroups. A login is none: tmux, editors and the shell
live in the same scope as what was started from them (`subtrees`). Some units of the host are two things: their own
processes, which are protected up to a size, and what they have started for people (cron, an SSH server without
logind), which is divided as a login is. A job of Slurm is ended by its steps' `user` parts, so that the step's daemon
lives to say how it ended.

Protected is who is what it says, by number and parent, in a place that root owns; see docs/watchdog.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.charged import bound_shared, is_all_charged, locked_files, share_charge
from sparkhost.watchdog.model import GIB, Candidate, Member
from sparkhost.watchdog.owners import FIRST_LARGE, Range, account_of, is_person
from sparkhost.watchdog.places import (
    MANAGERS,
    MANAGERS_MAY_HOLD,
    PROTECTED_UNITS,
    STARTERS,
    USER_MANAGER,
    Place,
    Preferences,
    is_preferred,
    is_protected,
    matches,
    place_of,
    step_of,
    user_slice,
)
from sparkhost.watchdog.process import Process
from sparkhost.watchdog.subtrees import Seen, kept_anchors, manager_of, subtrees, unit

__all__ = [
    "MANAGERS",
    "PROTECTED_UNITS",
    "STARTERS",
    "Place",
    "Preferences",
    "candidates",
    "is_preferred",
    "place_of",
    "region_of",
    "whole_units",
]

Inside = dict[int, Process]


def whole_units(processes: Iterable[Process]) -> set[str]:
    """The cgroups whose charge is worth reading: those that are ended whole, and those that divide into work."""
    places = map(place_of, {process.cgroup for process in processes})
    return {region for place in places if (region := region_of(place)) != "/"}


def region_of(place: Place) -> str:
    """The cgroup, owned by root, whose charge bounds what there is to give back; "/" for none."""
    if found := user_slice(place.cgroup):
        return found[0]
    return "/" + place.cgroup.split("/")[1] if place.kind == "process" else place.cgroup


def candidates(
    processes: Collection[Process],
    gpu: Mapping[int, int],
    charges: Mapping[str, Charge],
    preferences: Preferences,
    *,
    never: Collection[int] = (),
    omitted: Collection[str] = (),
    avoided: Collection[str] = (),
    spared: Collection[int] = (),
    ranges: Sequence[Range] = (),
    above: int = GIB,
    shmem: int | None = None,
) -> tuple[Candidate, ...]:
    """All units of work.

    Args:
        gpu: bytes by process number, of GPUs that take them from the host's memory.
        charges: by cgroup, for those of `whole_units` where it is known.
        never: processes that are nobody's victim: the watchdog's own and those that it came from.
        omitted: cgroups that root has taken out (`ManagedOOMPreference=omit`).
        avoided: those that are ended only when nothing else is left.
        spared: user numbers whose logins are never frozen; root's is not in any case.
        ranges: who the user numbers of containers were lent to.
        above: bytes that a protected process, unit, or a person's anchors together may hold (`system_unit_above`).
        shmem: bytes of shared memory on the host, to bound what has no charge.
    """
    seen = Seen(gpu, never, above)
    watching = {process.cgroup for process in processes if process.pid in never}
    places = group(processes, ranges)
    fixed = fixed_in(places, seen)
    found: list[Candidate] = []
    regions: dict[str, list[Candidate]] = {}
    largest: dict[str, int] = {}
    for place, inside in places.items():
        kept = is_protected(place, preferences) or place.cgroup in omitted
        preferred = is_preferred(place, preferences)
        freezer = freezer_of(place, watching, spared)
        region = region_of(place)
        largest[region] = max(largest.get(region, 0), *(p.anonymous for p in inside.values()))
        charge = charges.get(region)
        into = found if charge and place.is_whole and region == place.cgroup else regions.setdefault(region, [])
        for candidate in units(place, inside, fixed, charge if into is found else None, seen):
            numbers = {root.pid for root in candidate.roots} or inside.keys()
            is_kept = candidate.protected or kept or 1 in numbers or not numbers.isdisjoint(never)
            into.append(
                replace(
                    candidate,
                    protected=is_kept,
                    preferred=preferred,
                    avoided=place.cgroup in avoided,
                    freezer="" if is_kept else candidate.freezer or freezer,
                )
            )
    uncharged: list[Candidate] = []
    for region, inside_it in regions.items():
        if charge := charges.get(region):
            found += share_charge(inside_it, region, charge, largest[region])
        else:
            uncharged += inside_it
    return (*found, *bound_shared(uncharged, shmem))


def group(processes: Iterable[Process], ranges: Sequence[Range]) -> dict[Place, Inside]:
    """The processes of each place, with the accounts that own them."""
    known: dict[str, Place] = {}
    found: dict[Place, Inside] = {}
    for process in processes:
        place = known.get(process.cgroup) or known.setdefault(process.cgroup, place_of(process.cgroup))
        owner = account_of(process.owner, ranges)
        if owner >= FIRST_LARGE and (user := user_slice(process.cgroup)):
            owner = user[1]  # a range that no file names (a directory service has it): whose login it is
        owned = process if owner == process.owner else replace(process, owner=owner)
        found.setdefault(place, {})[process.pid] = owned
    return found


def fixed_in(places: Mapping[Place, Inside], seen: Seen) -> set[int]:
    """All anchors. A person's are counted together, wherever in the own slice they are."""
    regions: dict[str, list[Inside]] = {}
    for place, inside in places.items():
        if not place.is_whole:
            regions.setdefault(region_of(place), []).append(people_in(inside) if place.is_listed else inside)
    return {pid for groups in regions.values() for pid in kept_anchors(groups, seen)}


def units(place: Place, inside: Inside, fixed: Collection[int], charge: Charge | None, seen: Seen) -> list[Candidate]:
    """The units of work of a place; of a listed unit or a user's systemd those that are protected as well."""
    if place.is_slurm_job:
        return [slurm_job(place, inside, charge, seen)]
    if place.is_whole:
        return [whole(place, inside.values(), charge, seen)]
    if place.is_listed:
        return listed(place, inside, fixed, seen)
    kept = manager_of(inside) if USER_MANAGER.fullmatch(place.cgroup) else []
    managers = [replace(unit(place, [p], seen, alone=True), protected=seen.held(p) <= seen.above) for p in kept]
    numbers = {process.pid for process in kept}
    rest = {pid: process for pid, process in inside.items() if pid not in numbers}
    return managers + subtrees(place, rest, {*fixed, *numbers}, seen)


def people_in(inside: Inside) -> Inside:
    return {pid: process for pid, process in inside.items() if is_person(process.owner)}


def listed(place: Place, inside: Inside, fixed: Collection[int], seen: Seen) -> list[Candidate]:
    """A unit of the host's: its own processes, protected up to a size, and what people have in it."""
    people = people_in(inside)
    own = {pid: process for pid, process in inside.items() if pid not in people}
    limit = seen.above * (MANAGERS_MAY_HOLD if matches(place.name, MANAGERS) else 1)
    small = seen.affordable(own.values(), limit, init_first=True)
    found = []
    for kept in (True, False):
        if members := [process for pid, process in own.items() if (pid in small) == kept]:
            made = unit(place, members, seen, alone=True, kind="system")
            key, name = (place.cgroup, place.name) if kept else (f"{place.cgroup}:large", made.name)
            found.append(replace(made, key=key, name=name, protected=kept))
    return found + subtrees(place, people, {*fixed, *own}, seen)


def whole(place: Place, inside: Collection[Process], charge: Charge | None, seen: Seen) -> Candidate:
    """A whole cgroup, at its charge; without one, at what its processes show, of shared memory its largest user."""
    anonymous, shared = sum(p.anonymous for p in inside), max(p.shared for p in inside)
    if charge is not None:
        if is_all_charged(charge, max(p.anonymous for p in inside)):
            anonymous = charge.anonymous
        shared = charge.shared + locked_files(charge)
    oldest = min(inside, key=lambda p: (p.start, p.pid))
    return Candidate(
        key=place.cgroup,
        name=place.name,
        kind=place.kind,
        cgroup=place.cgroup,
        owner=seen.largest(inside).owner,
        processes=len(inside),
        gpu=sum(seen.gpu.get(p.pid, 0) for p in inside),
        anonymous=anonymous,
        shared=shared,
        first=Member(oldest.pid, oldest.start),
        promise=charge.limit if charge is not None and place.kind == "job" else None,
    )


def slurm_job(place: Place, inside: Inside, charge: Charge | None, seen: Seen) -> Candidate:
    """A job of Slurm. Its parts are its user's steps: `step_extern` has a process of root's only and ends with them."""
    people = [process for process in inside.values() if process.owner] or list(inside.values())
    steps: dict[str, list[Process]] = {}
    for process in people:
        steps.setdefault(step_of(process.cgroup, place.cgroup), []).append(process)
    parts = tuple(
        replace(
            whole(Place("job", step, f"{place.name}, {step.split('/')[-2]}"), members, None, seen),
            freezer=step,
        )
        for step, members in sorted(steps.items())
    )
    return replace(
        whole(place, inside.values(), charge, seen),
        owner=seen.largest(people).owner,
        freezer=parts[0].cgroup if len(parts) == 1 else "",
        parts=parts,
    )


def freezer_of(place: Place, watching: Iterable[str], spared: Collection[int]) -> str:
    """The cgroup of root's that stops a unit of work and nobody else's; "" for none.

    Of a login it is all of its user's, as is everything that the user has delegated: what is below it is the user's to
    thaw. What a unit of the host has started for people, Slurm's steps, and what has no unit is not frozen by its unit.
    """
    if user := user_slice(place.cgroup):
        freezer = "" if user[1] == 0 or user[1] in spared else user[0]
    else:
        freezer = place.cgroup if place.is_whole and not place.is_slurm_job else ""
    return "" if any(f"{cgroup}/".startswith(f"{freezer}/") for cgroup in watching) else freezer
