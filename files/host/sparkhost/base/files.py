"""Files, links and managed blocks: written atomically, backed up where they were somebody else's."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.diff import text_diff
from sparkhost.base.resource import Context, Failed, Resource, Step

# What was on the host before us, kept under its own path, so that removal can put it back.
BACKUPS = Path("/var/lib/sparkfleet/backup")
MANAGED = "managed by sparkfleet"


def write_atomic(path: Path, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Replaces `path` in one step: readers see the old file or the new one, also after a power cut.

    The new content goes into a file of a fixed name beside it (so a killed run leaves at most one, which
    the next run overwrites), is flushed to disk, and is renamed over the old one (rename(2)).

    Raises:
        OSError: such as a full disk. The old file is then untouched and the new one removed.
    """
    new = new_of(path)
    new.unlink(missing_ok=True)
    try:
        copy_file(new, content, mode, uid, gid, like=path)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(path.parent)


def new_of(path: Path) -> Path:
    """Where what is to be at a path is written first."""
    return path.with_name(f".{path.name}.sparkfleet-new")


def copy_file(path: Path, content: bytes, mode: int, uid: int, gid: int, like: Path) -> None:
    """Writes a new file to disk, with the extended attributes of `like`, where that is there. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fchown(stream.fileno(), uid, gid)
        os.fchmod(stream.fileno(), mode)
        if like.exists():
            copy_attributes(like, stream.fileno())
        os.fsync(stream.fileno())


def copy_attributes(source: Path, descriptor: int) -> None:
    """Carries extended attributes (ACLs, SELinux labels) over to a file that replaces `source`."""
    for name in os.listxattr(source):
        with contextlib.suppress(OSError):  # trusted.* and security.* may be refused: then the default stays
            os.setxattr(descriptor, name, os.getxattr(source, name))


def sync_directory(path: Path) -> None:
    """Makes a rename in `path` durable (fsync(2) of the directory)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Makes `path` and its missing parents, mode 0755, owned by root; on disk when this returns."""
    for directory in [*reversed(path.parents), path]:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o755)
            sync_directory(directory.parent)


def remove_empty_directories(path: Path) -> None:
    """Removes `path` and its parents as long as they are empty and ours by name, or a unit's drop-in directory.

    Other directories that end in `.d`, such as /etc/profile.d, belong to the distribution and stay. /etc/uv belongs to
    nobody: no package has it.
    """
    while (
        path == Path("/etc/uv")
        or path.name.startswith("sparkfleet")
        or path.parent == Path("/opt/sparkfleet")
        or (path.name.endswith(".d") and path.parent.name == "system")
    ):
        try:
            path.rmdir()
        except OSError:
            return
        path = path.parent


def read_regular(path: Path) -> bytes | None:
    """The content of a regular file, or None where there is none.

    Raises:
        Failed: something other than a regular file stands there.
    """
    try:
        kind = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(kind):
        raise Failed(f"{path} is not a regular file: move it away and deploy again")
    return bounded.read(path)


def backup_of(path: Path) -> Path:
    return BACKUPS / path.relative_to("/")


def keep_backup(path: Path) -> None:
    """Keeps what was there before us, with its mode and owner, once: a later change never overwrites it."""
    backup = backup_of(path)
    if backup.exists():
        return
    make_directories(BACKUPS.parent)
    with contextlib.suppress(FileExistsError):
        BACKUPS.mkdir(mode=0o700)  # what was private stays private
    make_directories(backup.parent)
    status = path.stat()
    write_atomic(backup, bounded.read(path), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def put_back(path: Path) -> None:
    """Puts the kept file back in its place, as it was, and forgets the backup."""
    backup = backup_of(path)
    status = backup.stat()
    write_atomic(path, bounded.read(backup), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    backup.unlink()


@dataclass(frozen=True)
class AtPath(Resource):
    path: str

    def touches(self) -> Sequence[str]:
        return (self.path,)


@dataclass(frozen=True)
class File(AtPath):
    """A whole file of ours. What somebody else had at this path is kept, and put back by `NoFile`."""

    kind: ClassVar[str] = "file"
    content: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"

    def _ids(self) -> tuple[int, int]:
        try:
            return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError as error:
            raise Failed(f"{self.path}: no such user or group: {error.args[0]}") from error

    def steps(self, context: Context) -> Iterable[Step]:
        path = Path(self.path)
        wanted = self.content.encode()
        if path.is_symlink():
            # A link to /dev/null masks a drop-in; any link at our path is somebody's override.
            yield Step(self.path, f"replace the link to {path.readlink()} by our file", self.write)
            return
        old = read_regular(path)
        if old is None:
            yield Step(self.path, "create", self.write, text_diff(self.path, b"", wanted))
        elif old != wanted:
            yield Step(self.path, "rewrite", self.write, text_diff(self.path, old, wanted))
        else:
            yield from self._modes(path.stat())

    def _modes(self, status: os.stat_result) -> Iterator[Step]:
        found = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        if found != (self.mode, *self._ids()):
            was = f"{found[1]}:{found[2]} {found[0]:04o}"
            says = f"set owner and mode to {self.owner}:{self.group} {self.mode:04o} (was {was})"
            yield Step(self.path, says, self.write)

    def write(self) -> None:
        """Puts the file in its place, and keeps what was there. Raises Failed, OSError."""
        path = Path(self.path)
        make_directories(path.parent)
        if not path.is_symlink():
            old = read_regular(path)
            if old is not None and MANAGED.encode() not in old and old != self.content.encode():
                keep_backup(path)
        write_atomic(path, self.content.encode(), self.mode, *self._ids())


@dataclass(frozen=True)
class NoFile(AtPath):
    """A file of ours that must not be there. What stood there before us comes back."""

    kind: ClassVar[str] = "no_file"

    def steps(self, context: Context) -> Iterator[Step]:
        path = Path(self.path)
        if backup_of(path).exists():
            yield Step(self.path, "put back what was there before sparkfleet", self.remove)
        elif path.is_symlink():
            if str(path.readlink()) != "/dev/null":
                yield Step(self.path, "remove", self.remove)
        else:
            old = read_regular(path)
            if old and MANAGED.encode() in old:  # else gone, or somebody else's by now
                yield Step(self.path, "remove", self.remove, text_diff(self.path, old, b""))

    def remove(self) -> None:
        """Takes the file away, or puts back what was there before us. Raises OSError."""
        path = Path(self.path)
        if backup_of(path).exists():
            put_back(path)
            return
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
        remove_empty_directories(path.parent)


@dataclass(frozen=True)
class RetiredFile(NoFile):
    """A file that an earlier version made and this one does not know. It goes where it has our header; a link is not
    ours: none of the files that we make is one.
    """

    kind: ClassVar[str] = "retired_file"

    def steps(self, context: Context) -> Iterator[Step]:
        if not Path(self.path).is_symlink():
            for step in super().steps(context):
                yield replace(step, says=f"{step.says}: of an earlier sparkfleet")


@dataclass(frozen=True)
class Link(AtPath):
    """A symbolic link of ours, switched atomically (a new link renamed over the old one)."""

    kind: ClassVar[str] = "link"
    target: str

    def steps(self, context: Context) -> Iterator[Step]:
        path = Path(self.path)
        if path.is_symlink():
            if (old := str(path.readlink())) != self.target:
                yield Step(self.path, f"link to {self.target} (was {old})", self.switch)
        elif path.exists():
            read_regular(path)
            yield Step(self.path, f"replace the file by a link to {self.target}", self.switch)
        else:
            yield Step(self.path, f"link to {self.target}", self.switch)

    def switch(self) -> None:
        """Makes the link lead there. Raises OSError."""
        path = Path(self.path)
        make_directories(path.parent)
        if not path.is_symlink() and path.exists():
            keep_backup(path)
        new = new_of(path)
        new.unlink(missing_ok=True)
        new.symlink_to(self.target)
        new.replace(path)
        sync_directory(path.parent)


@dataclass(frozen=True)
class NoLink(AtPath):
    """A link that must not be there as long as it points below `target_prefix`, that is, is ours."""

    kind: ClassVar[str] = "no_link"
    target_prefix: str

    def steps(self, context: Context) -> Iterator[Step]:
        path = Path(self.path)
        if path.is_symlink() and str(path.readlink()).startswith(self.target_prefix):
            yield Step(self.path, "remove the link", self._remove)

    def _remove(self) -> None:
        path = Path(self.path)
        path.unlink()
        if backup_of(path).exists():
            put_back(path)
        sync_directory(path.parent)


def digest(path: Path) -> str:
    """SHA-256 of a file, read in 1 MiB pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
