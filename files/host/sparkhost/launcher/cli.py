"""The commands `spark-run` and `spark-top`. What a plain start does not need is imported where it is."""

from __future__ import annotations

import os
import sys

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.units import Mistake, show_duration, show_size
from sparkhost.launcher.options import USAGE, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MISTAKE = 2


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """spark-run."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--help"] or words[:1] == ["-h"] or not words:
        print(USAGE)
        return 0 if words else MISTAKE
    commands = {"ps": ps, "logs": logs, "stop": stop, "wait": wait, "clean": clean}
    try:
        if words[0] in commands:
            return _with_trouble(words[0], words[1:])
        options = parse(words)
    except Mistake as mistake:
        print(f"spark-run: {mistake}", file=sys.stderr)
        return MISTAKE
    from sparkhost.launcher import run

    return run.main(options)


def _with_trouble(command: str, words: list[str]) -> int:
    from sparkhost.launcher.client import Trouble

    try:
        return {"ps": ps, "logs": logs, "stop": stop, "wait": wait, "clean": clean}[command](words)
    except Trouble as trouble:
        print(f"spark-run: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains once more as it ends
        return 141
    except OSError as error:
        print(f"spark-run: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1


def _only(words: list[str], flags: Sequence[str] = ()) -> None:
    for word in words:
        if word not in flags:
            raise Mistake(f"{word}: unknown here, see spark-run --help")


def _one(words: list[str], command: str) -> str:
    if len(words) != 1:
        raise Mistake(f"{command}: expected the id or the name of one job: spark-run {command} ID")
    return words[0]


def ps(words: list[str]) -> int:
    """Own jobs that run; with --all those that have ended, too."""
    import time

    from sparkhost.launcher import jobs

    _only(words, ("--all", "--json"))
    chosen = [job for job in jobs.all_jobs() if "--all" in words or jobs.running(job)]
    if "--json" in words:
        import json

        print(json.dumps([{**job._asdict(), "state": jobs.state_of(job)} for job in chosen]))
        return 0
    rows = [("ID", "NAME", "STATE", "SINCE", "CAP", "COMMAND")]
    for job in chosen:
        since = show_duration(max(0.0, time.time() - job.started))
        # A command's own escape sequences must not reach the terminal.
        command = "".join(char if char.isprintable() else "?" for char in " ".join(job.argv))
        rows.append((job.id, job.name or "-", jobs.state_of(job), since, show_size(job.memory), command[:60]))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]))
    return 0


def logs(words: list[str]) -> int:
    """What a detached job has written so far."""
    import shutil

    from sparkhost.launcher import jobs
    from sparkhost.launcher.client import Trouble

    job = jobs.chosen(_one(words, "logs"))
    try:
        with (jobs.directory_of(job.id) / "log").open("rb") as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except FileNotFoundError as error:
        raise Trouble(f"job {job.id} was not detached: its output went to its terminal") from error
    return 0


def stop(words: list[str]) -> int:
    """Ends a job of one's own, by the helper: it takes the processes that ignore us as well."""
    from sparkhost.base.units import is_id
    from sparkhost.launcher import jobs
    from sparkhost.launcher.client import ask
    from sparkhost.launcher.request import Stop

    word = _one(words, "stop")
    ask(Stop(word if is_id(word) else jobs.chosen(word).id))
    return 0


def wait(words: list[str]) -> int:
    """Waits for a job, tells how it ended, and passes its exit code on."""
    from sparkhost.launcher import jobs, report
    from sparkhost.launcher.attach import Ending
    from sparkhost.launcher.client import Trouble

    job = jobs.chosen(_one(words, "wait"))
    end = jobs.await_end(job)
    if not end:
        raise Trouble(f"how job {job.id} ended is not known: the host was started anew since, or it never ran")
    ending = Ending(started=True, unit=end)
    code = report.code_of(ending)
    record = report.find_postmortem(ending, code, job.unit, job.started)
    why = report.cause(ending, code, job.memory, job.limit, record)
    peak = show_size(int(end["peak"])) if end.get("peak", "").isdecimal() else "unknown"
    promised = show_size(job.memory)
    print(f"spark-run: job {job.id}: exit code {code}; peak CPU memory {peak}; promised {promised}", file=sys.stderr)
    if why:
        print(f"spark-run: job {job.id}: {why}", file=sys.stderr)
    return code


def clean(words: list[str]) -> int:
    """Shows what the caller's own runs have left behind, and takes it away when told to."""
    from sparkhost.launcher import jobs, leftovers

    _only(words, ("--yes",))
    jobs.tidy()
    uid = os.getuid()
    processes, segments = list(leftovers.processes(uid)), list(leftovers.segments(uid))
    for process in processes:
        print(f"process {process.pid}: {process.title[:80]}")
    for path, size in segments:
        print(f"{path}: {show_size(size)}")
    if not processes and not segments:
        print("nothing of yours is left behind")
        return 0
    if not words:
        if not sys.stdin.isatty():
            print("spark-run: nothing was touched: spark-run clean --yes takes these away", file=sys.stderr)
            return 1
        print("take these away? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    for process in processes:
        leftovers.end(process, uid)
    for path, _ in segments:
        path.unlink(missing_ok=True)
    return 0


@quiet_without_reader
def top(arguments: Sequence[str] | None = None) -> int:
    """spark-top: who holds the memory now. The same for every user: cgroups and samples can be read by all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["-h"], ["--help"]):
        from sparkhost.launcher.options import TOP_USAGE

        print(TOP_USAGE)
        return 0
    if words not in ([], ["--json"], ["--watch"]):
        print("spark-top: takes --json, --watch or --help, and nothing else", file=sys.stderr)
        return MISTAKE
    if words == ["--watch"]:
        if not os.isatty(0) or not os.isatty(1):
            print("spark-top: --watch needs a terminal: spark-top --json is for programs", file=sys.stderr)
            return MISTAKE
        from sparkhost.status import screen

        return screen.show()
    from sparkhost.base.units import MIB
    from sparkhost.launcher import gpu
    from sparkhost.launcher.holders import holders, meminfo, table
    from sparkhost.observer import told

    samples = gpu.by_process()
    memory = meminfo()
    if words:
        import json

        found = [{**holder._asdict(), "use": holder.total} for holder in holders(samples=samples)]
        sizes = {"available": memory.get("MemAvailable", 0), "total": memory.get("MemTotal", 0)}
        more = {"holders": found, "warnings": list(told.read().lines)}
        print(json.dumps({**sizes, "gpu_known": samples is not None, **more}))
        return 0
    print(f"{show_size(memory.get('MemAvailable', 0))} available of {show_size(memory.get('MemTotal', 0))}")
    for line in table(holders(samples=samples), 16 * MIB):
        print(line)
    if samples is None:
        print("GPU memory is not known: the sampler (measure watchdog) does not run on this host")
    for line in told.warnings():
        print(line)
    return 0
