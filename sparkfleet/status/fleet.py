"""The fleet's state as one value: what hosts say, what is known here, and what needs a person."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparkfleet.audit.report.order import natural
from sparkfleet.status.attention import Need, needs, order
from sparkfleet.status.records import Audited, Drifted, Records
from sparkfleet.status.shape import HostSays
from sparkfleet.status.stream import Heard

VERSION = 1
TRACE_EVERY, TRACE_MOST = 2.0, 450
"""Seconds between two points of a host's trace, and how many are kept: a quarter of an hour."""
TRACE_OWNERS = 8

Point = tuple[float, int, tuple[tuple[str, int], ...]]
"""Time of the host's clock, bytes available, and bytes by owner."""


@dataclass(frozen=True)
class HostView:
    """One host as it is shown."""

    name: str
    heard: Heard
    audit: Audited | None
    drift: Drifted | None
    needs: list[Need]

    @property
    def says(self) -> HostSays | None:
        return self.heard.says

    def as_json(self, now: float | None = None) -> dict[str, Any]:
        """For programs; `docs/status.md` names the fields. `seconds`: since the host was last heard."""
        now = time.monotonic() if now is None else now
        at = self.heard.at
        return {
            "name": self.name,
            "link": str(self.heard.link),
            "problem": self.heard.problem,
            "seconds": None if at is None else round(now - at, 1),
            "needs": [{"level": str(need.level), "kind": need.kind, "text": need.text} for need in self.needs],
            "host": self.says and self.says.model_dump(exclude={"v", "history"}),
            "audit": self.audit and vars(self.audit),
            "drift": self.drift and vars(self.drift),
        }


@dataclass
class Traces:
    """Memory by owner over the last minutes, a host each."""

    points: dict[str, deque[Point]] = field(default_factory=dict)

    def add(self, name: str, says: HostSays) -> None:
        """A line of a host; too soon after the last one it is left out."""
        trace = self.points.setdefault(name, deque(maxlen=TRACE_MOST))
        if trace and 0 <= says.at - trace[-1][0] < TRACE_EVERY:
            return
        ranked = sorted(says.owners, key=lambda one: -(one.cpu + one.gpu))[:TRACE_OWNERS]
        trace.append((says.at, says.memory.available, tuple((one.owner, one.cpu + one.gpu) for one in ranked)))


def views(names: Mapping[str, Heard], records: Records) -> list[HostView]:
    """All hosts, those first that need a person."""
    now = time.time()
    found = []
    for name, heard in names.items():
        audit, drift = records.audits.get(name), records.drifts.get(name)
        found.append(HostView(name, heard, audit, drift, needs(heard, audit, drift, now)))
    return sorted(found, key=lambda view: (order(view.needs), natural(view.name)))


def as_json(fleet_file: Path, found: list[HostView]) -> dict[str, Any]:
    """The document of `sparkfleet status --json`."""
    return {
        "version": VERSION,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "fleet": str(fleet_file),
        "hosts": [view.as_json() for view in found],
    }
