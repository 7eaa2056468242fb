"""Programs of sparkhost that stay on a host: one directory a release, switched by one link, byte-compiled."""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import Link, make_directories, sync_directory, write_atomic
from sparkhost.base.resource import Context, Failed, Resource, Step

LIBRARY = Path("/opt/sparkfleet/lib")
CURRENT = "current"


@dataclass(frozen=True)
class Installed(Resource):
    """The modules of one program under LIBRARY/NAME/DIGEST, and the link `current` to them.

    A program that runs keeps the directory that it was started from: the newest other one stays as well.
    """

    kind: ClassVar[str] = "installed"
    name: str
    digest: str
    """Of all modules: a change of any of them is a release of its own."""
    modules: dict[str, str]
    """Path below the directory, such as `sparkhost/base/files.py` → source."""

    def home(self) -> Path:
        return LIBRARY / self.name

    def link(self) -> Link:
        return Link(str(self.home() / CURRENT), self.digest)

    def steps(self, context: Context) -> Iterator[Step]:
        target = self.home() / self.digest
        found = [*self.link().steps(context)]
        if reason := why_not(target, self.modules):
            found.insert(0, Step(str(target), f"install the program {self.name} ({reason})", self._install))
        yield from found
        if found:
            yield Step(str(self.home()), "", partial(keep_two, self.home(), self.digest))

    def _install(self) -> None:
        make_directories(self.home())
        with put_in_place(self.home() / self.digest) as new:
            self.write(new)

    def write(self, directory: Path) -> None:
        for name, source in self.modules.items():
            path = directory / name
            make_directories(path.parent)
            write_atomic(path, source.encode(), 0o644)
            try:
                # By the source's hash, not its time: a copy or a restored backup must not run older code.
                py_compile.compile(
                    str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
                )
            except py_compile.PyCompileError as error:
                raise Failed(f"{self.name}: {name} does not compile on this host's Python: {error.msg}") from error


@contextlib.contextmanager
def put_in_place(target: Path) -> Iterator[Path]:
    """A path for a directory to be made, which then takes the place of `target`; where that fails, it is gone."""
    new, old = (target.with_name(f".{target.name}.{suffix}") for suffix in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        yield new
        if target.exists():
            target.rename(old)  # damaged: it is gone for the moment between these two lines
        new.rename(target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def releases(store: Path) -> list[str]:
    """The directories of a store, whole or damaged, the newest first; neither links nor what is being made."""
    if not store.is_dir():
        return []
    found = [path for path in store.iterdir() if not path.name.startswith(".") and not path.is_symlink()]
    return [path.name for path in sorted(found, key=lambda path: -path.stat().st_ctime_ns) if path.is_dir()]


def current(store: Path) -> str:
    """The release that the link of a store leads to; "" where there is none."""
    link = store / CURRENT
    return link.readlink().name if link.is_symlink() else ""


def why_not(directory: Path, modules: dict[str, str]) -> str | None:
    """Why a directory is not exactly these modules, owned by us (root on a host) and writable by us alone; or None."""
    if not directory.is_dir():
        return "not installed"
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*.py")}
    for name in sorted({*found, *modules}):
        if name not in modules:
            return f"{name} is not part of it"
        if name not in found:
            return f"{name} is missing"
        if found[name].is_symlink() or bounded.read(found[name]) != modules[name].encode():
            return f"{name} was changed"
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        if status.st_uid != os.geteuid() or (stat.S_IMODE(status.st_mode) & 0o022 and not path.is_symlink()):
            return f"{path.relative_to(directory.parent)} can be written by others"
    return None


def keep_two(home: Path, wanted: str) -> None:
    """Removes all releases but the wanted one and the newest other: what runs now may start its helpers yet."""
    others = [home / name for name in releases(home) if name != wanted]
    for path in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(path)


@dataclass(frozen=True)
class NotInstalled(Resource):
    """No release of a program on the host."""

    kind: ClassVar[str] = "not_installed"
    name: str

    def steps(self, context: Context) -> Iterator[Step]:
        home = LIBRARY / self.name
        if home.exists():
            yield Step(str(home), "remove", self._remove)

    def _remove(self) -> None:
        shutil.rmtree(LIBRARY / self.name)
        for directory in (LIBRARY, LIBRARY.parent):
            if not any(directory.iterdir()):
                directory.rmdir()
