"""Builds a release of the stack: from wheels whose hash is checked here, aside, verified before it is put in place."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, write_atomic
from sparkhost.base.installed import put_in_place
from sparkhost.base.resource import Failed, Need
from sparkhost.stack import store as stack_store
from sparkhost.stack.hashes import hashes
from sparkhost.stack.users import written_for_users
from sparkhost.stack.verify import problems, site_packages, walk, writable

GIB = 2**30
# Of the wheels' bytes: their copies while it is built, and what they unpack to (measured: 2.0 for `current`), with
# bytecode.
ROOM = 3.5
RESERVE = GIB // 4
UV_TIMEOUT = 1500


@dataclass(frozen=True)
class Wheel:
    """A wheel of the lock."""

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    url: str = ""
    """Where it lies, if not on the site's index."""

    def need(self, machine: str) -> Need:
        requirement = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return Need(self.sha256, requirement, machine)


def room(wheels: Sequence[Wheel]) -> int:
    """Bytes that a build may need at its height, besides what was uploaded."""
    return int(sum(wheel.size for wheel in wheels) * ROOM) + RESERVE


def free() -> int:
    """Bytes that are free where stacks are built."""
    place = stack_store.STORE
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


@contextmanager
def alone() -> Iterator[None]:
    """Keeps a second deploy out. Raises Failed."""
    make_directories(stack_store.STORE)
    descriptor = os.open(stack_store.STORE / ".building", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failed("another deploy builds a stack on this host: wait for it, and deploy again") from error
        yield
    finally:
        os.close(descriptor)


def build(
    release: str, digest: str, wheels: Sequence[Wheel], where: Mapping[str, Path], uv: str, interpreter: str
) -> None:
    """Builds and verifies a release, and puts it in place of a damaged one. `where`: SHA-256 → uploaded wheel.

    Raises:
        Failed: a wheel of another hash, uv's own complaint, or what is wrong with the result; nothing is left of it.
    """
    target = stack_store.home(release)
    packed, cached = (target.with_name(f".{release}.{end}") for end in ("wheels", "cache"))
    with alone():
        for path in stack_store.leftovers():
            shutil.rmtree(path)
        try:
            packed.mkdir(mode=0o700)
            for wheel in wheels:
                take(where[wheel.sha256], packed / wheel.filename, wheel)
            with put_in_place(target) as new:
                install(wheels, new, packed, cached, uv, interpreter)
                (new / ".lock").unlink(missing_ok=True)  # uv's, which everybody may write
                shutil.rmtree(cached)  # before anything is looked at: its files are the same ones (hard links)
                verify(release, digest, wheels, new, packed)
                # All at once: one sync of the file system instead of one for each of tens of thousands of files.
                os.sync()
        finally:
            for path in (packed, cached):
                shutil.rmtree(path, ignore_errors=True)


def take(source: Path, target: Path, wheel: Wheel) -> None:
    """Copies an uploaded wheel and hashes what was copied: whoever uploaded it can no longer change that.

    Raises:
        Failed: another hash.
    """
    found = hashlib.sha256()
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream, target.open("wb") as out:
        while piece := stream.read(2**20):
            found.update(piece)
            out.write(piece)
    if found.hexdigest() != wheel.sha256:
        raise Failed(
            f"{wheel.filename} has SHA-256 {found.hexdigest()}, the lock has {wheel.sha256}: nothing was installed; "
            "deploy again"
        )


def unpacked(wheels: Sequence[Wheel], folder: Path) -> int:
    """Bytes that the wheels unpack to, as they say themselves."""
    total = 0
    for wheel in wheels:
        try:
            with zipfile.ZipFile(folder / wheel.filename) as archive:
                total += sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise Failed(f"{wheel.filename}: is no wheel although its hash is the lock's: {error}") from error
    return total


def install(wheels: Sequence[Wheel], new: Path, packed: Path, cached: Path, uv: str, interpreter: str) -> None:
    """Makes the environment with uv: offline, by hash, without anybody's configuration. Raises Failed."""
    needed = unpacked(wheels, packed)
    if free() < needed + RESERVE:
        raise Failed(
            f"the stack unpacks to {needed / GIB:.1f} GiB, {free() / GIB:.1f} GiB are free on {stack_store.STORE}: "
            "free some space there and deploy again"
        )
    requirements = packed / "requirements.txt"
    lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels]
    write_atomic(requirements, "".join(lines).encode(), 0o600)
    # Relocatable: it is built under another name than it will have.
    run(uv, "venv", "--relocatable", "--python", interpreter, str(new), cache=cached)
    run(
        uv,
        *("pip", "install", "--python", str(new / "bin" / "python"), "--no-deps", "--require-hashes"),
        *("--no-index", "--find-links", str(packed), "--compile-bytecode"),
        # The cache is this build's own, and is deleted: no edit there can come back.
        *("--link-mode", "hardlink", "--requirement", str(requirements)),
        cache=cached,
    )


def run(uv: str, *words: str, cache: Path) -> None:
    command = [uv, "--offline", "--no-config", "--no-progress", "--no-python-downloads", "--color", "never", *words]
    environment = {
        "HOME": "/nonexistent",
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "UV_CACHE_DIR": str(cache),
        "TMPDIR": str(cache.parent),
    }
    try:
        done = bounded.call(command, seconds=UV_TIMEOUT, env=environment)
    except bounded.Late as error:
        raise Failed(f"uv did not end within {UV_TIMEOUT} s") from error
    if done.returncode:
        raise Failed(f"uv {' '.join(words[:2])}: {' '.join(done.stderr.split())[-600:]}")


def verify(release: str, digest: str, wheels: Sequence[Wheel], new: Path, packed: Path) -> None:
    """Looks at everything that was installed, and notes it. Raises Failed."""
    versions = {wheel.name: wheel.version for wheel in wheels}
    paths = sorted(walk(new))
    found = hashes(new, paths)
    inside = Packed([packed / wheel.filename for wheel in wheels], f"{site_packages(new).relative_to(new)}/")
    wrong = [*problems(new, versions, found, inside.has), *writable(new, paths)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Failed(f"the stack is not what its lock says: {'; '.join(wrong[:3])}{more}")
    ours = written_for_users(new, versions)
    stack_store.write_manifest(new, release, digest, versions, {**found, **hashes(new, ours)})


class Packed:
    """What the wheels themselves hold: asked about files whose RECORD is wrong. Their own hash is the lock's."""

    def __init__(self, wheels: Sequence[Path], site: str) -> None:
        self._wheels = wheels
        self._site = site

    def has(self, path: str, sha256: str) -> bool:
        """Whether a wheel has this file with this content."""
        name = path.removeprefix(self._site)
        for wheel in self._wheels:
            with zipfile.ZipFile(wheel) as archive:
                try:
                    content = archive.read(name)
                except KeyError:
                    continue
            if hashlib.sha256(content).hexdigest() == sha256:
                return True
        return False
