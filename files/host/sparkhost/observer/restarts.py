"""How often units and containers were started again within the last hour."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST = 3
"""More restarts than this in an hour are a loop."""
HOUR = 3600.0
KEPT = 64
"""Times that are remembered of one name: a loop of any speed has long been told by then."""
NAMES = 1024
# Terminals start anew after each logout: that is no failure.
TERMINALS = re.compile(r"(?:serial-|console-|container-)?getty(?:@.*)?\.service|autovt@.*")


@dataclass
class Restarts:
    """What was seen of each name: a number that counts up, or one that is another at each start."""

    _last: dict[str, int] = field(default_factory=dict)
    _times: dict[str, deque[float]] = field(default_factory=dict)

    def counted(self, now: float, counts: Mapping[str, int]) -> None:
        """systemd's NRestarts by unit: counted from what is seen first; 0 again after a start by hand."""
        for name, count in counts.items():
            last = self._last.get(name)
            if last is not None and count > last and not TERMINALS.fullmatch(name):
                self._note(name, now, min(count - last, KEPT))
            self._keep(name, count)

    def seen(self, now: float, numbers: Mapping[str, int]) -> None:
        """The cgroup's own number by container: each start makes a new cgroup of the same name."""
        for name, number in numbers.items():
            if self._last.get(name, number) != number:
                self._note(name, now, 1)
            self._keep(name, number)

    def _note(self, name: str, now: float, times: int) -> None:
        self._times.setdefault(name, deque(maxlen=KEPT)).extend([now] * times)

    def _keep(self, name: str, value: int) -> None:
        self._last.pop(name, None)  # to the end: the one that was seen least lately goes first
        self._last[name] = value
        while len(self._last) > NAMES:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self._times.pop(oldest, None)

    def loops(self, now: float) -> dict[str, int]:
        """Restarts within the last hour, of those that had more than MOST."""
        found = {}
        for name, times in list(self._times.items()):
            while times and now - times[0] > HOUR:
                times.popleft()
            if not times:
                del self._times[name]
            elif len(times) > MOST:
                found[name] = len(times)
        return found


def parse(shown: str) -> dict[str, int]:
    """NRestarts by unit, of what `systemctl show -p Id -p NRestarts` prints; other blocks are left out."""
    found = {}
    for block in shown.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values and values.get("NRestarts", "").isdecimal():
            found[values["Id"]] = int(values["NRestarts"])
    return found
