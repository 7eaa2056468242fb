"""The timer's kernel module."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparkhost import bounded, hardware
from sparkhost.pid1 import run
from sparkhost.resource import Change, Context, Failed, Refused, Resource

SETTLE = 5.0
"""Seconds that udev may take to make the device."""


@dataclass(frozen=True)
class TimerDriver(Resource):
    """The module is loaded where there is no timer's device; where there is one, whoever loaded it is left alone."""

    kind: ClassVar[str] = "timer_driver"
    is_basis: ClassVar[bool] = True
    module: str

    def plan(self, context: Context) -> Sequence[Change]:
        if hardware.DEVICE.exists():
            return []
        if bounded.call(["modinfo", "-F", "name", self.module], seconds=30).returncode:
            raise Refused(
                f"there is no {hardware.DEVICE} on this host, and its kernel has no module {self.module}: set "
                "hardware_watchdog.driver to its timer's, or hardware_watchdog.armed to false"
            )
        return [Change(self.module, "load the driver of the hardware's timer")]

    def apply(self) -> None:
        run("modprobe", "--", self.module)
        until = time.monotonic() + SETTLE
        while not hardware.DEVICE.exists():
            if time.monotonic() >= until:
                raise Failed(
                    f"{self.module} is loaded and has found no timer on this host: set hardware_watchdog.armed to false"
                )
            time.sleep(0.1)
