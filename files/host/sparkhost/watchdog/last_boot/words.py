"""What is known of an end, in words for a person, and as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from sparkhost.base.units import show_size
from sparkhost.observer import ring, told
from sparkhost.observer.ring import Sample
from sparkhost.watchdog.last_boot import judge
from sparkhost.watchdog.last_boot.traces import BITS, Traces

VERSION = 1
SHOWN = (60, 45, 30, 20, 10, 5, 4, 3, 2, 1, 0)
"""Seconds before the last sample that are shown."""
HOW = {
    judge.CLEAN: "in order",
    judge.PANIC: "by a panic of the kernel",
    judge.TIMER: "by a reset of the hardware's timer",
    judge.OOM: "cut off, just after the kernel's OOM killer ran",
    judge.CUT: "cut off: the journal ends without a word of a shutdown",
    judge.UNKNOWN: "nobody knows how: neither journal nor ring has anything of it",
}


def lines(traces: Traces) -> Iterator[str]:
    """For a person, most telling first."""
    verdict = judge.verdict(traces)
    when = stamp(traces.ended) if traces.ended is not None else "at an unknown time"
    yield f"the last boot of this host ended {when}, {HOW[verdict.how]}"
    if traces.ended is not None:
        later = max(0.0, traces.next_start - traces.ended)
        yield f"it was started again {stamp(traces.next_start)}, {later:.0f} s later"
    yield f"why: {verdict.why} ({verdict.certainty}): {verdict.because}"
    yield f"what to do: {verdict.todo}"
    yield from (f"evidence: {line}" for line in evidence(traces))
    yield from minute(traces.samples)
    yield from (f"not seen: {problem}" for problem in traces.problems)


def stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))


def evidence(traces: Traces) -> Iterator[str]:
    """What was found, each with where."""
    yield from (f"asked for: {line}" for line in traces.asked)
    yield from (f"panic: {line}" for line in traces.panic)
    if traces.timer is None:
        yield "no hardware timer on this host could say that it reset it"
    else:
        words = [text for bit, text in BITS.items() if traces.timer & bit]
        said = ", ".join(words) or "it did not reset this host"
        yield f"the hardware's timer says: {said} (bootstatus {traces.timer})"
    yield from (f"at this start: {line}" for line in traces.reset_lines)
    yield from (f"heat: {line}" for line in traces.hot_lines)
    yield from (f"hung: {line}" for line in traces.hung_lines)
    if traces.bursts.lines:
        before = "" if traces.bursts.last is None else f", the last {ago(traces, traces.bursts.last)}"
        text = f"{traces.bursts.lines} times, in {traces.bursts.number} bursts{before}"
        yield f"the NVIDIA driver was refused memory {text}"
    for kill in traces.kills:
        yield f"kill, {ago(traces, kill.time)}, by {kill.by}: {kill.text}"
    yield from (f"last line: {line}" for line in traces.last_lines)


def ago(traces: Traces, moment: float) -> str:
    return f"{max(0.0, (traces.ended or moment) - moment):.0f} s before"


def minute(samples: tuple[Sample, ...]) -> Iterator[str]:
    """The last minute, some of its seconds."""
    if not samples:
        return
    end = samples[-1].time
    shown = {min(samples, key=lambda s, at=end - before: abs(s.time - at)).number: None for before in SHOWN}  # type: ignore[misc]
    yield f"the last minute, up to the last sample ({stamp(end)}):"
    for sample in samples:
        if sample.number in shown:
            yield f"  {sample.time - end:4.0f} s  {of_sample(sample)}"


def of_sample(sample: Sample) -> str:
    """One line: memory, waiting, heat, clock, who holds most."""
    parts = []
    if sample.available is not None:
        parts.append(f"{show_size(sample.available)} available")
    if sample.free is not None:
        parts.append(f"{show_size(sample.free)} free")
    if sample.full is not None:
        parts.append(f"all wait {sample.full:.0f} %")
    heat = max((value for value in (sample.heat, sample.gpu_heat) if value is not None), default=None)
    if heat is not None:
        parts.append(f"{heat:.0f} °C")
    if sample.clock is not None:
        parts.append(f"{sample.clock} MHz")
    for holder in sample.holders[:2]:
        parts.append(f"{holder.name} ({holder.pid}) {show_size(holder.own + holder.gpu)}")
    if sample.kind == ring.STOP:
        parts.append("the observer was told to end")
    return ", ".join(parts)


def document(traces: Traces) -> dict[str, Any]:
    """For programs."""
    verdict = judge.verdict(traces)
    return {"version": VERSION, **verdict._asdict(), "clues": judge.clues(traces)._asdict(), "traces": plain(traces)}


def plain(traces: Traces) -> dict[str, Any]:
    values = asdict(traces)
    return {**values, "kills": [kill._asdict() for kill in traces.kills], "bursts": traces.bursts._asdict()} | {
        "ooms": [kill._asdict() for kill in traces.ooms[-5:]]
    }


def show(traces: Traces) -> Iterator[str]:
    """The lines, without anything that a terminal acts on."""
    return (f"spark-why: {told.printable(line)}" for line in lines(traces))
