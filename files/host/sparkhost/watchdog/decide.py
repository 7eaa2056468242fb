"""The decision: pure, so that it can be tested for every input, fuzzed, and replayed from a recorded trace.

Whom to end is chosen in choice.py, from what the ledger (ledger.py) knows; whom to freeze meanwhile in brake.py; what
becomes of the samples then in state.py. Here is when.
"""

from __future__ import annotations

from dataclasses import replace

from sparkhost.watchdog.brake import (
    awaits_sample,
    expired,
    is_braking,
    is_explained,
    rises,
    to_freeze,
    to_thaw,
    until_thaw,
)
from sparkhost.watchdog.choice import AVOIDED, Choice, Level, choose, grounds, level_of, rank_of, unit_of
from sparkhost.watchdog.ledger import is_due
from sparkhost.watchdog.model import (
    MIB,
    Action,
    DropCache,
    Flight,
    Helpless,
    Land,
    Look,
    Policy,
    Samples,
    Scan,
    Signal,
    Stage,
    Thaw,
    Wait,
)

# A victim is gone, and so long after memory still does not rise: it has given back what it had.
SETTLE = 0.25
# Everybody was tried, so many of them in vain: seconds between two tries are doubled from then on.
MOST_FUTILE = 3
LONGEST_BACKOFF = 60.0
# While memory is short, listing everybody again and again would only add to the load.
IDLE = 0.25
# Waits for memory of this share make the looks frequent before the threshold is near.
STALLING = 0.1
# Who has been asked to end and takes this share of `term_below` more saves nothing: its grace is over.
FORFEIT = 0.1
# Seconds beyond a promise after which work is ended with `over_promise: end`, and those that it is then given.
OVER_FOR, OVER_GRACE = 3.0, 1.0


def decide(samples: Samples, policy: Policy) -> Action:
    """What to do now.

    Holds for every input (tests/unit/test_watchdog_decide.py): a protected candidate is never a victim, and never
    frozen; no KILL while MemAvailable is at or above `term_below`, but for a promise that `over_promise: end` holds;
    below `kill_below`, while there is a candidate that was not tried since memory last recovered, it is signalled,
    unless a victim has been in flight for less than `recovery_wait`; TERM comes before KILL unless below `kill_below`;
    there is no second victim while the first one is still releasing; what is frozen is let go on every path.
    """
    action = next_of_frozen(samples, policy) or to_thaw(samples, policy) or next_step(samples, policy)
    if samples.frozen and isinstance(action, Wait | Helpless):
        return replace(action, seconds=min(action.seconds, max(policy.near, until_thaw(samples, policy))))
    return action


def next_step(samples: Samples, policy: Policy) -> Action:
    """As if nobody were frozen."""
    if samples.flight is not None:
        action = in_flight(samples, samples.flight, policy)
        return hold_others(samples, samples.flight, policy) or action if isinstance(action, Wait) else action
    if samples.look.available < policy.term_below:
        return short(samples, policy)
    return plenty(samples, policy)


def short(samples: Samples, policy: Policy) -> Action:
    """Memory is short and nobody is on the way out: who shall be, and who waits meanwhile?"""
    look, level = samples.look, level_of(samples.look, policy)
    if samples.candidates is None:
        sampled = samples.ledger.time
        fresh = sampled is not None and 0 <= look.time - sampled < IDLE
        return Wait(policy.near) if fresh and level < Level.LAST and not is_braking(samples, policy) else Scan()
    choice = choose(samples, policy, level)
    known = is_explained(samples, policy)
    if choice is not None or (not known and samples.gpu_age is not None):
        freeze = to_freeze(samples, policy, choice.victim if choice and (known or level == Level.LAST) else None)
        if freeze is not None:
            return freeze
    if level < Level.LAST and awaits_sample(samples, policy):
        return Wait(policy.near)
    if choice is not None:
        return signal(choice, level, f"MemAvailable is below {'kill' if level == Level.LAST else 'term'}_below")
    return nobody(samples, policy, level)


