"""`spark-run -- COMMAND`: starts a job and stays with it, or leaves it to itself (`--detach`)."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from sparkhost.launcher import channel as messages
from sparkhost.launcher import config as configuration
from sparkhost.launcher import inherit, preflight, terminal
from sparkhost.launcher.attach import Ending, attend
from sparkhost.launcher.channel import Broken
from sparkhost.launcher.client import Trouble, ask
from sparkhost.launcher.config import BadConfig
from sparkhost.launcher.jobs import Job, directory_of, record
from sparkhost.launcher.options import Options
from sparkhost.launcher.request import Start
from sparkhost.launcher.unit import SLICE

CANNOT_START = 125
"""Exit code where there was no job: as `timeout` and `nohup` have it for trouble of their own."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The launcher's and the job's end. The kernel adds to every message who sent it (SO_PASSCRED, unix(7))."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, messages.PASSCRED, 1)
    return ours, theirs


def hand_over(channel: socket.socket, job: dict[str, Any], fds: list[int], detached: bool) -> None:
    """Sends the stub what to run: standard input, output and error, and the slave of a terminal if there is one."""
    memory = messages.memfd(job)
    try:
        messages.send(channel, {"detached": detached}, [memory, *fds])
    finally:
        os.close(memory)


def launch(options: Options) -> int:
    """Runs a job; the exit code for the shell.

    Raises:
        Trouble: there was no job.
    """
    try:
        config = configuration.read()
    except BadConfig as error:
        raise Trouble(str(error)) from error
    interactive = terminal.usable() and not options.detach
    if options.preflight:
        need = options.need or options.memory or config.need
        preflight.check(need, config.preflight, options.drop_cache, interactive)
    started = time.time()
    clock = time.monotonic()
    ours, theirs = pair()
    with ours:
        with theirs:
            told = ask(Start(options.memory, options.time, options.name, options.host_ipc), [theirs.fileno()])
        job = Job(
            id=told["id"],
            name=options.name or "",
            argv=[
                messages.text(os.fsencode(argument)).encode("ascii", "replace").decode() for argument in options.argv
            ],
            directory=str(Path.cwd()),
            started=started,
            memory=told["memory"],
            limit=options.time,
            detached=options.detach,
        )
        names = {"SPARK_JOB_ID": job.id, **({"SPARK_JOB_NAME": job.name} if job.name else {})}
        environment = inherit.environment_of(os.environb, options.detach, options.env_only, names)
        inherited = inherit.gather(options.argv, environment)
        if options.detach:
            return detach(ours, job, inherited)
        with contextlib.suppress(OSError):  # a job without a record is one that `spark-run ps` does not name
            record(job)
        ending = stay(ours, inherited, interactive, f"/{SLICE}/{job.unit}")
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
        for line in report.summary(ending, code, seconds, why).splitlines():
            print(f"spark-run: job {job.id}: {line}", file=sys.stderr)
    return code


def main(options: Options) -> int:
    try:
        return launch(options)
    except Trouble as trouble:
        for line in str(trouble.args[0]).splitlines():
            print(f"spark-run: {line}", file=sys.stderr)
        return trouble.args[1] if len(trouble.args) > 1 and trouble.args[1] else CANNOT_START
    except (Broken, OSError) as error:
        where = f": {Path(error.filename)}" if isinstance(error, OSError) and error.filename else ""
        print(f"spark-run: {getattr(error, 'strerror', None) or error}{where}", file=sys.stderr)
        return CANNOT_START
