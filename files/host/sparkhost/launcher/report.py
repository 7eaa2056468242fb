"""How a job ended, for the user: what it used, and by what it was killed, if it was."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from sparkhost.base.units import show_duration, show_size
from sparkhost.launcher.attach import Ending
from sparkhost.launcher.unit import SLICE
from sparkhost.watchdog.postmortem import readable

STATE = Path("/var/lib/sparkfleet/watchdog")
PATIENCE = 2.0
"""Seconds that the watchdog's record may come after its kill."""


def killed_by_signal(name: str) -> int:
    """128+n for what systemd calls a signal in EXIT_STATUS (`KILL`); 1 for anything else."""
    try:
        return 128 + signal.Signals[f"SIG{name}"]
    except KeyError:
        return 1


def code_of(ending: Ending) -> int:
    """The exit code that the launcher passes on: the command's own, 128+n for signal n."""
    if ending.code is not None:
        return ending.code
    if ending.unit.get("code") in ("killed", "dumped"):
        return killed_by_signal(ending.unit.get("status", ""))
    status = ending.unit.get("status", "")
    return int(status) if status.isdecimal() and int(status) < 256 else 1


def postmortem(unit: str, since: float, state: Path = STATE) -> dict[str, Any] | None:
    """The watchdog's record of having ended this job, the last one of several, or None.

    `since`: seconds since the epoch; older records are of other jobs. Those of other users cannot be read.
    """
    for record in readable(state):
        try:
            if float(record["time"]) < since:
                return None
            if (
                record["event"] in ("kill", "term")
                and not record.get("dry_run")
                and record["victim"]["cgroup"] == f"/{SLICE}/{unit}"
            ):
                return record
        except (KeyError, TypeError, ValueError):
            continue  # another version's
    return None


def await_postmortem(unit: str, since: float, state: Path = STATE) -> dict[str, Any] | None:
    """`postmortem`, with patience where there is a watchdog at all."""
    until = time.monotonic() + (PATIENCE if state.is_dir() else 0)
    while (record := postmortem(unit, since, state)) is None and time.monotonic() < until:
        time.sleep(0.1)
    return record


def find_postmortem(ending: Ending, code: int, unit: str, since: float, state: Path = STATE) -> dict[str, Any] | None:
    """The watchdog's record of a job that did not end well; waited for where it ended by a signal that it sends.

    A job that was asked to end (SIGTERM) may have saved its work and ended with any code, even 0.
    """
    if ending.unit.get("result") in ("oom-kill", "timeout"):
        return None
    signals = (128 + signal.SIGKILL, 128 + signal.SIGTERM)
    if code in signals and code - 128 not in ending.sent:
        return await_postmortem(unit, since, state)
    return postmortem(unit, since, state)


def number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def cause(ending: Ending, code: int, memory: int, limit: int | None, record: dict[str, Any] | None) -> str:
    """By what a job was ended, in words; "" where it ended by itself. `memory`: its cap; `limit`: its time."""
    end = ending.unit
    if record is not None:
        did = "killed" if record.get("event") == "kill" else "asked to end"
        reason = record.get("reason")
        said = reason if isinstance(reason, str) else "the host ran out of memory"
        return f"{did} by the watchdog: {''.join(c if c.isprintable() else '?' for c in said)} (spark-why says more)"
    if end.get("result") == "oom-kill" or number(end.get("oom_kill", "")):
        if number(end.get("oom", "")):
            return f"killed by its memory cap of {show_size(memory)} (MemoryMax)"
        return "killed because training.slice, or the whole host, was out of memory: the job's own cap was not reached"
    if end.get("result") == "timeout":
        return f"ended by its time limit of {show_duration(limit)}" if limit else "ended by a time limit"
    if code > 128 and code - 128 in ending.sent:
        return f"ended by you ({signal.Signals(code - 128).name})"
    if code > 128 and (end.get("code") in ("killed", "dumped") or code - 128 in (signal.SIGTERM, signal.SIGKILL)):
        return "ended by a signal from outside: spark-run stop, the admin, or a user's kill"
    return ""


def summary(ending: Ending, code: int, seconds: float, why: str, promise: int = 0) -> str:
    """One line for all, and one for the cause. `promise`: bytes, 0 where it is not to be told."""
    peak = ending.peak
    if ending.unit.get("peak", "").isdecimal():
        peak = max(peak or 0, int(ending.unit["peak"]))
    parts = [f"exit code {code}", f"wall time {show_duration(seconds)}"]
    if promise:
        parts.append(f"promised {show_size(promise)}")
    parts.append(f"peak CPU memory {show_size(peak) if peak is not None else 'unknown'}")
    parts.append(f"peak GPU memory {show_size(ending.gpu_peak) if ending.gpu_peak is not None else 'unknown'}")
    return "; ".join(parts) + (f"\n{why}" if why else "")
