"""Whom to freeze while memory is short, and whom to let go. Pure.

A frozen cgroup takes no memory, within a millisecond (docs/facts.md). So memory stops falling while it is found out who
took it, and while the victim is still dying. It is looked at whom to freeze when memory gets short, and again for each
FURTHER of `term_below` that it falls; below `kill_below` everybody is but the victim. What is frozen is let go when
memory is back, and after `brake_at_most` in any case.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkhost.watchdog.choice import unit_of
from sparkhost.watchdog.ledger import account_of, leapt, least
from sparkhost.watchdog.model import MIB, Candidate, Freeze, Look, Policy, Samples, Scan, Thaw

# Memory has fallen by a further share of `term_below`: look again at who grows.
FURTHER = 0.05
# Between letting go two that have taken something: whoever makes memory fall again is then known.
APART = 0.25
# What is frozen may be explained by a GPU sample that is younger than the freeze: wait for it so long.
SAMPLE_WAIT = 1.2
# What is done at a look is done after the time that the look has, by less than so many seconds.
LOOK_TAKES = 5.0


def falls(samples: Samples, policy: Policy) -> bool:
    """Whether memory is short, and shorter than when it was last looked at whom to freeze."""
    available, braked = samples.look.available, samples.braked
    if available >= policy.term_below:
        return False
    return braked is None or available <= braked - FURTHER * policy.term_below


def is_braking(samples: Samples, policy: Policy) -> bool:
    """Whether it is time to look at whom to freeze; not in a look in which somebody was let go."""
    if policy.brake == "off" or samples.thawed >= samples.look.time:
        return False
    return falls(samples, policy) or samples.look.available < policy.kill_below


def rises(look: Look, policy: Policy) -> bool:
    """Whether memory comes back, by more than noise."""
    return look.slope > policy.term_below / 256


def is_explained(samples: Samples, policy: Policy) -> bool:
    """Whether what units of work gained makes up half of what is missing since the ledger's first mark."""
    marks = samples.ledger.marks
    if marks is None:
        return True
    fall = marks[0].available - samples.look.available
    return 2 * sum(_leap(samples, candidate) for candidate in samples.candidates or ()) >= fall


def awaits_sample(samples: Samples, policy: Policy) -> bool:
    """Whether all are frozen and a GPU sample that may say who grew is on its way."""
    now, age = samples.look.time, samples.gpu_age
    if age is None or not samples.frozen or is_explained(samples, policy):
        return False
    since = max(frozen.since for frozen in samples.frozen)
    return now - age < since and now - since < SAMPLE_WAIT


def to_freeze(samples: Samples, policy: Policy, spare: Candidate | None) -> Freeze | None:
    """What is to be frozen now, given the candidates. `spare`: a victim, or who is about to be one."""
    look = samples.look
    low = look.available < policy.kill_below
    if not is_braking(samples, policy):
        return None
    units = [c for c in samples.candidates or () if may_freeze(c, policy)]
    if not low and is_explained(samples, policy):
        enough = min(32 * MIB, policy.term_below // 64)
        units = [c for c in units if _leap(samples, c) > enough]
        reason = "memory is short and it grows"
    else:
        reason = "memory is all but gone" if low else "memory is short and it is not known what takes it"
    held = {frozen.cgroup for frozen in samples.frozen} | samples.released
    spared = freezers(spare)
    cgroups = {unit.freezer for c in units for unit in c.units} - {""}
    wanted = {cgroup for cgroup in cgroups if not _is_near(cgroup, spared)} - held
    return Freeze(tuple(sorted(wanted)), reason) if wanted else None


def may_freeze(candidate: Candidate, policy: Policy) -> bool:
    if candidate.protected or not any(unit.freezer for unit in candidate.units):
        return False
    return policy.brake == "all" or candidate.kind in ("job", "container")


def to_thaw(samples: Samples, policy: Policy) -> Thaw | Scan | None:
    """Who is to go on now: the victim, and what memory or time allow."""
    frozen, look, flight = samples.frozen, samples.look, samples.flight
    if not frozen:
        return None
    if policy.brake == "off":
        return Thaw(tuple(f.cgroup for f in frozen), "the brake is off")
    victims = freezers(flight.victim if flight else None)
    if theirs := [f.cgroup for f in frozen if _is_near(f.cgroup, victims)]:
        return Thaw(tuple(theirs), "it is asked to end")
    if due := expired(samples, policy):
        return Thaw(due, "it was stopped for as long as may be", late=True)
    if look.available < policy.term_below or look.time - samples.thawed < APART:
        return None
    return Scan() if samples.candidates is None else _back(samples, policy)


def expired(samples: Samples, policy: Policy) -> tuple[str, ...]:
    """What has been frozen for as long as may be. A time well after the look's is one of another boot."""
    now = samples.look.time
    return tuple(f.cgroup for f in samples.frozen if not -LOOK_TAKES <= now - f.since < policy.brake_at_most)


def until_thaw(samples: Samples, policy: Policy) -> float:
    """Seconds until somebody is to be looked after who is frozen."""
    oldest = min(frozen.since for frozen in samples.frozen)
    return min(APART, oldest + policy.brake_at_most - samples.look.time)


def _back(samples: Samples, policy: Policy) -> Thaw:
    """Memory is back: who has taken nothing goes on at once, the others one after the other, who took least first."""
    reason = "memory is back"
    taken: dict[str, int] = dict.fromkeys((f.cgroup for f in samples.frozen), 0)
    for candidate in samples.candidates or ():
        for cgroup in {unit.freezer for unit in candidate.units} & taken.keys():
            taken[cgroup] += unit_of(samples, candidate, policy).taken
    if innocent := [cgroup for cgroup, size in taken.items() if size < least(policy)]:
        return Thaw(tuple(innocent), reason)
    return Thaw((min(taken, key=lambda cgroup: (taken[cgroup], cgroup)),), reason)


def freezers(victim: Candidate | None) -> frozenset[str]:
    """The cgroups that must not be frozen for a victim to act."""
    if victim is None:
        return frozenset()
    return frozenset(unit.freezer or unit.cgroup for unit in victim.units) - {"", "/"}


def _is_near(cgroup: str, others: Iterable[str]) -> bool:
    """Whether one of the others is this cgroup, above it, or below it."""
    return any(f"{cgroup}/".startswith(f"{other}/") or other.startswith(f"{cgroup}/") for other in others)


def _leap(samples: Samples, candidate: Candidate) -> int:
    account, share = account_of(samples.ledger.accounts, candidate)
    return candidate.size if account is None else int(leapt(account) * share)
