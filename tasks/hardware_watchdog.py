"""The last resort: hardware that resets a host which nothing reaches any more. Off unless asked for.

Why: a Spark that is wedged answers ping and nothing else, and has no BMC. A timer in hardware, which PID 1 resets,
starts it again; so does a panic, and, where asked for, a process that hangs in the kernel.

Ubuntu's kernels keep a Spark's driver (sbsa_gwdt) from being loaded by itself, while the firmware is reported to leave
the timer armed at boot: an idle host is then reset about every 20 minutes. So a unit of ours loads the driver by its
name, PID 1 takes the timer over, and what the timer says of the last reset is kept.

The risk is why it is off: everything that runs is lost at that moment, and a host that is only very slow, or a driver
that keeps a process for minutes, can be taken for wedged. One report says that an armed timer did not fire on the very
hang that it is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings import HardwareWatchdogSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.hardware import HardwareWatchdog, Sysctl, SysctlBefore
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.base.service import NoService, Service
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.hardware_watchdog.driver import TimerDriver
from tasks.lib.programs import program
from tasks.lib.templates import render

MANAGER = "/etc/systemd/system.conf.d/50-sparkfleet-watchdog.conf"
SYSCTL = "/etc/sysctl.d/60-sparkfleet-panic.conf"
PROGRAM = "hardware_watchdog"
COMMAND = "/opt/sparkfleet/bin/sparkfleet-hardware-watchdog"
UNIT = "sparkfleet-hardware-watchdog.service"
UNIT_FILE = f"{UNIT_DIRECTORY}/{UNIT}"


def apply(settings: HardwareWatchdogSettings) -> Sequence[Resource]:
    """Armed now and tested, then for every boot: what cannot be armed is not tried at the next one."""
    if not settings.armed:
        return remove(settings)
    panic, hung = str(int(settings.panic)), str(int(settings.hung_task_panic))
    timeout = int(settings.timeout)
    return (
        TimerDriver(settings.driver),
        HardwareWatchdog(timeout, driver=settings.driver),
        File(MANAGER, render("hardware_watchdog/manager.conf", timeout=timeout)),
        Sysctl("kernel.panic", panic),
        Sysctl("kernel.hung_task_panic", hung),
        File(SYSCTL, render("hardware_watchdog/sysctl.conf", panic=panic, hung_task_panic=hung)),
        program(PROGRAM, "hardware_watchdog/main.py"),
        File(COMMAND, render("hardware_watchdog/sparkfleet-hardware-watchdog"), mode=0o755),
        File(UNIT_FILE, render(f"hardware_watchdog/{UNIT}", program=COMMAND, driver=settings.driver)),
        Service(UNIT, [UNIT_FILE]),
    )


def remove(settings: HardwareWatchdogSettings) -> Sequence[Resource]:
    """Disarmed at once where it was us who armed it, the kernel's settings as they were, no files of ours.

    The driver stays loaded until the next boot: without it nobody would hold a timer that the firmware has armed. What
    the timer said at each boot stays, for whoever asks why the host died.
    """
    return (
        NoService(UNIT),
        NoFile(UNIT_FILE),
        NoFile(COMMAND),
        NotInstalled(PROGRAM),
        HardwareWatchdog(0, only_with=MANAGER),
        NoFile(MANAGER),
        NoFile(SYSCTL),
        SysctlBefore("kernel.panic"),
        SysctlBefore("kernel.hung_task_panic"),
    )
