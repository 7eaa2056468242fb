"""A user's own jobs: what the launcher noted about each, and whether it still runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from sparkhost.base.units import is_id
from sparkhost.launcher.attach import parse_end
from sparkhost.launcher.client import Trouble
from sparkhost.launcher.unit import SLICE, unit_name

CGROUPS = Path("/sys/fs/cgroup")
ENDS = Path("/run/sparkfleet/ends")
KEPT = 200
"""Jobs of which the records are kept; the oldest ones go."""


class Job(NamedTuple):
    """A record; `started` in seconds since the epoch, `memory` in bytes, `limit` in seconds."""

    id: str
    name: str
    argv: list[str]
    directory: str
    started: float
    memory: int
    limit: int | None
    detached: bool

    @property
    def unit(self) -> str:
        return unit_name(os.getuid(), self.id)


def home() -> Path:
    """Where the records are: `$XDG_STATE_HOME/spark-run`, by default ~/.local/state/spark-run."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "spark-run"


def directory_of(id_: str) -> Path:
    return home() / id_


def record(job: Job) -> None:
    """Notes a job.

    Raises:
        OSError: such as a full or read-only home.
    """
    directory = directory_of(job.id)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = directory / "job.json.new"
    new.write_text(json.dumps(job._asdict()))
    new.replace(directory / "job.json")


def read(id_: str) -> Job | None:
    try:
        return Job(**json.loads((directory_of(id_) / "job.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def all_jobs() -> list[Job]:
    """Every recorded job, the newest last."""
    try:
        names = [path.name for path in home().iterdir() if is_id(path.name)]
    except OSError:
        return []
    return sorted((job for name in names if (job := read(name))), key=lambda job: job.started)


def chosen(word: str) -> Job:
    """The job of an id, or the newest one of a name.

    Raises:
        Trouble: there is none.
    """
    for job in reversed(all_jobs()):
        if word in (job.id, job.name):
            return job
    raise Trouble(f"no job {word!r} of yours is known: spark-run ps --all lists them")


def cgroup(job: Job) -> Path:
    return CGROUPS / SLICE / job.unit


def running(job: Job) -> bool:
    return cgroup(job).is_dir()


def end_of(job: Job) -> dict[str, str]:
    """What the unit's end said, or nothing: it still runs, or the host has been started anew since."""
    try:
        return parse_end((ENDS / str(os.getuid()) / job.id).read_text())
    except (OSError, UnicodeDecodeError):
        return {}


def state_of(job: Job) -> str:
    if running(job):
        return "running"
    end = end_of(job)
    if not end:
        return "lost"
    result = end.get("result", "")
    words = {"success": "ended", "exit-code": f"ended {end.get('status', '')}", "oom-kill": "out of memory"}
    return words.get(result, result or "ended").strip()


def await_end(job: Job) -> dict[str, str]:
    """Waits until the job is over. A look at a directory, twice a second: there is nobody to be told by."""
    while running(job):
        time.sleep(0.5)
    return end_of(job)


def tidy() -> None:
    """Takes away the oldest records, but not those of jobs that run."""
    for job in all_jobs()[:-KEPT]:
        if not running(job):
            for name in ("job.json", "log", "job.json.new"):
                (directory_of(job.id) / name).unlink(missing_ok=True)
            try:
                directory_of(job.id).rmdir()
            except OSError:
                continue  # the user has put something there
