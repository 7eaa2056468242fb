"""A simulated host: units of work that take memory by a plan, and what signals and freezing do to them.

Sizes in GiB here, in bytes where the watchdog's own values are made. Nothing of it is a measurement of a host: releases
and the freeze are as measured on a machine with a GPU (docs/facts.md), and who takes what when is a scenario's.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from sparkhost.watchdog.model import GIB, Candidate, Kind, Look, Member

TOTAL = 120.0
# What the system itself uses.
SYSTEM = 4.0
# GiB per second that come back when a unit dies, and seconds until they begin to.
RELEASE = {"cpu": (24.0, 0.05), "gpu": (12.0, 0.15), "shared": (24.0, 0.05), "hidden": (24.0, 0.05)}


@dataclass
class Plan:
    """A unit of work of a scenario."""

    n: str
    use: list[list[float]]
    """Points of time since its start and GiB held, joined by lines; the last one stays."""
    at: float = 0.0
    every: float = 0.0
    """Seconds after which the plan begins anew; 0: never."""
    then: float = 0.0
    """From which point of time on it is repeated."""
    mem: str = "cpu"
    """Or `gpu` (seen by the sampler only), `shared`, `hidden` (no process shows it)."""
    host: float = 0.5
    """GiB of ordinary memory that come with it where `mem` is `gpu` or `hidden`."""
    owner: int = 1001
    kind: Kind = "job"
    promise: float = 0.0
    obey: float = 1.0
    """Seconds from SIGTERM to its end; negative: it ignores it."""
    release: float = 0.0
    """GiB per second that come back; 0: as RELEASE says."""
    keeps: bool = False
    """What it holds stays when it is gone (a file in a tmpfs)."""
    restart: float = 0.0
    """Seconds after which it is started anew when it was ended; 0: never."""
    ends: float = 0.0
    """Seconds after which it ends by itself; 0: never."""
    leaves: float = 0.0
    """GiB that nobody holds after its end."""
    files: float = 0.0
    """GiB of file pages or of others' shared memory that it maps: memory for `top`, none that it took."""
    count: int = 1
    apart: float = 0.0
    """So many of them, so many seconds apart."""
    still: float = 0.0
    """Seconds for which it stands still after it was let go."""
    seems: float = 0.0
    """GiB of shared memory that it seems to hold and does not."""
    freezer: bool = True
    """Whether it is in a cgroup that can be frozen alone."""


@dataclass
class Unit:
    """A unit of work as it runs."""

    plan: Plan
    name: str
    number: int
    starts: float
    clock: float = 0.0
    """Seconds that it has run, without those in which it was frozen."""
    frozen: bool = False
    asked: float | None = None
    killed: float | None = None
    held: float = 0.0
    instance: int = 0
    running: bool = False
    pause: float = 0.0
    """Since when it has been frozen, in seconds."""
    still: float = 0.0
    """How long it stands still yet."""
    sampled: float = 0.0
    """GPU memory in the sampler's last sample."""
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.times = [point[0] for point in self.plan.use]

    def wanted(self) -> float:
        plan, clock = self.plan, self.clock
        if plan.every and clock > plan.then:
            clock = plan.then + (clock - plan.then) % plan.every
        index = bisect_right(self.times, clock)
        if index == 0:
            return plan.use[0][1]
        if index == len(plan.use):
            return plan.use[-1][1]
        (t0, v0), (t1, v1) = plan.use[index - 1], plan.use[index]
        return v0 + (v1 - v0) * (clock - t0) / (t1 - t0)


