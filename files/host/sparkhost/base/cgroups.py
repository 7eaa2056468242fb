"""Which cgroup a process is in. For deploys, watchdog and launcher alike; before each job too, so it imports little."""

from __future__ import annotations

from sparkhost.base import small_files


def parse(text: bytes) -> str:
    """The path in the cgroup v2 hierarchy, "/" where there is none (proc_pid_cgroup(5): the line `0::`)."""
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            return line[3:].decode(errors="surrogateescape")
    return "/"


def cgroup_of(pid: int, proc: str = "/proc") -> str | None:
    """The cgroup of a process, such as `/training.slice/…`; None where it has ended."""
    try:
        return parse(small_files.read(f"{proc}/{pid}/cgroup"))
    except OSError:
        return None
