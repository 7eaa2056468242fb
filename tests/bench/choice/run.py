"""Runs scenarios under rules, and judges who was ended."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkhost.watchdog.model import Policy
from tests.bench.choice.host import Host, Plan, plans
from tests.bench.choice.rules import RULES

DATA = Path(__file__).with_name("scenarios.toml")
# Seconds of a step of the host while memory is short, while it will be soon, and while there is plenty.
SHORT, SOON, PLENTY = 0.05, 0.25, 1.0
TERM_BELOW = Policy().term_below / 2**30


@dataclass
class Scenario:
    """What happens, and who may be ended."""

    id: str
    what: str
    may: list[str]
    unit: list[dict[str, Any]]
    optional: bool = False
    most: int = 0
    hour: bool = True
    sampler: float = 1.0
    until: float = 4100.0


@dataclass
class Result:
    """What a rule made of it."""

    scenario: Scenario
    ended: list[str] = field(default_factory=list)
    lost: bool = False
    lowest: float = 1.0
    """MemAvailable at its least, as a share of `term_below`, once it was short."""
    freezes: int = 0
    paused: float = 0.0
    """Seconds, summed over units."""
    longest: float = 0.0
    """Seconds for which one unit was paused at a stretch."""

    @property
    def innocents(self) -> int:
        return sum(name not in self.scenario.may for name in self.ended)

    @property
    def is_right(self) -> bool:
        scenario = self.scenario
        most = scenario.most or len(scenario.may)
        enough = bool(self.ended) or scenario.optional or not scenario.may or self.lowest >= 1
        return enough and not self.lost and not self.innocents and len(self.ended) <= most


def scenarios() -> Iterator[Scenario]:
    for raw in tomllib.loads(DATA.read_text(encoding="utf-8"))["scenario"]:
        yield Scenario(**raw)


def run(scenario: Scenario, rule: str, policy: Policy | None = None) -> Result:
    """One scenario under one rule."""
    host = Host(plans(scenario.unit), scenario.sampler)
    guard = RULES[rule](policy or Policy())
    result = Result(scenario)
    end = host.now + scenario.until
    while host.now < end and not host.lost:
        pause = guard.step(host)
        while pause > 1e-9 and not host.lost:
            step = min(pause, pace(host))
            host.step(step)
            pause -= step
        result.lowest = min(result.lowest, max(host.available, 0.0) / TERM_BELOW)
    result.ended, result.lost = host.ended, host.lost
    result.freezes, result.paused, result.longest = guard.freezes, host.paused, host.longest
    return result


def pace(host: Host) -> float:
    """Seconds within which nothing is missed."""
    if host.available > 2 * TERM_BELOW:
        return PLENTY
    return SOON if host.available > 1.4 * TERM_BELOW else SHORT


__all__ = ["Plan", "Result", "Scenario", "run", "scenarios"]
