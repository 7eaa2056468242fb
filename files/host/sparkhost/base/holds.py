"""Whether what a measure has configured is what holds: no file of somebody else's has the last word over ours.

How it works: for each of our files of systemd's and sysctl's, every setting in it is looked for in the files that are
read later: drop-ins as PID 1 names them (systemd.unit(5)), fragments for PID 1 itself and the kernel as their own
programs list them. One that says something else is refused by its name, as it is somebody's wish, but not ours to keep
silent about: the audit fails there. What is below /run ends with the next boot anyway, and is taken back.
Then PID 1 holds what we say; whether the kernel does is looked at for the settings of `KERNEL`.

Which files: all that a measure writes below `UNITS`, `MANAGER` and `SYSCTL` (`tasks.lib.wanted` sees to that).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base.files import MANAGED
from sparkhost.base.pid1 import run, show
from sparkhost.base.resource import Context, Refused, Resource, Step
from sparkhost.base.systemd import reload_for, start_below, take_back, unit_of

UNITS = Path("/etc/systemd/system")
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
RUN = Path("/run")
# Directory of ours → what lists the files of that kind in the order in which they are read, each after its name.
LISTS = {
    Path("/etc/systemd/system.conf.d"): ("systemd-analyze", "cat-config", "systemd/system.conf"),
    Path("/etc/sysctl.d"): ("/usr/lib/systemd/systemd-sysctl", "--cat-config"),
}
KERNEL = {
    "MemoryMax": "memory.max",
    "MemoryMin": "memory.min",
    "MemorySwapMax": "memory.swap.max",
    "TasksMax": "pids.max",
    "CPUWeight": "cpu.weight",
}
"""Setting → the cgroup's file that has it."""
ADDED = ("Description", "Documentation", "After", "Before", "Wants", "WantedBy")
"""Keys that take nothing of ours away, whatever others add."""
LONGEST = 80
"""Characters of a value that is shown."""
LARGEST = 2**20
"""Bytes that are read of somebody's file."""


def is_looked_at(path: Path) -> bool:
    """Whether a file of ours is one that others can override. Not what reaches all units of a type, such as `swap.d`:
    its measure looks at each such unit itself (`SwapGuard`).
    """
    if path.is_relative_to(UNITS):
        return "." in path.relative_to(UNITS).parts[0].removesuffix(".d")
    return any(path.is_relative_to(directory) for directory in LISTS)


def assignments(text: str) -> Iterator[tuple[str, str]]:
    """(key, value) of each line of a unit's or sysctl's file, in order; a line may go on (systemd.syntax(7))."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";", "[")):
            yield key.strip().removeprefix("-"), " ".join(value.split())


def read(path: Path) -> str:
    """Somebody's file, as far as it counts; "" where it is no regular file, such as a link to /dev/null."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return stream.read(LARGEST).decode(errors="replace")


def values_of(text: str) -> dict[str, list[str]]:
    """Every value of each key, in order: lists have several."""
    found: dict[str, list[str]] = {}
    for key, value in assignments(text):
        found.setdefault(key, []).append(value)
    return found


