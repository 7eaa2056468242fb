"""The desktop, as PID 1 and logind know it.

Only the display manager is stopped: `systemctl isolate multi-user.target` would end every service that no target asks
for, jobs among them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.headless import record
from sparkhost.headless.record import Before
from sparkhost.pid1 import run, show
from sparkhost.resource import Change, Context, Refused, Resource
from sparkhost.slices import meminfo

LINK = Path("/etc/systemd/system/default.target")
TARGET = "multi-user.target"
MANAGER = "display-manager.service"
"""The name that every distribution's display manager also has (systemd.special(7))."""
GRAPHICAL = ("x11", "wayland", "mir")
SETTLE = 10.0
"""Seconds that memory may take to come back."""
MIB = 2**20
came_back: list[int] = []
"""Bytes that this deploy has brought back: told by the look after the change."""


def manager() -> str:
    """The display manager that runs, by its own name; "" for none."""
    found = show(MANAGER, "LoadState", "ActiveState", "Names")
    if found.get("LoadState") != "loaded" or found.get("ActiveState") in ("inactive", "failed"):
        return ""
    names = [name for name in found.get("Names", "").split() if name != MANAGER]
    return (names or [MANAGER])[0]


def default() -> str:
    return run("systemctl", "get-default").strip()


def link() -> str | None:
    return str(LINK.readlink()) if LINK.is_symlink() else None


def people() -> list[str]:
    """Who is logged in at the desktop; the greeter is nobody (sd-login(3), org.freedesktop.login1(5))."""
    sessions = [
        line.split()[0] for line in run("loginctl", "list-sessions", "--no-legend").splitlines() if line.split()
    ]
    found = set()
    for session in sessions:
        text = run("loginctl", "show-session", session, "-p", "Name", "-p", "Class", "-p", "Type")
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if values.get("Class") == "user" and values.get("Type") in GRAPHICAL:
            found.add(values.get("Name", "?"))
    return sorted(found)


def stop() -> int:
    """Stops the display manager; how many bytes of memory came back."""
    before = meminfo()["MemAvailable"]
    run("systemctl", "stop", MANAGER)
    until, last = time.monotonic() + SETTLE, -1
    while (now := meminfo()["MemAvailable"]) - last > 4 * MIB and time.monotonic() < until:
        last = now
        time.sleep(1.0)
    return max(0, now - before)


@dataclass(frozen=True)
class Headless(Resource):
    """No display manager now, and none at the next boot. Refused while somebody is logged in at the desktop."""

    kind: ClassVar[str] = "headless"

    def units(self) -> Sequence[str]:
        return (MANAGER,)

    def plan(self, context: Context) -> Sequence[Change]:
        changes = []
        if (found := default()) != TARGET:
            changes.append(Change("default.target", f"set to {TARGET} (was {found})"))
        if running := manager():
            if there := people():
                raise Refused(
                    f"{', '.join(there)}: logged in at the desktop, which would end with what is open there: log out, "
                    "and deploy again"
                )
            changes.append(Change(running, "stop: the desktop ends"))
        if came_back and not changes:
            context.warnings.append(f"{came_back.pop() // MIB} MiB of memory came back from the desktop")
        return changes

    def apply(self) -> None:
        running = manager()
        known = record.read() or Before(link(), "")
        record.write(Before(known.link, known.manager or running))
        if default() != TARGET:
            run("systemctl", "set-default", "--quiet", TARGET)
        if running:
            came_back.append(stop())


@dataclass(frozen=True)
class DesktopBefore(Resource):
    """The desktop as it was before us; nothing where we have changed nothing."""

    kind: ClassVar[str] = "desktop_before"

    def units(self) -> Sequence[str]:
        return (MANAGER,)

    def plan(self, context: Context) -> Sequence[Change]:
        before = record.read()
        if before is None:
            return []
        changes = []
        if default() == TARGET and link() != before.link:
            changes.append(Change("default.target", f"as it was before sparkfleet: {before.link or 'no link in /etc'}"))
        if before.manager and not manager() and self._is_there():
            changes.append(Change(before.manager, "start again"))
        return changes or [Change(str(record.RECORD), "remove: all is as it was")]

    def _is_there(self) -> bool:
        return show(MANAGER, "LoadState").get("LoadState") == "loaded"

    def apply(self) -> None:
        before = record.read()
        if before is None:
            return
        if default() == TARGET and link() != before.link:  # what others have set since stays
            if before.link is None:
                LINK.unlink()
            else:
                self._put_back(before.link)
            run("systemctl", "daemon-reload")
        if before.manager and not manager() and self._is_there():
            run("systemctl", "start", "--no-block", MANAGER)
        record.forget()

    @staticmethod
    def _put_back(target: str) -> None:
        new = LINK.with_name(f".{LINK.name}.sparkfleet")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(LINK)
