"""What a command costs with all its descendants: wall time, processor time, and memory at its peak. Linux."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY = 0.1
"""Seconds between two looks at the memory."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """What a command cost."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of processor time, user and system, of the command and every descendant, also those that outlive it."""
    memory: int
    """Bytes: the largest sum of the resident sets of all processes at one look. Forks share pages, counted for each."""
    rc: int
    output: str
    """Standard output and error together."""


def measured(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float, stdin: str | None = None
) -> Cost:
    """Runs a command and waits for it; daemons that it leaves (OpenSSH's masters) are ended and counted.

    Not for two commands at a time in one process: the kernel sums up processor time of all children that were waited
    for, so nothing else may be waited for meanwhile.

    Raises:
        subprocess.TimeoutExpired: it did not end within `timeout` seconds; it has been killed.
        OSError: it cannot be started.
    """
    # Whoever loses its parent becomes this process's child, and is counted when it is waited for.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    others = set(descendants(os.getpid()))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = threading.Event()
    peak = [0]
    started = time.monotonic()
    process = subprocess.Popen(
        words, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )

    def look() -> None:
        while not ended.wait(LOOK_EVERY):
            found = [pid for pid in descendants(os.getpid()) if pid not in others]
            peak[0] = max(peak[0], sum(map(resident, found)))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        output, _ = process.communicate((stdin or "").encode(), timeout=timeout)
        wall = time.monotonic() - started
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    finally:
        ended.set()
        watch.join()
        end([pid for pid in descendants(os.getpid()) if pid not in others])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, peak[0], process.returncode, output.decode(errors="replace"))


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, as the kernel names their parents."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found: list[int] = []
    wanted = [pid]
    while wanted:
        below = children.get(wanted.pop(), [])
        found += below
        wanted += below
    return found


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


def end(pids: Sequence[int]) -> None:
    """Ends processes that a command left behind, and waits for those that became this process's children."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 10
    waiting = set(pids)
    while waiting and time.monotonic() < until:
        for pid in list(waiting):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    waiting.discard(pid)
            except ChildProcessError:
                if not Path(f"/proc/{pid}").exists():
                    waiting.discard(pid)
        time.sleep(0.01)
    for pid in waiting:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
