"""What protects a unit: drop-ins and programs of ours, and whether PID 1 and the kernel have made them effective."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import File, NoFile
from sparkhost.base.pid1 import show
from sparkhost.base.resource import Check, Context, Failed, Refused, Resource, Step, nothing
from sparkhost.base.systemd import CONTROL, reload_for, set_at_run_time, start_below, take_back
from sparkhost.ssh import unproved

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
MIB = 2**20
# Seconds that the kernel's value may lag behind.
SETTLE = 10.0


@dataclass(frozen=True)
class PerConnectionFile(File):
    """A drop-in for ssh@.service, on hosts whose ssh.socket starts one per connection (Accept=yes)."""

    kind: ClassVar[str] = "per_connection_file"

    def steps(self, context: Context) -> Iterable[Step]:
        return super().steps(context) if accepts() else ()


@functools.cache
def accepts() -> bool:
    """Whether ssh.socket accepts connections itself, and starts an sshd for each."""
    return show("ssh.socket", "Accept").get("Accept") == "yes"


@dataclass(frozen=True)
class KillableSession(Check):
    """Refuses where a new session, this deploy's own, cannot be killed although all files are right.

    `files`: those that make it so. While one of them is still to be changed, the session says nothing.
    """

    kind: ClassVar[str] = "killable_session"
    files: list[str]

    def check(self, context: Context) -> None:
        if context.will_change(*self.files) or unproved.read() is not None:
            return  # it was opened before that change; the proof looks at new ones
        score = int(bounded.read_text(PROC / "self" / "oom_score_adj"))
        if score < 0:
            raise Refused(
                f"a new session has oom_score_adj {score}, so nothing in it can be killed when memory runs out: "
                f"{self.files[0]} is in PAM's stack, but has no effect: see what `journalctl -t sshd` says about it"
            )


@dataclass(frozen=True)
class NoProgram(NoFile):
    """A program of ours below /opt/sparkfleet that must not be there, nor its directories once they are empty."""

    kind: ClassVar[str] = "no_program"

    def remove(self) -> None:
        super().remove()
        for directory in list(Path(self.path).parents)[:2]:
            try:
                directory.rmdir()
            except OSError:
                return  # other measures have their programs there


@dataclass(frozen=True)
class Protection(Resource):
    """A unit's protection, as PID 1 and the kernel have it: the files alone prove nothing.

    `memory_min`: bytes. `oom_score_adjust`: None where the unit has none (a slice).
    """

    kind: ClassVar[str] = "protection"
    told: ClassVar[set[str]] = set()
    """Units whose cgroups systemd has been made to look at, in this request."""
    unit: str
    drop_in: str
    memory_min: int
    oom_score_adjust: int | None

    def units(self) -> Sequence[str]:
        return (self.unit,)

    def steps(self, context: Context) -> Iterator[Step]:
        if overrides := set_at_run_time(self.unit, "*-MemoryMin"):
            yield from self._reread("take back the MemoryMin that was set at run time", partial(take_back, overrides))
        elif not context.will_change(self.drop_in) and not context.will_reload():
            # Else a dry run has neither written the drop-in nor reloaded.
            found = show(self.unit, "LoadState", "OOMScoreAdjust", "MemoryMin", "DropInPaths", "ControlGroup")
            if found["LoadState"] != "loaded":
                raise Refused(
                    f"ssh.protect: there is no unit {self.unit} on this host: correct its name, or leave it out"
                )
            differs = [name for name, value in self._wanted().items() if found.get(name) != value]
            if differs and self._is_overridden(differs[0], found):
                return  # `Holds` refuses that
            if differs:
                why = f"{differs[0]} is {found.get(differs[0])} at run time"
                yield from self._reread(f"read its files again: {why}", nothing)
            else:
                yield from self._grants(found["ControlGroup"], context)
        score = self._score()
        if score is not None and score != self.oom_score_adjust:
            says = f"set its main process's oom_score_adj from {score} to {self.oom_score_adjust}"
            yield Step(self.unit, says, self._set_score)

    def _reread(self, says: str, first: Callable[[], object]) -> Iterator[Step]:
        yield Step(self.unit, says, first)
        yield reload_for(self.unit)
        yield Step(self.unit, "", self._put_in_force)

    def _grants(self, cgroup: str, context: Context) -> Iterator[Step]:
        """What makes the kernel grant what PID 1 holds. Raises Refused."""
        short = self._short(cgroup)
        # The unit's own change comes first; a real run then looks again.
        if not short or context.will_change(short.split()[0]):
            return
        if self.unit in self.told:
            raise Refused(
                f"{self.unit} is not protected: {short}, {self.memory_min // MIB} MiB are needed: give it "
                f"MemoryMin={self.memory_min // MIB}M"
            )
        yield Step(self.unit, f"have systemd put its memory.min in force: {short}", self._put_in_force)

    def _wanted(self) -> dict[str, str]:
        """Properties of the unit as `systemctl show` prints them."""
        score = {} if self.oom_score_adjust is None else {"OOMScoreAdjust": str(self.oom_score_adjust)}
        return {"MemoryMin": str(self.memory_min), **score}

    def _score(self) -> int | None:
        """That of the main process, which may have been started before the drop-in; None where there is none."""
        return None if self.oom_score_adjust is None else score_of(self.unit)

    def _is_overridden(self, name: str, found: dict[str, str]) -> bool:
        """Whether somebody else's file has the last word: reading the files again would change nothing."""
        drop_ins = found["DropInPaths"].split()
        later = drop_ins[drop_ins.index(self.drop_in) + 1 :] if self.drop_in in drop_ins else []
        return self.drop_in not in drop_ins or any(
            not Path(path).is_relative_to(CONTROL[0])  # until the next boot only: a step takes it away
            and re.search(rf"^\s*{name}\s*=", bounded.read_text(Path(path)), re.MULTILINE)
            for path in later
        )

    def _short(self, cgroup: str) -> str:
        """Which cgroup, from the root down to this one, grants less than is needed; "" where none does."""
        if not cgroup or not (CGROUPS / "cgroup.controllers").exists():
            return ""  # not running, or cgroup v1, which has no memory.min
        until = time.monotonic() + (SETTLE if self.unit in self.told else 0)
        while short := short_of(cgroup, self.memory_min):
            if time.monotonic() >= until:
                return f"{short[0]} grants {short[1] // MIB} MiB"
            time.sleep(0.1)
        return ""

    def _put_in_force(self) -> None:
        # A reload alone does not reach the cgroups of units that run (systemd 257): that comes with the next unit that
        # is started beside them.
        start_below("system.slice")
        self.told.add(self.unit)

    def _set_score(self) -> None:
        score_file(self.unit).write_text(str(self.oom_score_adjust))


