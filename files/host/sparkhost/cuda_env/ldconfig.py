"""A directory in the system's library search path: ld.so.conf.d, and the cache that ldconfig(8) makes of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base.files import File, NoFile, write_atomic
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Context, Resource, Step

CACHE = Path("/etc/ld.so.cache")


def cached_directories(listing: str) -> set[str]:
    """The directories of the libraries that `ldconfig -p` lists."""
    return {os.path.dirname(path) for path in re.findall(r" => (/.*)$", listing, re.MULTILINE)}  # noqa: PTH120


def cache_is_stale(directory: Path, conf: Path) -> bool:
    """Whether the cache does not know the libraries of a directory, or is older than the directory or its conf."""
    if not CACHE.exists():
        return True
    newest = max(path.stat().st_ctime for path in (directory, conf) if path.exists())
    # A time that is yet to come (the clock was set back) would make every cache look old.
    if CACHE.stat().st_mtime < newest <= time.time():
        return True
    if not any(directory.glob("lib*.so*")):
        return False
    # NVIDIA's packages may list the same directory by another name (targets/…/lib): the first one counts.
    listed = cached_directories(run("ldconfig", "-p"))
    return not any(Path(path).exists() and directory.samefile(path) for path in listed)


@dataclass(frozen=True)
class LibraryPath(Resource):
    """`directory` is searched for libraries, by the file `conf` of ours; not so where it is absent or unwanted.

    `header`: the comment at the top of `conf`.
    """

    kind: ClassVar[str] = "library_path"
    directory: str
    conf: str
    header: str
    wanted: bool

    def _present(self) -> bool:
        return self.wanted and Path(self.directory).is_dir()

    def _file(self) -> File:
        return File(self.conf, f"{self.header}{self.directory}\n")

    def steps(self, context: Context) -> Iterator[Step]:
        says = f"ldconfig, for {self.conf}"
        if self._present():
            found = [*self._file().steps(context)]
            yield from found
            if found or cache_is_stale(Path(self.directory), Path(self.conf)):
                yield Step(str(CACHE), says, partial(run, "ldconfig"))
        elif found := [*NoFile(self.conf).steps(context)]:
            # The cache first: whoever dies in between is made up for by the next run.
            yield Step(str(CACHE), says, self._forget)
            yield from found

    def _forget(self) -> None:
        conf = Path(self.conf)
        if not conf.is_symlink() and conf.exists():
            write_atomic(conf, self.header.encode(), 0o644)
            run("ldconfig")