class Host:
    """All units, and what is seen of them."""

    def __init__(self, units: list[Plan], sampler: float = 1.0) -> None:
        self.now = 1000.0
        self.units: list[Unit] = []
        for plan in units:
            for index in range(plan.count):
                name = plan.n if plan.count == 1 else f"{plan.n}-{index}"
                starts = self.now + plan.at + index * plan.apart
                self.units.append(Unit(plan, name, len(self.units) + 1, starts))
        self.sampler = sampler
        """Seconds between two samples of GPU memory; negative: it is dead."""
        self.sampled = self.now
        self.nobodys = 0.0
        self.lost = False
        self.paused = self.longest = 0.0
        self.ended: list[str] = []
        self._seen: list[tuple[float, float]] = []

    @property
    def available(self) -> float:
        return TOTAL - SYSTEM - self.nobodys - sum(unit.held for unit in self.units)

    def step(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds
        for unit in self.units:
            self._live(unit, seconds)
        if self.sampler >= 0 and self.now - self.sampled >= self.sampler:
            self.sampled = self.now
            for unit in self.units:
                unit.sampled = unit.held if unit.plan.mem == "gpu" else 0.0
        self.lost = self.lost or self.available <= 0

    def _live(self, unit: Unit, seconds: float) -> None:
        plan = unit.plan
        if unit.killed is not None:
            self._die(unit, seconds)
        elif not unit.running:
            if self.now >= unit.starts:
                unit.running, unit.clock, unit.instance = True, 0.0, int(self.now * 100)
        elif unit.frozen:
            self.paused += seconds
            unit.pause += seconds
            self.longest = max(self.longest, unit.pause)
            unit.still = plan.still
        elif unit.still > 0:
            unit.still -= seconds
        else:
            unit.clock += seconds
            unit.held = unit.wanted()
            obeys = unit.asked is not None and plan.obey >= 0 and self.now - unit.asked >= plan.obey
            if obeys or (plan.ends and unit.clock >= plan.ends):
                unit.killed = self.now

    def _die(self, unit: Unit, seconds: float) -> None:
        plan, since = unit.plan, self.now - (unit.killed or 0.0)
        rate, delay = RELEASE[plan.mem]
        if since < delay:
            return
        freed = min(unit.held, (plan.release or rate) * seconds)
        unit.held -= freed
        if plan.keeps:
            self.nobodys += freed
        if unit.held <= 0:
            self.nobodys += plan.leaves if unit.running else 0.0
            unit.running = False
            if plan.restart:
                unit.killed = unit.asked = None
                unit.starts = self.now + plan.restart

    def look(self) -> Look:
        available = self.available
        slope = 0.0
        for then, was in reversed(self._seen):
            if self.now > then:
                slope = (available - was) / (self.now - then)
            if self.now - then >= 0.2:
                break
        self._seen = [*self._seen[-63:], (self.now, available)]
        size = max(int(available * GIB), 0)
        return Look(self.now, int(TOTAL * GIB), size, size, slope * GIB)

    def forget(self) -> None:
        self._seen.clear()

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(map(self._candidate, filter(lambda unit: unit.running, self.units)))

    def _candidate(self, unit: Unit) -> Candidate:
        plan = unit.plan
        separate = plan.mem in ("gpu", "hidden")
        gpu = unit.sampled if plan.mem == "gpu" and self.sampler >= 0 else 0.0
        anonymous = min(plan.host, unit.held) if separate else unit.held if plan.mem == "cpu" else 0.0
        shared = plan.seems + (unit.held if plan.mem == "shared" else 0.0)
        return Candidate(
            key=unit.name,
            name=unit.name,
            kind=plan.kind,
            cgroup=f"/{unit.name}",
            owner=plan.owner,
            processes=1,
            first=Member(unit.number, unit.instance),
            promise=int(plan.promise * GIB) if plan.promise else None,
            freezer=f"/{unit.name}" if plan.freezer else "",
            gpu=int(gpu * GIB),
            anonymous=int(anonymous * GIB),
            shared=int(shared * GIB),
        )

    def named(self, key: str) -> Unit:
        return next(unit for unit in self.units if unit.name == key)

    def signal(self, key: str, stage: str) -> None:
        unit = self.named(key)
        if not unit.running or unit.killed is not None:
            return
        if unit.asked is None:
            self.ended.append(unit.plan.n)
        unit.asked = self.now if unit.asked is None else unit.asked
        if stage == "KILL":
            unit.killed = self.now

    def freeze(self, cgroups: tuple[str, ...], frozen: bool) -> None:
        for cgroup in cgroups:
            unit = self.named(cgroup.strip("/"))
            unit.frozen, unit.pause = frozen, 0.0

    def is_gone(self, key: str) -> bool:
        """Whether it has no process: its memory may take longer."""
        unit = self.named(key)
        return not unit.running or (unit.killed is not None and self.now - unit.killed >= 0.1)


def plans(raw: list[dict[str, Any]]) -> list[Plan]:
    return [Plan(**one) for one in raw]