@dataclass(frozen=True)
class NoProtection(Resource):
    """A service's main process at what its unit says, once our drop-in for it is gone: it is not restarted for that."""

    kind: ClassVar[str] = "no_protection"
    unit: str
    drop_in: str

    def units(self) -> Sequence[str]:
        return (self.unit,)

    def steps(self, context: Context) -> Iterator[Step]:
        if context.will_change(self.drop_in) or context.will_reload():
            return
        found = show(self.unit, "OOMScoreAdjust").get("OOMScoreAdjust", "-1000")
        score = score_of(self.unit)
        if score == -1000 and found != "-1000":
            says = f"set its main process's oom_score_adj from {score} to {found}"
            yield Step(self.unit, says, partial(score_file(self.unit).write_text, found))


def score_file(unit: str) -> Path:
    """oom_score_adj of a unit's main process."""
    return PROC / show(unit, "MainPID").get("MainPID", "0") / "oom_score_adj"


def score_of(unit: str) -> int | None:
    """oom_score_adj of a unit's main process, or None where it has none."""
    try:
        return int(bounded.read_text(score_file(unit)))
    except (FileNotFoundError, ProcessLookupError):
        return None


def short_of(cgroup: str, needed: int) -> tuple[str, int] | None:
    """The first cgroup from the root down that grants less than `needed` bytes, with what it grants; or None.

    Raises:
        Failed: a cgroup of the path has no memory controller.
    """
    path = CGROUPS
    for name in cgroup.strip("/").split("/"):
        path /= name
        try:
            text = bounded.read_text(path / "memory.min").strip()
        except FileNotFoundError as error:
            raise Failed(f"{path} has no memory.min: the memory controller is off there") from error
        if text != "max" and int(text) < needed:
            return name, int(text)
    return None
