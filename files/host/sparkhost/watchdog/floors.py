"""Whether a host can be given the memory watchdog's thresholds now: its memory in all, and what is free of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.resource import Check, Context, Failed, Refused
from sparkhost.training_slice import slices

MIB = 2**20
# What the daemon says every 15 s.
STATE = Path("/run/sparkfleet/watchdog/state.json")
STALE = 60.0
SERVING = (2**30, 2**29)
"""term_below and kill_below of `profile: serving`, for hosts whose models are meant to fill the memory."""


@dataclass(frozen=True)
class FloorsFit(Check):
    """Refuses a `term_below` (bytes) that does not fit the host, or that would end a job at once.

    More than half of MemTotal: the program refuses it as well (`spark-watchdog check`), but a first deploy would have
    put it there by then. More than MemAvailable: a watchdog that is started, or given a higher threshold, would begin
    with a kill; a run of three days must not end by a deploy. `dry_run`: it signals nobody.
    """

    kind: ClassVar[str] = "floors_fit"
    is_basis: ClassVar[bool] = True
    term_below: int
    kill_below: int = 0
    """Bytes; less than term_below. 0: not looked at."""
    dry_run: bool = False

    def check(self, context: Context) -> None:
        memory = slices.meminfo()
        total, available = memory["MemTotal"], memory["MemAvailable"]
        if 2 * self.term_below > total:
            most = total // 2 // MIB
            raise Refused(
                f"term_below is {self.term_below // MIB} MiB, more than half of this host's {total // MIB} MiB: set "
                f"watchdog.term_below to {most}MiB at most, and kill_below to about half of it, or watchdog.state to "
                "unmanaged"
            )
        if self.kill_below >= self.term_below:
            raise Refused(
                f"kill_below is {self.kill_below // MIB} MiB on this host, not less than its term_below "
                f"({self.term_below // MIB} MiB): set both as shares, or both as sizes, or watchdog.kill_below to auto"
            )
        if available < self.term_below and not self.dry_run and in_force() < self.term_below:
            raise Refused(
                f"MemAvailable is {available // MIB} MiB, below term_below ({self.term_below // MIB} MiB): the "
                "watchdog would end a job at once: wait for the end of what holds the memory; or, where this host is "
                f"meant to live there, {fitting(available)}; or set watchdog.dry_run to true; then deploy again"
            )


def fitting(available: int) -> str:
    """The settings that fit a host which lives with so many bytes available: half of them is room to act in."""
    term = max(available // 2 // MIB, 2)
    figures = f"set watchdog.term_below to {term}MiB and kill_below to {term // 2}MiB"
    if available < 2 * SERVING[0]:
        return figures
    serving = f"{SERVING[0] // MIB}MiB, {SERVING[1] // MIB}MiB"
    return f"set watchdog.profile to serving ({serving}), or {figures.removeprefix('set ')}"


def in_force() -> int:
    """The `term_below` (bytes) at which a watchdog acts now; 0 where none does."""
    try:
        state = json.loads(bounded.read_text(STATE))
        fresh = 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - float(state["boottime"]) <= STALE
        return int(state["policy"]["term_below"]) if fresh and not state["dry_run"] else 0
    except (Failed, OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
