"""The CUDA stack on a host: one immutable environment a lock, `current` switched in one step, old ones removed."""

from __future__ import annotations

import contextlib
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sparkhost.base.files import Link
from sparkhost.base.resource import Context, Failed, Need, Refused, Resource, Step, uploaded
from sparkhost.stack import store as stack_store
from sparkhost.stack.build import GIB, Wheel, alone, build, free, room
from sparkhost.stack.store import Manifest, changed, fingerprint, home, read_manifest
from sparkhost.vllm_source.store import bases

MOST_NAMED = 3


@dataclass(frozen=True)
class HostLock:
    """The lock of this host's architecture, as the request has it."""

    release: str
    digest: str
    wheels: list[Wheel]

    @classmethod
    def of(cls, locks: dict[str, Any], profile: str) -> HostLock:
        """Raises Failed where there is none for this host."""
        machine = platform.machine()
        if machine not in locks:
            known = ", ".join(sorted(locks)) or "none"
            raise Failed(
                f"the profile {profile} has no lock for {machine} (it has: {known}): make it with `sparkfleet stack "
                f"lock {profile}`, or name another in stack.profile"
            )
        lock = locks[machine]
        return cls(lock["release"], lock["digest"], [Wheel(*wheel) for wheel in lock["wheels"]])


@dataclass(frozen=True)
class StackRelease(Resource):
    """The release of a lock, or an older one that is named, whole on the host. Everything after it needs it."""

    kind: ClassVar[str] = "stack_release"
    is_basis: ClassVar[bool] = True
    profile: str
    locks: dict[str, Any]
    """By `uname -m`: release, digest, wheels (the values of `Wheel`)."""
    interpreter: str
    """The host's Python that the environment is of."""
    uv: str
    """The program that builds it, which the measure uv has put there."""
    pinned: str = ""
    """A release that is installed already, instead of the lock's: to go back."""
    problem: str = ""
    """Why the profile's locks must not be installed, as the controller has found."""

    def may_need(self) -> Sequence[Need]:
        return [Wheel(*wheel).need(machine) for machine, lock in self.locks.items() for wheel in lock["wheels"]]

    def steps(self, context: Context) -> Iterator[Step]:
        if self.pinned:
            yield from self._pinned()
            return
        if self.problem:
            raise Refused(self.problem)
        lock = HostLock.of(self.locks, self.profile)
        where, manifest = home(lock.release), read_manifest(home(lock.release))
        if manifest and manifest.digest == lock.digest and fingerprint(where) == manifest.fingerprint:
            self._hint(context)
            return
        wrong = why_not(where, manifest, lock.digest)
        if manifest and not wrong:
            yield times_anew(where, manifest)
            return
        self._possible(lock, context)
        needs = [wheel.need(platform.machine()) for wheel in lock.wheels]
        size = sum(wheel.size for wheel in lock.wheels) / 1e9
        summary = f"install the stack: {len(lock.wheels)} packages, {size:.2f} GB of wheels ({shown(wrong)})"
        yield Step(str(where), summary, partial(self._build, lock), needs=needs)

    def _pinned(self) -> Iterator[Step]:
        where, manifest = home(self.pinned), read_manifest(home(self.pinned))
        if manifest is None:
            known = ", ".join(stack_store.releases()) or "none"
            raise Refused(f"stack.release: {self.pinned} is not installed on this host (there is: {known})")
        if fingerprint(where) == manifest.fingerprint:
            return
        if wrong := changed(where, manifest):
            raise Refused(f"stack.release: {self.pinned} was changed ({shown(wrong)}): take the profile's own release")
        yield times_anew(where, manifest)

    def _possible(self, lock: HostLock, context: Context) -> None:
        """Raises Refused where it cannot be built: said before gigabytes are uploaded."""
        if not Path(self.interpreter).exists():
            package = Path(self.interpreter).name
            raise Refused(f"there is no {self.interpreter}: apt-get install {package} {package}-dev")
        if not context.will_change(self.uv) and not Path(self.uv).exists():
            raise Refused(f"there is no {self.uv}: the measure uv must be present")
        if free() < room(lock.wheels):
            raise Refused(
                f"the stack needs {room(lock.wheels) / GIB:.1f} GiB on {stack_store.STORE} while it is built, "
                f"{free() / GIB:.1f} GiB are free: free some space there, or lower stack.keep"
            )
        self._hint(context)

    def _hint(self, context: Context) -> None:
        name = Path(self.interpreter).resolve().name
        if not Path(f"/usr/include/{name}/Python.h").exists():
            context.warnings.append(
                f"{name}-dev is not installed: Triton needs its Python.h: apt-get install {name}-dev"
            )

    def _build(self, lock: HostLock) -> None:
        files = {wheel.sha256: uploaded(wheel.sha256) for wheel in lock.wheels}
        build(lock.release, lock.digest, lock.wheels, files, self.uv, self.interpreter)


