"""The GPU's highest clock. Off unless the fleet file asks for it.

Why: Sparks under load are reported to switch off at 91 to 92 degrees without a line in any log, and a limit of
2100 MHz brought several to 65 to 80 (docs/facts.md). `nvidia-smi -lgc 0,2100` by hand is gone after a reboot and after
each load of the driver, so a unit sets it at boot, and a udev rule starts that unit again with the driver.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings.gpu_clock import GpuClockSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.base.service import NoService, Service
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.gpu_clock.resource import HasNvml
from tasks.lib.programs import program
from tasks.lib.templates import render

PROGRAM = "gpu_clock"
COMMAND = "/opt/sparkfleet/bin/sparkfleet-gpu-clock"
UNIT = "sparkfleet-gpu-clock.service"
UNIT_FILE = f"{UNIT_DIRECTORY}/{UNIT}"
RULES = "/etc/udev/rules.d/60-sparkfleet-gpu-clock.rules"


def apply(settings: GpuClockSettings) -> Sequence[Resource]:
    """In force now, at every boot, and with every load of the driver; udev reads a changed rule by itself (udev(7))."""
    return (
        HasNvml(),
        program(PROGRAM, "gpu_clock/main.py"),
        File(COMMAND, render("gpu_clock/sparkfleet-gpu-clock"), mode=0o755),
        File(UNIT_FILE, render(f"gpu_clock/{UNIT}", program=COMMAND, most=settings.max)),
        File(RULES, render("gpu_clock/udev.rules")),
        Service(UNIT, [UNIT_FILE]),
    )


def remove(settings: GpuClockSettings) -> Sequence[Resource]:
    """The driver's own limit again: stopping the unit takes ours off. Then no files of ours."""
    return (NoService(UNIT), NoFile(RULES), NoFile(UNIT_FILE), NoFile(COMMAND), NotInstalled(PROGRAM))
