"""The last resort: hardware that resets a host which nothing reaches any more. Off unless asked for.

Why: a Spark that is wedged answers ping and nothing else, and has no BMC. A timer in hardware, which PID 1 resets,
starts it again; so does a panic, and, where asked for, a process that hangs in the kernel.

The risk is why it is off: everything that runs is lost at that moment, and a host that is only very slow, or a driver
that keeps a process for minutes, can be taken for wedged. One report says that an armed timer did not fire.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings import HardwareWatchdogSettings
from sparkhost.files import File, NoFile
from sparkhost.hardware import HardwareWatchdog, Sysctl, SysctlBefore
from sparkhost.resource import Resource
from tasks.lib.templates import render

MANAGER = "/etc/systemd/system.conf.d/50-sparkfleet-watchdog.conf"
SYSCTL = "/etc/sysctl.d/60-sparkfleet-panic.conf"


def apply(settings: HardwareWatchdogSettings) -> Sequence[Resource]:
    """Armed now and tested, then for every boot: what cannot be armed is not tried at the next one."""
    if not settings.armed:
        return remove(settings)
    panic, hung = str(int(settings.panic)), str(int(settings.hung_task_panic))
    timeout = int(settings.timeout)
    return (
        HardwareWatchdog(timeout),
        File(MANAGER, render("hardware_watchdog/manager.conf", timeout=timeout)),
        Sysctl("kernel.panic", panic),
        Sysctl("kernel.hung_task_panic", hung),
        File(SYSCTL, render("hardware_watchdog/sysctl.conf", panic=panic, hung_task_panic=hung)),
    )


def remove(settings: HardwareWatchdogSettings) -> Sequence[Resource]:
    """Disarmed at once where it was us who armed it, the kernel's settings as they were, no files of ours."""
    return (
        HardwareWatchdog(0, only_with=MANAGER),
        NoFile(MANAGER),
        NoFile(SYSCTL),
        SysctlBefore("kernel.panic"),
        SysctlBefore("kernel.hung_task_panic"),
    )
