"""The rules that are compared, each driven as the loop drives the watchdog's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from sparkhost.watchdog import state
from sparkhost.watchdog.decide import decide, interval
from sparkhost.watchdog.model import (
    GIB,
    Candidate,
    DropCache,
    Freeze,
    Helpless,
    Land,
    Look,
    Policy,
    Samples,
    Scan,
    Signal,
    Thaw,
    Wait,
)
from tests.bench.choice.host import Host

MOST_STEPS = 8


class Rule(Protocol):
    """A guard: one look and all that follows. Returns the seconds until the next."""

    freezes: int

    def step(self, host: Host) -> float: ...


@dataclass
class NewGround:
    """The watchdog's own ledger and decision."""

    policy: Policy = field(default_factory=Policy)
    samples: Samples = field(default_factory=lambda: Samples(Look(0.0, 0, 0, 0)))
    freezes: int = 0
    said: list[str] = field(default_factory=list)

    def step(self, host: Host) -> float:
        flight = self.samples.flight
        gone = flight is not None and all(host.is_gone(unit.key) for unit in flight.victim.units)
        self.samples = state.with_look(self.samples, host.look(), self.policy, gone=gone)
        for _ in range(MOST_STEPS):
            action = decide(self.samples, self.policy)
            pause = self._do(action, host)
            if pause is not None:
                return pause
        return self.policy.near

    def _do(self, action: object, host: Host) -> float | None:
        if not isinstance(action, Wait | Scan):
            self.said.append(f"{host.now - 1000:.2f} s, {host.available:.2f} GiB: {told(action)}")
        match action:
            case Wait() | Helpless():
                return action.seconds
            case Scan():
                dead = host.sampler < 0
                age = None if dead else host.now - host.sampled
                self.samples = state.after_scan(
                    self.samples, host.candidates(), self.policy, gpu_age=age, gpu_known=not dead
                )
            case Signal():
                for unit in action.victim.units:
                    host.signal(unit.key, action.stage)
                self.samples = state.after_signal(self.samples, action, host.now)
            case Freeze():
                host.freeze(action.units, True)
                self.freezes += len(action.units)
                self.samples = state.after_freeze(self.samples, action, host.now)
            case Thaw():
                host.freeze(action.units, False)
                self.samples = state.after_thaw(self.samples, action, host.now)
            case Land():
                self.samples = state.after_land(self.samples, action)
                host.forget()
            case DropCache():
                pass
        return None


def told(action: object) -> str:
    """For whoever wants to know why."""
    if not isinstance(action, Signal):
        return str(action)
    grounds = ", ".join(
        f"{ground.name} held {ground.held / GIB:.1f} own {ground.own / GIB:.1f} grown {ground.grown / GIB:.1f}"
        for ground in action.grounds[:5]
    )
    return f"{action.stage} {action.victim.name}: {action.reason} ({grounds})"


@dataclass
class Largest:
    """The largest by some measure: SIGTERM below `term_below`, SIGKILL after `grace` or below `kill_below`."""

    measure: Callable[[Host, Candidate], float]
    policy: Policy = field(default_factory=Policy)
    freezes: int = 0
    victim: Candidate | None = None
    stage: str = ""
    sent: float = 0.0

    def step(self, host: Host) -> float:
        look, policy = host.look(), self.policy
        low, short = look.available < policy.kill_below, look.available < policy.term_below
        if self.victim is not None:
            since = host.now - self.sent
            gone = host.is_gone(self.victim.key)
            if self.stage == "TERM" and not gone and (low or (since >= policy.grace and short)):
                self._send(host, self.victim, "KILL")
            elif (gone and (not short or (since >= 0.25 and look.slope <= 0))) or since >= policy.recovery_wait + (
                policy.grace if self.stage == "TERM" else 0
            ):
                self.victim = None
                host.forget()
        elif short:
            living = [c for c in host.candidates() if not host.is_gone(c.key)]
            if living:
                victim = max(living, key=lambda c: (self.measure(host, c), c.key))
                self._send(host, victim, "KILL" if low else "TERM")
        return policy.near if short or self.victim else interval(look, policy)

    def _send(self, host: Host, victim: Candidate, stage: str) -> None:
        self.victim, self.stage, self.sent = victim, stage, host.now
        host.signal(victim.key, stage)


def resident(host: Host, candidate: Candidate) -> float:
    """What `top` shows of the largest process: file pages count, GPU memory does not."""
    return (candidate.anonymous + candidate.shared) / GIB + host.named(candidate.key).plan.files


def size(host: Host, candidate: Candidate) -> float:
    """GPU, anonymous and shared memory: what the watchdog went by before."""
    return candidate.size


RULES: dict[str, Callable[[Policy], Rule]] = {
    "largest": lambda policy: Largest(size, policy),
    "earlyoom": lambda policy: Largest(resident, policy),
    "new ground": NewGround,
    "new ground, no brake": lambda policy: NewGround(replace(policy, brake="off")),
}
