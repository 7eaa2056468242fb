"""How a boot ended and why: a table over what was left behind. Pure.

The first row that fits is the answer. A row says what it rests on, how sure that is and what to do. Where nothing
fits, or what would decide was not seen, the answer is "unsure".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sparkhost.watchdog.last_boot.traces import (
    HAND_LINE,
    HUNG_LINE,
    MEMORY_PANIC,
    OVERHEAT,
    POWER_LINE,
    POWER_OVER,
    POWER_UNDER,
    RESET,
    Traces,
)

LAST = 60.0
"""Seconds before the end that count as its own."""
RECENT = 600.0
SCARCE = 0.03
"""Share below which memory is low: 3.6 of 120 GiB. Alone it proves nothing: servers live at 2 to 4 GiB (reported)."""
GONE = 0.01
WAITS = 20.0
"""Percent of the time in which all tasks wait for memory."""
HOT = 88.0
"""°C; hosts were lost at 91 to 92 (reported)."""
SOON = 120.0
"""Seconds from the last word to the next start, after which somebody must have been there, or the host hung."""
FRESH = 15.0
"""Seconds before the last word of all that the ring's last sample may be old."""

CLEAN, PANIC, TIMER, OOM, CUT, UNKNOWN = "clean", "panic", "watchdog reset", "OOM", "cut", "unknown"
SURE, LIKELY, OPEN = "sure", "likely", "open"
MEMORY, POWER, HEAT, A_KILLER, PERSON, KERNEL, UNSURE = (
    "memory",
    "power or firmware",
    "heat",
    "a killer",
    "a person",
    "kernel or driver",
    "unsure",
)


class Clues(NamedTuple):
    """What the table asks of a boot."""

    how: str
    is_asked: bool
    panic: str
    """"" for none, or: hand, memory, hung, other."""
    is_hot: bool
    """In the last minute, or by a word of kernel or timer."""
    has_power_fault: bool
    is_short: bool
    """Memory in the last minute: little, and everybody waits; or all but gone."""
    is_low: bool
    """Memory in the last minute: little."""
    has_burst: bool
    has_oom: bool
    has_hung: bool
    has_vital_kill: bool
    is_seen: bool
    """Whether the ring tells of the last seconds."""
    is_soon: bool
    """Whether the next start followed within minutes."""


class Verdict(NamedTuple):
    how: str
    why: str
    certainty: str
    because: str
    todo: str


class Row(NamedTuple):
    when: Callable[[Clues], bool]
    why: str
    certainty: str
    because: str
    todo: str


FOR_MEMORY = (
    "spark-why says what the watchdog ended; let jobs take less (spark-estimate) or raise watchdog.term_below, and arm "
    "hardware_watchdog, which resets a host that hangs"
)
FOR_HEAT = (
    "clear the vents and the room; cap the GPU's clock (nvidia-smi -lgc 0,2100) until temperatures stay below 80 °C"
)
FOR_POWER = (
    "check plug and power supply, and firmware (fwupdmgr get-updates); if it comes again under load, cap the GPU's "
    "clock (nvidia-smi -lgc 0,2100) and see whether it stays away"
)
FOR_KERNEL = (
    "look for the line above among known problems of this kernel and driver, update or go back one; keep the saved log"
)
FOR_KILLER = "the last kills below say who: switch that program off, or give what the host needs OOMScoreAdjust=-900"
FOR_PERSON = "ask whoever it was; there is nothing to mend"
FOR_HANG = "arm hardware_watchdog (it resets a host that hangs) and kernel.panic; after the next time ask again"

