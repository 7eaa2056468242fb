"""The hardware watchdog, armed by PID 1, and kernel settings, both as they are in force."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.files import MANAGED, read_regular
from sparkhost.pid1 import run
from sparkhost.resource import Change, Context, Failed, Refused, Resource

DEVICE = Path("/dev/watchdog")
CLASS = Path("/sys/class/watchdog")
SYSCTL = Path("/proc/sys")
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
# Seconds that PID 1 may take to open the device.
SETTLE = 5.0


def runtime_watchdog() -> int:
    """RuntimeWatchdogUSec of PID 1, in microseconds; 0 or all ones where it is off (org.freedesktop.systemd1(5))."""
    value = int(run("busctl", "get-property", *MANAGER, "RuntimeWatchdogUSec").split()[1])
    return 0 if value == 2**64 - 1 else value


def active(directory: Path = CLASS) -> bool:
    """Whether some watchdog counts, as the kernel says it (Documentation/ABI/testing/sysfs-class-watchdog)."""
    return any(path.read_text().strip() == "active" for path in directory.glob("watchdog*/state"))


def is_ours(path: str) -> bool:
    """Whether a file of ours is there; also true for no path."""
    return not path or MANAGED.encode() in (read_regular(Path(path)) or b"")


@dataclass(frozen=True)
class HardwareWatchdog(Resource):
    """PID 1 resets the hardware's timer, or leaves it alone. `timeout`: seconds, 0 for off.

    Takes effect at once by PID 1's own property, without re-executing it; its configuration file is for the next boot.
    """

    kind: ClassVar[str] = "hardware_watchdog"
    timeout: int
    only_with: str = ""
    """A file of ours without which nothing is done: what we never armed is not ours to disarm."""

    def plan(self, context: Context) -> Sequence[Change]:
        if not is_ours(self.only_with):
            return []
        if self.timeout and not DEVICE.exists():
            raise Refused(
                f"there is no {DEVICE} on this host: load its driver (sbsa_gwdt on a Spark) and deploy again, or set "
                "hardware_watchdog.armed to false"
            )
        found = runtime_watchdog()
        if found == self.timeout * 1_000_000:
            return []
        verb = f"arm, with {self.timeout} s" if self.timeout else "disarm"
        return [Change(str(DEVICE), f"{verb} (was {found // 1_000_000} s)")]

    def apply(self) -> None:
        run("busctl", "set-property", *MANAGER, "RuntimeWatchdogUSec", "t", str(self.timeout * 1_000_000))
        until = time.monotonic() + SETTLE
        # The self-test: the kernel, not PID 1, says whether the timer counts.
        while self.timeout and not active():
            if time.monotonic() >= until:
                run("busctl", "set-property", *MANAGER, "RuntimeWatchdogUSec", "t", "0")
                raise Failed(f"{DEVICE} does not count although PID 1 was told to use it: see `journalctl -b _PID=1`")
            time.sleep(0.1)


@dataclass(frozen=True)
class Sysctl(Resource):
    """A kernel setting in force now; the file for the next boot is another resource."""

    kind: ClassVar[str] = "sysctl"
    name: str
    value: str
    only_with: str = ""
    """As for `HardwareWatchdog`."""

    def _path(self) -> Path:
        return SYSCTL / self.name.replace(".", "/")

    def plan(self, context: Context) -> Sequence[Change]:
        if not is_ours(self.only_with):
            return []
        if not self._path().exists():
            raise Refused(f"this kernel has no setting {self.name}: leave it out")
        found = self._path().read_text().strip()
        return [] if found == self.value else [Change(self.name, f"set to {self.value} (was {found})")]

    def apply(self) -> None:
        self._path().write_text(f"{self.value}\n")
