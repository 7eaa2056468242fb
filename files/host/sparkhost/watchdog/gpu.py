"""What the watchdog counts of the sampler's figures. A late or broken sampler never holds it up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from sparkhost.base import gpu_sample

Use = Literal["auto", "always", "never"]


class GpuView(NamedTuple):
    """What is known of GPU memory now."""

    bytes: Mapping[int, int]
    """By process number; empty where it is not known or does not count."""
    note: str = ""
    """Why processes are ranked by their own memory only, or which figures do not count; "" where all count."""
    age: float | None = None
    """Seconds since the sample was taken."""


class GpuCache:
    """The sampler's file. `stale_after`: seconds from which on a sample says nothing any more."""

    def __init__(self, path: Path, use: Use, stale_after: float) -> None:
        self.path = str(path)
        self.use = use
        self.stale_after = stale_after

    def view(self) -> GpuView:
        if self.use == "never":
            return GpuView({}, "GPU memory is not counted (gpu_memory: never)")
        sample = gpu_sample.read(self.path, self.stale_after)
        found = sample.unified
        if self.use == "always":
            found = {pid: found.get(pid, 0) + sample.own.get(pid, 0) for pid in {*found, *sample.own}}
        elif sample.has_own and not found:
            return GpuView({}, "the GPUs have memory of their own, which is not the host's", sample.age)
        refused = f"{sample.refused} figures of the GPU sampler cannot be" if sample.refused else ""
        return GpuView(found, sample.problem or refused, sample.age)
