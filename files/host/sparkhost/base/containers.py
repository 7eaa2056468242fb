"""Which cgroups are containers. For deploys, watchdog and launcher alike."""

from __future__ import annotations

import re

# The scopes and services of containers (Docker, Podman, containerd, CRI-O, LXC, nspawn), whoever runs them. libvirt's
# virtual machines are scopes of machined as well. `podUID/ID` is what kubelet makes with the driver cgroupfs.
CONTAINER = re.compile(
    r"(?:docker|libpod|cri-containerd|crio|nerdctl)-([0-9a-f]{12})[0-9a-f]*\.scope|(?:docker|libpod)/([0-9a-f]{12})"
    r"[0-9a-f]*|pod[0-9a-f_-]{32,36}/([0-9a-f]{12})[0-9a-f]{52}|lxc\.payload\.([^/]+)|(machine-[^/]+)\.scope"
    r"|systemd-nspawn@([^/]+)\.service"
)


def container(name: str) -> str:
    """The short id, or the name, of the container that a cgroup's last one or two parts stand for; "" for no container.

    Two parts: with the driver cgroupfs a container is a directory below `docker`, or below its pod's.
    """
    match = CONTAINER.fullmatch(name)
    return next(filter(None, match.groups())) if match else ""
