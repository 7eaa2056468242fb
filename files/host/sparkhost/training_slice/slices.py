"""Caps of slices: whether they fit into the host's memory, into what is in use now, and whether the kernel has them."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import File, NoFile
from sparkhost.base.resource import Check, Context, Refused, Resource, Step, Troubles

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
    pairs = (line.split()[:2] for line in bounded.read_text(MEMINFO).splitlines())
    return {name.rstrip(":"): int(count) * 1024 for name, count in pairs}


def held(cgroup: Path) -> int:
    """Bytes of a cgroup that lowering memory.max cannot reclaim without swap: the OOM killer would have to."""
    try:
        stat = dict(line.split() for line in bounded.read_text(cgroup / "memory.stat").splitlines())
    except OSError:
        return 0
    return sum(int(stat.get(name, 0)) for name in ("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable"))


@dataclass(frozen=True)
class SliceFits(Check):
    """Refuses a cap that this host's memory can never hold, and warns of one that it hardly can.

    `reserve`: what the watchdog keeps available; bytes, as `memory_max` is.
    """

    kind: ClassVar[str] = "slice_fits"
    is_basis: ClassVar[bool] = True
    memory_max: int
    reserve: int
    slice: str

    def check(self, context: Context) -> None:
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


@dataclass(frozen=True)
class NoJobs(Check):
    """Refuses the removal of the measure while jobs run, which would lose their cap."""

    kind: ClassVar[str] = "no_jobs"
    is_basis: ClassVar[bool] = True
    slice: str

    def check(self, context: Context) -> None:
        if jobs := sorted(path.name for path in (CGROUPS / self.slice).glob("spark-job-*.service")):
            raise Refused(
                f"{len(jobs)} jobs run in {self.slice}: {', '.join(jobs[:8])}: wait for their end, or end them with "
                "systemctl stop, then deploy again"
            )


def fitting(count: int) -> str:
    """As it would be written in the fleet file, rounded down."""
    return f"{count // GIB}GiB" if count >= GIB else f"{max(0, count) // 2**20}MiB"


@dataclass(frozen=True)
class Exceptions(Resource):
    """Users whose sessions are not capped: root, the members of admin groups, named ones, and who deploys.

    A drop-in in `user-UID.slice.d/` replaces the one of the *same file name* in `user-.slice.d/` (systemd.unit(5)).
    Each user is a piece of its own: what goes wrong with one leaves the others their exceptions.
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

    def steps(self, context: Context) -> Iterator[Step]:
        for part in self._parts(context.troubles):
            with context.troubles.piece(f"{part.path}: "):
                for step in part.steps(context):
                    yield replace(step, alone=True)
        context.warnings += self._doubtful()

    def _parts(self, troubles: Troubles) -> Iterator[File | NoFile]:
        unknown = Troubles()
        excepted = {uid for uid, _ in self._excepted(unknown)} if self.wanted else set()
        for uid in sorted(excepted):
            yield File(str(UNITS / f"user-{uid}.slice.d" / self.name), self.content)
        # An exception that is there may be that of a named admin whom a directory service does not know just now.
        for path in sorted(UNITS.glob(f"user-*.slice.d/{self.name}")) if not unknown.refused else ():
            match = USER_SLICE.fullmatch(path.parent.name.removesuffix(".d"))
            if match and int(match[1]) not in excepted:
                yield NoFile(str(path))
        troubles.add(unknown)

    def _excepted(self, troubles: Troubles) -> Iterator[tuple[int, str]]:
        yield 0, "root"
        for name in sorted({*self.users, *(n for group in self.groups for n in members(group))}):
            try:
                yield pwd.getpwnam(name).pw_uid, name
            except KeyError:
                if name in self.users:
                    line = f"training_slice.admins: no user {name} on this host: correct the name"
                    troubles.note(Refused(line))
        deployer = os.environ.get("SUDO_UID", "")  # sudo(8): who called it
        if deployer.isdecimal():
            yield int(deployer), "who deploys"

    def _doubtful(self) -> list[str]:
        if not self.wanted:
            return []
        admins = {name for _, name in self._excepted(Troubles())}
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

    def steps(self, context: Context) -> Iterator[Step]:
        for step in super().steps(context):
            self._check(context)
            yield step

    def _check(self, context: Context) -> None:
        for cgroup in sorted(CGROUPS.glob(self.slices)):
            exempt = UNITS / f"{cgroup.name}.d" / self.exception
            if self.exception and (exempt.exists() or context.will_change(exempt)):
                continue
            if (count := held(cgroup)) > self.memory_max:
                raise Refused(
                    f"{cgroup.name}{who(cgroup.name)} holds {gib(count)}, more than {self.setting} "
                    f"{gib(self.memory_max)}: putting the cap in force would kill what runs there: wait for its "
                    "end, or raise the cap, then deploy again"
                )


def who(name: str) -> str:
    """` (ann)` for the slice of ann's sessions, else ""."""
    match = USER_SLICE.fullmatch(name)
    try:
        return f" ({pwd.getpwuid(int(match[1])).pw_name})" if match else ""
    except KeyError:
        return ""
