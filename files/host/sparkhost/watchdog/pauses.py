"""Whose work stands still, since when: for those who are told of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sparkhost.watchdog.freezer import Freezer
from sparkhost.watchdog.model import Candidate

# Names of units in a record; a user may have hundreds.
MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Pause:
    """A cgroup that stands still."""

    since: float
    owner: int
    names: tuple[str, ...]
    """Of the units of work in it, the largest first."""


class Pauses:
    """Freezes and thaws, and knows who is behind a cgroup. `pretend`: says so, and freezes nothing."""

    def __init__(self, freezer: Freezer | None, *, pretend: bool = False) -> None:
        self._freezer = freezer
        self._pretend = pretend
        self._now: dict[str, Pause] = {}

    @property
    def can_freeze(self) -> bool:
        return self._pretend or self._freezer is not None

    def begin(self, cgroups: Sequence[str], candidates: Iterable[Candidate], now: float) -> tuple[str, ...]:
        """Stops cgroups; those that stand still now."""
        done = tuple(cgroups) if self._freezer is None else self._freezer.freeze(cgroups)
        listed = list(candidates)
        for cgroup in done:
            inside = [c for c in listed if any(unit.freezer == cgroup for unit in c.units)]
            inside.sort(key=lambda c: c.size, reverse=True)
            names = tuple(c.name for c in inside[:MOST_NAMES])
            self._now[cgroup] = Pause(now, inside[0].owner if inside else 0, names)
        return done

    def end(self, cgroups: Iterable[str] | None = None) -> None:
        """Lets these go on, or all."""
        if self._freezer is not None:
            self._freezer.thaw_all() if cgroups is None else self._freezer.thaw(cgroups)
        for cgroup in list(self._now) if cgroups is None else cgroups:
            self._now.pop(cgroup, None)

    def told(self, cgroups: Iterable[str], now: float) -> list[dict[str, Any]]:
        """Each of them for a record."""
        return [
            {"cgroup": cgroup, "owner": pause.owner, "names": pause.names, "seconds": round(now - pause.since, 3)}
            for cgroup in cgroups
            if (pause := self._now.get(cgroup))
        ]
