"""Whether a watchdog runs on this host, by what it says of itself every 15 s: for programs that cannot ask systemd."""

from __future__ import annotations

import time
from pathlib import Path

from sparkhost.observer import told

STATE = Path("/run/sparkfleet/watchdog/state.json")
STALE = 60.0


def absence(path: Path = STATE, proc: Path = Path("/proc")) -> str:
    """In one line that no watchdog runs, or one that only tells, and what to do; "" where one acts."""
    remedy = "nothing ends a job before this host freezes: sudo systemctl restart sparkfleet-watchdog, or deploy"
    try:
        state = told.load(str(path))
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(state["boottime"])
        pid, dry = int(state["pid"]), bool(state["dry_run"])
    except FileNotFoundError:
        return f"no memory watchdog runs on this host: {remedy}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return f"{path} is not the memory watchdog's: {remedy}"
    if not (proc / str(pid)).exists():
        return f"no memory watchdog runs on this host (its last word is {age:.0f} s old): {remedy}"
    if not -1 <= age <= STALE:
        return f"the memory watchdog has said nothing for {age:.0f} s: {remedy}"
    return "the memory watchdog only tells what it would do (watchdog.dry_run)" if dry else ""
