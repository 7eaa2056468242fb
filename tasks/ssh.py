"""sshd is never killed for memory, its sessions always can be, and nobody is locked out.

Why: when memory runs out, the kernel kills by score, and a host whose sshd was killed is a host that somebody has to
walk to. `OOMScoreAdjust=-1000` alone would do more harm than good: sshd gives its sessions the value that it was
started with, so every job started over SSH could not be killed either (ADR 4). So a hook of PAM puts each session back
to 0; without it the value is not set at all.

`MemoryMin=` keeps sshd's pages from being reclaimed, but only as far as every cgroup above grants it as well:
system.slice gets the sum of what the units in it need.

The whole is one guarded change (docs/ssh.md): the host takes it back by itself unless a new login has proved it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from uuid import uuid4

from sparkfleet.settings import SshSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.resource import Resource
from sparkhost.base.systemd import UNIT_DIRECTORY, DaemonReload
from sparkhost.ssh.guard import Guarded
from sparkhost.ssh.pam import COMMON, NoPamProfile, PamProfile
from sparkhost.ssh.protection import KillableSession, NoProgram, NoProtection, PerConnectionFile, Protection
from sparkhost.ssh.sshd import SshdReady
from tasks.lib.templates import render

HOOK = "/opt/sparkfleet/lib/killable-session"
PROFILE = "/usr/share/pam-configs/sparkfleet-ssh"
LINE = f"session optional pam_exec.so quiet {HOOK}"
DROP_IN = f"{UNIT_DIRECTORY}/ssh.service.d/oom.conf"
PER_CONNECTION = f"{UNIT_DIRECTORY}/ssh@.service.d/oom.conf"
# Where systemd puts the instances of ssh@.service, below system.slice.
PER_CONNECTION_SLICE = f"{UNIT_DIRECTORY}/system-ssh.slice.d/50-sparkfleet.conf"
SLICE = "system.slice"
SLICE_DROP_IN = f"{UNIT_DIRECTORY}/{SLICE}.d/50-sparkfleet.conf"
SSH = "ssh.service"
# Names this process's changes: one that a later run finds unproved is not its own.
RUN = uuid4().hex


def needs(settings: SshSettings) -> dict[str, int]:
    """Unit → bytes of memory that it must be able to keep."""
    return {SSH: int(settings.memory_min), **{unit: int(size) for unit, size in settings.protect.items()}}


def granted(*measures: Mapping[str, int]) -> int:
    """What system.slice must grant so that every unit in it can keep what some measure needs for it, in bytes.

    A unit that two measures name needs the larger of the two.
    """
    largest: dict[str, int] = {}
    for measure in measures:
        for unit, size in measure.items():
            largest[unit] = max(size, largest.get(unit, 0))
    return sum(largest.values())


def drop_in_of(unit: str) -> str:
    """The drop-in of a further protected unit."""
    return f"{UNIT_DIRECTORY}/{unit}.d/sparkfleet-oom.conf"


def unit_settings(size: int) -> str:
    return render("ssh/oom.conf", memory_min=int(size))


def apply(settings: SshSettings) -> Sequence[Resource]:
    """The hook first, then what makes it necessary, guarded; and a look at what PID 1 and the kernel have."""
    others = {unit: File(drop_in_of(unit), unit_settings(size)) for unit, size in settings.protect.items()}
    total = granted(needs(settings))
    parts: list[Resource] = [
        SshdReady(hook=True),
        File(HOOK, render("ssh/killable-session"), mode=0o755),
        PamProfile(PROFILE, render("ssh/pam-profile", hook=HOOK), LINE, "sshd"),
        File(DROP_IN, unit_settings(settings.memory_min)),
        PerConnectionFile(PER_CONNECTION, unit_settings(settings.memory_min)),
        PerConnectionFile(PER_CONNECTION_SLICE, render("ssh/slice.conf", memory_min=int(settings.memory_min))),
        *others.values(),
        File(SLICE_DROP_IN, render("ssh/slice.conf", memory_min=total)),
        reload([DROP_IN, PER_CONNECTION, PER_CONNECTION_SLICE, SLICE_DROP_IN, *(f.path for f in others.values())]),
        KillableSession([HOOK, PROFILE, str(COMMON)]),
    ]
    return (
        guarded(settings, parts, -1000),
        Protection(SLICE, SLICE_DROP_IN, total, None),
        Protection(SSH, DROP_IN, settings.memory_min, -1000),
        *(Protection(unit, others[unit].path, size, -1000) for unit, size in settings.protect.items()),
    )


def remove(settings: SshSettings) -> Sequence[Resource]:
    """All of it gone, guarded as well: taking a PAM stack apart can lock people out just the same."""
    drop_ins = [DROP_IN, PER_CONNECTION, PER_CONNECTION_SLICE, *map(drop_in_of, settings.protect), SLICE_DROP_IN]
    parts: list[Resource] = [
        SshdReady(hook=False),
        *map(NoFile, drop_ins),
        reload(drop_ins),
        NoPamProfile(PROFILE, LINE),
        NoProgram(HOOK),
    ]
    return (guarded(settings, parts, 0), *(NoProtection(unit, drop_in_of(unit)) for unit in settings.protect))


def guarded(settings: SshSettings, parts: Iterable[Resource], score: int) -> Guarded:
    return Guarded(
        token=RUN,
        resources=[part.to_json() for part in parts],
        confirm_within=float(settings.confirm_within),
        trial_login=settings.trial_login,
        oom_score_adjust=score,
        restart_for=[DROP_IN],
    )


def reload(paths: Sequence[str]) -> DaemonReload:
    return DaemonReload([*paths], forced=os.environ.get("SPARKFLEET_FORCE_RELOAD") == "1")
