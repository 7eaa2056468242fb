"""The observer's loop: look, warn, write what holds, a sign of life to systemd."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparkhost.base import gpu_sample
from sparkhost.base.units import show_size
from sparkhost.observer import heat, look, memory, orphans, ring, samples, told, warnings
from sparkhost.observer.alarms import Alarm, Alarms
from sparkhost.observer.recorder import Eyes, Recorder
from sparkhost.observer.restarts import Restarts
from sparkhost.watchdog.postmortem import replace
from sparkhost.watchdog.survive import Supervisor, lock_memory

EVERY = 10.0
ASK_EVERY = 300.0
"""Seconds between two questions to systemd: each unit's answer costs PID 1 some time."""
REST = 0.2
"""Seconds between two looks at the kernel's log while it is written to: a storm of lines must not keep us busy."""
SHOWN_FOR = 3600.0
"""Seconds for which a burst of the driver's lines is shown."""
EVENTS = ("driver_burst", "driver_kill")
"""What has happened, and so is never over."""
WARNING, NOTICE = 4, 5


@dataclass
class Observer:
    """One host's observer, with what it remembers from look to look. Times: CLOCK_MONOTONIC, as the kernel's log."""

    proc: Path
    cgroups: Path
    gpu_file: str
    log: look.KernelLog | None = None
    base: int | None = None
    """The least that was unaccounted for since the host was started."""
    ask: Callable[[], dict[str, int]] = look.units
    restarts: Restarts = field(default_factory=Restarts)
    alarms: Alarms = field(default_factory=Alarms)
    figures: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """What cannot be seen, and why."""
    recorder: Recorder | None = None
    _meminfo: dict[str, int] = field(default_factory=dict)
    _asked: float | None = None
    _burst: tuple[int, str] = (0, "")

    def look(self, now: float) -> tuple[list[Alarm], list[Alarm], list[Alarm]]:
        """One look: the alarms that hold, those to tell, and those that are over. A part that fails costs itself."""
        found: list[Alarm] = []
        self.problems = {"kernel_log": "cannot be read"} if self.log is None else {}
        for name, part in (
            ("memory", self._memory),
            ("kernel_log", self._kernel_log),
            ("containers", self._containers),
            ("systemd", self._units),
            ("gpu", self._gpu),
            ("heat", self._heat),
        ):
            try:
                found += part(now)
            except Exception as error:
                self.problems[name] = told.printable(f"{type(error).__name__}: {error}")[:200]
        if self.recorder and self.recorder.problem:
            self.problems["ring"] = self.recorder.problem
        for name, times in self.restarts.loops(now).items():
            found.append(warnings.restarting(name, times))
        return self.alarms.update(now, found)

    def _memory(self, now: float) -> list[Alarm]:
        self._meminfo = memory.parse(look.text(self.proc / "meminfo"))
        at_once = memory.at_once(self._meminfo)
        self.figures.pop("at_once", None)
        if at_once is not None:
            self.figures["at_once"] = at_once
        return [warnings.short(self._meminfo)] if memory.is_short(self._meminfo) else []

    def _kernel_log(self, now: float) -> list[Alarm]:
        if self.log is None:
            return []
        self.log.drain()
        tally = self.log.tally
        self.figures |= {"driver_refused": tally.refused, "driver_bursts": tally.bursts, "driver_kills": tally.kills}
        if tally.bursts != self._burst[0]:
            # As it was when the burst came, or the first look after it.
            available = memory.parse(look.text(self.proc / "meminfo")).get("MemAvailable", 0)
            self._burst = (tally.bursts, show_size(available))
        found = []
        if tally.burst_at is not None and now - tally.burst_at <= SHOWN_FOR:
            found.append(warnings.burst(tally.burst_at, tally.lines, self._burst[1]))
        if tally.kills and tally.kill_at is not None and now - tally.kill_at <= SHOWN_FOR:
            found.append(warnings.killed(tally.kills))
        return found

    def _containers(self, now: float) -> list[Alarm]:
        self.restarts.seen(now, look.containers(self.cgroups))
        return []

    def _units(self, now: float) -> list[Alarm]:
        if self._asked is None:
            self._asked = now - ASK_EVERY  # at the next look: whoever has started us waits for the first
        elif now - self._asked >= ASK_EVERY:
            self._asked = now
            self.restarts.counted(now, self.ask())
        return []

    def _gpu(self, now: float) -> list[Alarm]:
        """Memory that nobody holds, and who was left behind; nothing can be said without the sampler's figures."""
        self.figures.pop("unaccounted", None)
        sample = gpu_sample.read(self.gpu_file, look.STALE)
        if sample.problem and not sample.problem.startswith("the GPU sampler has none"):
            self.problems["gpu"] = sample.problem
            return []
        lost = memory.unaccounted(
            self._meminfo,
            gpu=sum(sample.unified.values()),
            charged=look.charged(self.cgroups),
            idle=look.idle(self.proc),
            zfs=look.zfs(self.proc),
        )
        self.figures["unaccounted"] = lost
        self.base = lost if self.base is None else min(lost, self.base)
        found = [warnings.orphan(seen) for seen in look.gpu_processes(sample, self.proc) if orphans.is_orphan(seen)]
        # While programs run on a GPU, memory that the driver manages for them may be in no figure of theirs.
        is_idle = not (sample.problem or sample.refused or sample.unified or sample.own)
        if lost > memory.limit(self.base) and is_idle:
            found.append(warnings.nobodys(lost))
        return found

    def _heat(self, now: float) -> list[Alarm]:
        """Heat, and a clock that stays low under load; where there is no sample, `gpu` has said so."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            return list(heat.alarms(self.gpu_file, look.STALE))
        return []

    def state(self, alarms: Sequence[Alarm]) -> bytes:
        """For who shows it. `boottime`: CLOCK_BOOTTIME goes on while the host sleeps, as staleness does."""
        value = {
            "version": told.VERSION,
            "pid": os.getpid(),
            "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
            "base": self.base,
            "figures": self.figures,
            "problems": self.problems,
            "alarms": [{**a._asdict(), "text": a.text[:300], "about": told.printable(a.about)[:100]} for a in alarms],
        }
        return json.dumps(value).encode()


def say(priority: int, line: str) -> None:
    """One line for the journal (sd-daemon(3))."""
    print(f"<{priority}>sparkfleet-observer: {line}", file=sys.stderr, flush=True)


def pause(log: look.KernelLog | None, seconds: float) -> None:
    """Waits for the next look, which comes at once after a burst of the driver's lines."""
    until = time.monotonic() + seconds
    if log is None:
        time.sleep(seconds)
        return
    before = log.tally.bursts, log.tally.kills
    while (left := until - time.monotonic()) > 0:
        if select.select([log.descriptor], [], [], left)[0]:
            try:
                log.drain()
            except OSError:
                time.sleep(max(0.0, left))
                return
            if (log.tally.bursts, log.tally.kills) != before:
                return
            time.sleep(min(REST, left))


