"""What becomes of the samples: with another look, and after an action has been carried out. Pure.

The loop does what `decide` says and asks here what is then known; so does whoever simulates it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sparkhost.watchdog.brake import falls
from sparkhost.watchdog.ledger import advance, party
from sparkhost.watchdog.model import Candidate, Flight, Freeze, Frozen, Land, Look, Policy, Samples, Signal, Thaw


def with_look(samples: Samples, look: Look, policy: Policy, *, gone: bool = False) -> Samples:
    """At another look. `gone`: whether the victim in flight has no process left."""
    short = look.available < policy.term_below
    flight = samples.flight
    if flight is not None and flight.gone is None and gone:
        flight = replace(flight, gone=look.time)
    # What the last look showed has been acted on by now.
    braked = samples.look.available if falls(samples, policy) else samples.braked
    over = not short and flight is None
    return replace(
        samples,
        look=look,
        candidates=None,
        flight=flight,
        spent=frozenset() if over else samples.spent,
        doubted=frozenset() if over else samples.doubted,
        released=frozenset() if over and not samples.frozen else samples.released,
        futile=samples.futile if short else 0,
        braked=braked if short else None,
    )


def after_scan(
    samples: Samples,
    candidates: Iterable[Candidate],
    policy: Policy,
    *,
    gpu_age: float | None = None,
    gpu_known: bool = True,
) -> Samples:
    """The candidates have been listed.

    Args:
        gpu_age: seconds since the GPU sample that they were listed with; None: with none.
        gpu_known: False where GPU memory counts and there is no sample of it.
    """
    listed = tuple(candidates)
    ledger = advance(samples.ledger, samples.look, listed, policy, gpu_known=gpu_known)
    return replace(samples, candidates=listed, ledger=ledger, gpu_age=gpu_age)


def after_signal(samples: Samples, action: Signal, now: float) -> Samples:
    """The signal has been sent. `now`: when, by the clock of the looks."""
    flight = samples.flight
    first = samples.look.available if flight is None else flight.available
    grounds = action.grounds or (flight.grounds if flight else ())
    sent = Flight(action.victim, action.stage, now, first, grounds=grounds, always=action.always)
    return replace(samples, flight=sent)


def after_land(samples: Samples, action: Land, *, dry: bool = False) -> Samples:
    """The flight is over. Who would not go or gave nothing back is not tried again, nor is a dry run's victim."""
    flight, look = samples.flight, samples.look
    if flight is None:
        return samples
    stuck = flight.gone is None and flight.stage == "KILL"
    parts = flight.victim.units
    tried = {flight.victim.key, *(part.key for part in parts)} if stuck or dry or not action.helped else set()
    return replace(
        samples,
        # The fall before belongs to the one that is gone: it must not be held against whoever is left.
        look=replace(look, slope=0.0),
        flight=None,
        spent=samples.spent | tried,
        doubted=samples.doubted if action.helped else samples.doubted | {party(part) for part in parts},
        futile=0 if action.helped else samples.futile + 1,
        futile_since=look.time,
    )


def after_freeze(samples: Samples, action: Freeze, now: float) -> Samples:
    """They are frozen, or gone; for what could not be frozen, use `replace`."""
    new = tuple(Frozen(cgroup, now, action.reason) for cgroup in action.units)
    return replace(samples, frozen=samples.frozen + new)


def after_thaw(samples: Samples, action: Thaw, now: float) -> Samples:
    return replace(
        samples,
        frozen=tuple(frozen for frozen in samples.frozen if frozen.cgroup not in action.units),
        released=samples.released | set(action.units) if action.late else samples.released,
        thawed=now,
    )
