"""Writes the ring: a sample a second, in a thread of its own, so that a disk which hangs holds up no warning.

What is written, and how often it is forced to the disk. All samples of 16 s lie in one block of 4 KiB.

- in peace every 5 s: 17,280 times 4 KiB, with the minutes' 1,440 blocks 73 MiB a day;
- every second once it is tense (`is_tense`), for two minutes after it was so last: 343 MiB a day at the most.

A power cut out of the blue costs the last 5 s; what builds up is there to the last second.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparkhost.base import small_files
from sparkhost.observer import look, memory, ring, told
from sparkhost.observer.ring import Holder, Ring, Sample
from sparkhost.watchdog.process import parse_stat

EVERY = 1.0
CALM = 5.0
"""Seconds between two syncs in peace."""
TENSE_FOR = 120.0
SCARCE = 0.25
"""Share of the memory below which its end can be seconds away: 30 of 120 GiB last 7 s at 4.4 GiB/s (reported)."""
HOT = 80.0
"""°C. Hosts were lost at 91 to 92 without a word in the log (reported)."""
WAITS = 5.0
"""Percent of the time in which all tasks wait for memory."""
SCAN_EVERY = 10.0
SCAN_AFTER = 1 << 30
"""Bytes of MemAvailable that went since the last scan of all processes: somebody new may be the largest."""
MOST_PROCESSES = 4096
MOST_ZONES = 32
FOLLOWED = 16
"""The largest at the last scan, looked at every second."""


@dataclass
class Eyes:
    """Takes samples. `counts`: what the kernel's log was counted to have, of another thread's tally."""

    proc: Path
    sys: Path
    gpu_file: str
    counts: Callable[[], tuple[int, int] | None]
    boot: str = ""
    _largest: list[int] = field(default_factory=list)
    _scanned: float = float("-inf")
    _seen: int = 0

    def sample(self, kind: int = ring.SECOND) -> Sample:
        """The host now. What cannot be read is None in it."""
        values: dict[str, Any] = {}
        for part in (self._memory, self._pressure, self._heat):
            with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
                values |= part()
        devices = self._devices()
        values |= clocks(devices)
        counts = self.counts()
        if counts:
            values["refused"], values["bursts"] = counts
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        holders = self._holders(now, values.get("available") or 0, held(devices))
        boot = self.boot = self.boot or boot_id(self.proc)
        return Sample(time.time(), now, boot, kind, **values, holders=holders)

    def _memory(self) -> dict[str, Any]:
        found = memory.parse(look.text(self.proc / "meminfo"))
        names = {"total": "MemTotal", "available": "MemAvailable", "free": "MemFree", "swap_free": "SwapFree"}
        return {**{name: found.get(of) for name, of in names.items()}, "at_once": memory.at_once(found)}

    def _pressure(self) -> dict[str, Any]:
        values: dict[str, Any] = {"load": float(look.text(self.proc / "loadavg").split()[0])}
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in look.text(self.proc / "pressure/memory").splitlines():
                kind, average, *_ = line.split()
                values[kind] = float(average.removeprefix("avg10="))
        return {name: value for name, value in values.items() if name in ("load", "some", "full")}

    def _heat(self) -> dict[str, Any]:
        """Of the kernel's thermal zones, in thousandths of a degree (sysfs-class-thermal); nonsense is left out."""
        found = []
        for zone in sorted((self.sys / "class/thermal").glob("thermal_zone*"))[:MOST_ZONES]:
            with contextlib.suppress(OSError, ValueError):
                found.append(int(look.text(zone / "temp")) / 1000)
        likely = [value for value in found if 0 < value < 150]
        return {"heat": max(likely)} if likely else {}

    def _devices(self) -> list[dict[str, Any]]:
        """What the GPU sampler last wrote, where that is fresh."""
        try:
            value = told.load(self.gpu_file)
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(value["boottime"])
            return [dict(device) for device in value["devices"]] if 0 <= age <= look.STALE else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _holders(self, now: float, available: int, gpu: dict[int, int]) -> tuple[Holder, ...]:
        """Who holds most. All processes are read every 10 s, and once a GiB has gone; between, the largest only."""
        if now - self._scanned >= SCAN_EVERY or self._seen - available >= SCAN_AFTER:
            pids = sorted(int(path.name) for path in self.proc.iterdir() if path.name.isdecimal())[-MOST_PROCESSES:]
            self._scanned, self._seen = now, available
        else:
            pids = self._largest
        found = []
        for pid in {*pids, *gpu}:
            with contextlib.suppress(OSError, ValueError):
                stat = parse_stat(small_files.read(f"{self.proc}/{pid}/stat"))
                if not stat.ended:
                    found.append(Holder(pid, stat.name, stat.rss, gpu.get(pid, 0)))
        found.sort(key=lambda holder: -(holder.own + holder.gpu))
        self._largest = [holder.pid for holder in found[:FOLLOWED]]
        return tuple(found[: ring.MOST_HOLDERS])