def times_anew(where: Path, manifest: Manifest) -> Step:
    """For a release that is right by its content, such as one of a backup that was played back."""

    def note() -> None:
        stack_store.note(where, replace(manifest, fingerprint=fingerprint(where)))

    return Step(str(where), "note the times of its files anew; their content is right", note)


def why_not(where: Path, manifest: Manifest | None, digest: str) -> list[str]:
    """Why a release is not that of a lock, whole; reads all of it."""
    if not where.is_dir():
        return ["not installed"]
    if manifest is None:
        return [f"its {stack_store.MANIFEST} is missing or damaged"]
    if manifest.digest != digest:
        return ["of another lock"]
    return changed(where, manifest)


def shown(wrong: Sequence[str]) -> str:
    more = f", {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
    return ", ".join(wrong[:MOST_NAMED]) + more


@dataclass(frozen=True)
class _OfRelease(Resource):
    """What needs to know which release is wanted on this host."""

    kind: ClassVar[str] = "stack_of_release"
    profile: str
    releases: dict[str, str]
    """By `uname -m`."""
    pinned: str = ""

    def wanted(self) -> str:
        """Its name. Raises Failed where there is none for this machine."""
        machine = platform.machine()
        if release := self.pinned or self.releases.get(machine, ""):
            return release
        raise Failed(f"the profile {self.profile} has no lock for {machine}")


@dataclass(frozen=True)
class StackCurrent(_OfRelease):
    """The link `current`. Jobs that run keep their release: spark-python follows the link once, when it starts."""

    kind: ClassVar[str] = "stack_current"

    def _link(self) -> Link:
        return Link(str(stack_store.STORE / stack_store.CURRENT), self.wanted())

    def steps(self, context: Context) -> Iterator[Step]:
        for step in self._link().steps(context):
            yield replace(step, do=self._switch)

    def _switch(self) -> None:
        link = self._link()
        if read_manifest(home(link.target)) is None:
            raise Failed(f"{home(link.target)} is not whole: nothing is switched to it")
        link.switch()


@dataclass(frozen=True)
class StackOld(_OfRelease):
    """No more than the last few releases, and none of a build that was killed; what a process uses stays."""

    kind: ClassVar[str] = "stack_old"
    keep: int = 1

    def steps(self, context: Context) -> Iterator[Step]:
        # A build removes them itself.
        coming = context.will_change_below(f"{stack_store.STORE}/")
        for path in [] if coming else stack_store.leftovers():
            yield Step(str(path), "remove what a build that was killed has left", partial(self._remove, path))
        rested_on = bases()
        for release in stack_store.superfluous(self.keep, self.wanted()):
            if release in rested_on:  # vLLM that was built from source imports from it
                continue
            used = list(stack_store.users(release))
            if used:
                pids = ", ".join(map(str, used[:MOST_NAMED]))
                context.warnings.append(f"{home(release)} stays: {len(used)} processes use it (PID {pids})")
            else:
                where = home(release)
                yield Step(str(where), "remove the old stack", partial(self._remove, where))

    def _remove(self, path: Path) -> None:
        if stack_store.current() != self.wanted():
            raise Failed(
                f"{stack_store.STORE / stack_store.CURRENT} does not lead to {self.wanted()}: nothing is removed"
            )
        with alone():
            # Under another name first: nothing starts from what is half gone.
            gone = path if path.name.startswith(".") else path.with_name(f".{path.name}.gone")
            if gone != path:
                path.rename(gone)
            shutil.rmtree(gone)


@dataclass(frozen=True)
class NoStack(Resource):
    """No stack of ours, and nothing noted about one; refused while a process uses one."""

    kind: ClassVar[str] = "no_stack"

    def steps(self, context: Context) -> Iterator[Step]:
        if not stack_store.STORE.exists():
            return
        for release in stack_store.releases():
            if used := list(stack_store.users(release)):
                raise Refused(f"{home(release)} is used by {len(used)} processes (PID {used[0]}): end them first")
        yield Step(str(stack_store.STORE), "remove", self._remove)

    def _remove(self) -> None:
        shutil.rmtree(stack_store.STORE)
        shutil.rmtree(stack_store.SMOKE, ignore_errors=True)
        with contextlib.suppress(OSError):  # others of ours are there
            stack_store.STORE.parent.rmdir()
