"""The CUDA stack for everybody on a host: PyTorch and vLLM of one lock, the same bytes on every host.

Why: most CUDA wheels are built for another CUDA than a Spark's 13.0, and a resolver that is left alone takes a CPU
build of torch without a word. So nothing is resolved on hosts: the lock names each wheel by hash, the controller brings
them (hosts need no internet), and what was installed is looked at, file by file, before anybody gets it.

A release is an environment of its own that is never changed; `current` is a link. A job that runs keeps the release
that it was started from, whatever is deployed meanwhile (ADR 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparkfleet.exit_codes import CommandFailed
from sparkfleet.settings import StackSettings
from sparkfleet.stack.check import problems
from sparkfleet.stack.lock import BadLock, Lock
from sparkfleet.stack.profile import Profile, load
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.stack.resources import NoStack, StackCurrent, StackOld, StackRelease
from tasks.lib.programs import program
from tasks.lib.templates import render

PROGRAM = "stack"
PROGRAMS = tuple(f"/usr/local/bin/{name}" for name in ("spark-python", "spark-stack"))
# After the CUDA environment's file, in the order of the names.
PROFILE = "/etc/profile.d/zz-sparkfleet-stack.sh"
UV = "/usr/local/bin/uv"


def locks_of(profile: Profile) -> tuple[dict[str, Lock], str]:
    """The locks of a profile, and why they must not be installed: one line, "" where they may."""
    try:
        found = profile.locks()
    except BadLock as error:
        return {}, str(error)
    wrong = [f"{profile.lock_path(machine).name}: {line}" for machine, lock in found.items() for line in problems(lock)]
    return found, f"stack.profile {profile.name}: {'; '.join(wrong)}" if wrong else ""


def request(lock: Lock) -> dict[str, Any]:
    """A lock as the host's side takes it."""
    wheels = [[wheel.name, wheel.version, wheel.filename, wheel.size, wheel.sha256, wheel.url] for wheel in lock.wheels]
    return {"release": lock.release, "digest": lock.digest, "wheels": wheels}


def apply(settings: StackSettings) -> Sequence[Resource]:
    """The release, the link to it, the programs, old releases away. Nothing that runs is touched."""
    pinned = settings.release or ""
    try:
        profile = load(settings.profile)
    except CommandFailed as error:
        return (StackRelease(settings.profile, {}, "", UV, pinned, str(error)),)
    locks, problem = locks_of(profile)
    requests = {name: request(lock) for name, lock in locks.items()}
    releases = {name: lock.release for name, lock in locks.items()}
    return (
        StackRelease(profile.name, requests, profile.interpreter, UV, pinned, problem),
        StackCurrent(profile.name, releases, pinned),
        program(PROGRAM, "stack/cli.py", "smoke"),
        *(File(path, render(f"stack/{path.rpartition('/')[2]}"), mode=0o755) for path in PROGRAMS),
        File(PROFILE, render("stack/profile.sh")) if settings.constrain_users else NoFile(PROFILE),
        StackOld(profile.name, releases, pinned, settings.keep),
    )


def remove(settings: StackSettings) -> Sequence[Resource]:
    """All of it gone, once no process uses it."""
    return (NoStack(), *map(NoFile, (*PROGRAMS, PROFILE)), NotInstalled(PROGRAM))