def nobody(samples: Samples, policy: Policy, level: Level) -> Action:
    """Memory is short, and nobody may be ended yet, or nobody is left."""
    look = samples.look
    if level == Level.LAST and samples.spent:
        if look.time < samples.futile_since + backoff(samples.futile, policy):
            return Helpless(f"ending {samples.futile} units of work gave no memory back", IDLE)
        choice = choose(samples, policy, level, again=True)
        if choice is not None:
            return signal(choice, level, "everybody else was tried in vain")
    if samples.frozen:
        return Thaw(tuple(f.cgroup for f in samples.frozen), "nobody has taken what is missing")
    ranks = [rank_of(c, policy) for c in samples.candidates or () if c.key not in samples.spent]
    if any(rank is not None and rank <= AVOIDED for rank in ranks):
        return Wait(policy.near)  # a dip: it may recover by itself, and is looked at closely
    return Helpless("there is no unit of work left that may be ended", IDLE)


def signal(choice: Choice, level: Level, when: str) -> Signal:
    stage: Stage = "KILL" if level == Level.LAST else "TERM"
    return Signal(stage, choice.victim, f"{when}, and {choice.reason}", choice.grounds)


def plenty(samples: Samples, policy: Policy) -> Action:
    """There is memory: samples for the ledger, a promise that is to be kept, and what falls too fast for the brake."""
    look, pause = samples.look, interval(samples.look, policy)
    # A jump (one large allocation) is no rate at which it goes on.
    falling = look.available - min(-look.slope, policy.fastest_fill) * pause < policy.term_below
    if samples.candidates is None:
        return Scan() if falling or is_due(samples.ledger, look, policy) else calm(samples, policy, pause)
    breach = beyond_promise(samples, policy)
    if breach is not None:
        return breach
    if not falling:
        return calm(samples, policy, pause)
    choice = choose(samples, policy, Level.SOFT)
    if choice is None:
        return Wait(max(pause, policy.near))
    if policy.brake != "off" and all(unit.freezer for unit in choice.victim.units):
        return Wait(pause)  # a freeze needs no lead, and knows more
    return signal(choice, Level.SOFT, "MemAvailable falls so fast that it is below term_below before the next look")


def beyond_promise(samples: Samples, policy: Policy) -> Signal | None:
    """With `over_promise: end`, whoever has been beyond its promise for long enough."""
    if policy.over_promise != "end":
        return None
    for candidate in samples.candidates or ():
        account = samples.ledger.accounts.get(candidate.key)
        if account is None or account.over_since is None or samples.look.time - account.over_since < OVER_FOR:
            continue
        if rank_of(candidate, policy) is not None and candidate.key not in samples.spent:
            why = grounds(candidate, [unit_of(samples, candidate, policy)])
            return Signal("TERM", candidate, "it is beyond what it was promised", why, always=True)
    return None


def next_of_frozen(samples: Samples, policy: Policy) -> Action | None:
    """Some have been frozen for as long as may be, and nothing comes back: the next victim is one of them.

    Rather than all of them run into the wall.
    """
    look, flight = samples.look, samples.flight
    due = expired(samples, policy)
    if not due or look.available >= policy.term_below or rises(look, policy) or policy.brake == "off":
        return None
    if flight is not None:
        since = look.time - max(flight.sent, flight.gone or flight.sent)
        if flight.gone is None and flight.stage == "TERM":
            late = since >= policy.brake_at_most / 2
            return kill(flight, "others have waited for it for as long as may be") if late else None
        return Land(gave_back(flight, look)) if since >= policy.recovery_wait else None
    if samples.candidates is None:
        return Scan()
    level = level_of(look, policy)
    choice = choose(samples, policy, level, among=due)
    return None if choice is None else signal(choice, level, "MemAvailable has not come back")


