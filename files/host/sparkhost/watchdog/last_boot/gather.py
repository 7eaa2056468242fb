"""Reads what the boot before this one has left behind. Each piece is bounded, and one that fails is a `problem`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from sparkhost.base import bounded, small_files
from sparkhost.base.resource import Failed
from sparkhost.observer import ring
from sparkhost.observer.recorder import boot_id
from sparkhost.observer.ring import Sample
from sparkhost.watchdog.last_boot import traces
from sparkhost.watchdog.last_boot.judge import LAST
from sparkhost.watchdog.last_boot.traces import Entry, Traces

FIELDS = "MESSAGE,MESSAGE_ID,SYSLOG_IDENTIFIER,_COMM,UNIT,_TRANSPORT,_SOURCE_MONOTONIC_TIMESTAMP"
JOURNALCTL = ("journalctl", "--quiet", "--no-pager", "--output=json", f"--output-fields={FIELDS}")
SECONDS, MOST_BYTES = 30.0, 16 << 20
"""Most that one call of journalctl may take and print."""
TAIL, KERNEL, WHO = 400, 4000, 600
"""Most lines that are asked for."""
SENDERS = (
    *("sudo", "systemd-logind", "unattended-upgrade", "unattended-upgrades", "earlyoom", "nohang", "systemd-oomd"),
    *("oomd", "sparkfleet-watchdog", "dgx-anti-oom"),
)
"""Who asks for an end or ends things; besides PID 1, which says what was killed."""
AT_START = r"Previous system reset reason|BERT: |\\[Hardware Error\\]|mce: |pstore: .*records"
LARGEST_LOG = 1 << 20
MOST_LOGS = 64
SAVED = ("/var/lib/systemd/pstore", "/sys/fs/pstore", "/var/crash")
EARLY = 1800.0
"""Seconds after the start within which what a panic left behind is put away (systemd-pstore.service(8))."""
EXITED = "98e322203f7a4ed290d09fe03c09fe15"
"""A unit's process has ended (systemd, src/systemd/sd-messages.h, SD_MESSAGE_UNIT_PROCESS_EXIT)."""
Ask = Callable[[Sequence[str]], str]


def journalctl(arguments: Sequence[str]) -> str:
    """What journalctl prints.

    Raises:
        Failed: it says why not, or its answer has no end.
    """
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    done = bounded.call((*JOURNALCTL, *arguments), seconds=SECONDS, limit=MOST_BYTES, env=environment)
    if done.returncode and not done.stdout:
        # With --grep nothing found is exit code 1 and no word (journalctl(1)).
        if not done.stderr.strip():
            return ""
        raise Failed(done.stderr.strip().splitlines()[0][:200])
    return done.stdout


def saved_logs(roots: Sequence[str], since: float) -> Iterator[str]:
    """Kernel logs that a panic left, put away or not since `since`; of kdump's too."""
    for root in map(Path, roots):
        found = islice((path for path in root.glob("**/dmesg*") if path.is_file() and not path.is_symlink()), MOST_LOGS)
        for path in sorted(found, key=lambda path: path.stat().st_mtime):
            if path.stat().st_mtime >= since:
                yield small_files.read(str(path), LARGEST_LOG, flags=os.O_NOFOLLOW).decode(errors="replace")


def timer(sys: Path) -> int | None:
    """The bits of bootstatus, of all timers; None where there is none (sysfs-class-watchdog)."""
    found = None
    for path in sorted((sys / "class/watchdog").glob("watchdog*/bootstatus"))[:8]:
        text = small_files.read(str(path), 64).decode(errors="replace").strip()
        found = (found or 0) | (int(text) if text.isdecimal() else 0)
    return found


