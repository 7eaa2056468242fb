"""What the GPU sampler last wrote: bytes by process. Read by the watchdog, whose every page stays in memory, and by the
launcher. Nothing here asks a driver: that can block for minutes.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, NamedTuple

PATH = "/run/sparkfleet/gpu/sample.json"
# Thousands of processes on GPUs. A longer file is cut, and so no JSON.
LARGEST = 1 << 17


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
            return Sample({}, {}, False, age, f"the GPU sampler has none: {value['error']}")
        unified: dict[int, int] = {}
        own: dict[int, int] = {}
        has_own = False
        for device in value["devices"]:
            has_own = has_own or not device["unified"]
            found = unified if device["unified"] else own
            for pid, size in device["processes"].items():
                found[int(pid)] = found.get(int(pid), 0) + int(size)
        return Sample(unified, own, has_own, age)
    except FileNotFoundError:
        return Sample({}, {}, False, None, "there are no figures of the GPU sampler")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Sample({}, {}, False, age, f"the GPU sampler's file cannot be read: {type(error).__name__}")


def _load(path: str) -> dict[str, Any]:
    # A FIFO in its place would block for ever without O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        text = os.read(descriptor, LARGEST)
    finally:
        os.close(descriptor)
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a sample")
    return value
