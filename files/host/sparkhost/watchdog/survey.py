"""The table of processes, read within a time that does not grow with their number.

Up to FEW processes all are read when they are asked for, each time anew. A crowd is known beforehand: while there is
time, `tour` reads it in slices, one after the other, over and over, and keeps two tables: of those that hold SMALL or
more themselves all that is known, of the others their number and size only. When memory is short, `table` reads for
AT_ONCE seconds, in this order, and tells the rest as it was when it was last read:

1. who holds GPU memory, then the largest that are known (half of the time);
2. members of the cgroups with the largest charge, whoever they were before (another quarter);
3. numbers that have not been seen, the youngest first; then those whose turn it is.

Told are the MOST_TOLD largest and all that they descend from, so that it can be seen what hangs on what; of the small
ones the MOST_SMALL largest. What the others of a unit hold is in its charge. A table of 50,000 small ones takes 8 MiB.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from sparkhost.watchdog.cgroup import Cgroups, Charge
from sparkhost.watchdog.model import MIB
from sparkhost.watchdog.process import SMALL, Process, Processes
from sparkhost.watchdog.work import place_of, region_of

# Processes that can be read anew within a tenth of a second, on a slow machine.
FEW = 1_000
# Seconds for reading at a crossing, and for reading charges then.
AT_ONCE = 0.08
CHARGES_AT_ONCE = 0.04
# What a slice may take of the pause between two looks, and in seconds.
SHARE, SLICE = 0.2, 0.05
# The longest pause while not all have been seen once.
PAUSE_UNTIL_SEEN = 0.1
# Units of work are made of them, which costs 30 us each on a slow machine.
MOST_TOLD, MOST_SMALL, LEAST_SMALL = 2_048, 128, 1 * MIB
# Read in any case, however late it is.
LEAST_READ = 64
BEAT_EVERY = 0.02


def size_of(process: Process) -> int:
    return process.anonymous + process.shared


class Survey:
    """Remembers who is there. `beat` is called every 20 ms of reading, and must not wait."""

    def __init__(self, processes: Processes, cgroups: Cgroups, beat: Callable[[], None] = lambda: None) -> None:
        self.processes = processes
        self.cgroups = cgroups
        self.beat = beat
        self.large: dict[int, Process] = {}
        """By number: who holds SMALL or more, as last read."""
        self.small: dict[int, int] = {}
        """By number: resident bytes of all others; 0 for kernel threads, zombies, and who cannot be read."""
        self._turn: list[int] = []
        """Whose turn it is: the last one next."""
        self._unseen = False
        self._beaten = 0.0

    def table(self, first: Collection[int] = ()) -> list[Process]:
        """Processes as `Processes.table` lists them, of a crowd those that matter. `first`: who is read before all."""
        began = time.monotonic()
        numbers = list(self.processes.numbers())
        if len(numbers) <= FEW:
            self._forget()
            return [process for pid in numbers if (process := self._process(pid))]
        unseen = self._drop(numbers)
        done: set[int] = set()
        for share, pids in (
            (0.5, first),
            (0.5, sorted(self.large, key=lambda pid: size_of(self.large[pid]), reverse=True)),
            (0.75, self.cgroups.heaviest()),
            (1.0, sorted(unseen, reverse=True)),
            (1.0, reversed(self._turn[-FEW:])),
        ):
            self._read(pids, began + share * AT_ONCE, done, first)
        return self._told(first)

    def charges(self, table: Iterable[Process]) -> dict[str, Charge]:
        """The charges of units and of users' slices, the largest first, as far as the time goes."""
        until = time.monotonic() + CHARGES_AT_ONCE
        sizes: dict[str, int] = {}
        for process in table:
            sizes[process.cgroup] = sizes.get(process.cgroup, 0) + size_of(process)
        found: dict[str, Charge] = {}
        for cgroup in sorted(sizes, key=lambda cgroup: sizes[cgroup], reverse=True):
            if time.monotonic() > until:
                break
            region = region_of(place_of(cgroup))
            if region == "/" or region in found:
                continue
            if charge := self.cgroups.charge(region):
                found[region] = charge
            self._may_beat()
        return found

    def tour(self, pause: float) -> float:
        """Reads on for a part of the pause between two looks. Returns the seconds that are left of it. Never raises."""
        began = time.monotonic()
        try:
            self._go_on(pause)
        except OSError:
            self._forget()  # /proc itself cannot be listed now: no descriptor, no memory
        left = pause - (time.monotonic() - began)
        return max(min(left, PAUSE_UNTIL_SEEN) if self._unseen else left, 0.0)

    def _go_on(self, pause: float) -> None:
        began = time.monotonic()
        if not self._turn:
            if not self._is_crowd():
                self._forget()
                return
            numbers = list(self.processes.numbers())
            unseen = self._drop(numbers)
            self._unseen = bool(unseen)
            self._turn = [*self.small, *self.large, *unseen]
        until = began + (SLICE if self._unseen else min(SLICE, SHARE * pause))
        while self._turn and time.monotonic() < until:
            self._look_at(self._turn.pop(), ())
        self._unseen = self._unseen and bool(self._turn)

    def left_out(self) -> tuple[int, int]:
        """How many of a crowd are known by their number only, and their resident bytes, file pages included."""
        return len(self.small), sum(self.small.values())

    def _is_crowd(self) -> bool:
        """By the number of links of /proc, which the kernel makes of the number of processes (fs/proc/root.c)."""
        try:
            return Path(self.processes.proc).stat().st_nlink > FEW
        except OSError:
            return False

    def _forget(self) -> None:
        self.large, self.small, self._turn, self._unseen = {}, {}, [], False

    def _drop(self, numbers: Iterable[int]) -> set[int]:
        """Forgets who is gone. Returns those that have not been seen."""
        there = set(numbers)
        for pid in self.large.keys() - there:
            del self.large[pid]
        for pid in self.small.keys() - there:
            del self.small[pid]
        return there - self.large.keys() - self.small.keys()

    def _read(self, pids: Iterable[int], until: float, done: set[int], always: Collection[int]) -> None:
        for pid in pids:
            if time.monotonic() > until and len(done) >= LEAST_READ:
                return
            if pid not in done:
                done.add(pid)
                self._look_at(pid, always)

    def _may_beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= BEAT_EVERY:
            self._beaten = now
            self.beat()

    def _process(self, pid: int) -> Process | None:
        """A process, whatever comes of it."""
        self._may_beat()
        with suppress(Exception):
            return self.processes.process(pid)
        return None

    def _look_at(self, pid: int, always: Collection[int]) -> None:
        """Reads a process anew, and keeps it where it belongs. One that cannot be read stays what it was."""
        self._may_beat()
        process, resident = None, 0
        try:
            stat = self.processes.stat(pid)
            if stat is not None:
                resident = stat.rss
                if stat.rss >= SMALL or stat.state == "Z" or pid in always:
                    process = self.processes.process(pid, stat)
        except (FileNotFoundError, ProcessLookupError):
            self.large.pop(pid, None)
            self.small.pop(pid, None)
            return
        except Exception:
            if pid not in self.large:
                self.small.setdefault(pid, 0)
            return
        if process is not None and (size_of(process) >= SMALL or pid in always):
            self.large[pid] = process
            self.small.pop(pid, None)
        else:
            self.large.pop(pid, None)
            self.small[pid] = resident

    def _told(self, first: Collection[int]) -> list[Process]:
        """The largest, whom they descend from, and the largest of the small ones."""
        found = {process.pid: process for process in heapq.nlargest(MOST_TOLD, self.large.values(), key=size_of)}
        found.update((pid, self.large[pid]) for pid in first if pid in self.large)
        for pid in heapq.nlargest(MOST_SMALL, self.small, key=lambda pid: self.small[pid]):
            if self.small[pid] >= LEAST_SMALL and (process := self._process(pid)):
                found[pid] = process
        for process in list(found.values()):
            parent = process.parent
            while parent > 0 and parent not in found and len(found) < 2 * MOST_TOLD:
                above = self.large.get(parent) or self._process(parent)
                if above is None:
                    break
                found[parent] = above
                parent = above.parent
        return list(found.values())
