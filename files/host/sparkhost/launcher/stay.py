"""From the moment at which a job is asked for: hands it over, stays with it or leaves it to itself (`--detach`).

Imported while PID 1 starts the job's unit, so that nobody waits for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkhost.launcher import channel as messages
from sparkhost.launcher import inherit, promise, terminal
from sparkhost.launcher.attach import Ending, attend
from sparkhost.launcher.client import Trouble
from sparkhost.launcher.jobs import Job, directory_of, record
from sparkhost.launcher.options import Options
from sparkhost.launcher.unit import SLICE

if TYPE_CHECKING:
    import socket


def hand_over(channel: socket.socket, job: dict[str, Any], fds: list[int], detached: bool) -> None:
    """Sends the stub what to run: standard input, output and error, and the slave of a terminal if there is one."""
    memory = messages.memfd(job)
    try:
        messages.send(channel, {"detached": detached}, [memory, *fds])
    finally:
        os.close(memory)


def follow(options: Options, told: dict[str, Any], channel: socket.socket, started: float, clock: float) -> int:
    """Runs the job of which the helper has `told`; the exit code for the shell.

    Raises:
        Trouble: there was no job.
    """
    interactive = terminal.usable() and not options.detach
    if told.get("warning") and not options.quiet:
        print(f"spark-run: {told['warning']}", file=sys.stderr)
    job = Job(
        id=told["id"],
        name=options.name or "",
        argv=[messages.text(os.fsencode(argument)).encode("ascii", "replace").decode() for argument in options.argv],
        directory=str(Path.cwd()),
        started=started,
        memory=told["memory"],
        limit=options.time,
        detached=options.detach,
    )
    names = {"SPARK_JOB_ID": job.id, **({"SPARK_JOB_NAME": job.name} if job.name else {})}
    environment = inherit.environment_of(os.environb, options.detach, options.env_only, names)
    if not options.plain_env:
        more, notes = promise.told(job.memory, options.argv, dict(environment))
        environment += more.items()
        for note in notes if not options.quiet else ():
            print(f"spark-run: {note}", file=sys.stderr)
    inherited = inherit.gather(options.argv, environment)
    if options.detach:
        return detach(channel, job, inherited)
    with contextlib.suppress(OSError):  # a job without a record is one that `spark-run ps` does not name
        record(job)
    ending = stay(channel, inherited, interactive, f"/{SLICE}/{job.unit}")
    return conclude(ending, job, time.monotonic() - clock, options.quiet)


def detach(channel: socket.socket, job: Job, inherited: dict[str, Any]) -> int:
    """Hands the job over, waits until its command runs, and leaves."""
    directory = directory_of(job.id)
    try:
        record(job)
        log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Trouble(f"no place for the job's output: {directory}: {error.strerror}") from error
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    hand_over(channel, inherited, [nothing, log, log], detached=True)
    ending = attend(channel, until_started=True)
    if not ending.started:
        raise Trouble(ending.failed or not_started(job))
    print(f"{job.id}")
    print(f"spark-run: job {job.id} runs: spark-run logs {job.id}, spark-run stop {job.id}", file=sys.stderr)
    return 0


def stay(channel: socket.socket, inherited: dict[str, Any], interactive: bool, cgroup: str) -> Ending:
    """Hands the job over and attends it, on a terminal of its own if the user sits at one."""
    screen = terminal.Terminal() if interactive else None
    try:
        if screen:
            error = screen.slave if os.isatty(2) else 2
            hand_over(channel, inherited, [screen.slave, screen.slave, error, screen.slave], detached=False)
            screen.start()
        else:
            hand_over(channel, inherited, [0, 1, 2], detached=False)
        # While the job starts: a deploy may have taken these modules away when it ends.
        from sparkhost.launcher import gpu, report  # noqa: F401

        look = (lambda: gpu.of_cgroup(cgroup)) if gpu.SAMPLES.exists() else None
        return attend(channel, screen, look=look)
    finally:
        if screen:
            screen.finish()


def not_started(job: Job) -> str:
    return f"the job's unit did not start: journalctl -u {job.unit}, or ask the admin of this host"


def conclude(ending: Ending, job: Job, seconds: float, quiet: bool) -> int:
    """Tells how it ended; the exit code."""
    if ending.failed:
        raise Trouble(ending.failed, ending.code)
    if not ending.started and not ending.unit:
        raise Trouble(not_started(job))
    from sparkhost.launcher import report

    code = report.code_of(ending)
    record_ = report.find_postmortem(ending, code, job.unit, job.started)
    why = report.cause(ending, code, job.memory, job.limit, record_)
    if not quiet or why:
        for line in report.summary(ending, code, seconds, why, job.memory).splitlines():
            print(f"spark-run: job {job.id}: {line}", file=sys.stderr)
    return code
