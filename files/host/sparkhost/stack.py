"""The CUDA stack on a host: one immutable environment a lock, `current` switched in one step, old ones removed."""

from __future__ import annotations

import contextlib
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparkhost import stack_store
from sparkhost.files import Link
from sparkhost.resource import Change, Context, Failed, Need, Refused, Resource, uploaded
from sparkhost.stack_build import GIB, Wheel, alone, build, free, room
from sparkhost.stack_store import Manifest, changed, fingerprint, home, read_manifest
from sparkhost.vllm_source_store import bases

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

    def plan(self, context: Context) -> Sequence[Change]:
        if self.pinned:
            return self._plan_pinned()
        if self.problem:
            raise Refused(self.problem)
        lock = HostLock.of(self.locks, self.profile)
        where, manifest = home(lock.release), read_manifest(home(lock.release))
        if manifest and manifest.digest == lock.digest and fingerprint(where) == manifest.fingerprint:
            self._hint(context)
            return []
        wrong = why_not(where, manifest, lock.digest)
        if not wrong:
            return [Change(str(where), "note the times of its files anew; their content is right")]
        self._possible(lock, context)
        needs = [wheel.need(platform.machine()) for wheel in lock.wheels]
        size = sum(wheel.size for wheel in lock.wheels) / 1e9
        summary = f"install the stack: {len(lock.wheels)} packages, {size:.2f} GB of wheels ({shown(wrong)})"
        return [Change(str(where), summary, needs=needs)]

    def _plan_pinned(self) -> Sequence[Change]:
        where, manifest = home(self.pinned), read_manifest(home(self.pinned))
        if manifest is None:
            known = ", ".join(stack_store.releases()) or "none"
            raise Refused(f"stack.release: {self.pinned} is not installed on this host (there is: {known})")
        if fingerprint(where) == manifest.fingerprint:
            return []
        if wrong := changed(where, manifest):
            raise Refused(f"stack.release: {self.pinned} was changed ({shown(wrong)}): take the profile's own release")
        return [Change(str(where), "note the times of its files anew; their content is right")]

    def _possible(self, lock: HostLock, context: Context) -> None:
        """Raises Refused where it cannot be built: said before gigabytes are uploaded."""
        if not Path(self.interpreter).exists():
            package = Path(self.interpreter).name
            raise Refused(f"there is no {self.interpreter}: apt-get install {package} {package}-dev")
        coming = any(change.what == self.uv for change in context.pending)
        if not coming and not Path(self.uv).exists():
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

    def apply(self) -> None:
        lock = None if self.pinned else HostLock.of(self.locks, self.profile)
        where = home(lock.release if lock else self.pinned)
        manifest = read_manifest(where)
        if manifest and not why_not(where, manifest, lock.digest if lock else manifest.digest):
            stack_store.note(where, Manifest(**{**vars(manifest), "fingerprint": fingerprint(where)}))
            return
        if lock is None:
            raise Refused(f"stack.release: {self.pinned} is damaged or gone: take the profile's own release")
        files = {wheel.sha256: uploaded(wheel.sha256) for wheel in lock.wheels}
        build(lock.release, lock.digest, lock.wheels, files, self.uv, self.interpreter)


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

    def plan(self, context: Context) -> Sequence[Change]:
        return self._link().plan(context)

    def apply(self) -> None:
        link = self._link()
        if read_manifest(home(link.target)) is None:
            raise Failed(f"{home(link.target)} is not whole: nothing is switched to it")
        link.apply()


@dataclass(frozen=True)
class StackOld(_OfRelease):
    """No more than the last few releases, and none of a build that was killed; what a process uses stays."""

    kind: ClassVar[str] = "stack_old"
    keep: int = 1

    def plan(self, context: Context) -> Sequence[Change]:
        coming = any(change.what.startswith(f"{stack_store.STORE}/") for change in context.pending)
        return list(self._changes(context, coming))

    def _changes(self, context: Context, coming: bool = False) -> Iterator[Change]:
        for path in [] if coming else stack_store.leftovers():  # a build removes them itself
            yield Change(str(path), "remove what a build that was killed has left")
        rested_on = bases()
        for release in stack_store.superfluous(self.keep, self.wanted()):
            if release in rested_on:  # vLLM that was built from source imports from it
                continue
            used = list(stack_store.users(release))
            if used:
                pids = ", ".join(map(str, used[:MOST_NAMED]))
                context.warnings.append(f"{home(release)} stays: {len(used)} processes use it (PID {pids})")
            else:
                yield Change(str(home(release)), "remove the old stack")

    def apply(self) -> None:
        if stack_store.current() != self.wanted():
            raise Failed(
                f"{stack_store.STORE / stack_store.CURRENT} does not lead to {self.wanted()}: nothing is removed"
            )
        with alone():
            for change in list(self._changes(Context())):
                # Under another name first: nothing starts from what is half gone.
                path = Path(change.what)
                gone = path if path.name.startswith(".") else path.with_name(f".{path.name}.gone")
                if gone != path:
                    path.rename(gone)
                shutil.rmtree(gone)


@dataclass(frozen=True)
class NoStack(Resource):
    """No stack of ours, and nothing noted about one; refused while a process uses one."""

    kind: ClassVar[str] = "no_stack"

    def plan(self, context: Context) -> Sequence[Change]:
        if not stack_store.STORE.exists():
            return []
        for release in stack_store.releases():
            if used := list(stack_store.users(release)):
                raise Refused(f"{home(release)} is used by {len(used)} processes (PID {used[0]}): end them first")
        return [Change(str(stack_store.STORE), "remove")]

    def apply(self) -> None:
        self.plan(Context())
        shutil.rmtree(stack_store.STORE)
        shutil.rmtree(stack_store.SMOKE, ignore_errors=True)
        with contextlib.suppress(OSError):  # others of ours are there
            stack_store.STORE.parent.rmdir()
