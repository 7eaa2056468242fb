"""Caps of slices: whether they fit into the host's memory, into what is in use now, and whether the kernel has them."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from sparkhost.files import File, NoFile
from sparkhost.resource import Change, Context, Refused, Resource
from sparkhost.systemd import CONTROL, RELOAD, daemon_reload, reload_for, set_at_run_time, show, start_below

CGROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
UNITS = Path("/etc/systemd/system")
GIB = 2**30
PAGE = 4096
LEAST = 64 * 2**20
"""Bytes below which memory_max makes no sense; the settings refuse less as well."""
USER_SLICE = re.compile(r"user-([0-9]+)\.slice")


def gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def gib_or_none(count: int | None) -> str:
    return "no cap" if count is None else gib(count)


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes (proc_meminfo(5))."""
    pairs = (line.split()[:2] for line in MEMINFO.read_text().splitlines())
    return {name.rstrip(":"): int(count) * 1024 for name, count in pairs}


def held(cgroup: Path) -> int:
    """Bytes of a cgroup that lowering memory.max cannot reclaim without swap: the OOM killer would have to."""
    try:
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:
        return 0
    return sum(int(stat.get(name, 0)) for name in ("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable"))


@dataclass(frozen=True)
class SliceFits(Resource):
    """Changes nothing: refuses a cap that this host's memory can never hold, and warns of one that it hardly can.

    `reserve`: what the watchdog keeps available; bytes, as `memory_max` is.
    """

    kind: ClassVar[str] = "slice_fits"
    is_basis: ClassVar[bool] = True
    memory_max: int
    reserve: int
    slice: str

    def plan(self, context: Context) -> Sequence[Change]:
        memory = meminfo()
        total = memory["MemTotal"]
        room = total - self.reserve
        if self.memory_max > room:
            remedy = f"set training_slice.memory_max to {fitting(room)} at most"
            if room < LEAST:
                remedy = "set training_slice.reserve and training_slice.memory_max for a host of this size"
            raise Refused(
                f"memory_max is {gib(self.memory_max)}, but this host has {gib(total)} in all, of which "
                f"{gib(self.reserve)} are kept free: {remedy}, or its state to unmanaged"
            )
        system = max(0, total - memory["MemAvailable"] - held(CGROUPS / self.slice))
        if self.memory_max + self.reserve + system > total:
            context.warnings.append(
                f"memory_max {gib(self.memory_max)} + {gib(self.reserve)} that are kept free + {gib(system)} that the "
                f"system uses now are more than the host's {gib(total)}: jobs are killed by the watchdog before they "
                f"reach their cap; {fitting(total - self.reserve - system)} would fit"
            )
        return []

    def apply(self) -> None:
        """Nothing to do: `plan` finds no changes."""


@dataclass(frozen=True)
class NoJobs(Resource):
    """Changes nothing: refuses the removal of the measure while jobs run, which would lose their cap."""

    kind: ClassVar[str] = "no_jobs"
    is_basis: ClassVar[bool] = True
    slice: str

    def plan(self, context: Context) -> Sequence[Change]:
        if jobs := sorted(path.name for path in (CGROUPS / self.slice).glob("spark-job-*.service")):
            raise Refused(
                f"{len(jobs)} jobs run in {self.slice}: {', '.join(jobs[:8])}: wait for their end, or end them with "
                "systemctl stop, then deploy again"
            )
        return []

    def apply(self) -> None:
        """Nothing to do: `plan` finds no changes."""


def fitting(count: int) -> str:
    """As it would be written in the fleet file, rounded down."""
    return f"{count // GIB}GiB" if count >= GIB else f"{max(0, count) // 2**20}MiB"


@dataclass(frozen=True)
class Exceptions(Resource):
    """Users whose sessions are not capped: root, the members of admin groups, named ones, and who deploys.

    A drop-in in `user-UID.slice.d/` replaces the one of the *same file name* in `user-.slice.d/` (systemd.unit(5)).
    """

    kind: ClassVar[str] = "cap_exceptions"
    name: str
    """The drop-in's file name."""
    content: str
    groups: list[str]
    users: list[str]
    training: str
    """The group of training users: who is an admin as well is named."""
    wanted: bool = True
    """Whether there are to be any at all."""

    def plan(self, context: Context) -> Sequence[Change]:
        changes = [change for part in self._parts(context) for change in part.plan(context)]
        context.warnings += self._doubtful()
        return changes

    def apply(self) -> None:
        for part in self._parts(Context()):
            if part.plan(Context()):
                part.apply()

    def _parts(self, context: Context) -> Iterator[File | NoFile]:
        excepted = {uid for uid, _ in self._excepted()} if self.wanted else set()
        for uid in sorted(excepted):
            yield File(str(UNITS / f"user-{uid}.slice.d" / self.name), self.content)
        for path in sorted(UNITS.glob(f"user-*.slice.d/{self.name}")):
            match = USER_SLICE.fullmatch(path.parent.name.removesuffix(".d"))
            if match and int(match[1]) not in excepted:
                yield NoFile(str(path))

    def _excepted(self) -> Iterator[tuple[int, str]]:
        yield 0, "root"
        for name in sorted({*self.users, *(n for group in self.groups for n in members(group))}):
            try:
                yield pwd.getpwnam(name).pw_uid, name
            except KeyError:
                if name in self.users:
                    raise Refused(f"training_slice.admins: no user {name} on this host: correct the name") from None
        deployer = os.environ.get("SUDO_UID", "")  # sudo(8): who called it
        if deployer.isdecimal():
            yield int(deployer), "who deploys"

    def _doubtful(self) -> list[str]:
        if not self.wanted:
            return []
        admins = {name for _, name in self._excepted()}
        both = sorted(admins & set(members(self.training)))
        return [f"{', '.join(both)}: in the group {self.training} and an admin: not capped"] if both else []


