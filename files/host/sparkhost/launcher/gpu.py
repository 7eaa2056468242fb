"""GPU memory by process and by cgroup, for people: of every GPU, whether or not its memory is the host's."""

from __future__ import annotations

from pathlib import Path

from sparkhost.base import gpu_sample
from sparkhost.base.cgroups import cgroup_of

SAMPLES = Path(gpu_sample.PATH)
STALE = 30.0
"""Seconds after which a sample says nothing any more; the sampler takes one a second."""


def by_process(path: Path = SAMPLES) -> dict[int, int] | None:
    """PID → bytes; None where no fresh sample is there, which is normal on a host without the sampler."""
    sample = gpu_sample.read(str(path), STALE)
    if sample.problem:
        return None
    return {pid: sample.unified.get(pid, 0) + sample.own.get(pid, 0) for pid in {*sample.unified, *sample.own}}


def of_cgroup(cgroup: str, path: Path = SAMPLES, proc: Path = Path("/proc")) -> int | None:
    """Bytes of all processes in a cgroup and below, or None where that is not known."""
    samples = by_process(path)
    if samples is None:
        return None
    return sum(count for pid, count in samples.items() if within(cgroup_of(pid, str(proc)), cgroup))


def within(cgroup: str | None, above: str) -> bool:
    """Whether a cgroup is `above` or below it."""
    return cgroup is not None and f"{cgroup}/".startswith(f"{above.rstrip('/')}/")
