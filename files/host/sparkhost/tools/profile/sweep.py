"""A series on this host: value after value, until one would not leave the headroom."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkhost.base.units import MIB, show_duration, show_size
from sparkhost.launcher.promise import TORCH_ALLOCATOR
from sparkhost.tools.doctor import text
from sparkhost.tools.profile import command, fit, plot, torch_peaks
from sparkhost.tools.profile.peers import Peers, parse, places
from sparkhost.tools.profile.recipe import Recipe
from sparkhost.tools.profile.results import CSV, JSON, PLOT, Step, Store
from sparkhost.tools.profile.sample import Memory
from sparkhost.tools.profile.step import Limits, NotStarted, run, settled, wrapped
from sparkhost.tools.profile.torch_peaks import TorchPeaks

TOLERANCE = 512 * MIB
"""What MemAvailable may stay below where it was, between two steps."""
LOG_END = 1 << 16
"""Bytes of a log's end in which known errors are looked for."""


class Profile:
    """A series on this host."""

    def __init__(
        self, store: Store, limits: Limits, options: argparse.Namespace, memory: Memory, ready: Recipe | None = None
    ) -> None:
        self.store, self.limits, self.options, self.memory, self.ready = store, limits, options, memory, ready
        self.series = store.series
        self.notes: list[str] = []
        self.peers = Peers(parse(self.series.peers), options) if self.series.peers else None

    def say(self, line: str) -> None:
        print(f"spark-profile: {line}", file=sys.stderr, flush=True)

    @property
    def room(self) -> int:
        """What a run may use now, on the host that has the least."""
        available = self.memory.read("MemAvailable")
        if self.peers and self.peers.before is not None:
            available = min(available, self.peers.before)
        return max(available - self.limits.floor, 0)

    def go(self, values: Sequence[int]) -> str:
        """Tries the values, the smallest first; why it stopped, "" where it did all of them."""
        for value in values:
            known = self.store.steps.get(value)
            if known and known.status == "ok":
                self.say(f"{self.series.vary}={value}: known, {show_size(known.peak)}")
                continue
            if known and not self.options.again:
                how = "ended with the host, or was cut short" if known.status == "unfinished" else known.status
                return f"{self.series.vary}={value}: {how} before; --again tries it once more"
            expected = fit.expect(self.store.points(), value)
            if expected is not None and expected > self.room:
                return (
                    f"{self.series.vary}={value}: may need {show_size(expected)}, and {show_size(self.room)} leave the "
                    "headroom: not tried"
                )
            step = self.attempt(value)
            if step.status != "ok":
                return self.explain(step)
        return ""

    def environment(self, values: Mapping[str, str]) -> dict[str, str]:
        """The recipe's variables. A job gets the allocator's from spark-run, with its share of the memory in them."""
        found = dict(self.ready.environment) if self.ready else {}
        if not self.options.plain:
            found = {name: text for name, text in found.items() if name not in TORCH_ALLOCATOR}
        return dict(zip(found, command.fill(list(found.values()), values), strict=True))

    def attempt(self, value: int) -> Step:
        """One value, noted before and after."""
        series = self.series
        values = {**series.settings, series.vary: str(value)}
        if self.peers:
            values |= places(0, self.peers.names, series.settings)
        words, environment = command.fill(series.template, values), self.environment(values)
        name = f"profile-{series.vary}-{value}-{os.getpid()}"[:48]
        log = self.store.directory / f"{series.vary}-{value}.log"
        known = self.store.steps.get(value)
        self.store.note(Step(value, "unfinished", 0))
        before = self.memory.read("MemAvailable")
        job = None if self.options.plain else name
        words = words if job is None else wrapped(words, name, self.options.memory)
        try:
            with asked(self.options.torch, environment) as (forced, answers), self.others(value, environment):
                enough = self.peers.failed if self.peers else lambda: None
                outcome = run(words, log, self.limits, self.memory, job, environment, forced, enough)
                told = answers()
                parts = self.peers.finish(outcome.status == "ok") if self.peers else {}
        except NotStarted:  # the note stands for a host that froze: this command has not run
            self.store.take_back(value, known)
            raise
        peaks = outcome.peaks._replace(**told._asdict()) if told else outcome.peaks
        if self.options.torch and told is None:
            self.notes.append(
                f"{series.vary}={value}: PyTorch was not used, or its processes were killed: no figures of it"
            )
        peak = peaks.processes if series.by == "processes" else max(peaks.before - peaks.available, 0)
        used = {name: part.peak for name, part in parts.items()}
        status = outcome.status
        for name, part in parts.items():
            if part.status != "ok":
                status = "failed" if status == "ok" else status
                self.notes.append(f"{series.vary}={value}: {name}: {part.status}; see {log.stem}-{name}.log")
        step = Step(value, status, max(peak, *used.values()) if used else peak, outcome.code, peaks, used)
        self.store.note(step)
        self.say(
            f"{series.vary}={value}: {step.status}, {show_size(step.peak)} in {show_duration(peaks.seconds)}; "
            f"{show_size(peaks.available)} available at least; {peaks.looks} looks, at most "
            f"{peaks.longest_gap * 1000:.0f} ms apart"
        )
        if series.by == "available" and not settled(self.memory, before, TOLERANCE):
            missing = before - self.memory.read("MemAvailable")
            self.notes.append(f"{show_size(missing)} did not come back after {series.vary}={value}: figures are unsure")
        return step

    def others(self, value: int, environment: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
        """The other hosts' parts of a step."""
        if self.peers is None:
            return contextlib.nullcontext()
        series = self.series
        return self.peers.part(series.vary, value, series.template, series.settings, environment)

    def explain(self, step: Step) -> str:
        """Why a step did not end well, with what its log says."""
        log = self.store.directory / f"{self.series.vary}-{step.value}.log"
        head = f"{self.series.vary}={step.value}"
        if step.status == "stopped":
            return f"{head}: ended, as less than {show_size(self.limits.floor)} were available"
        if step.status == "timeout":
            return f"{head}: ended after {show_duration(self.limits.seconds)} (--time)"
        with log.open("rb") as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - LOG_END, 0))
            known = list(text.look(stream.read().decode(errors="replace"), str(log)))
        hint = f": {known[0].why}; {known[0].fix}" if known else f": see {log}"
        if self.ready and self.ready.checked:
            hint += f"; the recipe's options were checked against {self.ready.checked}"
        return f"{head}: failed with exit code {step.code}{hint}"

    def summary(self, stopped: str) -> dict[str, Any]:
        """What is to be learned from it."""
        points = self.store.points()
        line = fit.line(points)
        best = fit.largest(points, self.room)
        total = self.options.total_batch
        return {
            "room": self.room,
            "headroom": self.limits.floor,
            "stopped": stopped,
            "line": line._asdict() if line else None,
            "recommended": best,
            "reach": fit.reach(points, self.room),
            "accumulation": fit.accumulation(best, total) if best and total else None,
            "notes": self.notes,
        }

    def publish(self, summary: dict[str, Any]) -> None:
        """Writes table and picture."""
        self.store.summary = summary
        self.store.write(JSON, json.dumps(self.store.document(), indent=1) + "\n")
        self.store.write(CSV, self.store.table())
        title = f"peak memory by {self.series.vary} ({self.series.by})"
        points = self.store.points()
        picture = plot.svg(points, fit.line(points), summary["room"], self.series.vary, title, self.store.torch())
        self.store.write(PLOT, picture)


@contextlib.contextmanager
def asked(
    torch: bool, environment: Mapping[str, str]
) -> Iterator[tuple[dict[str, str], Callable[[], TorchPeaks | None]]]:
    """Variables that have PyTorch say what it used, and what collects its answers; nothing where it is not asked."""
    if not torch:
        yield {}, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="spark-profile-") as name:
        directory = Path(name)
        yield torch_peaks.environment(directory, {**environment, **os.environ}), lambda: torch_peaks.collect(directory)