class Gathering:
    """One look back. `ask`: runs journalctl."""

    def __init__(
        self, ask: Ask = journalctl, sys: Path = Path("/sys"), saved: Sequence[str] = SAVED, path: str = ring.PATH
    ) -> None:
        self.ask, self.sys, self.saved, self.path = ask, sys, saved, path
        self.problems: list[str] = []
        self.start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def traces(self) -> Traces:
        """All that can be seen."""
        samples = self._samples()
        tail = self._entries("the journal of the last boot", "--boot=-1", f"--lines={TAIL}")
        boot = tail[-1].boot if tail else ""
        if samples and samples[-1].boot != boot:
            # The journal of the last boot never reached the disk, or there is none: the ring knows of a later one.
            if not tail or samples[-1].time > tail[-1].time:
                boot, tail = samples[-1].boot, []
                self.problems.append("the journal has nothing of the boot that the ring was of last")
            else:
                samples = []
        if not samples:
            self.problems.append("the ring has no sample of that boot")
        ends = [entry.time for entry in tail[-1:]] + [sample.time for sample in samples[-1:]]
        end = max(ends) if ends else None
        kernel = self._entries("its kernel log", f"--boot={boot}", "--dmesg", f"--lines={KERNEL}") if tail else []
        who = self._entries("who asked", f"--boot={boot}", f"--lines={WHO}", *senders()) if tail else []
        now = self._entries("this start", "--boot=0", "--dmesg", f"--grep={AT_START}", "--lines=20")
        recent = [entry for entry in kernel if end is not None and end - entry.time <= LAST * 10]
        return Traces(
            boot=boot,
            ended=end,
            next_start=self.start,
            has_journal=bool(tail),
            is_stopped=traces.is_stopped(tail),
            is_shut=traces.is_shut(who),
            was_stopped_first=bool(samples) and samples[-1].kind == ring.STOP,
            asked=traces.asked(who, end or 0.0),
            panic=self._panic(end),
            timer=self._timer(),
            reset_lines=tuple(entry.text for entry in now)[-5:],
            hot_lines=traces.matching(recent, traces.HOT_LINE),
            hung_lines=traces.matching(recent, traces.HUNG_LINE),
            ooms=traces.ooms(kernel),
            kills=traces.kills(dict.fromkeys([*who, *kernel, *tail]))[-5:],
            bursts=traces.bursts(kernel),
            samples=tuple(s for s in samples if end is not None and end - s.time <= LAST),
            has_ring=bool(samples),
            last_lines=tuple(f"{entry.source}: {entry.text}" for entry in tail[-3:]),
            problems=tuple(self.problems),
        )

    def _samples(self) -> list[Sample]:
        """Of the last boot that the ring knows of before this one."""
        try:
            found = ring.read(self.path)[0]
            before = [sample for sample in found if sample.boot != boot_id()]
        except OSError as error:
            self.problems.append(f"the ring ({self.path}): {error.strerror}")
            return []
        return [sample for sample in before if sample.boot == before[-1].boot]

    def _entries(self, what: str, *arguments: str) -> list[Entry]:
        try:
            return traces.entries(self.ask(arguments))
        except Failed as error:
            self.problems.append(f"{what}: {error}")
            return []

    def _panic(self, end: float | None) -> tuple[str, ...]:
        since = self.start - EARLY if end is None else end - LAST
        try:
            return next((found for text in saved_logs(self.saved, since) if (found := traces.panic(text))), ())
        except OSError as error:
            self.problems.append(f"what a panic leaves behind: {error}")
            return ()

    def _timer(self) -> int | None:
        try:
            return timer(self.sys)
        except OSError as error:
            self.problems.append(f"the hardware's timer: {error}")
            return None


def senders() -> tuple[str, ...]:
    """What the journal is asked for: these programs, who logs a shutdown, and PID 1 about the end and killed units."""
    said = (f"MESSAGE_ID={name}" for name in (traces.SHUTDOWN, traces.POWER_KEY))
    # A field that is named twice is one or the other; + is one term or the other (journalctl(1)).
    return (
        *(f"SYSLOG_IDENTIFIER={name}" for name in SENDERS),
        "+",
        *said,
        "+",
        "_PID=1",
        f"MESSAGE_ID={traces.STARTED}",
        "UNIT=shutdown.target",
        "+",
        "_PID=1",
        f"MESSAGE_ID={EXITED}",
    )
