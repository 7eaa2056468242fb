"""Whom to end: the one that takes the memory, not the largest. Pure.

The rules, the first that names somebody; each within what comes first by kind (`GROUPS`):

1. whoever is beyond its promise, the furthest first (promises that are kept take their holders out of 2 to 5);
2. of the owner who has taken most (ledger.py), the fewest units that make up half of it, all at once;
3. where it is kept promises that make memory short, who gained ground last makes room;
4. `firm`: as 2, by growth within the last minute, if that explains what is missing since. Above that, a dip may recover
   by itself and costs nobody anything;
5. `last`: who gained ground last, else the largest. There is no time left for evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import IntEnum
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from sparkhost.watchdog.ledger import account_of, fallen, ground, grown, least, party
from sparkhost.watchdog.model import Candidate, Ground, Look, Policy, Samples

# How many candidates a decision's grounds name.
MOST_GROUNDS = 10
# A service that holds so many times what the largest work does is no better than work.
FAR_LARGER = 4


class Level(IntEnum):
    """How much evidence there is time for."""

    SOFT, FIRM, LAST = range(3)


class Choice(NamedTuple):
    """Who, and why."""

    victim: Candidate
    reason: str
    grounds: tuple[Ground, ...] = ()


class Unit(NamedTuple):
    """A candidate as the ledger sees it."""

    candidate: Candidate
    held: int
    own: int
    taken: int
    grown: int
    gained: float
    over: int
    """Bytes beyond its promise; 0 where that is little, or none was made."""


PREFERRED, WORK, SYSTEM, AVOIDED, SMALL = range(5)


def level_of(look: Look, policy: Policy) -> Level:
    if look.available < policy.kill_below:
        return Level.LAST
    return Level.FIRM if look.available < policy.term_below * 0.875 else Level.SOFT


def rank_of(candidate: Candidate, policy: Policy) -> int | None:
    """Whose turn it is by kind, lower first; None: never."""
    if candidate.protected or candidate.size <= 0:
        return None
    if candidate.kind == "system" and not candidate.preferred:
        if not candidate.gpu and candidate.size <= policy.system_unit_above:
            return None
        return AVOIDED if candidate.avoided else SYSTEM
    if candidate.size < policy.smallest_victim:
        return SMALL
    if candidate.avoided:
        return AVOIDED
    return PREFERRED if candidate.preferred else WORK


def choose(
    samples: Samples, policy: Policy, level: Level, among: Collection[str] | None = None, again: bool = False
) -> Choice | None:
    """The victim, or None where nobody may be ended yet.

    Args:
        among: freezers; only what they hold is considered.
        again: whether those count too that were tried in vain.
    """
    ranked: dict[int, list[Unit]] = {}
    for candidate in samples.candidates or ():
        rank = rank_of(candidate, policy)
        tried = not again and candidate.key in samples.spent
        if rank is not None and not tried and (among is None or candidate.freezer in among):
            ranked.setdefault(rank, []).append(unit_of(samples, candidate, policy))
    if not ranked:
        return None
    choice = by_rules(ranked, policy, level, fallen(samples.ledger, samples.look))
    preferred = ranked.get(PREFERRED)
    if preferred and (choice is not None or level >= Level.FIRM):
        choice = _single(max(preferred, key=_size), "it is to be ended before all others")
    if choice is None:
        return None
    considered = [unit for units in ranked.values() for unit in units]
    return choice._replace(grounds=grounds(choice.victim, considered))


def unit_of(samples: Samples, candidate: Candidate, policy: Policy) -> Unit:
    """What the ledger says; who is not in it has only just come, and has taken all that it holds."""
    size = candidate.size
    if party(candidate) in samples.doubted:
        size -= candidate.shared
    account, share = account_of(samples.ledger.accounts, candidate)
    promise = candidate.promise
    beyond = 0 if promise is None or size - promise <= least(policy) else size - promise
    if account is None:
        return Unit(candidate, size, 0, size, size, samples.look.time, beyond)
    own = int(ground(account) * share)
    gain = min(size, int(grown(account) * share))
    return Unit(candidate, size, own, max(0, size - own), gain, account.gained, beyond)


Rule = Callable[[Sequence[Unit], Sequence[Unit], Policy], Choice | None]
"""Takes those of one kind, all together, and the policy."""


def by_rules(ranked: dict[int, list[Unit]], policy: Policy, level: Level, fall: int) -> Choice | None:
    """The first rule that names somebody, and of those of a kind the first."""
    small = ranked.get(SMALL, [])
    work, system = ranked.get(WORK, []), ranked.get(SYSTEM, [])
    largest = max((unit.held for unit in work + small), default=0)
    promoted = [unit for unit in system if unit.held > FAR_LARGER * largest]
    work, system = work + promoted, [unit for unit in system if unit not in promoted]
    avoided = ranked.get(AVOIDED, [])
    if not work and not system and PREFERRED not in ranked:
        work, avoided = avoided, []
    everybody = [unit for units in ranked.values() for unit in units]
    rules: list[tuple[Rule, bool]] = [(beyond_promise, False), (new_ground, True), (make_room, False)]
    if level >= Level.FIRM:
        rules.append((partial(late_growth, fall), True))
    for rule, together in rules:
        for group in (work + small if together else work, system):
            choice = rule(group, everybody, policy) if group else None
            if choice is not None and (choice.victim.size >= policy.smallest_victim or level == Level.LAST):
                return choice
    if level < Level.LAST:
        return None
    groups = (work, system, avoided, small)
    return next((last_resort(group, policy) for group in groups if group), None)


def beyond_promise(units: Sequence[Unit], everybody: Sequence[Unit], policy: Policy) -> Choice | None:
    beyond = [] if policy.over_promise == "tell" else [unit for unit in units if unit.over]
    return _single(max(beyond, key=attrgetter("over")), "it is beyond what it was promised") if beyond else None


def new_ground(units: Sequence[Unit], everybody: Sequence[Unit], policy: Policy) -> Choice | None:
    return largest_party(free(units, policy), attrgetter("taken"), policy, "it has taken most of what is missing")


def make_room(units: Sequence[Unit], everybody: Sequence[Unit], policy: Policy) -> Choice | None:
    """Who keeps a promise and grows may: another one makes room."""
    unpromised = {unit.candidate.key for unit in free(everybody, policy)}
    kept = sum(unit.grown for unit in everybody if unit.candidate.key not in unpromised)
    large = [unit for unit in free(units, policy) if unit.held >= least(policy)]
    if not large or kept < least(policy) or 2 * kept < sum(unit.grown for unit in everybody):
        return None
    return _single(max(large, key=_latest), "others need what they were promised, and it gained ground last")


def late_growth(fall: int, units: Sequence[Unit], everybody: Sequence[Unit], policy: Policy) -> Choice | None:
    """`fall`: bytes that went within the last minute. Who explains little of that only happened to move."""
    if 2 * sum(unit.grown for unit in everybody) < fall:
        return None
    return largest_party(free(units, policy), attrgetter("grown"), policy, "it grew most within the last minute")


def last_resort(units: Sequence[Unit], policy: Policy) -> Choice:
    units = free(units, policy) or units
    large = [unit for unit in units if unit.held >= least(policy)]
    if large:
        return _single(max(large, key=_latest), "memory is all but gone, and it gained ground last")
    return _single(max(units, key=_size), "memory is all but gone, and it is the largest that is left")


def free(units: Iterable[Unit], policy: Policy) -> list[Unit]:
    """Those whom no promise protects."""
    return [unit for unit in units if unit.candidate.promise is None or unit.over]


def largest_party(units: Sequence[Unit], measure: Callable[[Unit], int], policy: Policy, reason: str) -> Choice | None:
    """Of the owner with the largest sum the fewest units that make up half of it: swarms go at once."""
    sums: dict[str, int] = {}
    for unit in units:
        owner = party(unit.candidate)
        sums[owner] = sums.get(owner, 0) + measure(unit)
    if not sums:
        return None
    worst = max(sums, key=lambda owner: (sums[owner], owner))
    if sums[worst] < least(policy):
        return None
    theirs = [unit for unit in units if party(unit.candidate) == worst]
    theirs.sort(key=lambda unit: (measure(unit), *_size(unit)), reverse=True)
    chosen: list[Unit] = []
    total = 0
    for unit in theirs:
        chosen.append(unit)
        total += measure(unit)
        if 2 * total >= sums[worst]:
            break
    if len(chosen) == 1:
        return _single(chosen[0], reason)
    return Choice(together([unit.candidate for unit in chosen]), reason.replace("it ", "together they ", 1))


def together(parts: Sequence[Candidate]) -> Candidate:
    """Several units as one victim."""
    first = parts[0]
    return Candidate(
        key=f"{first.key}:and {len(parts) - 1} more",
        name=f"{len(parts)} units of work, the largest {first.name}",
        kind=first.kind,
        cgroup="",
        owner=first.owner,
        processes=sum(part.processes for part in parts),
        gpu=sum(part.gpu for part in parts),
        anonymous=sum(part.anonymous for part in parts),
        shared=sum(part.shared for part in parts),
        parts=tuple(parts),
    )


def grounds(victim: Candidate, considered: Iterable[Unit]) -> tuple[Ground, ...]:
    """Why this one and not the others: the victim's units first, then who has taken most."""
    chosen = {unit.key for unit in victim.units}
    ordered = sorted(considered, key=lambda unit: (unit.candidate.key in chosen, unit.taken, unit.held), reverse=True)
    return tuple(
        Ground(
            unit.candidate.key,
            unit.candidate.name,
            unit.held,
            unit.own,
            unit.taken,
            unit.grown,
            unit.candidate.promise,
        )
        for unit in ordered[:MOST_GROUNDS]
    )


def _single(unit: Unit, reason: str) -> Choice:
    return Choice(unit.candidate, reason)


def _size(unit: Unit) -> tuple[int, str]:
    return unit.held, unit.candidate.key


def _latest(unit: Unit) -> tuple[float, int, str]:
    return unit.gained, unit.held, unit.candidate.key
