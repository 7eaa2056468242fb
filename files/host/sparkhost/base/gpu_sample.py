"""What the GPU sampler last wrote: bytes by process. Read by the watchdog, whose every page stays in memory, and by the
launcher. Nothing here asks a driver: that can block for minutes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sparkhost.base import small_files

PATH = "/run/sparkfleet/gpu/sample.json"
# Thousands of processes on GPUs. A longer file is cut, and so no JSON.
LARGEST = 1 << 17
# No GPU has so much memory of its own. NVML says 2^64 - 1 where it does not know (NVML_VALUE_NOT_AVAILABLE, nvml.h).
LARGEST_OWN = 1 << 44


class Sample(NamedTuple):
    """GPU memory by process number, in bytes; both empty where there is a `problem`."""

    unified: dict[int, int]
    """On GPUs that take their memory from the host's."""
    own: dict[int, int]
    """On GPUs that have memory of their own."""
    has_own: bool
    """Whether there is such a GPU."""
    age: float | None
    """Seconds since the sample was taken; None where no sample could be read."""
    problem: str = ""
    """Why there are no figures; "" where there are."""
    refused: int = 0
    """Figures that cannot be, and were left out: negative, no number, more than there is memory."""


def read(path: str, stale_after: float) -> Sample:
    """The last sample. Late, broken or missing, it is told and never raised.

    `stale_after`: seconds from which on a sample says nothing any more.
    """
    age = None
    try:
        value = _load(path)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(value["boottime"])
        if not 0 <= age <= stale_after:
            return Sample({}, {}, False, age, f"the GPU sampler's figures are {age:.0f} s old")
        if value.get("error"):
            return Sample({}, {}, False, age, f"the GPU sampler has none: {str(value['error'])[:200]}")
        unified: dict[int, int] = {}
        own: dict[int, int] = {}
        has_own = False
        refused = 0
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for device in value["devices"]:
            is_unified = bool(device["unified"])
            has_own = has_own or not is_unified
            found, most = (unified, memory) if is_unified else (own, LARGEST_OWN)
            for pid, size in _figures(device["processes"]):
                total = found.get(pid, 0) + size
                if size >= 0 and total <= most:
                    found[pid] = total
                else:
                    refused += 1
        return Sample(unified, own, has_own, age, refused=refused)
    except FileNotFoundError:
        return Sample({}, {}, False, None, "there are no figures of the GPU sampler")
    except Exception as error:  # RecursionError, OverflowError: whatever a file can bring about is a broken file
        return Sample({}, {}, False, age, f"the GPU sampler's file cannot be read: {type(error).__name__}")


def _figures(processes: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Process numbers and bytes; -1 for what is no number of bytes."""
    for pid, size in processes.items():
        yield int(pid), size if isinstance(size, int) and not isinstance(size, bool) else -1


def _load(path: str) -> dict[str, Any]:
    value = json.loads(small_files.read(path, LARGEST, flags=os.O_NOFOLLOW))
    if not isinstance(value, dict):
        raise ValueError("not a sample")
    return value
