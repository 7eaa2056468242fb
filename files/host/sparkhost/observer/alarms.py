"""What is warned of, and since when: only what has lasted, told once, and told again when it is over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

LASTS = {"at_once": 30.0, "unaccounted": 60.0, "orphan": 60.0, "heat": 20.0}
"""Seconds that it must have been so: the driver may take 16 s to give back what a killed job held."""
AGAIN = 3600.0
"""Seconds before the same is told again that has come and gone."""
MOST = 32
TOLD = 256


class Alarm(NamedTuple):
    """A warning. `about`: what tells it from others of its kind."""

    kind: str
    about: str
    text: str
    remedy: str

    @property
    def line(self) -> str:
        """Both sentences, without anything that a terminal acts on: names are chosen by their owners."""
        return "".join(c if c.isprintable() else "?" for c in f"{self.text}: {self.remedy}")


@dataclass
class Alarms:
    """Which alarms hold. Times in seconds of one clock."""

    since: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each was seen first, of those that were seen at every look since."""
    _told: dict[tuple[str, str], float] = field(default_factory=dict)
    _held: dict[tuple[str, str], Alarm] = field(default_factory=dict)

    def update(self, now: float, found: Iterable[Alarm]) -> tuple[list[Alarm], list[Alarm], list[Alarm]]:
        """Those that hold now, those of them to tell, and those that are over."""
        seen = {(alarm.kind, alarm.about): alarm for alarm in list(found)[:MOST]}
        self.since = {key: self.since.get(key, now) for key in seen}
        held = {key: alarm for key, alarm in seen.items() if now - self.since[key] >= LASTS.get(alarm.kind, 0.0)}
        over = [alarm for key, alarm in self._held.items() if key not in held]
        new = [key for key in held if key not in self._held and now - self._told.get(key, -AGAIN) >= AGAIN]
        self._held = held
        for key in new:
            self._told.pop(key, None)
            self._told[key] = now
        while len(self._told) > TOLD:
            del self._told[next(iter(self._told))]
        return list(held.values()), [held[key] for key in new], over
