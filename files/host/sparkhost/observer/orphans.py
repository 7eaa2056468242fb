"""Workers of an engine that hold GPU memory and whose engine has gone.

Only what never runs by itself: the titles that workers of vLLM and ray give themselves. A program that
somebody left running with nohup has no parent either, and is meant to run.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sparkhost.base.units import GIB

LEAST = GIB
"""GPU memory from which on it is worth a word."""
# As sparkhost/launcher/leftovers.py, of names that the kernel cuts after 15 bytes.
WORKERS = re.compile(r"ray::|VLLM::|VllmWorker")


class Seen(NamedTuple):
    """A process that holds GPU memory (bytes)."""

    pid: int
    name: str
    parent: int
    parent_name: str
    cgroup: str
    gpu: int


def is_orphan(process: Seen) -> bool:
    """Whether it is a worker that was left behind.

    systemd sees to all processes of a service; what was left in a login or a container is nobody's.
    """
    adopted = process.parent <= 1 or process.parent_name == "systemd"
    leaf = process.cgroup.rpartition("/")[2]
    return (
        process.gpu >= LEAST and adopted and WORKERS.match(process.name) is not None and not leaf.endswith(".service")
    )
