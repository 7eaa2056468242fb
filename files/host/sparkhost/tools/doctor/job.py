"""What became of a job of the caller's: its log, its end, and what the watchdog wrote of it, together."""

from __future__ import annotations

from collections.abc import Iterator

from sparkhost.base.units import Mistake
from sparkhost.launcher import jobs, report
from sparkhost.launcher.attach import Ending
from sparkhost.launcher.client import Trouble
from sparkhost.launcher.jobs import Job
from sparkhost.tools.doctor import text
from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.text import Unknown


def find(word: str | None) -> Job:
    """The job of an id or a name; without one the last that was started.

    Raises:
        Mistake: there is none.
    """
    known = jobs.all_jobs()
    if word is None:
        if not known:
            raise Mistake("no job of yours is known on this host: spark-run -- COMMAND starts one")
        return known[-1]
    try:
        return jobs.chosen(word)
    except Trouble as trouble:
        raise Mistake(str(trouble)) from None


def look(job: Job) -> Iterator[Finding | Unknown]:
    """How the job ended, and the known errors in its log."""
    where = f"job {job.id}{f' ({job.name})' if job.name else ''}"
    ended_badly = False
    for finding in end_of(job, where):
        ended_badly = True
        yield finding
    log = jobs.directory_of(job.id) / "log"
    try:
        content = text.read_file(log)
    except FileNotFoundError:
        return  # it was not detached: its output went to its terminal
    found = list(text.look(content, str(log)))
    yield from found
    if not found and ended_badly:
        yield text.unknown(content, str(log))


def end_of(job: Job, where: str) -> Iterator[Finding]:
    """A finding where it did not end by itself with exit code 0."""
    if jobs.running(job):
        yield Finding("job-runs", "note", where, "it still runs", "there is no end to look at", "spark-top")
        return
    end = jobs.end_of(job)
    if not end:
        yield Finding(
            "job-lost",
            "warning",
            where,
            "how it ended is not known",
            "this host was started anew since, or froze while it ran",
            "journalctl -b -1 -e says how the last boot ended; spark-why what the watchdog did",
        )
        return
    ending = Ending(started=True, unit=end)
    code = report.code_of(ending)
    record = report.postmortem(job.unit, job.started)
    cause = report.cause(ending, code, job.memory, job.limit, record)
    if cause:
        fix = "spark-why has the figures" if record else "spark-run --memory and --time say what it may have"
        yield Finding("job-ended", "broken", where, f"exit code {code}", cause, fix)
    elif code:
        yield Finding(
            "job-failed",
            "broken",
            where,
            f"exit code {code}",
            "the command has failed by itself: nothing has ended it",
            "its output says why: spark-run logs, or what the doctor found in it",
        )
