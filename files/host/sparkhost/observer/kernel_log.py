"""The NVIDIA driver's out-of-memory lines in the kernel's log. Their rate tells, not that they are there.

Runs that served on have logged one such line each, and a host at rest 55 in three days; hosts that
hung have logged them in bursts of under a second before (docs/watchdog.md, "What it warns of").
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

REFUSED = re.compile(r"NVRM: .*(?:NV_ERR_NO_MEMORY|Out of memory)")
KILLER = " invoked oom-killer: "
# A frame of a call trace inside one of the driver's modules (lib/vsprintf.c, %pS).
FRAME = re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]+ \[nvidia[\w-]*\b")
# Ends the report of a kill by the limit of a cgroup (mm/oom_kill.c): that is a job's cap at work.
BY_A_CAP = "oom-kill:constraint=CONSTRAINT_MEMCG"
MANY = 3
"""Lines that make a burst …"""
WITHIN = 10.0
"""… in so many seconds."""
ONE_REPORT = 5.0
"""Seconds that the lines of one report of the OOM killer are apart at most."""


class Record(NamedTuple):
    """A line of the kernel's own. `time`: seconds since the host was started, by the kernel's log."""

    time: float
    text: str


def parse(data: bytes) -> Record | None:
    """A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg); None for one not of the kernel's own.

    What a process writes there never has the kernel's facility, 0 (kernel/printk/printk.c).
    """
    head, _, rest = data.partition(b";")
    fields = head.split(b",")
    if len(fields) < 3 or not all(number.isdigit() for number in fields[:3]):
        return None
    if int(fields[0]) >> 3:
        return None
    text = rest.partition(b"\n")[0].decode(errors="replace")
    return Record(int(fields[2]) / 1e6, text)


@dataclass
class Tally:
    """What was counted since the host was started."""

    refused: int = 0
    """Lines in which the driver says that it was refused memory."""
    bursts: int = 0
    burst_at: float | None = None
    """When the last line of the last burst came."""
    lines: int = 0
    """Of the last burst."""
    kills: int = 0
    """How often the kernel's OOM killer was called by the driver, without a cap of a cgroup."""
    kill_at: float | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=MANY))
    _before: int = 0
    _report: float | None = None
    _inside: bool = False

    def take(self, record: Record) -> None:
        """Counts a record; in the order of the log."""
        if REFUSED.search(record.text):
            self._refusal(record.time)
        elif KILLER in record.text:
            self._report, self._inside = record.time, False
        elif self._report is not None and record.time - self._report <= ONE_REPORT:
            self._of_a_report(record)

    def _refusal(self, time: float) -> None:
        self.refused += 1
        self._recent.append(time)
        if len(self._recent) < MANY or time - self._recent[0] > WITHIN:
            return
        if self.burst_at is None or self._recent[0] > self.burst_at:
            self.bursts, self._before = self.bursts + 1, self.refused - MANY
        self.lines, self.burst_at = self.refused - self._before, time

    def _of_a_report(self, record: Record) -> None:
        if BY_A_CAP in record.text:
            self.kills -= self._inside
            self._report = None
        elif not self._inside and FRAME.search(record.text):
            self._inside = True
            self.kills, self.kill_at = self.kills + 1, record.time
