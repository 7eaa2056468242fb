"""Services of ours, enabled and running with the files that are there now, or gone; and files that are checked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost import bounded
from sparkhost.files import File
from sparkhost.pid1 import run, show, time_of
from sparkhost.resource import Change, Context, Failed, Refused, Resource
from sparkhost.systemd import RELOAD, UNIT_DIRECTORY

# Seconds that a check of a file may take.
CHECK_TIMEOUT = 30.0


@dataclass(frozen=True)
class CheckedFile(File):
    """A file that a program of ours must accept before it replaces the one that is there.

    `check`: the command, which reads the new content on standard input, and says in one line what is wrong with it.
    Where the program is not installed yet, or is about to be replaced, a plan passes; a change needs it.
    """

    kind: ClassVar[str] = "checked_file"
    check: tuple[str, ...] | list[str] = ()
    program: str = ""
    """The directory of the installed program behind `check`."""

    def plan(self, context: Context) -> Sequence[Change]:
        changes = super().plan(context)
        replaced = any(
            change.what.startswith((self.program or self.check[0], self.check[0])) for change in context.pending
        )
        # The old program may not know what the new one's file says.
        if changes and not replaced and Path(self.check[0]).exists():
            self._ask()
        return changes

    def _ask(self) -> None:
        """Raises:
        Refused: the program does not accept the content; with its words.
        """
        try:
            result = bounded.call([*self.check], seconds=CHECK_TIMEOUT, given=self.content)
        except Failed as error:
            raise Failed(f"{self.path} is not replaced: nothing can check it: {error}") from error
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines() or [f"exit code {result.returncode}"]
            raise Refused(f"{self.path} is not replaced: {lines[-1]}")

    def apply(self) -> None:
        self._ask()
        super().apply()


@dataclass(frozen=True)
class Service(Resource):
    """A service or socket of ours that is enabled, and runs with what `files` hold now.

    `reload_for`: files for whose change a reload is enough.
    """

    kind: ClassVar[str] = "service"
    after_reload: ClassVar[bool] = True
    unit: str
    files: list[str]
    reload_for: tuple[str, ...] | list[str] = ()
    only_with: str = ""
    """A file without which nothing is done: what its measure has refused to set up is not started."""

    def units(self) -> Sequence[str]:
        return (self.unit,)

    def plan(self, context: Context) -> Sequence[Change]:
        pending = {change.what for change in context.pending}
        if self.only_with and self.only_with not in pending and not Path(self.only_with).exists():
            return []
        found = show(self.unit, "LoadState", "ActiveState", "UnitFileState")
        if found["LoadState"] == "masked":
            raise Refused(
                f"{self.unit} is masked: systemctl unmask {self.unit}, or set the measure's state to unmanaged"
            )
        if found["LoadState"] != "loaded":
            if not pending & set(self.files) and not Path(UNIT_DIRECTORY, self.unit).exists():
                return []  # its files were refused, which was said: nothing is to run
            if RELOAD in pending or pending & set(self.files):
                return [Change(self.unit, "enable and start")]
            raise Failed(f"{self.unit}: systemd does not know it: see `systemctl status {self.unit}`")
        enabled = found["UnitFileState"] == "enabled"
        if found["ActiveState"] not in ("active", "activating", "reloading"):
            # In the words of a dry run, which has not written the unit's file yet.
            return [Change(self.unit, f"start (is {found['ActiveState']})" if enabled else "enable and start")]
        changes = [] if enabled else [Change(self.unit, "enable")]
        if newer := self._newer(self.files, pending):
            changes.append(Change(self.unit, f"restart, for {', '.join(newer)}"))
        elif newer := self._newer(self.reload_for, pending):
            changes.append(Change(self.unit, f"reload, for {', '.join(newer)}"))
        return changes

    def _newer(self, files: Sequence[str], pending: set[str]) -> list[str]:
        """The files that changed after the unit was started or last reloaded by us."""
        since = self._settled()
        return [path for path in files if path in pending or changed(Path(path)) > since]

    def _settled(self) -> int:
        """When the unit took its files, in microseconds since the epoch."""
        # A service reads its files when its process starts, and may be active much later.
        service = self.unit.endswith(".service")
        when = "ExecMainStartTimestamp" if service else "ActiveEnterTimestamp"
        started = time_of(self.unit, when)
        mark = self._mark()
        reloaded = mark.stat().st_mtime_ns // 1000 if mark.exists() else 0
        return max(started, reloaded)

    def _mark(self) -> Path:
        return Path("/run/sparkfleet") / f"{self.unit}.reloaded"

    def apply(self) -> None:
        # "enable and start", "restart, for FILE": what is done comes before what for.
        words = {word for change in self.plan(Context()) for word in re.split(r", | \(", change.summary)[0].split()}
        if "enable" in words:
            run("systemctl", "enable", "--quiet", self.unit)
        if {"start", "restart"} & words:
            run("systemctl", "restart", self.unit)
        elif "reload" in words:
            run("systemctl", "reload", self.unit)
            self._mark().parent.mkdir(mode=0o755, exist_ok=True)
            self._mark().touch()


@dataclass(frozen=True)
class NoService(Resource):
    """A unit of ours that neither runs nor starts at boot. Before its files are removed."""

    kind: ClassVar[str] = "no_service"
    unit: str

    def units(self) -> Sequence[str]:
        return (self.unit,)

    def plan(self, context: Context) -> Sequence[Change]:
        found = show(self.unit, "LoadState", "ActiveState", "UnitFileState")
        if found["LoadState"] != "loaded":
            return []
        if found["ActiveState"] in ("inactive", "failed") and found["UnitFileState"] != "enabled":
            return []
        return [Change(self.unit, "stop and disable")]

    def apply(self) -> None:
        run("systemctl", "disable", "--quiet", "--now", self.unit)
        (Path("/run/sparkfleet") / f"{self.unit}.reloaded").unlink(missing_ok=True)


@dataclass(frozen=True)
class NoTree(Resource):
    """A directory that a service of ours has made for itself, gone with all that is in it. After the service."""

    kind: ClassVar[str] = "no_tree"
    path: str

    def plan(self, context: Context) -> Sequence[Change]:
        return [Change(self.path, "remove")] if Path(self.path).is_dir() else []

    def apply(self) -> None:
        shutil.rmtree(self.path)


def changed(path: Path) -> int:
    """When a file, or the link that stands for it, last changed, in microseconds; 0 where there is none."""
    try:
        return max(path.lstat().st_ctime_ns, path.stat().st_ctime_ns) // 1000
    except OSError:
        return 0
