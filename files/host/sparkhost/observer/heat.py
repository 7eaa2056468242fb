"""What the GPU sampler's figures say of heat and of a clock that stays low."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from sparkhost.base import small_files
from sparkhost.base.gpu_sample import LARGEST
from sparkhost.observer.alarms import Alarm

HOT = 85
"""Degrees Celsius. Sparks are reported to switch off at 91 to 92."""
STUCK = 60.0
"""Seconds of a low clock under load: a job that begins needs some to bring the clock up."""


def alarms(path: str, stale: float) -> Iterator[Alarm]:
    """Of each GPU, of a sample that is no older than `stale` seconds.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: there is no such sample.
    """
    value: dict[str, Any] = json.loads(small_files.read(path, LARGEST, flags=os.O_NOFOLLOW))
    if not 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - float(value["boottime"]) <= stale:
        return
    for index, device in enumerate(value["devices"]):
        degrees, low = device.get("temperature"), device.get("low")
        if type(degrees) is int and degrees >= HOT:
            yield hot(index)
        if type(low) in (int, float) and low >= STUCK:
            yield stuck(index)


def hot(index: int) -> Alarm:
    return Alarm(
        "heat",
        str(index),
        f"GPU {index} has {HOT} degrees or more: hosts are reported to switch off at 91 to 92, without a log",
        "more air, or a lower clock: the measure gpu_clock, or until the next boot nvidia-smi -lgc 0,2100",
    )


def stuck(index: int) -> Alarm:
    return Alarm(
        "clock_low",
        str(index),
        f"GPU {index} is busy and has stayed under half of its highest clock for a minute",
        "end the jobs, shut down, and pull the plug for a minute: a restart is reported not to be enough",
    )
