"""Looks at the host again and again, and says what has changed. See the package for how it stays small."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparkhost.launcher.holders import holders, meminfo
from sparkhost.status import history, parts
from sparkhost.status.parts import Places

VERSION = 1
SHARE = 0.004
"""Of one core, that a look beyond the small files may cost in the long run."""
SELDOM = 30.0
"""Seconds between two looks at what seldom changes."""
MINUTE = 60.0
LONGEST_WALK = 20.0
"""Seconds after which the cgroups are walked whatever it costs: a figure must not be older without a word."""


HERE = Places()


class Reader:
    """One host's reader. `cpu`: seconds of processor time that this process has taken."""

    def __init__(
        self,
        places: Places = HERE,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.places, self.clock, self.cpu = places, clock, cpu
        self._began, self._spent = clock(), cpu()
        self._seen: dict[str, Any] = {}
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._walked = self._slow = self._asked = float("-inf")
        self._minute = 0.0

    def look(self) -> dict[str, Any]:
        """Everything that has changed since the last look; all of it in the first one. `at` is always there."""
        now = self.clock()
        found: dict[str, Any] = {}
        sample = parts.sampled(self.places.gpu)
        self._put(found, "memory", parts.memory(meminfo(self.places.proc / "meminfo"), sample))
        self._files(found)
        if self._may_walk(now):
            self._walked = now
            listed = holders(self.places.cgroups, parts.by_process(sample), self.places.proc)
            self._put(found, "jobs", parts.jobs(listed, self.places.run, self.places.cgroups))
            self._put(found, "owners", parts.owners(listed))
        if now - self._slow >= SELDOM:
            self._slow = now
            self._seldom(found, now)
        return {"v": VERSION, "at": round(time.time(), 1), **found}

    def _may_walk(self, now: float) -> bool:
        spent, passed = self.cpu() - self._spent, now - self._began
        return spent <= SHARE * passed or now - self._walked >= LONGEST_WALK

    def _files(self, found: dict[str, Any]) -> None:
        """What stands in files that are replaced when they change: nothing is read before they are."""
        places = self.places
        if self._changed("gpu", places.gpu):
            self._put(found, "gpus", parts.gpus(places.gpu))
        if self._changed("events", places.events) or "events" not in self._seen:
            listed = parts.events(places.events)
            self._put(found, "events", listed)
            # A rehearsal ends nobody; what was asked to end and then killed is one end.
            ends = (one for one in listed if one["event"] in ("term", "kill") and not one["dry_run"])
            self._put(found, "kill", next(ends, None))
            self._put(found, "events_readable", os.access(places.events, os.R_OK) and os.geteuid() == 0)
        if self._changed("observer", places.observer) or "warnings" not in self._seen:
            self._put(found, "warnings", parts.warnings(places.observer))
        if self._changed("queue", places.run / "sparkfleet/queue.json") or self._seen.get("waiting") != []:
            self._put(found, "waiting", parts.waiting(places.run))

    def _seldom(self, found: dict[str, Any], now: float) -> None:
        places = self.places
        self._put(found, "up", round(time.clock_gettime(time.CLOCK_BOOTTIME)))
        self._put(found, "floor", parts.floor(places.watchdog, places.proc))
        self._put(found, "release", parts.release(places.state, places.etc))
        self._put(found, "reboot", parts.reboot(places.run))
        self._put(found, "links", parts.links(places.system))
        self._put(found, "temperature", parts.temperature(places.system))
        self._put(found, "warnings", parts.warnings(places.observer))
        passed = now - self._began
        share = (self.cpu() - self._spent) / passed if passed >= SELDOM else None
        self._put(found, "cost", None if share is None else round(share, 5))
        if now - self._asked >= MINUTE:
            self._asked = now
            if minutes := history.minutes(self._minute or time.time() - history.MOST * 60):
                self._minute = minutes[-1].at
                found["history"] = [list(minute) for minute in minutes]

    def _changed(self, name: str, path: Path) -> bool:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = (0, 0, 0)
        if self._stamps.get(name) == stamp:
            return False
        self._stamps[name] = stamp
        return True

    def _put(self, found: dict[str, Any], name: str, value: Any) -> None:
        if name not in self._seen or self._seen[name] != value:
            self._seen[name] = found[name] = value

    @property
    def seen(self) -> dict[str, Any]:
        """All that is known, as the last looks left it."""
        return self._seen
