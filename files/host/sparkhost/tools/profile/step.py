"""One run of the command: started, followed, and ended before the host is in danger."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sparkhost.base.units import Mistake
from sparkhost.launcher import jobs
from sparkhost.launcher.unit import SLICE
from sparkhost.tools.profile.fit import Status
from sparkhost.tools.profile.sample import Memory, Peaks, Sampler

LAUNCHER = "spark-run"
TERM_TO_KILL = 10.0
"""Seconds that a step has to end after SIGTERM."""
SETTLE = 30.0
"""Seconds that memory may take to come back after a step: the driver gives it back late."""
LOOK_FOR_JOB_EVERY = 0.2


class Limits(NamedTuple):
    """When a step is ended. Bytes, seconds."""

    floor: int
    """MemAvailable below which it is ended."""
    seconds: float
    rate: float
    """Looks a second."""


class Outcome(NamedTuple):
    """How a step ended. `code`: as a shell has it."""

    status: Status
    code: int
    peaks: Peaks


class NotStarted(Mistake):
    """The command could not even be started."""


def wrapped(command: Sequence[str], name: str, cap: str | None) -> list[str]:
    """The command as a job of the launcher. Its own look at the memory is left out: this program has looked."""
    options = ["--quiet", "--no-preflight", "--name", name, *(["--memory", cap] if cap else [])]
    return [LAUNCHER, *options, "--", *command]


def finder(name: str) -> Callable[[], str | None]:
    """Finds the cgroup of the job of that name, without looking at every record many times a second."""
    looked = 0.0

    def find() -> str | None:
        nonlocal looked
        if time.monotonic() - looked < LOOK_FOR_JOB_EVERY:
            return None
        looked = time.monotonic()
        found = next((job for job in reversed(jobs.all_jobs()) if job.name == name), None)
        return f"/{SLICE}/{found.unit}" if found and jobs.running(found) else None

    return find


def run(
    command: Sequence[str],
    log: Path,
    limits: Limits,
    memory: Memory,
    job: str | None = None,
    environment: Mapping[str, str] | None = None,
    forced: Mapping[str, str] | None = None,
    enough: Callable[[], object] = lambda: None,
) -> Outcome:
    """Runs a command to its end, or ends it. Its output goes to `log`. `job`: its name where the launcher runs it.

    `environment`: variables for it beside those of this process, which win; but not over `forced`.
    `enough`: tells that the step is in vain, since another part of it has failed.

    Raises:
        NotStarted: it cannot be started.
    """
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**(environment or {}), **os.environ, **(forced or {})},
            )
        except OSError as error:
            hint = "; --plain runs the command without it, and nothing caps it then" if job else ""
            raise NotStarted(f"{command[0]}: {error.strerror}{hint}") from error
    sampler = Sampler(process.pid, memory, finder(job)) if job else Sampler(process.pid, memory)
    status: Status = "ok"
    try:
        status = follow(process.pid, sampler, limits, enough)
    finally:
        if status != "ok" or process.poll() is None:
            end(process, sampler, 1 / limits.rate)
            if job:
                stop(job)
    code = process.wait()
    code = 128 - code if code < 0 else code
    return Outcome("failed" if status == "ok" and code else status, code, sampler.peaks())


def follow(pid: int, sampler: Sampler, limits: Limits, enough: Callable[[], object] = lambda: None) -> Status:
    """Looks until the process ends, memory falls below the floor, the step is in vain, or time is over."""
    until = time.monotonic() + limits.seconds
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        due = time.monotonic()
        while True:
            if sampler.look() < limits.floor:
                return "stopped"
            if enough():
                return "failed"
            due = max(due + 1 / limits.rate, time.monotonic())
            if poll.poll(max(due - time.monotonic(), 0) * 1000):
                return "ok"
            if time.monotonic() > until:
                return "timeout"
    finally:
        os.close(descriptor)


def end(process: subprocess.Popen[bytes], sampler: Sampler, pause: float) -> None:
    """SIGTERM to all of the step, and SIGKILL to what is still there later. The launcher passes the first one on."""
    until = time.monotonic() + TERM_TO_KILL
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    while time.monotonic() < until and process.poll() is None:
        sampler.look()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def stop(job: str) -> None:
    """Has the launcher's helper end the job: a job that ignores a hang-up would outlive its launcher."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([LAUNCHER, "stop", job], capture_output=True, timeout=60, check=False)


def settled(memory: Memory, before: int, tolerance: int, patience: float = SETTLE) -> bool:
    """Waits until MemAvailable is back where it was before a step; False where it is not in time."""
    until = time.monotonic() + patience
    while memory.read("MemAvailable") < before - tolerance:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