def kept_base(path: Path) -> int | None:
    """What an observer before this one saw since the host was started; the file is gone after a boot."""
    try:
        return int(told.load(str(path))["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def opened(path: Path) -> look.KernelLog | None:
    try:
        return look.KernelLog(path)
    except OSError as error:
        say(WARNING, f"{path} cannot be read: {error.strerror}: the driver's lines are not counted")
        return None


def end(signum: int, frame: object) -> None:
    """A service that is told to end notes that in the ring."""
    raise SystemExit(0)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="sparkfleet-observer", description="Warns of memory that is lost or about to be; ends nothing."
    )
    top.add_argument("--file", type=Path, default=Path(told.PATH), help="default: %(default)s")
    top.add_argument("--every", type=float, default=EVERY, help="seconds; default: %(default)s")
    top.add_argument("--once", action="store_true", help="one look, to standard output as well")
    top.add_argument("--ring", type=Path, default=Path(ring.PATH), help="samples; default: %(default)s")
    top.add_argument(
        "--print",
        choices=samples.KINDS,
        help="print the ring's samples as JSON and end: seconds (16 min), minutes (24 h)",
    )
    top.add_argument("--last", type=int, default=samples.MOST, metavar="N", help="with --print: the last N only")
    top.add_argument("--proc-root", type=Path, default=Path("/proc"), help=argparse.SUPPRESS)
    top.add_argument("--sys-root", type=Path, default=Path("/sys"), help=argparse.SUPPRESS)
    top.add_argument("--cgroup-root", type=Path, default=Path("/sys/fs/cgroup"), help=argparse.SUPPRESS)
    top.add_argument("--gpu-file", default=gpu_sample.PATH, help=argparse.SUPPRESS)
    top.add_argument("--kernel-log", type=Path, default=Path("/dev/kmsg"), help=argparse.SUPPRESS)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Goes on until it is ended. Exit code 1 where its file cannot be written, or no ring read (`--print`)."""
    options = parser().parse_args(arguments)
    if options.print:
        return samples.show(str(options.ring), options.print, options.last)
    signal.signal(signal.SIGTERM, end)
    supervisor = Supervisor()
    log = opened(options.kernel_log)
    observer = Observer(options.proc_root, options.cgroup_root, options.gpu_file, log, kept_base(options.file))
    if not options.once:
        observer.recorder = recorder(options, log)
    try:
        options.file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        while True:
            holds, new, over = observer.look(time.monotonic())
            for alarm in new:
                say(WARNING, alarm.line)
            for alarm in over:
                if alarm.kind in EVENTS:
                    continue
                say(NOTICE, f"no longer so: {told.printable(alarm.text)}")
            replace(options.file, observer.state(holds), 0o644)
            supervisor.tell("READY=1", "WATCHDOG=1")
            if options.once:
                print(options.file.read_text())
                return 0
            pause(log, options.every)
    except OSError as error:
        say(WARNING, f"{error.filename or options.file}: {error.strerror}")
        return 1
    finally:
        if observer.recorder:
            observer.recorder.stop()


def recorder(options: argparse.Namespace, log: look.KernelLog | None) -> Recorder:
    """The thread that writes the ring, started; all pages stay, so that it goes on while memory is short."""
    if why := lock_memory():
        say(WARNING, f"pages can be taken away while memory is short: {why}")

    def counts() -> tuple[int, int] | None:
        return (log.tally.refused, log.tally.bursts) if log else None

    made = Recorder(options.ring, Eyes(options.proc_root, options.sys_root, options.gpu_file, counts))
    made.start()
    return made
