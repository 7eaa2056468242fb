"""The desktop, as PID 1 and logind know it.

Only the display manager is stopped: `systemctl isolate multi-user.target` would end every service that no target asks
for, jobs among them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base.pid1 import run, show
from sparkhost.base.resource import Context, Refused, Resource, Step
from sparkhost.headless import record
from sparkhost.headless.record import Before
from sparkhost.training_slice.slices import meminfo

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

    def steps(self, context: Context) -> Iterator[Step]:
        running, found = manager(), default()
        if running and (there := people()):
            raise Refused(
                f"{', '.join(there)}: logged in at the desktop, which would end with what is open there: log out, "
                "and deploy again"
            )
        if found != TARGET:
            yield Step("default.target", f"set to {TARGET} (was {found})", partial(self._set_default, running))
        if running:
            yield Step(running, "stop: the desktop ends", partial(self._stop, running))
        if came_back and found == TARGET and not running:
            context.warnings.append(f"{came_back.pop() // MIB} MiB of memory came back from the desktop")

    def _note(self, running: str) -> None:
        known = record.read() or Before(link(), "")
        record.write(Before(known.link, known.manager or running))

    def _set_default(self, running: str) -> None:
        self._note(running)
        run("systemctl", "set-default", "--quiet", TARGET)

    def _stop(self, running: str) -> None:
        self._note(running)
        came_back.append(stop())


@dataclass(frozen=True)
class DesktopBefore(Resource):
    """The desktop as it was before us; nothing where we have changed nothing."""

    kind: ClassVar[str] = "desktop_before"

    def units(self) -> Sequence[str]:
        return (MANAGER,)

    def steps(self, context: Context) -> Iterator[Step]:
        before = record.read()
        if before is None:
            return
        found = []
        if default() == TARGET and link() != before.link:  # what others have set since stays
            says = f"as it was before sparkfleet: {before.link or 'no link in /etc'}"
            found.append(Step("default.target", says, partial(self._put_back, before.link)))
        if before.manager and not manager() and self._is_there():
            start = partial(run, "systemctl", "start", "--no-block", MANAGER)
            found.append(Step(before.manager, "start again", start))
        yield from found
        yield Step(str(record.RECORD), "" if found else "remove: all is as it was", record.forget)

    def _is_there(self) -> bool:
        return show(MANAGER, "LoadState").get("LoadState") == "loaded"

    @staticmethod
    def _put_back(target: str | None) -> None:
        if target is None:
            LINK.unlink()
        else:
            new = LINK.with_name(f".{LINK.name}.sparkfleet")
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(LINK)
        run("systemctl", "daemon-reload")
