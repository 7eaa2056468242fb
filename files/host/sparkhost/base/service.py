"""Services of ours, enabled and running with the files that are there now, or gone; and files that are checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import File
from sparkhost.base.pid1 import run, show, time_of
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step
from sparkhost.base.systemd import UNIT_DIRECTORY

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

    def steps(self, context: Context) -> Sequence[Step]:
        found = [*super().steps(context)]
        # The old program may not know what the new one's file says.
        replaced = context.will_change_below(self.program or self.check[0], self.check[0])
        if found and not replaced and Path(self.check[0]).exists():
            self._ask()
        return found

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

    def write(self) -> None:
        self._ask()
        super().write()


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

    def steps(self, context: Context) -> Iterator[Step]:
        if self.only_with and not context.will_change(self.only_with) and not Path(self.only_with).exists():
            return
        found = show(self.unit, "LoadState", "ActiveState", "UnitFileState")
        if found["LoadState"] == "masked":
            raise Refused(
                f"{self.unit} is masked: systemctl unmask {self.unit}, or set the measure's state to unmanaged"
            )
        if found["LoadState"] != "loaded":
            if self._comes(context):
                yield Step(self.unit, "enable and start", self._enable_and_start)
            return
        enabled = found["UnitFileState"] == "enabled"
        if found["ActiveState"] in ("active", "activating", "reloading"):
            if not enabled:
                yield Step(self.unit, "enable", self._enable)
            yield from self._refresh(context)
        elif enabled:
            yield Step(self.unit, f"start (is {found['ActiveState']})", self._restart)
        else:
            # In the words of a dry run, which has not written the unit's file yet.
            yield Step(self.unit, "enable and start", self._enable_and_start)

    def _comes(self, context: Context) -> bool:
        """Whether the unit, which PID 1 does not know, is there once this run has gone on. Raises Failed."""
        if context.will_change(*self.files):
            return True
        if not Path(UNIT_DIRECTORY, self.unit).exists():
            return False  # its files were refused, which was said: nothing is to run
        if context.will_reload():
            return True
        raise Failed(f"{self.unit}: systemd does not know it: see `systemctl status {self.unit}`")

    def _refresh(self, context: Context) -> Iterator[Step]:
        """Where it runs with older files."""
        if newer := self._newer(self.files, context):
            yield Step(self.unit, f"restart, for {', '.join(newer)}", self._restart)
        elif newer := self._newer(self.reload_for, context):
            yield Step(self.unit, f"reload, for {', '.join(newer)}", self._reload)

    def _newer(self, files: Sequence[str], context: Context) -> list[str]:
        """The files that changed after the unit was started or last reloaded by us."""
        since = self._settled()
        return [path for path in files if context.will_change(path) or changed(Path(path)) > since]

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

    def _enable(self) -> None:
        run("systemctl", "enable", "--quiet", self.unit)

    def _restart(self) -> None:
        run("systemctl", "restart", self.unit)

    def _enable_and_start(self) -> None:
        self._enable()
        self._restart()

    def _reload(self) -> None:
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

    def steps(self, context: Context) -> Iterator[Step]:
        found = show(self.unit, "LoadState", "ActiveState", "UnitFileState")
        if found["LoadState"] != "loaded":
            return
        if found["ActiveState"] not in ("inactive", "failed") or found["UnitFileState"] == "enabled":
            yield Step(self.unit, "stop and disable", self._stop)

    def _stop(self) -> None:
        run("systemctl", "disable", "--quiet", "--now", self.unit)
        (Path("/run/sparkfleet") / f"{self.unit}.reloaded").unlink(missing_ok=True)


@dataclass(frozen=True)
class NoTree(Resource):
    """A directory that a service of ours has made for itself, gone with all that is in it. After the service."""

    kind: ClassVar[str] = "no_tree"
    path: str

    def steps(self, context: Context) -> Iterator[Step]:
        if Path(self.path).is_dir():
            yield Step(self.path, "remove", partial(shutil.rmtree, self.path))


def changed(path: Path) -> int:
    """When a file, or the link that stands for it, last changed, in microseconds; 0 where there is none."""
    try:
        return max(path.lstat().st_ctime_ns, path.stat().st_ctime_ns) // 1000
    except OSError:
        return 0
