"""What PID 1 holds: of itself, and of its units. Asked by systemctl(1) and busctl(1).

A process for each question cost more than all else in the plan of a converged host (29 of them, 7 of 12 seconds on an
emulated one), so one `Look` serves a whole plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from sparkhost.base import bounded
from sparkhost.base.resource import Failed

PROPERTIES = (
    "Accept",
    "ActiveEnterTimestamp",
    "ActiveState",
    "ControlGroup",
    "DropInPaths",
    "ExecMainStartTimestamp",
    "ExecStart",
    "FragmentPath",
    "Job",
    "LoadState",
    "MainPID",
    "MemoryMax",
    "MemoryMin",
    "Names",
    "NeedDaemonReload",
    "OOMScoreAdjust",
    "StateChangeTimestamp",
    "UnitFileState",
)
"""What a look asks of each unit: all that plans want to know."""
MANAGER = ("UnitsLoadTimestamp", "UnitsLoadStartTimestamp")
# As the files' times are told: to the microsecond, whatever the host's time zone.
TIMES = "--timestamp=us+utc"
OF_SYSTEMD = ("systemctl", "busctl", "systemd-run", "systemd-escape")
MANAGER_OBJECT = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
BOOTED = Path("/run/systemd/system")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run(*arguments: str, timeout: float = 90.0) -> str:
    """The standard output of a command.

    Raises:
        Failed: exit code other than 0, or no answer within `timeout` seconds; with the last line it printed.
    """
    try:
        result = bounded.call(arguments, seconds=timeout)
    except bounded.Late:
        raise
    except Failed as failure:
        raise blamed(arguments[0]) or failure from failure
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        told = Failed(f"{bounded.shown(arguments)}: exit code {result.returncode}: {lines[-1]}")
        raise blamed(arguments[0]) or told
    return result.stdout


def blamed(program: str) -> Failed | None:
    """What is really wrong where a program of systemd fails on a host that systemd has not booted (sd_booted(3))."""
    if program not in OF_SYSTEMD or BOOTED.is_dir():
        return None
    return Failed("systemd is not PID 1 on this host (no /run/systemd/system), and this measure needs it: boot with it")


class Look:
    """While it lasts (`with`), PID 1 is asked once for all units, and not again for what it has said: for plans,
    which change nothing. `forget` after a change.
    """

    now: Look | None = None
    """The one that lasts."""

    def __init__(self, units: Iterable[str] = ()) -> None:
        self.units = tuple(dict.fromkeys(units))
        """Those that will be asked for, as far as that is known beforehand."""
        self.forget()

    def forget(self) -> None:
        self._held: dict[str, dict[str, str]] = {}
        self._manager: dict[str, str] = {}

    def __enter__(self) -> Look:
        Look.now = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        Look.now = None

    def of(self, unit: str) -> dict[str, str]:
        if unit not in self._held:
            missing = [each for each in (*self.units, unit) if each not in self._held]
            self._held |= _asked(list(dict.fromkeys(missing)), PROPERTIES)
        return self._held[unit]

    def of_manager(self) -> dict[str, str]:
        self._manager = self._manager or _asked_manager()
        return self._manager


def _asked(units: list[str], properties: Iterable[str]) -> dict[str, dict[str, str]]:
    """Properties of units, by the names that they were asked for: one may be another's alias."""
    blocks = run("systemctl", "show", TIMES, "-p", ",".join(properties), "--", *units).strip("\n").split("\n\n")
    if len(blocks) != len(units):
        raise Failed(f"systemctl show: {len(blocks)} answers for {len(units)} units: {', '.join(units)}")
    return dict(zip(units, map(_pairs, blocks), strict=True))


def _asked_manager() -> dict[str, str]:
    return _pairs(run("systemctl", "show", TIMES, "-p", ",".join(MANAGER)))


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit as PID 1 has them; those that a unit of its type does not have are left out."""
    known = {*properties} <= {*PROPERTIES}
    found = Look.now.of(unit) if Look.now and known else _asked([unit], properties)[unit]
    return {name: found[name] for name in properties if name in found}


def time_of(unit: str, name: str) -> int:
    """A time that PID 1 has of a unit (`ActiveEnterTimestamp` …), in microseconds since the epoch; 0 for none."""
    return microseconds(show(unit, name).get(name, ""))


def units_loaded_at() -> int:
    """When PID 1 last read its unit files, in microseconds since the epoch (org.freedesktop.systemd1(5)).

    UnitsLoadTimestamp is 0 until the first reload after a boot (measured, systemd 252 and 257): then the boot counts.
    """
    found = Look.now.of_manager() if Look.now else _asked_manager()
    reloaded, booted = (microseconds(found.get(name, "")) for name in MANAGER)
    return reloaded or booted


def microseconds(text: str) -> int:
    """`Thu 2026-11-26 21:06:35.617194 UTC`, as systemctl prints it with --timestamp=us+utc; 0 for no time."""
    words = text.split()
    if len(words) != 4:
        return 0
    try:
        return (datetime.fromisoformat(f"{words[1]}T{words[2]}+00:00") - EPOCH) // timedelta(microseconds=1)
    except ValueError as error:
        raise Failed(f"systemctl tells a time that is none: {text[:80]!r}") from error


def unit_property(unit: str, interface: str, name: str) -> str:
    """A property that `systemctl show` cannot print, as busctl(1) does: its type, then the value.

    `interface`: "Unit", "Service" … of org.freedesktop.systemd1(5); unit names are escaped in object paths.
    """
    escaped = re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):02x}", unit)
    path = f"/org/freedesktop/systemd1/unit/{escaped}"
    return run(
        "busctl", "get-property", "org.freedesktop.systemd1", path, f"org.freedesktop.systemd1.{interface}", name
    )
