"""What a boot has left behind, and what its lines mean. Pure: texts in, figures out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sparkhost.observer.kernel_log import KILLER, REFUSED, Record, Tally
from sparkhost.observer.ring import Sample

# Catalogued messages (systemd, src/systemd/sd-messages.h).
JOURNAL_START, JOURNAL_STOP = "f77379a8490b408bbe5f6940505a777b", "d93fb3c9c24d451a97cea615ce59c00b"
SHUTDOWN, POWER_KEY = "98268866d1d54a499c4e98921d93bc40", "b72ea4a2881545a0b50e200e55b9b070"
STARTED = "39f53479d3a045ac8e11786248231fbf"
AT_THE_END = 40
"""Lines before the last one among which journald's own farewell is looked for: it also ends for an upgrade."""

# Bits of a timer's bootstatus (include/uapi/linux/watchdog.h, WDIOF_*).
OVERHEAT, POWER_UNDER, RESET, POWER_OVER = 0x01, 0x10, 0x20, 0x40
BITS = {OVERHEAT: "too hot", 0x02: "a fan failed", POWER_UNDER: "too little power", RESET: "the timer reset the host"}
BITS |= {POWER_OVER: "too much power"}

HOT_LINE = re.compile(r"critical temperature|temperature above threshold|thermal.*(?:shut ?down|poweroff)", re.I)
HARDWARE_LINE = re.compile(r"\[Hardware Error\]|BERT: |mce: |Previous system reset reason|under-?voltage", re.I)
POWER_LINE = re.compile(r"power[ -](?:fail|loss|supply|button|good)|under-?voltage|brown-?out|VRM|voltage", re.I)
PANIC_LINE = re.compile(r"Kernel panic - not syncing: (.*)")
HAND_LINE = re.compile(r"sysrq: Trigger a crash|sysrq triggered crash", re.I)
HUNG_LINE = re.compile(
    r"blocked for more than \d+ seconds|hung_task: blocked tasks|soft lockup|rcu.*self-detected stall"
)
MEMORY_PANIC = re.compile(r"out of memory|out_of_memory|deadlocked on memory|no killable process", re.I)
OOM_LINE = re.compile(r"Out of memory: Killed process (\d+) \((.*?)\)")
ENDING_COMMAND = re.compile(r"COMMAND=.*\b(?:shutdown|reboot|poweroff|halt)\b")
KILL_COMMAND = re.compile(r"COMMAND=\S*/(?:kill|pkill|killall)\b")
KILLERS = re.compile(r"earlyoom|nohang|oomd|oom|memwatch|mem-guard|sparkfleet-watchdog", re.I)
SENT = re.compile(r"SIGTERM|SIGKILL|[Kk]illed|[Kk]illing")
SIGNALLED = re.compile(r"^(\S+): (?:Main|Control) process exited, code=killed, status=(\d+)/(\w+)")
VITAL = re.compile(r"\b(?:sshd?|systemd-\w+|dbus(?:-daemon|-broker)?|NetworkManager|sparkfleet-\w+)\b")


class Entry(NamedTuple):
    """A line of the journal. Times in seconds: by the host's clock, and since its start."""

    time: float
    since_start: float
    text: str
    source: str
    """Who wrote it, as it calls itself."""
    catalogue: str
    unit: str
    is_kernel: bool
    boot: str


class Kill(NamedTuple):
    """A signal that ended something. `by`: who sent it, as far as the journal says."""

    time: float
    by: str
    text: str
    is_vital: bool
    """Whether it hit what the host needs to be reached."""


class Bursts(NamedTuple):
    """Of lines in which the driver was refused memory."""

    lines: int = 0
    number: int = 0
    last: float | None = None
    """When the last burst was, by the host's clock."""


NO_BURSTS = Bursts()


@dataclass(frozen=True)
class Traces:
    """All that is known of a boot that is over. Times by the host's clock; what was not seen is in `problems`."""

    boot: str = ""
    ended: float | None = None
    """Its last word, of the journal or of the ring."""
    next_start: float = 0.0
    """When the host was started again."""
    has_journal: bool = False
    is_stopped: bool = False
    """Whether journald said farewell at its end."""
    is_shut: bool = False
    """Whether the target that comes before the end was reached."""
    was_stopped_first: bool = False
    """Whether the ring's last sample says that the observer was told to end."""
    asked: tuple[str, ...] = ()
    """Who asked for the end."""
    panic: tuple[str, ...] = ()
    timer: int | None = None
    """Bits of bootstatus; None where there is no timer."""
    reset_lines: tuple[str, ...] = ()
    """What kernel and firmware said at the next start of the reset."""
    hot_lines: tuple[str, ...] = ()
    hung_lines: tuple[str, ...] = ()
    ooms: tuple[Kill, ...] = ()
    kills: tuple[Kill, ...] = ()
    bursts: Bursts = NO_BURSTS
    samples: tuple[Sample, ...] = ()
    """Of its last minute."""
    has_ring: bool = False
    last_lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def entries(text: str) -> list[Entry]:
    """What `journalctl --output=json` printed; a line that is none of its is left out."""
    found = []
    for line in text.splitlines():
        try:
            raw: dict[str, Any] = json.loads(line)
            found.append(_entry(raw))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        time=int(raw["__REALTIME_TIMESTAMP"]) / 1e6,
        since_start=int(raw.get("_SOURCE_MONOTONIC_TIMESTAMP") or raw["__MONOTONIC_TIMESTAMP"]) / 1e6,
        text=_text(raw.get("MESSAGE")),
        source=_text(raw.get("SYSLOG_IDENTIFIER") or raw.get("_COMM")),
        catalogue=_text(raw.get("MESSAGE_ID")),
        unit=_text(raw.get("UNIT")),
        is_kernel=raw.get("_TRANSPORT") == "kernel",
        boot=_text(raw.get("_BOOT_ID")),
    )