def kernel_value(key: str, text: str) -> str:
    """A setting as the cgroup's file has it."""
    if text == "infinity":
        return "max"
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not match:
        return ""  # a percentage, say
    number = int(match[1]) << 10 * " KMGT".index(match[2] or " ")
    return str(number // 4096 * 4096 if key.startswith("Memory") else number)


@dataclass(frozen=True)
class Holds(Resource):
    """What this file of ours says is what holds. `measure`: whose it is, for the remedy."""

    kind: ClassVar[str] = "holds"
    after_reload: ClassVar[bool] = True
    measure: str
    file: str

    def units(self) -> Sequence[str]:
        path = Path(self.file)
        return units_of(path) if path.is_relative_to(UNITS) and path.exists() else ()

    def steps(self, context: Context) -> Sequence[Step]:
        path = Path(self.file)
        if MANAGED not in read(path):
            return ()  # it was refused, or does not apply, which its own resource has said
        if context.will_change(path) or context.will_reload():
            return ()  # a dry run has neither written nor reloaded
        if not path.is_relative_to(UNITS):
            found = Found(refused=[*self._later(path)])
        else:
            found = Found()
            for unit in units_of(path):
                if not context.will_change(unit):
                    self._unit(unit, path, found)
        if found.refused:
            raise Refused("; ".join(found.refused))
        return found.in_order()

    def _later(self, path: Path) -> Iterator[str]:
        """Overrides of a file of sysctl's or of PID 1's own, which the next boot would read after it."""
        command = next(command for directory, command in LISTS.items() if path.is_relative_to(directory))
        ours = values_of(read(path))
        here, after = "", False
        for line in run(*command).splitlines():
            if name := re.fullmatch(r"# (/\S+)", line):
                here, after = name[1], after or here == str(path)
                continue
            for key, value in assignments(line):
                # sysctl.d(5) takes slashes for dots as well.
                if after and here != str(path) and ours.get(key.replace("/", "."), [value])[-1] != value:
                    yield self._line(f"the next boot sets {key}={value}", Path(here), path, "")

    def _unit(self, unit: str, ours: Path, found: Found) -> None:
        """Adds what is to be done about a unit, and what is refused."""
        has = show(unit, "LoadState", "FragmentPath", "DropInPaths", "NeedDaemonReload", "ControlGroup", "MainPID")
        if has.get("LoadState") != "loaded":
            return  # masked, or not there: whoever starts it says so
        values = values_of(read(ours))
        # `Protection` and `CapInForce` look at units that are not ours: a session of ssh@.service must not be at -1000.
        put_in_force = partial(settle, unit, values if ours.parent == UNITS else {})
        if has.get("NeedDaemonReload") == "yes":
            if unit != "ssh.service":  # there `SshdReady` has the say: what came in force could lock people out
                brief = until_boot(unit, ours, self._later_drop_ins(unit, ours, has)[0])
                says = "read its files again: they have changed"
                found.reread(Step(unit, says, partial(take_back, brief)), put_in_force)
            return
        later, problem = self._later_drop_ins(unit, ours, has)
        if problem:
            found.refused.append(problem)
        elif brief := until_boot(unit, ours, later):
            says = f"take back what was set until the next boot ({', '.join(map(str, brief))})"
            found.reread(Step(unit, says, partial(take_back, brief)), put_in_force)
        elif refused := [*self._overrides(unit, ours, values, later)]:
            found.refused += refused
        elif ours.parent == UNITS:
            found.now += [Step(unit, says, put_in_force) for says in lag(values, has)]

    def _later_drop_ins(self, unit: str, ours: Path, found: Mapping[str, str]) -> tuple[list[Path], str]:
        """Those that are read after ours; or why ours is not read."""
        drop_ins = [Path(path) for path in found.get("DropInPaths", "").split()]
        if ours.parent == UNITS:
            fragment = Path(found.get("FragmentPath", ""))
            return drop_ins, "" if fragment == ours else self._line(f"{unit} is another one", fragment, ours, "file")
        if ours in drop_ins:
            return drop_ins[drop_ins.index(ours) + 1 :], ""
        # A link to /dev/null, which masks ours, is in no list.
        same = [path for path in (*drop_ins, UNITS / f"{unit}.d" / ours.name) if path.name == ours.name]
        hides = next((path for path in same if path != ours and os.path.lexists(path)), None)
        if hides and MANAGED in read(hides):
            return [], ""  # an exception of ours
        if hides:
            return [], self._line(f"{unit} does without it", hides, ours, "file")
        return [], f"systemd does not read {ours} for {unit}: see `systemctl cat {unit}`"

    def _overrides(
        self, unit: str, ours: Path, values: Mapping[str, list[str]], later: Sequence[Path]
    ) -> Iterator[str]:
        holds: dict[str, str] = {}
        for path in later:
            text = read(path)
            if MANAGED in text:
                continue
            for key, said in values_of(text).items():
                if key not in values or key in ADDED or said == values[key]:
                    continue
                holds = holds or dict(line.partition("=")[::2] for line in run("systemctl", "show", unit).splitlines())
                if holds.get(key) != values[key][-1]:
                    value = holds.get(key) or said[-1]
                    has = f"{key}={value if len(value) < LONGEST else said[-1][:LONGEST]}"
                    yield self._line(f"{unit} has {has}, not {values[key][-1] or 'empty'}", path, ours, f"{key} line")

    def _line(self, what: str, path: Path, ours: Path, part: str) -> str:
        reload = " and run systemctl daemon-reload" if ours.is_relative_to(UNITS) else ""
        if ours.parent == UNITS and ours.suffix == ".service":
            reload = f", run systemctl daemon-reload and systemctl restart {ours.name}"
        return (
            f"{what}: {path} overrides {ours}: remove that {part or 'line'}{reload}, or set {self.measure}.state to "
            "unmanaged"
        )


@dataclass
class Found:
    """What the units of a file need: one reload serves all of them."""

    refused: list[str] = field(default_factory=list)
    now: list[Step] = field(default_factory=list)
    """What needs no reload, or comes before it."""
    after: dict[str, Callable[[], object]] = field(default_factory=dict)
    """By unit, what has the kernel take what PID 1 has read again."""

    def reread(self, first: Step, then: Callable[[], object]) -> None:
        self.now.append(first)
        self.after[first.what] = then

    def in_order(self) -> list[Step]:
        reload = [reload_for(*self.after)] if self.after else []
        return [*self.now, *reload, *(Step(unit, "", act) for unit, act in self.after.items())]


def units_of(path: Path) -> list[str]:
    """The units that a file below `UNITS` reaches: those of a pattern where they run, or have files of their own."""
    name = path.relative_to(UNITS).parts[0].removesuffix(".d")
    pattern = unit_of(f"/etc/systemd/system/{name}")
    if "*" not in pattern:
        return [pattern]
    running = {each.name for depth in ("", "*/", "*/*/") for each in CGROUPS.glob(f"{depth}{pattern}")}
    told = {
        each.name.removesuffix(".d") for root in (UNITS, RUN / "systemd/system") for each in root.glob(f"{pattern}.d")
    }
    return sorted({*running, *told} - {name})


def until_boot(unit: str, ours: Path, later: Sequence[Path]) -> list[Path]:
    """Drop-ins below /run for this very unit that touch what ours says; all of them where the unit itself is ours."""
    keys, brief = values_of(read(ours)).keys(), [path for path in later if RUN in path.parents]
    own = [path for path in brief if path.parent.name == f"{unit}.d"]
    return [path for path in own if ours.parent == UNITS or keys & values_of(read(path)).keys()]


def lag(values: Mapping[str, list[str]], found: Mapping[str, str]) -> Iterator[str]:
    """What is to be done where the kernel lacks what PID 1 holds: the unit was started, or reached, before that."""
    for key, name in KERNEL.items():
        wanted = kernel_value(key, values[key][-1]) if key in values else ""
        path = CGROUPS / found.get("ControlGroup", "").strip("/") / name
        if wanted and found.get("ControlGroup") and path.is_file() and path.read_text().strip() != wanted:
            yield f"have systemd put {key} in force: {name} is {path.read_text().strip()}"
    score = PROC / found.get("MainPID", "0") / "oom_score_adj"
    if "OOMScoreAdjust" in values and score.is_file() and score.read_text().strip() != values["OOMScoreAdjust"][-1]:
        yield f"set its main process's oom_score_adj (is {score.read_text().strip()})"


def settle(unit: str, values: Mapping[str, list[str]]) -> None:
    """Has the kernel take what PID 1 holds of a unit now."""
    found = show(unit, "ControlGroup", "MainPID")
    cgroup = Path(found.get("ControlGroup", ""))
    if cgroup.name:
        # A reload alone does not reach the cgroups of units that run: that comes with the next unit below the slice.
        start_below(unit if unit.endswith(".slice") else cgroup.parent.name or "system.slice")
    score = PROC / found.get("MainPID", "0") / "oom_score_adj"
    if "OOMScoreAdjust" in values and score.is_file():
        score.write_text(values["OOMScoreAdjust"][-1])
