"""Which cgroups are containers. For deploys, watchdog and launcher alike."""

from __future__ import annotations

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
