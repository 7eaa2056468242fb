"""What a series has found, on disk after every step: it goes on where it stopped, also after the host has frozen.

A step is noted as unfinished, and that note flushed to disk, before it starts: if the host does not survive it, the
next run knows which value it was.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base.files import write_atomic
from sparkhost.base.units import Mistake
from sparkhost.tools.profile.fit import Point, Status
from sparkhost.tools.profile.sample import Peaks

VERSION = 1
JSON, CSV, PLOT = "results.json", "results.csv", "plot.svg"


class Series(NamedTuple):
    """What is profiled; a directory holds one series. `total`: MemTotal in bytes."""

    template: list[str]
    vary: str
    settings: dict[str, str]
    by: str
    total: int
    peers: str = ""
    """Other hosts that have a part of it."""


class Step(NamedTuple):
    """One value. `peak`: what the run used at most, by what the series goes by; bytes."""

    value: int
    status: Status
    peak: int
    code: int = 0
    peaks: Peaks | None = None
    peers: dict[str, int] = {}  # noqa: RUF012 - never changed
    """What other hosts used at most, by name; `peak` is the most of all hosts."""


class Store:
    """A directory with results."""

    def __init__(self, directory: Path, series: Series) -> None:
        self.directory, self.series = directory, series
        self.steps: dict[int, Step] = {}
        self.summary: dict[str, Any] | None = None

    def load(self, anew: bool) -> None:
        """Takes over what is there of the same series.

        Raises:
            Mistake: the directory holds another series, or cannot be used.
        """
        path = self.directory / JSON
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            text = path.read_text()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Mistake(f"--out: {error.filename}: {error.strerror}") from error
        if anew:
            return
        try:
            value = json.loads(text)
            series = Series(**value["series"])
            steps = [step_of(item) for item in value["steps"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Mistake(f"--out: {path} is no result of spark-profile: name another directory, or --anew") from error
        if series._replace(total=0) != self.series._replace(total=0):
            raise Mistake(f"--out: {path} is of another command or other settings: name another directory, or --anew")
        self.steps = {step.value: step for step in steps}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps others out of the directory, as long as this runs.

        Raises:
            Mistake: somebody is there already.
        """
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Mistake(f"--out: another spark-profile works in {self.directory}") from None
        finally:
            os.close(descriptor)

    def forget_unfinished(self) -> None:
        """Takes the note of a step away that was ended on purpose: the host did survive it."""
        self.steps = {value: step for value, step in self.steps.items() if step.status != "unfinished"}

    def take_back(self, value: int, known: Step | None) -> None:
        """Puts what was known of a value back in place of the note of a step that never began.

        Raises:
            OSError: as `note`.
        """
        del self.steps[value]
        if known:
            self.steps[value] = known
        self.write(JSON, json.dumps(self.document(), indent=1) + "\n")

    def note(self, step: Step) -> None:
        """Keeps a step, and has it on disk when this returns.

        Raises:
            OSError: such as a full disk; what was there before is untouched.
        """
        self.steps[step.value] = step
        self.write(JSON, json.dumps(self.document(), indent=1) + "\n")

    def write(self, name: str, content: str) -> None:
        write_atomic(self.directory / name, content.encode(), 0o644, os.getuid(), os.getgid())

    def document(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "series": self.series._asdict(),
            "steps": [
                {**step._asdict(), "peaks": step.peaks._asdict() if step.peaks else None} for step in self.ordered()
            ],
            "summary": self.summary,
        }

    def ordered(self) -> list[Step]:
        return [self.steps[value] for value in sorted(self.steps)]

    def points(self) -> list[Point]:
        """Of the steps that ran to their end."""
        return [Point(step.value, step.peak) for step in self.ordered() if step.status == "ok"]

    def torch(self) -> dict[str, list[Point]]:
        """What PyTorch said of the same steps, by name."""
        done = [(step.value, step.peaks) for step in self.ordered() if step.status == "ok" and step.peaks]
        found = {
            "reserved by PyTorch": [
                Point(value, peaks.reserved) for value, peaks in done if peaks.reserved is not None
            ],
            "in use": [Point(value, peaks.in_use) for value, peaks in done if peaks.in_use is not None],
        }
        return {name: points for name, points in found.items() if points}

    def table(self) -> str:
        """As CSV: a row a step, sizes in bytes."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([self.series.vary, "status", "code", "peak", *Peaks._fields])
        for step in self.ordered():
            measured = list(step.peaks) if step.peaks else [""] * len(Peaks._fields)
            writer.writerow([step.value, step.status, step.code, step.peak, *measured])
        return out.getvalue()


def step_of(item: dict[str, Any]) -> Step:
    peaks = item.pop("peaks")
    return Step(**item, peaks=Peaks(**peaks) if peaks else None)
