"""GPU memory by process, as the sampler last saw it. Nothing here asks a driver: that can block for minutes."""

from __future__ import annotations

import json
import time
from pathlib import Path

SAMPLES = Path("/run/sparkfleet/gpu.json")
STALE = 30.0
"""Seconds after which a sample says nothing any more."""


def by_process(path: Path = SAMPLES) -> dict[int, int] | None:
    """PID → bytes; None where no fresh sample is there, which is normal on a host without the sampler.

    Two shapes are read: `{"processes": [{"pid": 1, "bytes": 2}, …]}`, and the same as a mapping `{"1": 2}`.
    """
    try:
        if time.time() - path.stat().st_mtime > STALE:
            return None
        value = json.loads(path.read_text())
        processes = value["processes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    pairs = []
    if isinstance(processes, dict):
        pairs = [*processes.items()]
    elif isinstance(processes, list):
        pairs = [(p.get("pid"), p.get("bytes")) for p in processes if isinstance(p, dict)]
    result: dict[int, int] = {}
    for pid, count in pairs:
        if str(pid).isdecimal() and type(count) is int and count >= 0:
            result[int(pid)] = result.get(int(pid), 0) + count
    return result


def cgroup_of(pid: int, proc: Path = Path("/proc")) -> str:
    """The cgroup of a process, such as `/training.slice/…`; "" where it has ended."""
    try:
        for line in (proc / str(pid) / "cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line[3:]
    except OSError:
        pass
    return ""


def of_cgroup(cgroup: str, path: Path = SAMPLES, proc: Path = Path("/proc")) -> int | None:
    """Bytes of all processes in a cgroup and below, or None where that is not known."""
    samples = by_process(path)
    if samples is None:
        return None
    places = {pid: cgroup_of(pid, proc) for pid in samples}
    return sum(count for pid, count in samples.items() if f"{places[pid]}/".startswith(f"{cgroup.rstrip('/')}/"))