def _text(value: Any) -> str:
    """A field; journalctl gives bytes that are no text as a list of numbers, and null for what is too long."""
    if isinstance(value, list):
        value = bytes(number for number in value if isinstance(number, int) and 0 <= number < 256).decode(
            errors="replace"
        )
    return value if isinstance(value, str) else ""


def is_stopped(tail: Sequence[Entry]) -> bool:
    """Whether the journal was closed at the end, and not only for a new journald."""
    for entry in reversed(tail[-AT_THE_END:]):
        if entry.catalogue == JOURNAL_START:
            return False
        if entry.catalogue == JOURNAL_STOP:
            return True
    return False


def is_shut(lines: Iterable[Entry]) -> bool:
    return any(entry.catalogue == STARTED and entry.unit == "shutdown.target" for entry in lines)


def asked(lines: Iterable[Entry], end: float) -> tuple[str, ...]:
    """Who asked for a shutdown within the last 10 minutes."""
    found = []
    for entry in lines:
        if end - entry.time > 600:
            continue
        if entry.catalogue == POWER_KEY or (entry.source == "systemd-logind" and "ower key pressed" in entry.text):
            found.append("the power key was pressed")
        elif entry.catalogue == SHUTDOWN or (entry.source == "systemd-logind" and "ystem is " in entry.text):
            found.append(f"{entry.source}: {entry.text}")
        elif entry.source == "sudo" and ENDING_COMMAND.search(entry.text):
            found.append(f"sudo: {entry.text.strip()}")
        elif entry.source.startswith("unattended-upgrade") and "reboot" in entry.text.lower():
            found.append(f"{entry.source}: {entry.text}")
    return tuple(dict.fromkeys(found))


def kills(lines: Iterable[Entry]) -> tuple[Kill, ...]:
    """Who ended what, in order; without what the kernel did by the limit of a cgroup, which is a job's cap at work."""
    found = []
    for entry in lines:
        is_vital = bool(VITAL.search(entry.text))
        match = SIGNALLED.match(entry.text)
        if entry.is_kernel and OOM_LINE.search(entry.text):
            found.append(Kill(entry.time, "the kernel's OOM killer", entry.text, is_vital))
        elif entry.source == "sudo" and KILL_COMMAND.search(entry.text):
            found.append(Kill(entry.time, "somebody, by sudo", entry.text.strip(), is_vital))
        elif entry.source != "systemd" and KILLERS.search(entry.source) and SENT.search(entry.text):
            found.append(Kill(entry.time, entry.source, entry.text, bool(VITAL.search(entry.text))))
        elif entry.source == "systemd" and match and match[2] in ("6", "9", "15"):
            found.append(
                Kill(entry.time, "somebody (the journal does not say who)", entry.text, bool(VITAL.search(match[1])))
            )
    return tuple(sorted(found, key=lambda kill: kill.time))


def ooms(lines: Iterable[Entry]) -> tuple[Kill, ...]:
    return tuple(kill for kill in kills(entry for entry in lines if entry.is_kernel))


def bursts(lines: Sequence[Entry]) -> Bursts:
    """The driver's lines of a boot, counted as the observer does."""
    tally, last = Tally(), None
    for entry in lines:
        if entry.is_kernel and (REFUSED.search(entry.text) or KILLER in entry.text):
            before = tally.burst_at
            tally.take(Record(entry.since_start, entry.text))
            last = entry.time if tally.burst_at != before else last
    return Bursts(tally.refused, tally.bursts, last)


def matching(lines: Iterable[Entry], pattern: re.Pattern[str], most: int = 5) -> tuple[str, ...]:
    """The last lines of the kernel's that fit."""
    return tuple([entry.text for entry in lines if entry.is_kernel and pattern.search(entry.text)][-most:])


def panic(text: str) -> tuple[str, ...]:
    """What a saved kernel log says of its end: the panic's line first, then who brought it about; () for none.

    A log that was saved for an oops which the host survived has no line of a panic.
    """
    lines = [re.sub(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *\w+\])? ?", "", line) for line in text.splitlines()]
    found = [line for line in lines if PANIC_LINE.search(line)]
    if not found:
        return ()
    others = [line for line in lines if HAND_LINE.search(line) or HUNG_LINE.search(line) or MEMORY_PANIC.search(line)]
    return tuple(dict.fromkeys([found[0], *others[:4]]))
