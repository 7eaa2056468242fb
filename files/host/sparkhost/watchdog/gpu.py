"""Reads what the sampler last wrote: GPU bytes by process. A late or broken sampler never holds the watchdog up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# Thousands of processes on GPUs. A longer file is cut, and so no JSON.
LARGEST = 1 << 17
Use = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class GpuView:
    """What is known of GPU memory now."""

    bytes: Mapping[int, int] = field(default_factory=dict)
    """By process number; empty where it is not known or does not count."""
    note: str = ""
    """Why processes are ranked by their own memory only; "" where GPU memory counts."""
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
            return GpuView(note="GPU memory is not counted (gpu_memory: never)")
        try:
            sample = self._read()
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(sample["boottime"])
            if not 0 <= age <= self.stale_after:
                return GpuView(note=f"the GPU sampler's figures are {age:.0f} s old", age=age)
            if sample.get("error"):
                return GpuView(note=f"the GPU sampler has none: {sample['error']}", age=age)
            found: dict[int, int] = {}
            own = False
            for device in sample["devices"]:
                if self.use == "always" or device["unified"]:
                    for pid, size in device["processes"].items():
                        found[int(pid)] = found.get(int(pid), 0) + int(size)
                else:
                    own = True
        except FileNotFoundError:
            return GpuView(note="there are no figures of the GPU sampler")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return GpuView(note=f"the GPU sampler's file cannot be read: {type(error).__name__}")
        note = "the GPUs have memory of their own, which is not the host's" if own and not found else ""
        return GpuView(found, note, age)

    def _read(self) -> dict[str, Any]:
        # A FIFO in its place would block for ever without O_NONBLOCK.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            text = os.read(descriptor, LARGEST)
        finally:
            os.close(descriptor)
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("not a sample")
        return value
