"""Whether the kernel has a slice's cap in force: files and PID 1 alone prove nothing.

Each slice is a piece of its own: what goes wrong with one user's leaves all others their caps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.pid1 import show
from sparkhost.base.resource import Context, Resource, Step, Troubles
from sparkhost.base.systemd import CONTROL, reload_for, set_at_run_time, start_below, take_back
from sparkhost.training_slice import slices
from sparkhost.training_slice.slices import PAGE, gib_or_none


@dataclass(frozen=True)
class CapInForce(Resource):
    """memory.max of every slice that a drop-in reaches, as the kernel has it: files and PID 1 alone prove nothing."""

    kind: ClassVar[str] = "cap_in_force"
    after_reload: ClassVar[bool] = True
    slices: str
    memory_max: int | None
    """Bytes; None: no cap of ours."""
    drop_in: str
    exception: str = ""

    def units(self) -> Sequence[str]:
        return [name for name in (cgroup.name for cgroup in self._cgroups()) if "*" not in name]

    def _cgroups(self) -> list[Path]:
        return sorted(slices.CGROUPS.glob(self.slices)) or [slices.CGROUPS / self.slices]

    def steps(self, context: Context) -> Iterator[Step]:
        overrides = self._set_at_run_time()
        for name, paths in overrides.items():
            says = f"take back what was set at run time ({', '.join(path.name for path in paths)})"
            yield Step(name, says, partial(take_back, paths), alone=True)
        lags: dict[str, str] = {}
        if not context.will_reload() and not context.will_change(self.drop_in):
            # Else a dry run has neither written nor reloaded.
            for name, found, wanted in self._looks(context.troubles):
                if found != wanted and name not in overrides:
                    lags[name] = f"have systemd put its MemoryMax in force: memory.max is {gib_or_none(found)}"
        unread = [name for name in lags if show(name, "NeedDaemonReload").get("NeedDaemonReload") == "yes"]
        if overrides or unread:
            yield reload_for([*overrides, *unread][0])
        # A reload alone does not reach the cgroups of slices that run: that comes with the next unit started below.
        for name in [*overrides, *lags]:
            yield Step(name, lags.get(name, ""), partial(start_below, name), alone=True)

    def _set_at_run_time(self) -> dict[str, list[Path]]:
        """By slice, what was set at run time against a cap of ours; all of it where the unit is ours."""
        found: dict[str, list[Path]] = {}
        if self.memory_max is not None:
            name = Path(self.slices).name
            for path in set_at_run_time(name, "*" if Path(self.drop_in).name == name else "*-MemoryMax"):
                slice_ = path.parent.name.removesuffix(".d")
                if not self._exempt(slice_):
                    found.setdefault(slice_, []).append(path)
        return found

    def _exempt(self, name: str) -> bool:
        return bool(self.exception) and (slices.UNITS / f"{name}.d" / self.exception).exists()

    def _looks(self, troubles: Troubles) -> Iterator[tuple[str, int | None, int | None]]:
        """Of each slice: its name, the kernel's memory.max, and what it should be."""
        if not Path(self.drop_in).exists() and self.memory_max is not None:
            return  # its file was refused: nothing is to be in force
        for cgroup in self._cgroups():
            if "*" not in cgroup.name:  # else nobody has a session
                with troubles.piece(f"{cgroup.name}: "):
                    yield self._look(cgroup)

    def _look(self, cgroup: Path) -> tuple[str, int | None, int | None]:
        name = cgroup.name
        held, wanted = self._wanted(name, None if self._exempt(name) else self.memory_max)
        try:
            text = bounded.read_text(cgroup / "memory.max").strip()
        except OSError:
            return name, held, wanted  # nothing runs in it: it will have what PID 1 holds
        return name, None if text == "max" else int(text), wanted

    def _wanted(self, name: str, ours: int | None) -> tuple[int | None, int | None]:
        """What PID 1 holds, and what it should hold: somebody's later drop-in has the word (`Holds`)."""
        ours = None if ours is None else ours // PAGE * PAGE
        found = show(name, "MemoryMax", "DropInPaths", "NeedDaemonReload")
        text = found.get("MemoryMax", "infinity")
        value = None if text == "infinity" else int(text) // PAGE * PAGE
        # A unit's own file comes before all of its drop-ins, and those in the order of their names.
        before = Path(self.drop_in).name if self.drop_in.endswith(".conf") else ""
        files = [Path(path) for path in found.get("DropInPaths", "").split()]
        # What was set at run time is taken back where a cap of ours is; elsewhere it is somebody's own.
        later = [str(p) for p in files if p.name > before and (ours is None or CONTROL[0] not in p.parents)]
        kept = value != ours and later and found.get("NeedDaemonReload") != "yes"
        return value, value if kept else ours
