"""What is known of a build in the making: which steps are done, how long each took, what the last failure was.

/var/lib/sparkfleet/vllm-source/KEY.json, written by root only. KEY.log beside it has all that the steps have printed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, write_atomic
from sparkhost.base.resource import Failed

STATE = Path("/var/lib/sparkfleet/vllm-source")
BUILDING = "building"
"""Names the build that was last asked for."""


@dataclass
class Step:
    """One step of a build: its last try."""

    name: str
    state: str = "running"
    """running, done or failed."""
    started: str = ""
    """UTC, ISO 8601."""
    seconds: float = 0.0
    status: int | None = None
    """Exit status of the command that failed, 0 where none did; None while it runs. Negative: ended by that signal."""
    note: str = ""
    """What it came to, or why it failed: one line."""


@dataclass
class Record:
    """A build, step by step, in the order of the steps."""

    key: str
    commit: str
    stack: str
    steps: list[Step] = field(default_factory=list)

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)

    def is_done(self, name: str) -> bool:
        step = self.step(name)
        return step is not None and step.state == "done"

    def begin(self, name: str, started: str) -> Step:
        """A new try of a step, in the place of its last one."""
        step = Step(name, started=started)
        place = next((index for index, old in enumerate(self.steps) if old.name == name), len(self.steps))
        self.steps[place : place + 1] = [step]
        return step

    @property
    def stopped(self) -> Step | None:
        """The step that it ended at without being done: failed, or cut off."""
        return next((step for step in self.steps if step.state != "done"), None)

    def save(self) -> None:
        make_directories(STATE)
        values = {"_": "managed by sparkfleet (measure: vllm_source)", **asdict(self)}
        write_atomic(STATE / f"{self.key}.json", (json.dumps(values, indent=1) + "\n").encode(), 0o644)


def read_record(key: str) -> Record | None:
    """What is known of a build; None where nothing is, or the file is damaged: it then begins anew."""
    try:
        values = json.loads(bounded.read_text(STATE / f"{key}.json"))
        steps = [Step(**step) for step in values["steps"]]
        return Record(values["key"], values["commit"], values["stack"], steps)
    except (Failed, OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def log_of(key: str) -> Path:
    return STATE / f"{key}.log"


def asked_for() -> str:
    """The key of the build that was last asked for; "" where none was."""
    try:
        return bounded.read_text(STATE / BUILDING).strip()
    except (Failed, OSError):
        return ""


def ask_for(key: str) -> None:
    make_directories(STATE)
    write_atomic(STATE / BUILDING, f"{key}\n".encode(), 0o644)


def keep_only(keys: Sequence[str]) -> None:
    """Forgets what is known of all other builds."""
    for path in [*STATE.glob("*.json"), *STATE.glob("*.log")]:
        if path.stem not in keys:
            path.unlink()
