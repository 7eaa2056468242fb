"""Which unit a cgroup is part of, and what may be said of it by its name. Pure.

Names count where root gives them. A user names everything below the own `user-UID.slice`, and may move processes about
in it: no place there protects anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sparkhost.base.containers import container
from sparkhost.watchdog.model import Kind

# Units that are never ended as long as they are as small as their kind: without them the host is lost although it runs.
PROTECTED_UNITS = (
    "init.scope",
    "ssh.service",
    "sshd.service",
    "ssh@*.service",
    "sshd@*.service",
    "sshd-unix-local@*.service",
    "systemd-*.service",
    "dbus.service",
    "dbus-broker.service",
    "NetworkManager.service",
    "networking.service",
    "wpa_supplicant.service",
    "sparkfleet-*.service",
)
# Units that look after work of others, which is elsewhere or goes on without them, and is lost with them.
MANAGERS = (
    "slurmd.service",
    "slurmctld.service",
    "slurmdbd.service",
    "slurmstepd.scope",  # `slurmstepd infinity` and the step daemons; without the first no job starts any more
    "*_slurmstepd.scope",
    "munge.service",
    "sackd.service",
    "containerd.service",
    "docker.service",
    "k3s.service",
    "k3s-agent.service",
    "kubelet.service",
    "crio.service",
    "libvirtd.service",
    "virtqemud.service",
)
# Units that start work as its owners, without a unit of its own: each owner's is apart.
STARTERS = (
    "cron.service",
    "crond.service",
    "cronie.service",
    "anacron.service",
    "atd.service",
    "jupyterhub*.service",
    "tailscaled.service",  # its SSH server
    "teleport.service",
)
# A k3s server needs 1.6 GB (its page on resource profiling); dockerd and slurmctld grow with their work.
MANAGERS_MAY_HOLD = 4
# Background work of ours in training.slice: nobody waits for it, and it goes on where it was ended.
FIRST_UNITS = ("sparkfleet-vllm-source.service",)
# Where the user's systemd itself is: without it all of the user's sessions break.
USER_MANAGER = re.compile(r"/user\.slice/user-\d+\.slice/user@\d+\.service/init\.scope")
USER_SLICE = re.compile(r"(/user\.slice/user-(\d+)\.slice)(?:/.*)?", re.DOTALL)
UNIT = re.compile(r"[^/]+\.(service|scope)")
SLURM_SCOPE = re.compile(r"(?:.+_)?slurmstepd\.scope")
SLURM_JOB = re.compile(r"job_(\d+)")
POD = re.compile(r"kubepods[^/]*-(pod[^/]+)\.slice|(pod[0-9a-f_-]{32,36})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process belongs, by its cgroup."""

    kind: Kind
    cgroup: str
    """The unit's: its processes may be in cgroups below it."""
    name: str

    @property
    def is_whole(self) -> bool:
        """Whether all of it is ended at once."""
        return self.kind in ("job", "container") or (self.kind == "system" and not self.is_listed)

    @property
    def is_listed(self) -> bool:
        """Whether it is a unit of the host whose own processes are protected, up to a size."""
        return self.kind == "system" and matches(self.name, (*PROTECTED_UNITS, *MANAGERS, *STARTERS))

    @property
    def is_slurm_job(self) -> bool:
        return self.kind == "job" and bool(SLURM_JOB.fullmatch(self.cgroup.rpartition("/")[2]))


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the site says of units; shell patterns of unit names."""

    protect: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()


def place_of(cgroup: str) -> Place:
    """The unit that a cgroup is part of."""
    parts = cgroup.strip("/").split("/")
    if place := contained(parts):
        return place
    if parts[0] == "user.slice":
        unit = next((part for part in reversed(parts) if UNIT.fullmatch(part)), parts[-1])
        return Place("session", cgroup, unit)
    for end, part in enumerate(parts, 1):
        if UNIT.fullmatch(part):
            kind: Kind = "job" if parts[0] == "training.slice" else "system"
            return Place(kind, "/" + "/".join(parts[:end]), part)
    # No unit: a machine without systemd, or a cgroup that somebody made by hand.
    return Place("process", cgroup, parts[-1])


def contained(parts: list[str]) -> Place | None:
    """The outermost container or job of Slurm; a pod where its processes are in no container of it."""
    pod = None
    for end, part in enumerate(parts, 1):
        path, above = "/" + "/".join(parts[:end]), f"{parts[end - 2]}/{part}" if end > 1 else part
        if container(part) or container(above):
            return Place("container", path, part)
        if parts[0] == "user.slice":
            continue
        if SLURM_SCOPE.fullmatch(part):
            return slurm_place(path, part, parts[end:])
        if parts[0].startswith("kubepods") and (match := POD.fullmatch(part)):
            pod = Place("container", path, next(filter(None, match.groups())))
    return pod


def slurm_place(scope: str, name: str, below: list[str]) -> Place:
    """The job of what its user runs (`job_N/step_M/user`); the scope itself for Slurm's own (`system`, `…/slurm`)."""
    job = SLURM_JOB.fullmatch(below[0]) if len(below) > 2 and below[2] == "user" else None
    return Place("job", f"{scope}/{below[0]}", f"slurm job {job[1]}") if job else Place("system", scope, name)


def step_of(cgroup: str, job: str) -> str:
    """The part of a job of Slurm that a cgroup is part of, without the step's daemon: `job_N/step_M/user`."""
    return f"{job}/{'/'.join(cgroup.removeprefix(f'{job}/').split('/')[:2])}"


def user_slice(cgroup: str) -> tuple[str, int] | None:
    """The `user-UID.slice` that a cgroup is part of, which is root's, and the user number."""
    match = USER_SLICE.fullmatch(cgroup)
    return (match[1], int(match[2])) if match and len(match[2]) < 11 else None


def is_protected(place: Place, preferences: Preferences) -> bool:
    """Whether the site protects a unit; by names that users choose for theirs, none is."""
    return not place.cgroup.startswith("/user.slice/") and matches(place.name, preferences.protect)


def is_preferred(place: Place, preferences: Preferences) -> bool:
    """Whether a unit is ended before all others. No user can name one of training.slice: the launcher does."""
    return matches(place.name, preferences.prefer) or (place.kind == "job" and place.name in FIRST_UNITS)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