def hold_others(samples: Samples, flight: Flight, policy: Policy) -> Action | None:
    """The victim is still dying and memory falls: what else grows is frozen."""
    if not is_braking(samples, policy):
        return None
    if samples.candidates is None:
        sampled = samples.ledger.time
        return None if sampled is not None and 0 <= samples.look.time - sampled < policy.near else Scan()
    if flight.stage == "TERM" and flight.gone is None and has_forfeited(samples, flight, policy):
        return kill(flight, "it went on growing after it was asked to end")
    return to_freeze(samples, policy, flight.victim)


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
        return asked(samples, flight, policy)
    if since < policy.recovery_wait:
        return Wait(policy.near)
    if recovered:
        return Land(True)
    # A dying process frees its memory piece by piece, for as long as the driver takes.
    if not low and look.slope > 0 and since < 4 * policy.recovery_wait:
        return Wait(policy.near)
    return Land(False)


def asked(samples: Samples, flight: Flight, policy: Policy) -> Action:
    """It has been asked to end, and is still there."""
    look, since = samples.look, samples.look.time - flight.sent
    recovered = look.available >= policy.term_below
    if look.available < policy.kill_below:
        return kill(flight, "MemAvailable fell below kill_below during the grace period")
    if flight.always and since >= min(policy.grace, OVER_GRACE):
        return kill(flight, "it is still there, and beyond what it was promised")
    if not recovered and since < policy.grace and has_forfeited(samples, flight, policy):
        return kill(flight, "MemAvailable fell further after it was asked to end")
    if since < policy.grace:
        return Wait(policy.near / 4 if since < SETTLE and not recovered else policy.near)
    return Land(True) if recovered else kill(flight, "it had not ended when the grace period was over")


def has_forfeited(samples: Samples, flight: Flight, policy: Policy) -> bool:
    """Whether who was asked to end took so much more that it saves nothing.

    By MemAvailable, which has then fallen below 0.9 of `term_below` (where it was there already, by half as much) or
    will have before another look; and by what the victim holds, where it has just been listed.
    """
    look, enough = samples.look, FORFEIT * policy.term_below
    lost, since = flight.available - look.available, max(look.time - flight.sent, policy.near / 4)
    next_look = look.available - max(0.0, lost / since) * policy.near
    if next_look < min(policy.term_below - enough, flight.available - enough / 2) and lost > 0:
        return True
    keys = {unit.key for unit in flight.victim.units}
    held = sum(candidate.size for candidate in samples.candidates or () if candidate.key in keys)
    return held - flight.victim.size > enough


def kill(flight: Flight, reason: str) -> Signal:
    return Signal("KILL", flight.victim, reason, flight.grounds, flight.always)


def gave_back(flight: Flight, look: Look) -> bool:
    """Whether MemAvailable rose by a good part of what the victim was said to hold."""
    return look.available - flight.available >= max(flight.victim.size // 4, MIB)


def calm(samples: Samples, policy: Policy, pause: float) -> Action:
    """Memory is fine. CUDA wants free pages, though, and page cache is none (facts: cudaMemGetInfo excludes it)."""
    look = samples.look
    due = samples.dropped is None or look.time - samples.dropped >= policy.drop_every
    if policy.drop_page_cache and due and look.free < policy.drop_free_below:
        return DropCache()
    if samples.ledger.promises and policy.over_promise == "end":
        pause = min(pause, IDLE if samples.ledger.over else 2 * IDLE)
    return Wait(pause)


def interval(look: Look, policy: Policy) -> float:
    """Seconds until the next look: half of the time in which the fastest fill could reach `term_below`."""
    rate = max(float(policy.fastest_fill), -2 * look.slope)
    pause = (look.available - policy.term_below) / rate / 2
    farthest = min(policy.far, 5 * policy.near) if look.stall >= STALLING else policy.far
    return max(policy.near, min(pause, farthest))


def backoff(futile: int, policy: Policy) -> float:
    return min(policy.recovery_wait * 2.0 ** min(max(futile - MOST_FUTILE, 0), 16), LONGEST_BACKOFF)
