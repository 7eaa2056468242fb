"""What runs of the caller have left behind: workers of ray and vLLM without a parent, shared memory that nobody has.

Only what is the caller's own, and only outside of jobs: a job's processes and shared memory go away with it. Never by a
name alone (`pkill -f ray` kills other people's work too): owner, no parent, name, and not in a job, all of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base.cgroups import cgroup_of
from sparkhost.launcher.gpu import within
from sparkhost.launcher.unit import SLICE

WORKERS = re.compile(r"ray::|VLLM::|VllmWorker")
"""Titles that workers give themselves."""
DAEMONS = re.compile(r"(raylet|gcs_server)$")
"""Programs, by the last part of their path."""


@dataclass(frozen=True)
class Process:
    pid: int
    title: str


def _status(directory: Path) -> dict[str, str]:
    lines = (directory / "status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def without_parent(parent: int, uid: int, proc: Path) -> bool:
    """Whether a process was given to init, or to the user's own service manager."""
    if parent <= 1:
        return True
    try:
        status = _status(proc / str(parent))
    except OSError:
        return False
    return status.get("Name") == "systemd" and status.get("Uid", "").split()[:1] == [str(uid)]


def processes(uid: int, proc: Path = Path("/proc")) -> Iterator[Process]:
    """The left-over processes of a user."""
    for directory in proc.glob("[0-9]*"):
        try:
            status = _status(directory)
            command = (directory / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        title = command.replace(b"\0", b" ").decode(errors="replace").strip()
        program = command.split(b"\0")[0].decode(errors="replace")
        if (
            status.get("Uid", "").split() == [str(uid)] * 4
            and (WORKERS.match(title) or DAEMONS.search(program))
            and without_parent(int(status.get("PPid", "-1")), uid, proc)
            and not within(cgroup_of(int(directory.name), str(proc)), f"/{SLICE}")
        ):
            yield Process(int(directory.name), title)


def in_use(uid: int, proc: Path = Path("/proc")) -> set[tuple[int, int]]:
    """Device and inode of every file that a process of the user has open or mapped.

    Of other users' processes nothing can be seen; segments are made with mode 0600, so they cannot have them either.
    """
    found = set()
    for directory in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if directory.stat().st_uid != uid:
                continue
            for line in (directory / "maps").read_text(errors="replace").splitlines():
                fields = line.split(None, 5)
                major, minor = (int(part, 16) for part in fields[3].split(":"))
                found.add((os.makedev(major, minor), int(fields[4])))
            for descriptor in (directory / "fd").iterdir():
                with contextlib.suppress(OSError):
                    status = descriptor.stat()
                    found.add((status.st_dev, status.st_ino))
    return found


def segments(uid: int, shm: Path = Path("/dev/shm"), proc: Path = Path("/proc")) -> Iterator[tuple[Path, int]]:
    """Files in shared memory that belong to the user alone and that no process of theirs has; with their size."""
    used = in_use(uid, proc)
    for path in sorted(shm.iterdir()):
        with contextlib.suppress(OSError):
            status = path.lstat()
            private = stat.S_ISREG(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
            if private and status.st_uid == uid and (status.st_dev, status.st_ino) not in used:
                yield path, status.st_blocks * 512


def end(process: Process, uid: int, proc: Path = Path("/proc")) -> None:
    """SIGTERM to a process, by a pidfd, if it is still the one that was found."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if process in processes(uid, proc):
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        finally:
            os.close(descriptor)
