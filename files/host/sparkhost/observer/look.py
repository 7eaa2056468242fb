"""Reads the host. Each read is bounded, and each part may fail alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from sparkhost.base import gpu_sample, small_files
from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.containers import container
from sparkhost.observer import memory, restarts
from sparkhost.observer.kernel_log import Tally, parse
from sparkhost.observer.orphans import LEAST, Seen
from sparkhost.watchdog.process import PAGE, parse_stat

RECORD = 1 << 14
"""More than a record of the kernel's log can have (PRINTK_MESSAGE_MAX, CONSOLE_EXT_LOG_MAX)."""
MOST_RECORDS = 20_000
"""At a time: what comes faster waits for the next look, and may be overwritten, which is no error."""
MOST_CGROUPS = 4096
DEEPEST = 6
MOST_GPU_PROCESSES = 512
STALE = 30.0
ASKED = ("systemctl", "show", "--property=Id,NRestarts", "*.service")
ASK_TIMEOUT = 20.0


def text(path: Path) -> str:
    """A file of procfs or cgroupfs.

    Raises:
        OSError: it cannot be read.
    """
    return small_files.read(str(path)).decode(errors="replace")


class KernelLog:
    """/dev/kmsg, read without waiting, from the host's start on."""

    def __init__(self, path: Path) -> None:
        self.tally = Tally()
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def drain(self) -> None:
        """Counts what has come since.

        Raises:
            OSError: it cannot be read.
        """
        for _ in range(MOST_RECORDS):
            try:
                data = os.read(self.descriptor, RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # records were overwritten; the next read is of the oldest that is left
            if not data:
                return
            if record := parse(data):
                self.tally.take(record)


def charged(root: Path) -> int:
    """Over all cgroups below the root, each with all below it."""
    total = 0
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError):
                total += memory.charged(text(root / entry.name / "memory.stat"))
    return total


def zfs(proc: Path) -> int:
    """Bytes of ZFS's cache; 0 without ZFS."""
    with contextlib.suppress(OSError, ValueError):
        for line in text(proc / "spl/kstat/zfs/arcstats").splitlines():
            words = line.split()
            if words[:1] == ["size"]:
                return int(words[2])
    return 0


def idle(proc: Path) -> int:
    """Free bytes on the lists of single processors."""
    return memory.idle_pages(text(proc / "zoneinfo")) * PAGE


def containers(root: Path) -> dict[str, int]:
    """The number of its cgroup by container. Not below user.slice: what users make there can bear any name."""
    found: dict[str, int] = {}
    waiting = deque([("", 0)])
    for _ in range(MOST_CGROUPS):
        if not waiting:
            break
        path, depth = waiting.popleft()
        with contextlib.suppress(OSError):
            for entry in directories(root / path):
                below = f"{path}/{entry.name}".lstrip("/")
                name = container(entry.name) or container("/".join(below.split("/")[-2:]))
                if name:
                    found[f"container {name}"] = entry.inode()
                elif depth < DEEPEST and len(waiting) < MOST_CGROUPS and below != "user.slice":
                    waiting.append((below, depth + 1))
    return found


def directories(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if entry.is_dir(follow_symlinks=False))


def units() -> dict[str, int]:
    """NRestarts of every service, asked of PID 1.

    Raises:
        OSError, subprocess.SubprocessError: there is no answer.
    """
    done = subprocess.run(ASKED, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_TIMEOUT, check=True)
    return restarts.parse(done.stdout[: small_files.LARGEST].decode(errors="replace"))


def gpu_processes(sample: gpu_sample.Sample, proc: Path) -> Iterator[Seen]:
    """The processes that hold much GPU memory, as they are now."""
    held = {pid: sample.unified.get(pid, 0) + sample.own.get(pid, 0) for pid in {*sample.unified, *sample.own}}
    large = sorted((pid for pid in held if held[pid] >= LEAST), key=lambda pid: -held[pid])
    for pid in large[:MOST_GPU_PROCESSES]:
        with contextlib.suppress(OSError, ValueError):
            stat = parse_stat(small_files.read(f"{proc}/{pid}/stat"))
            if stat.ended:
                continue
            above = ""
            if stat.parent > 1:
                with contextlib.suppress(OSError, ValueError):
                    above = parse_stat(small_files.read(f"{proc}/{stat.parent}/stat")).name
            yield Seen(pid, stat.name, stat.parent, above, cgroup_of(pid, str(proc)) or "", held[pid])
