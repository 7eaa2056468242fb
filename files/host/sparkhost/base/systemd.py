"""systemd: reload its configuration when unit files changed, and start what is wanted again."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.containers import container
from sparkhost.base.pid1 import run, units_loaded_at
from sparkhost.base.resource import RELOAD, Context, Failed, Refused, Resource, Step

UNIT_DIRECTORY = "/etc/systemd/system"
CGROUPS = Path("/sys/fs/cgroup")
# Where `systemctl set-property` keeps what it was told: with --runtime in the first, else in the second.
CONTROL = (Path("/run/systemd/system.control"), Path("/etc/systemd/system.control"))


def changed_at(path: Path) -> int:
    """When a file last appeared or changed, in microseconds."""
    return path.lstat().st_ctime_ns // 1000


def set_at_run_time(unit: str, name: str) -> list[Path]:
    """What `systemctl set-property --runtime` has left of a unit; both may be patterns. The next boot ends it anyway.

    Also where it is of no effect, as a drop-in of ours comes later by its name.
    """
    return sorted(CONTROL[0].glob(f"{unit}.d/{name}.conf"))


def take_back(paths: Sequence[Path]) -> None:
    """Removes drop-ins that were set until the next boot; PID 1 knows of it after a reload. Raises OSError."""
    for path in paths:
        path.unlink(missing_ok=True)


def unit_of(path: str) -> str:
    """The unit that a file below UNIT_DIRECTORY says something of, as a pattern for loaded ones where they are many.

    `user-.slice.d` reaches every user's slice, `x@.service` is a template, and `swap.d` is for every unit of that type
    (systemd.unit(5)).
    """
    name = Path(path).relative_to(UNIT_DIRECTORY).parts[0].removesuffix(".d")
    if "." not in name:
        return f"*.{name}"
    return name.replace("-.slice", "-*.slice").replace("@.", "@*.")


def still_read(paths: Sequence[str]) -> set[str]:
    """Those of these files, which are gone, that PID 1 still knows."""
    if not paths:
        return set()
    # --all: else a pattern stands for active units only, and what keeps swap off has none of those.
    asked = ("systemctl", "show", "--all", "-p", "FragmentPath,DropInPaths", "--")
    output = run(*asked, *sorted({unit_of(p) for p in paths}))
    return set(paths) & set(re.split(r"[\s=]", output))


def daemon_reload(forced: bool = False) -> None:
    """Makes PID 1 read its unit files again, unless that would take the GPU from a running container.

    Raises:
        Refused: there is such a container, and this is not `forced`.
    """
    if not forced and (containers := containers_at_risk()):
        raise Refused(
            f"daemon-reload held back: it would take the GPU from {', '.join(containers)} "
            "(NVIDIA/nvidia-container-toolkit#48): stop it or give it the GPU by CDI, or deploy with "
            "SPARKFLEET_FORCE_RELOAD=1"
        )
    os.sync()
    run("systemctl", "daemon-reload")


def put_in_force(paths: Sequence[str]) -> None:
    """Has PID 1 give the cgroups of running slices what unit files below UNIT_DIRECTORY say now.

    A reload alone does not reach them (systemd 257): that comes with the next unit that is started below each.
    """
    found: set[str] = set()
    for path in paths:
        name = unit_of(path)
        pattern = name if name.endswith(".slice") else "system.slice"  # that of services
        found.update(each.name for depth in ("", "*/") for each in CGROUPS.glob(f"{depth}{pattern}"))
    for name in sorted(found):
        with contextlib.suppress(Failed):  # who looks at the cgroups themselves will find, and say, that it is missing
            start_below(name)


def start_below(slice_: str) -> None:
    """Starts a unit below a slice that ends at once: PID 1 gives the slice's cgroup its limits then. Raises Failed."""
    run("systemd-run", "--quiet", "--wait", "--collect", f"--slice={slice_}", "true")


def containers_at_risk(proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> list[str]:
    """Scopes of containers that use NVIDIA devices which PID 1 does not know of.

    NVIDIA's hook opens the devices to a container behind systemd's back; PID 1 forgets them when it reads its units
    again. With CDI the devices are among the scope's DeviceAllow=, and with links in /dev/char they are kept.
    """
    if not any(dev.glob("nvidia*")) or any((dev / "char").glob("195:*")):
        return []
    scopes: dict[str, str] = {}
    for process in proc.glob("[0-9]*"):
        try:
            name, path = _scope_of(cgroup_of(int(process.name), str(proc)) or "")
            if name and any(str(fd.readlink()).startswith("/dev/nvidia") for fd in (process / "fd").iterdir()):
                scopes[path] = name
        except OSError:
            continue  # it has ended meanwhile
    return sorted(name for path, name in scopes.items() if _may_lose_nvidia(name, path))


def _scope_of(cgroup: str) -> tuple[str, str]:
    """The scope of a container in a process's cgroup, and where that scope is; empty for none.

    What is below user.slice belongs to users, who name it as they like: PID 1 holds no devices of theirs.
    """
    parts = cgroup.split("/")
    if parts[1:2] != ["user.slice"]:
        for depth, part in enumerate(parts, 1):
            if part.endswith(".scope") and container(part):
                return part, "/".join(parts[:depth])
    return "", ""


def _may_lose_nvidia(scope: str, path: str) -> bool:
    """Whether PID 1 has this scope, at this place, and does not grant it NVIDIA's devices itself (by name, or as
    character devices of major 195). A cgroup that only has the name of a container is none of PID 1's.
    """
    text = run("systemctl", "show", "-p", "LoadState,ControlGroup,DeviceAllow", "--", scope)
    lines = text.splitlines()
    if "LoadState=loaded" not in lines or f"ControlGroup={path}" not in lines:
        return False
    return not re.search(r"nvidia|char-195|/char/195", text)


def reload_for(*units: str) -> Step:
    """A reload of a resource's own: told as one, so that a dry run expects no second one after it."""
    return Step(RELOAD, f"run, for {', '.join(units)}", daemon_reload)


@dataclass(frozen=True)
class DaemonReload(Resource):
    """`systemctl daemon-reload`, when one of `paths` changed after PID 1 last read its unit files.

    The moment of change is compared, not only what this run wrote: a controller that died between writing
    and reloading is made up for by the next run.
    """

    kind: ClassVar[str] = "daemon_reload"
    paths: list[str]
    forced: bool = False
    """Whether it is done although it takes the GPU from containers."""

    def steps(self, context: Context) -> Iterator[Step]:
        if context.will_reload():
            return  # one reload in this run serves all
        if newer := context.changes_of(self.paths) or self._newer():
            yield Step(RELOAD, f"run, for {', '.join(newer)}", self._reload)

    def _newer(self) -> list[str]:
        loaded = units_loaded_at()
        there = [path for path in self.paths if os.path.lexists(path)]
        gone = still_read([p for p in self.paths if p not in there and p.startswith(f"{UNIT_DIRECTORY}/")])
        # The loading itself takes a moment, and ctime ticks with the kernel's timer: equal counts as loaded.
        return [path for path in self.paths if path in gone or (path in there and loaded < changed_at(Path(path)))]

    def _reload(self) -> None:
        newer = self._newer()
        daemon_reload(self.forced)
        put_in_force([path for path in newer if path.startswith(f"{UNIT_DIRECTORY}/")])
