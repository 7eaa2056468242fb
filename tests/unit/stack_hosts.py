"""A store of stacks in a folder of the test, and releases for it, built by uv itself."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base.resource import UPLOADS, Context, Resource
from sparkhost.stack.resources import StackCurrent, StackOld, StackRelease
from sparkhost.stack.store import home
from tasks.stack import request
from tests.unit.stack_wheels import lock_of

UV = str(Path(sys.executable).with_name("uv"))
INTERPRETER = os.path.realpath(sys.executable)
MACHINE = platform.machine()


@dataclass(frozen=True)
class Release:
    """What a deploy of these wheels asks a host for."""

    name: str
    resource: StackRelease
    current: StackCurrent

    @property
    def root(self) -> Path:
        return home(self.name)

    def deploy(self, keep: int = 3) -> list[str]:
        """As a deploy does it; what was changed."""
        return [line for one in (self.resource, self.current, self.old(keep)) for line in converge(one)]

    def old(self, keep: int) -> StackOld:
        return StackOld(self.current.profile, self.current.releases, self.current.pinned, keep)


def release(wheels: Sequence[Path], pinned: str = "", profile: str = "lab") -> Release:
    """A release of wheels, which are uploaded."""
    lock = lock_of(wheels, MACHINE, profile)
    UPLOADS.update({wheel.sha256: str(path.parent / wheel.filename) for wheel in lock.wheels for path in wheels[:1]})
    locks = {MACHINE: request(lock)}
    return Release(
        lock.release,
        StackRelease(profile, locks, INTERPRETER, UV, pinned),
        StackCurrent(profile, {MACHINE: lock.release}, pinned),
    )


def converge(resource: Resource) -> list[str]:
    """Plans and applies; a second look must find nothing."""
    changes = [f"{Path(change.what).name}: {change.summary}" for change in resource.plan(Context())]
    if changes:
        resource.apply()
        assert list(resource.plan(Context())) == []
    return changes