TABLE = (
    Row(lambda c: c.panic == "hand", PERSON, SURE, "somebody had the kernel crash (sysrq)", FOR_PERSON),
    Row(lambda c: c.panic == "memory", MEMORY, SURE, "the kernel panicked because memory ran out", FOR_MEMORY),
    Row(
        lambda c: c.panic == "hung" and (c.is_short or c.has_burst or c.has_oom),
        MEMORY,
        LIKELY,
        "a process hung in the kernel until it panicked, and memory was short",
        FOR_MEMORY,
    ),
    Row(
        lambda c: c.panic != "", KERNEL, SURE, "the kernel panicked, and memory was not the reason it names", FOR_KERNEL
    ),
    Row(lambda c: c.how == CLEAN and c.is_hot, HEAT, LIKELY, "the host shut down in order, and was too hot", FOR_HEAT),
    Row(
        lambda c: c.how == CLEAN and c.is_asked,
        PERSON,
        SURE,
        "the host shut down in order, because it was asked to",
        FOR_PERSON,
    ),
    Row(
        lambda c: c.how == CLEAN,
        PERSON,
        LIKELY,
        "the host shut down in order; who asked for it is not in the journal",
        FOR_PERSON,
    ),
    Row(
        lambda c: c.how == TIMER and (c.is_short or c.has_burst or c.has_oom),
        MEMORY,
        LIKELY,
        "the hardware's timer reset a host that was short of memory",
        FOR_MEMORY,
    ),
    Row(
        lambda c: c.how == TIMER and c.has_hung,
        KERNEL,
        LIKELY,
        "the hardware's timer reset a host in which processes hung in the kernel",
        FOR_KERNEL,
    ),
    Row(
        lambda c: c.how == TIMER,
        UNSURE,
        OPEN,
        "the hardware's timer reset the host: PID 1 was silent, and nothing seen says why",
        "look at the last lines; where somebody stopped PID 1 or a debugger did, it was that",
    ),
    Row(
        lambda c: c.is_hot and not c.is_short,
        HEAT,
        LIKELY,
        "the host was too hot in its last minute, and then gone",
        FOR_HEAT,
    ),
    Row(
        lambda c: c.has_power_fault,
        POWER,
        LIKELY,
        "timer, firmware or kernel tell of a fault of power or hardware",
        FOR_POWER,
    ),
    Row(
        lambda c: c.is_short,
        MEMORY,
        LIKELY,
        "memory was gone in the last minute, and the journal ends there",
        FOR_MEMORY,
    ),
    Row(
        lambda c: c.has_oom and (c.is_low or not c.is_seen),
        MEMORY,
        LIKELY,
        "the kernel's OOM killer ran just before the end",
        FOR_MEMORY,
    ),
    Row(
        lambda c: c.has_burst and (c.is_low or not c.is_seen),
        MEMORY,
        LIKELY,
        "the driver was refused memory in bursts just before the end; hosts have hung after such",
        FOR_MEMORY,
    ),
    Row(
        lambda c: c.has_vital_kill,
        A_KILLER,
        LIKELY,
        "what the host needs to be reached was killed shortly before, so it may have been alive and unreachable",
        FOR_KILLER,
    ),
    Row(
        lambda c: c.has_hung,
        KERNEL,
        LIKELY,
        "processes hung in the kernel, with memory enough, and the journal ends there",
        FOR_KERNEL,
    ),
    Row(
        lambda c: c.how == CUT and c.is_seen and c.is_soon and not (c.is_low or c.has_burst or c.has_oom),
        POWER,
        LIKELY,
        "memory and temperature were well in the last sample, the end came from one second to the next, and the host "
        "was started again at once: its power went, or it was reset (by its button or its firmware)",
        FOR_POWER,
    ),
    Row(
        lambda c: c.how == CUT and c.is_seen,
        UNSURE,
        OPEN,
        "the end came from one second to the next, and nobody knows what was until the next start: the power was off, "
        "or the host hung until somebody pulled its plug",
        FOR_HANG,
    ),
    Row(lambda c: True, UNSURE, OPEN, "what would say it was not recorded, or cannot be read", FOR_HANG),
)


def how(traces: Traces) -> str:
    """How it ended."""
    if traces.panic:
        return PANIC
    if traces.is_stopped or traces.is_shut or (traces.was_stopped_first and not traces.has_journal):
        return CLEAN
    if traces.timer and traces.timer & RESET:
        return TIMER
    if recent(traces, [kill.time for kill in traces.ooms], LAST):
        return OOM
    return CUT if traces.has_journal or traces.has_ring else UNKNOWN


def recent(traces: Traces, times: list[float], within: float) -> bool:
    return traces.ended is not None and any(traces.ended - time <= within for time in times)


def of_panic(lines: tuple[str, ...]) -> str:
    """Hand, memory, hung or other; "" without a panic."""
    for name, pattern in (("hand", HAND_LINE), ("memory", MEMORY_PANIC), ("hung", HUNG_LINE)):
        if any(pattern.search(line) for line in lines):
            return name
    return "other" if lines else ""


def clues(traces: Traces) -> Clues:
    """What the table asks."""
    least = min((s.available / s.total for s in traces.samples if s.available is not None and s.total), default=1.0)
    waits = max((s.full for s in traces.samples if s.full is not None), default=0.0)
    heat = max((h for s in traces.samples for h in (s.heat, s.gpu_heat) if h is not None), default=0.0)
    timer = traces.timer or 0
    burst = [traces.bursts.last] if traces.bursts.last is not None else []
    # The journal's last lines may never have reached the disk; the ring's have.
    counts = [sample.bursts for sample in traces.samples if sample.bursts is not None]
    last = traces.samples[-1].time if traces.samples else None
    is_seen = last is not None and traces.ended is not None and traces.ended - last <= FRESH
    return Clues(
        how=how(traces),
        is_asked=bool(traces.asked),
        panic=of_panic(traces.panic),
        is_hot=heat >= HOT or bool(traces.hot_lines) or bool(timer & OVERHEAT),
        has_power_fault=bool(timer & (POWER_UNDER | POWER_OVER)) or any(map(POWER_LINE.search, traces.reset_lines)),
        is_short=(least < SCARCE and waits >= WAITS) or least < GONE,
        is_low=least < SCARCE,
        has_burst=recent(traces, burst, LAST * 2) or (bool(counts) and counts[-1] > counts[0]),
        has_oom=recent(traces, [kill.time for kill in traces.ooms], LAST * 2),
        has_hung=bool(traces.hung_lines),
        has_vital_kill=recent(traces, [kill.time for kill in traces.kills if kill.is_vital], RECENT),
        is_seen=is_seen,
        is_soon=traces.ended is not None and traces.next_start - traces.ended <= SOON,
    )


def verdict(traces: Traces) -> Verdict:
    """The first row that fits; the last always does."""
    found = clues(traces)
    row = next(row for row in TABLE if row.when(found))
    return Verdict(found.how, row.why, row.certainty, row.because, row.todo)
