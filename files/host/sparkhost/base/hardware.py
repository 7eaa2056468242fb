"""The hardware watchdog, armed by PID 1, and kernel settings, both as they are in force."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import MANAGED, NoFile, make_directories, read_regular, sync_directory, write_atomic
from sparkhost.base.pid1 import MANAGER_OBJECT, run
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step
from sparkhost.base.systemd import daemon_reload

DEVICE = Path("/dev/watchdog")
CLASS = Path("/sys/class/watchdog")
SYSCTL = Path("/proc/sys")
# What kernel settings were before us: {"kernel.panic": {"before": "0", "ours": ["30"]}}.
RECORD = Path("/var/lib/sparkfleet/sysctl-before.json")
# Seconds that PID 1 may take to open the device.
SETTLE = 5.0


def runtime_watchdog() -> int:
    """RuntimeWatchdogUSec of PID 1, in microseconds; 0 or all ones where it is off (org.freedesktop.systemd1(5))."""
    value = int(run("busctl", "get-property", *MANAGER_OBJECT, "RuntimeWatchdogUSec").split()[1])
    return 0 if value == 2**64 - 1 else value


def active(directory: Path = CLASS) -> bool:
    """Whether some watchdog counts, as the kernel says it (Documentation/ABI/testing/sysfs-class-watchdog)."""
    return any(bounded.read_text(path).strip() == "active" for path in directory.glob("watchdog*/state"))


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
    driver: str = ""
    """The module that a dry run has not loaded yet."""

    def steps(self, context: Context) -> Iterator[Step]:
        if not is_ours(self.only_with):
            return
        if self.timeout and not DEVICE.exists() and not context.will_change(self.driver):
            raise Refused(
                f"there is no {DEVICE} on this host: load its driver (sbsa_gwdt on a Spark) and deploy again, or set "
                "hardware_watchdog.armed to false"
            )
        found = runtime_watchdog()
        if found != self.timeout * 1_000_000:
            verb = f"arm, with {self.timeout} s" if self.timeout else "disarm"
            yield Step(str(DEVICE), f"{verb} (was {found // 1_000_000} s)", self._set)

    def _set(self) -> None:
        run("busctl", "set-property", *MANAGER_OBJECT, "RuntimeWatchdogUSec", "t", str(self.timeout * 1_000_000))
        if not self.timeout and runtime_watchdog():
            self._read_anew()
        until = time.monotonic() + SETTLE
        # The self-test: the kernel, not PID 1, says whether the timer counts.
        while self.timeout and not active():
            if time.monotonic() >= until:
                run("busctl", "set-property", *MANAGER_OBJECT, "RuntimeWatchdogUSec", "t", "0")
                raise Failed(f"{DEVICE} does not count although PID 1 was told to use it: see `journalctl -b _PID=1`")
            time.sleep(0.1)

    def _read_anew(self) -> None:
        """For PID 1 a property of 0 is none: the value of its files counts, as they were at the boot (measured, systemd
        252). It reads them again without ours."""
        if self.only_with:
            NoFile(self.only_with).remove()
            daemon_reload()


@dataclass
class Before:
    """What a kernel setting was before us, and every value that we have given it since."""

    before: str
    ours: list[str]


def read_record() -> dict[str, Before]:
    """By setting. This module alone writes the file. Raises Failed."""
    try:
        found = {name: Before(**entry) for name, entry in json.loads(bounded.read_text(RECORD)).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged() from error
    values = [value for one in found.values() for value in (one.before, one.ours)]
    if not all(isinstance(v, str) or (isinstance(v, list) and all(isinstance(i, str) for i in v)) for v in values):
        raise damaged()
    if any(isinstance(one.before, list) or isinstance(one.ours, str) for one in found.values()):
        raise damaged()
    return found


def damaged() -> Failed:
    return Failed(f"{RECORD} is damaged: set the kernel's settings as they were by hand, remove it, and deploy again")


def write_record(record: dict[str, Before]) -> None:
    if record:
        make_directories(RECORD.parent)
        text = json.dumps({name: vars(one) for name, one in record.items()}) + "\n"
        write_atomic(RECORD, text.encode(), 0o644)
    elif RECORD.exists():
        RECORD.unlink()
        sync_directory(RECORD.parent)


def path_of(name: str) -> Path:
    return SYSCTL / name.replace(".", "/")


def value_of(name: str) -> str:
    return " ".join(bounded.read_text(path_of(name)).split())


@dataclass(frozen=True)
class Sysctl(Resource):
    """A kernel setting in force now; the file for the next boot is another resource.

    What it was before is noted first, so that `SysctlBefore` takes back what a run that was killed has left.
    """

    kind: ClassVar[str] = "sysctl"
    name: str
    value: str

    def steps(self, context: Context) -> Iterator[Step]:
        if not path_of(self.name).exists():
            raise Refused(f"this kernel has no setting {self.name}: leave it out")
        found = value_of(self.name)
        if found != self.value:
            yield Step(self.name, f"set to {self.value} (was {found})", self._set)

    def _set(self) -> None:
        record = read_record()
        known = record.setdefault(self.name, Before(value_of(self.name), []))
        known.ours = [*dict.fromkeys([*known.ours, self.value])]
        write_record(record)
        path_of(self.name).write_text(f"{self.value}\n")


@dataclass(frozen=True)
class SysctlBefore(Resource):
    """A kernel setting as it was before us, once; what others have set it to since stays.

    After the file for the next boot is gone: until both are done, the record is there.
    """

    kind: ClassVar[str] = "sysctl_before"
    name: str

    def _is_ours(self, known: Before) -> bool:
        return path_of(self.name).exists() and value_of(self.name) in known.ours

    def steps(self, context: Context) -> Iterator[Step]:
        if known := read_record().get(self.name):
            says = "leave it, as it is not what sparkfleet has set any more, and forget about it"
            if self._is_ours(known):
                says = f"set to {known.before} again, as it was before sparkfleet"
            yield Step(self.name, says, self._put_back)

    def _put_back(self) -> None:
        record = read_record()
        known = record.pop(self.name)
        if self._is_ours(known):
            path_of(self.name).write_text(f"{known.before}\n")
        write_record(record)
