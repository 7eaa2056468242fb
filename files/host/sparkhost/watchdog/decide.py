"""The decision: pure, so that it can be tested for every input, fuzzed, and replayed from a recorded trace."""

from __future__ import annotations

from collections.abc import Iterable

from sparkhost.watchdog.model import (
    MIB,
    Action,
    Candidate,
    DropCache,
    Flight,
    Helpless,
    Land,
    Look,
    Policy,
    Samples,
    Scan,
    Signal,
    Wait,
)

# A victim is gone, and so long after memory still does not rise: it has given back what it had.
SETTLE = 0.25
# After so many victims in a row that gave nothing back, killing is not the answer.
MOST_FUTILE = 3
# Seconds between two tries from then on, doubled by each that is in vain.
LONGEST_BACKOFF = 60.0
# While memory is short and there is nobody to end, listing everybody again and again would only add to the load.
IDLE = 0.25
# Waits for memory of this share make the looks frequent before the threshold is near.
STALLING = 0.1


def decide(samples: Samples, policy: Policy) -> Action:
    """What to do now.

    Holds for every input (tests/unit/test_watchdog_decide.py): a protected candidate is never a victim; no KILL while
    MemAvailable is at or above `term_below`; below `kill_below` with a candidate there is always an action, unless a
    victim has been in flight for less than `recovery_wait`; TERM comes before KILL unless below `kill_below`; there is
    no second victim while the first one is still releasing.
    """
    look = samples.look
    if samples.flight is not None:
        return in_flight(samples, samples.flight, policy)
    pause = interval(look, policy)
    short = look.available < policy.term_below
    if not short and look.available - min(-look.slope, policy.fastest_fill) * pause >= policy.term_below:
        return calm(samples, policy, pause)  # a jump (one large allocation) is no rate at which it goes on
    if samples.futile >= MOST_FUTILE:
        resume = samples.futile_since + backoff(samples.futile, policy)
        if look.time < resume:
            return Helpless(f"ending {samples.futile} units of work gave no memory back", IDLE)
    if samples.candidates is None:
        return Scan()
    low = look.available < policy.kill_below
    victim = choose(samples, policy, desperate=low)
    if victim is None:
        reason = "there is no unit of work left that may be ended"
        return Helpless(reason, IDLE) if short else Wait(max(pause, IDLE))
    if low:
        return Signal("KILL", victim, "MemAvailable is below kill_below")
    if short:
        return Signal("TERM", victim, "MemAvailable is below term_below")
    return Signal("TERM", victim, "MemAvailable falls so fast that it is below term_below before the next look")


def in_flight(samples: Samples, flight: Flight, policy: Policy) -> Action:
    """A victim has been signalled: wait for it, kill it, or give it up."""
    look = samples.look
    recovered = look.available >= policy.term_below
    low = look.available < policy.kill_below
    if flight.gone is not None:
        if recovered:
            return Land(True)
        # The driver may hold memory for a while after the process has gone.
        since = look.time - flight.gone
        if since >= policy.recovery_wait or (since >= SETTLE and look.slope <= 0):
            return Land(gave_back(flight, look))
        return Wait(policy.near)
    since = look.time - flight.sent
    if flight.stage == "TERM":
        if low:
            return Signal("KILL", flight.victim, "MemAvailable fell below kill_below during the grace period")
        if since < policy.grace:
            return Wait(policy.near)
        if recovered:
            return Land(True)
        return Signal("KILL", flight.victim, "it had not ended when the grace period was over")
    if since < policy.recovery_wait:
        return Wait(policy.near)
    if recovered:
        return Land(True)
    # A dying process frees its memory piece by piece, for as long as the driver takes.
    if not low and look.slope > 0 and since < 4 * policy.recovery_wait:
        return Wait(policy.near)
    return Land(False)


def gave_back(flight: Flight, look: Look) -> bool:
    """Whether MemAvailable rose by a good part of what the victim was said to hold."""
    return look.available - flight.available >= max(flight.victim.size // 4, MIB)


def calm(samples: Samples, policy: Policy, pause: float) -> Action:
    """Memory is fine. CUDA wants free pages, though, and page cache is none (facts: cudaMemGetInfo excludes it)."""
    look = samples.look
    due = samples.dropped is None or look.time - samples.dropped >= policy.drop_every
    if policy.drop_page_cache and due and look.free < policy.drop_free_below:
        return DropCache()
    return Wait(pause)


def interval(look: Look, policy: Policy) -> float:
    """Seconds until the next look: half of the time in which the fastest fill could reach `term_below`."""
    rate = max(float(policy.fastest_fill), -2 * look.slope)
    pause = (look.available - policy.term_below) / rate / 2
    farthest = min(policy.far, 5 * policy.near) if look.stall >= STALLING else policy.far
    return max(policy.near, min(pause, farthest))


def backoff(futile: int, policy: Policy) -> float:
    return min(policy.recovery_wait * 2.0 ** min(futile - MOST_FUTILE, 16), LONGEST_BACKOFF)


def choose(samples: Samples, policy: Policy, desperate: bool) -> Candidate | None:
    """The victim, or None. `desperate`: below `kill_below`, where small ones count too."""
    ranked = [
        (rank, candidate)
        for candidate in samples.candidates or ()
        if candidate.key not in samples.spent
        and (rank := rank_of(candidate, policy)) is not None
        and (desperate or rank <= AVOIDED)
    ]
    if not ranked:
        return None
    best = min(rank for rank, _ in ranked)
    victim = max((c for rank, c in ranked if rank == best), key=lambda c: (c.size, c.key))
    if desperate and victim.kind == "session" and not victim.alone:
        missing = policy.term_below - samples.look.available
        return swarm(victim, [c for rank, c in ranked if rank in (WORK, SMALL)], missing)
    return victim


PREFERRED, WORK, SYSTEM, AVOIDED, SMALL = range(5)


def rank_of(candidate: Candidate, policy: Policy) -> int | None:
    """Whose turn it is, lower first; None: never."""
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


def swarm(victim: Candidate, others: Iterable[Candidate], missing: int) -> Candidate:
    """The victim, with the work beside it in the same session where it alone is too small: many small hogs.

    Only where together they hold at least twice as much as the largest does: one at a time, each with its wait, would
    come too late.
    """
    if victim.size >= missing:
        return victim
    beside = [c for c in others if c.cgroup == victim.cgroup and c.owner == victim.owner and not c.alone]
    total = sum(c.size for c in beside)
    if len(beside) < 2 or total < 2 * victim.size:
        return victim
    return Candidate(
        key=f"{victim.cgroup}:all of {victim.owner}",
        name=f"{len(beside)} units of work, the largest {victim.name}",
        kind=victim.kind,
        cgroup=victim.cgroup,
        roots=tuple(root for c in beside for root in c.roots),
        owner=victim.owner,
        processes=sum(c.processes for c in beside),
        gpu=sum(c.gpu for c in beside),
        anonymous=sum(c.anonymous for c in beside),
        shared=sum(c.shared for c in beside),
    )
