"""Which cgroup a process is in, and which cgroups are containers. For deploys, watchdog and launcher alike."""

from __future__ import annotations

import os
import re

# The scopes and services of containers (Docker, Podman, containerd, CRI-O, LXC, nspawn), whoever runs them.
CONTAINER = re.compile(
    r"(?:docker|libpod|cri-containerd|crio|nerdctl)-([0-9a-f]{12})[0-9a-f]*\.scope|(?:docker|libpod)/([0-9a-f]{12})"
    r"[0-9a-f]*|lxc\.payload\.([^/]+)|(machine-[^/]+)\.scope|systemd-nspawn@([^/]+)\.service"
)


def container(name: str) -> str:
    """The short id, or the name, of the container that a cgroup's last one or two parts stand for; "" for no container.

    Two parts: with the driver cgroupfs a container is a directory below `docker`.
    """
    match = CONTAINER.fullmatch(name)
    return next(filter(None, match.groups())) if match else ""


def parse(text: bytes) -> str:
    """The path in the cgroup v2 hierarchy, "/" where there is none (proc_pid_cgroup(5): the line `0::`)."""
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            return line[3:].decode(errors="surrogateescape")
    return "/"


def cgroup_of(pid: int, proc: str = "/proc") -> str | None:
    """The cgroup of a process, such as `/training.slice/…`; None where it has ended."""
    try:
        descriptor = os.open(f"{proc}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse(os.read(descriptor, 8192))
        finally:
            os.close(descriptor)
    except OSError:
        return None