def members(group: str) -> set[str]:
    """Names of a group's members, as NSS knows them; by a user's first group only where NSS lists users."""
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return set()
    return {*entry.gr_mem, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == entry.gr_gid)}


@dataclass(frozen=True)
class CapFile(File):
    """A drop-in with a MemoryMax, not put in force while somebody holds more: the OOM killer would take their jobs.

    `slices`: cgroups that it reaches, as a glob below /sys/fs/cgroup; `exception`: file name of drop-ins that exempt
    one; `memory_max`: bytes; `setting`: its key in the fleet file.
    """

    kind: ClassVar[str] = "cap_file"
    slices: str = ""
    memory_max: int = 0
    setting: str = ""
    exception: str = ""

    def plan(self, context: Context) -> Sequence[Change]:
        changes = super().plan(context)
        if changes:
            for cgroup in sorted(CGROUPS.glob(self.slices)):
                exempt = UNITS / f"{cgroup.name}.d" / self.exception
                if self.exception and (exempt.exists() or str(exempt) in {c.what for c in context.pending}):
                    continue
                if (count := held(cgroup)) > self.memory_max:
                    raise Refused(
                        f"{cgroup.name}{who(cgroup.name)} holds {gib(count)}, more than {self.setting} "
                        f"{gib(self.memory_max)}: putting the cap in force would kill what runs there: wait for its "
                        "end, or raise the cap, then deploy again"
                    )
        return changes


def who(name: str) -> str:
    """` (ann)` for the slice of ann's sessions, else ""."""
    match = USER_SLICE.fullmatch(name)
    try:
        return f" ({pwd.getpwuid(int(match[1])).pw_name})" if match else ""
    except KeyError:
        return ""


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

    def plan(self, context: Context) -> Sequence[Change]:
        changes = [
            Change(name, f"take back what was set at run time ({', '.join(path.name for path in paths)})")
            for name, paths in self._set_at_run_time().items()
        ]
        changes += [reload_for(change.what) for change in changes[:1]]
        if any(change.what in (RELOAD, self.drop_in) for change in context.pending):
            return changes  # a dry run has neither written nor reloaded
        looks = list(self._looks())
        context.warnings += [f"{name} has {gib_or_none(wanted)}, {why}" for name, _, wanted, why in looks if why]
        told = {change.what for change in changes}
        return changes + [
            Change(name, f"have systemd put its MemoryMax in force: memory.max is {gib_or_none(found)}")
            for name, found, wanted, _ in looks
            if found != wanted and name not in told
        ]

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
        return bool(self.exception) and (UNITS / f"{name}.d" / self.exception).exists()

    def _looks(self) -> Iterator[tuple[str, int | None, int | None, str]]:
        """Of each slice: its name, the kernel's memory.max, PID 1's MemoryMax, and whose that is if it is not ours."""
        if not Path(self.drop_in).exists() and self.memory_max is not None:
            return  # its file was refused: nothing is to be in force
        for cgroup in sorted(CGROUPS.glob(self.slices)) or [CGROUPS / self.slices]:
            name = cgroup.name
            if "*" in name:
                return  # nobody has a session
            held, wanted, why = self._wanted(name, None if self._exempt(name) else self.memory_max)
            try:
                text = (cgroup / "memory.max").read_text().strip()
            except OSError:
                yield name, held, wanted, why  # nothing runs in it: it will have what PID 1 holds
            else:
                yield name, None if text == "max" else int(text), wanted, why

    def _wanted(self, name: str, ours: int | None) -> tuple[int | None, int | None, str]:
        """What PID 1 holds, what it should hold, and why not what we say: a later drop-in of somebody's is kept."""
        ours = None if ours is None else ours // PAGE * PAGE
        found = show(name, "MemoryMax", "DropInPaths", "NeedDaemonReload")
        text = found.get("MemoryMax", "infinity")
        value = None if text == "infinity" else int(text) // PAGE * PAGE
        # A unit's own file comes before all of its drop-ins, and those in the order of their names.
        before = Path(self.drop_in).name if self.drop_in.endswith(".conf") else ""
        files = [Path(path) for path in found.get("DropInPaths", "").split()]
        # What was set at run time is taken back where a cap of ours is; elsewhere it is somebody's own.
        later = [str(p) for p in files if p.name > before and (ours is None or CONTROL[0] not in p.parents)]
        if value == ours or not later or found.get("NeedDaemonReload") == "yes":
            return value, ours, ""
        why = f"not {gib_or_none(ours)} as the fleet file says, by {' or '.join(later)}: somebody's wish, kept"
        return value, value, "" if ours is None else why

    def apply(self) -> None:
        overrides = self._set_at_run_time()
        for path in chain(*overrides.values()):
            path.unlink()
        names = list(dict.fromkeys([*overrides, *(n for n, found, wanted, _ in self._looks() if found != wanted)]))
        if overrides or any(show(name, "NeedDaemonReload").get("NeedDaemonReload") == "yes" for name in names):
            daemon_reload()
        for name in names:
            # A reload alone does not reach the cgroups of slices that run: that comes with the next unit started below.
            start_below(name)
