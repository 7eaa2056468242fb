"""What of a host needs a person, worst first. Pure: a host's state in, lines out."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum

from sparkfleet.audit.text import counted
from sparkfleet.status.records import Audited, Drifted
from sparkfleet.status.shape import HostSays
from sparkfleet.status.stream import Heard, Link

NUMBERS = re.compile(r"[0-9.]+")
HOT = 85
"""°C. Sparks are reported to shut down at 91 to 92 without a line in any log.

https://github.com/NVIDIA/open-gpu-kernel-modules/issues/1358
"""
RECENT = 3600.0
"""Seconds for which a kill needs somebody to know."""
AUDIT_OLD = 2 * 86400.0
"""As the alert SparkAuditStale has it."""
CLOCK_LOW = 0.5
"""Of the highest, while jobs run: as the alert SparkClockLow has it."""


class Level(StrEnum):
    """How much a line matters."""

    ACT = "act"
    LOOK = "look"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True)
class Need:
    """A line. `kind`: gone, kill, memory, heat, clock, watchdog, warning, audit, drift, reboot, link."""

    level: Level
    kind: str
    text: str
    key: str = ""
    """Tells it from others of its kind, however long it lasts: of a kill its time."""


def needs(heard: Heard, audit: Audited | None, drift: Drifted | None, now: float | None = None) -> list[Need]:
    """All lines about a host. `now`: seconds since the epoch."""
    now = time.time() if now is None else now
    found: list[Need] = []
    if heard.link in (Link.GONE, Link.BROKEN):
        word = "is gone" if heard.link is Link.GONE else "answers nonsense"
        found.append(Need(Level.ACT, "gone", f"{word}: {heard.problem}"))
    elif heard.link is Link.LATE:
        found.append(Need(Level.LOOK, "gone", heard.problem))
    if heard.says is not None:
        found += [*_to_act_on(heard.says, now), *_to_look_at(heard.says)]
    found += _of_records(audit, drift, now)
    return sorted(found, key=lambda need: need.level.rank)


def _to_act_on(says: HostSays, now: float) -> list[Need]:
    found: list[Need] = []
    memory, floor = says.memory, says.floor
    if floor.term is not None and memory.total and memory.available < floor.term:
        found.append(Need(Level.ACT, "memory", f"memory is short: {size(memory.available)} available"))
    if (kill := says.kill) is not None and now - kill.at < RECENT:
        did = "asked to end" if kill.event == "term" else "killed"
        text = f"{kill.name or 'a job'} was {did} {age(now - kill.at)} ago: {kill.reason}"
        found.append(Need(Level.ACT, "kill", text, f"{kill.at:.0f}"))
    if says.warmest is not None and says.warmest >= HOT:
        found.append(Need(Level.ACT, "heat", f"{says.warmest} °C: Sparks shut down at 91"))
    if floor.problem and says.release.version:
        found.append(Need(Level.ACT, "watchdog", floor.problem))
    return found


def _to_look_at(says: HostSays) -> list[Need]:
    found: list[Need] = []
    for gpu in says.gpus:
        if says.jobs and gpu.clock and gpu.most and gpu.clock < CLOCK_LOW * gpu.most:
            found.append(Need(Level.LOOK, "clock", f"the GPU runs at {gpu.clock} of {gpu.most} MHz although jobs run"))
    found += [Need(Level.LOOK, "warning", line, NUMBERS.sub("#", line)[:80]) for line in says.warnings]
    if says.reboot:
        found.append(Need(Level.LOOK, "reboot", f"a reboot is pending: {says.reboot}"))
    down = [link.name for link in says.links if link.state and link.state != "active"]
    if down and len(down) < len(says.links):
        found.append(Need(Level.LOOK, "link", f"link {', '.join(down)} is down"))
    return found


def _of_records(audit: Audited | None, drift: Drifted | None, now: float) -> list[Need]:
    found: list[Need] = []
    if audit is not None:
        bad = sum(audit.red.get(word, 0) for word in ("critical", "high"))
        rest = sum(audit.red.values()) - bad
        if bad:
            text = f"{counted(bad, 'control')} of high or critical severity {'fails' if bad == 1 else 'fail'}"
            found.append(Need(Level.ACT, "audit", text))
        elif rest or audit.unseen:
            found.append(Need(Level.LOOK, "audit", f"failed controls: {rest}, not seen: {audit.unseen}"))
        if now - audit.at > AUDIT_OLD:
            found.append(Need(Level.LOOK, "audit", f"the last audit is {age(now - audit.at)} old"))
    if drift is not None and drift.state not in ("clean", "changed"):
        more = f" ({counted(drift.changes, 'change')})" if drift.changes else ""
        found.append(Need(Level.LOOK, "drift", f"{drift.by} {age(now - drift.at)} ago: {drift.state}{more}"))
    return found


def order(found: list[Need]) -> tuple[int, int, int]:
    """A key that sorts the host first that needs a person most."""
    act = sum(need.level is Level.ACT for need in found)
    return (0 if act else 1 if found else 2, -act, -len(found))


def size(count: float) -> str:
    """`61.3 GiB`; GiB is 2^30."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def age(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, most, length in (("s", 120, 1), ("min", 7200, 60), ("h", 172_800, 3600)):
        if seconds < most:
            return f"{max(0, seconds) / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
