"""The timer's kernel module."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from sparkhost.base import bounded, hardware
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step

SETTLE = 5.0
"""Seconds that udev may take to make the device."""


@dataclass(frozen=True)
class TimerDriver(Resource):
    """The module is loaded where there is no timer's device; where there is one, whoever loaded it is left alone."""

    kind: ClassVar[str] = "timer_driver"
    is_basis: ClassVar[bool] = True
    module: str

    def steps(self, context: Context) -> Iterator[Step]:
        if hardware.DEVICE.exists():
            return
        if bounded.call(["modinfo", "-F", "name", self.module], seconds=30).returncode:
            raise Refused(
                f"there is no {hardware.DEVICE} on this host, and its kernel has no module {self.module}: set "
                "hardware_watchdog.driver to its timer's, or hardware_watchdog.armed to false"
            )
        yield Step(self.module, "load the driver of the hardware's timer", self._load)

    def _load(self) -> None:
        run("modprobe", "--", self.module)
        until = time.monotonic() + SETTLE
        while not hardware.DEVICE.exists():
            if time.monotonic() >= until:
                raise Failed(
                    f"{self.module} is loaded and has found no timer on this host: set hardware_watchdog.armed to false"
                )
            time.sleep(0.1)