def clocks(devices: list[dict[str, Any]]) -> dict[str, Any]:
    """The slowest GPU's clock, the hottest one's temperature; what is no number is left out."""
    found: dict[str, Any] = {}
    for name, key, of in (("clock", "clock", min), ("clock_most", "most", max), ("gpu_heat", "temperature", max)):
        numbers = [device[key] for device in devices if isinstance(device.get(key), int | float)]
        if numbers:
            found[name] = of(numbers)
    return found


def held(devices: list[dict[str, Any]]) -> dict[int, int]:
    """Bytes of GPU memory by process, over all GPUs."""
    found: dict[int, int] = {}
    for device in devices:
        processes = device.get("processes")
        for pid, size in (processes if isinstance(processes, dict) else {}).items():
            if str(pid).isdecimal() and isinstance(size, int) and size >= 0:
                found[int(pid)] = found.get(int(pid), 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1])[:FOLLOWED])


def boot_id(proc: Path = Path("/proc")) -> str:
    """The kernel's id of this boot, 32 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    return look.text(proc / "sys/kernel/random/boot_id").strip().replace("-", "")


def is_tense(sample: Sample, bursts: int) -> bool:
    """Whether the next second may be the last. `bursts`: how many the sample before had."""
    is_scarce = bool(sample.total) and sample.available is not None and sample.available < SCARCE * (sample.total or 0)
    is_hot = max(sample.heat or 0.0, sample.gpu_heat or 0.0) >= HOT
    return is_scarce or is_hot or (sample.full or 0.0) >= WAITS or (sample.bursts or 0) > bursts


@dataclass
class Recorder:
    """The thread. It gives nothing up: what fails is a `problem` and tried again."""

    path: Path
    eyes: Eyes
    problem: str = ""
    """Why nothing is being written; "" where it is."""
    _ring: Ring | None = None
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _minute: Sample | None = None
    _tense: float = float("-inf")
    _synced: float = float("-inf")
    _bursts: int = 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 3.0) -> None:
        """Notes that the observer ends, and waits so long for the disk at the most.

        In a shutdown all stop and write at once. The note of a thread that has not come to it is put beside it: what
        is in the kernel's hands is written when the file system is unmounted.
        """
        self._ending.set()
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive() and (written := self._ring):
            with contextlib.suppress(OSError):
                written.write(self.eyes.sample(ring.STOP))

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            # Behind time, the samples that were missed are not made up for.
            due = max(due + EVERY, time.monotonic())
            self._try(ring.SECOND)
        self._try(ring.STOP)

    def _try(self, kind: int) -> None:
        try:
            self.take(self.eyes.sample(kind))
            self.problem = ""
        except Exception as error:
            self._ring = None
            self.problem = told.printable(f"{type(error).__name__}: {error}")[:200]

    def take(self, sample: Sample) -> None:
        """Writes a sample, a minute's where one is over, and syncs where it is time to.

        Raises:
            OSError: the file cannot be made or written.
        """
        if self._ring is None:
            self._ring = Ring(self.path)
        now = sample.boottime
        if is_tense(sample, self._bursts):
            self._tense = now
        self._bursts = sample.bursts or 0
        is_over = self._minute is not None and self._minute.boottime // 60 != now // 60
        if self._minute and (is_over or sample.kind == ring.STOP):
            self._ring.write(replace(self._minute, kind=ring.MINUTE))
            self._minute = None
        self._minute = ring.worse(self._minute, sample) if self._minute else sample
        self._ring.write(sample)
        every = EVERY if now - self._tense <= TENSE_FOR else CALM
        # Half a second less: the clock of the pause and this one are not the same.
        if sample.kind == ring.STOP or now - self._synced >= every - EVERY / 2:
            self._ring.sync()
            self._synced = now
