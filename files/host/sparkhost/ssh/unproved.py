"""The record of an unproved change, and what its paths were before: ready beside them, to be renamed back.

How it works: before the first change every path's content lies beside it as `.NAME.sparkfleet-old~`, with its mode,
owner and attributes, and the record names the paths. To take the change back is then rename(2) and unlink(2), which
need no space. The record's name is its state: `record.armed` (not proved yet), `record.taking-back` (no proof counts
any more), `record.ended` (only the copies are left to remove). So each step from one state to the next is one rename,
and whoever is killed in between, by a signal or a power cut, is made up for by whoever comes next.

Lines of words with tabs between: `take-back`, which is /bin/sh, reads it as well (see `take_back_sh`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparkhost.base.files import copy_file, new_of, remove_empty_directories, sync_directory, write_atomic
from sparkhost.base.resource import Failed

DIRECTORY = Path("/var/lib/sparkfleet/rollback")
ARMED, TAKING_BACK, ENDED = "record.armed", "record.taking-back", "record.ended"
# pam-auth-update(8) takes every file beside a profile for one, but for names that end in "~"; systemd reads *.conf.
READY = ".sparkfleet-old~"
FIRST, LAST = "sparkfleet take-back 1", "end"
KEPT = ("file", "link", "absent")
"""Kinds of entries that come back."""
LARGEST = 4 * 2**20
"""Bytes of a file that is kept, at most; those that are meant have a few KiB."""


@dataclass(frozen=True)
class Entry:
    """What one path was. `kind`: `file`, `link`, `absent`; `directory`: one that was missing above such a path;
    `own`: a file of the guard's, to be removed at the end.
    """

    kind: str
    path: Path
    print: str = "-"
    """See `fingerprint`."""


@dataclass(frozen=True)
class Armed:
    """A change that nobody has proved. `stage`: changing, changed, restarting, restarted."""

    token: str
    stage: str
    since: float
    """Seconds since the epoch; for the report only."""
    active: Sequence[str]
    """The units of SSH that were active before."""
    entries: Sequence[Entry] = ()
    waits: bool = True
    """Whether a proof still counts; False once it is being taken back."""
    after: str = ""
    """A line of sh to be run once the paths are back, but not while the host boots; without tabs. "": nothing."""
    damage: str = ""
    """What cannot be read of the record, one line."""

    def lines(self) -> Iterator[str]:
        yield FIRST
        yield f"token\t{self.token}"
        yield f"stage\t{self.stage}"
        yield f"since\t{self.since:.0f}"
        yield from (f"active\t{unit}" for unit in self.active)
        if self.after:
            yield f"after\t{self.after}"
        yield from (f"{entry.kind}\t{entry.path}\t{entry.print}" for entry in self.entries)
        yield LAST


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One hand on the change at a time: a deploy, the timer, or a confirmation. Waits for the other."""
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = DIRECTORY / "lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a read-only file system, on which it is there
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read() -> Armed | None:
    """The change that is not proved, or None. Whatever can be read of a damaged record counts."""
    for name in (TAKING_BACK, ARMED):
        if (path := DIRECTORY / name).exists():
            return replace(parsed(path), waits=name == ARMED)
    return None


def ended() -> Armed | None:
    """A change that has ended, and whose copies are still there; or None."""
    path = DIRECTORY / ENDED
    return parsed(path) if path.exists() else None


def parsed(path: Path) -> Armed:
    lines = path.read_bytes()[:LARGEST].decode(errors="replace").splitlines()
    values = {"token": "", "stage": "restarted", "since": "0", "after": ""}
    active, entries, damage = [], [], []
    for number, line in enumerate(lines, 1):
        match line.split("\t"):
            case [("token" | "stage" | "since" | "after") as key, value]:
                values[key] = value
            case ["active", unit]:
                active.append(unit)
            case [("file" | "link" | "absent" | "directory" | "own") as kind, name, print_] if name.startswith("/"):
                entries.append(Entry(kind, Path(name), print_))
            case _ if (number, line) not in ((1, FIRST), (len(lines), LAST)):
                damage.append(f"line {number}")
    if lines[-1:] != [LAST]:
        damage.append("it has no end")
    if not values["since"].isdecimal():
        values["since"] = "0"
    since = float(values["since"])
    token, stage, after = values["token"], values["stage"], values["after"]
    return Armed(token, stage, since, active, entries, after=after, damage=", ".join(damage[:3]))


def write(armed: Armed) -> None:
    """Puts the record on disk. From here on the host takes the change back, unless it is proved."""
    text = "".join(f"{line}\n" for line in armed.lines())
    if any(character in text for text in (armed.after, *(f"{e.path}" for e in armed.entries)) for character in "\t\n"):
        raise Failed("a path with a tab or a line feed in its name cannot be kept")
    write_atomic(DIRECTORY / ARMED, text.encode(), 0o600)


def withdraw() -> None:
    """Removes a record that could not be put on disk for sure, before anything has changed. Raises OSError."""
    (DIRECTORY / ARMED).unlink(missing_ok=True)


def set_stage(armed: Armed, stage: str) -> Armed:
    """The same change, one stage on; on disk when this returns."""
    new = replace(armed, stage=stage)
    write(new)
    return new


def move(old: str, new: str) -> None:
    """Takes the record from one state to the next."""
    (DIRECTORY / old).replace(DIRECTORY / new)
    sync_directory(DIRECTORY)


def ready_of(path: Path) -> Path:
    """Where a path's content waits to be renamed back."""
    return path.with_name(f".{path.name}{READY}")


def keep(paths: Iterable[Path]) -> list[Entry]:
    """Copies what is at these paths beside them, on disk when this returns; all or nothing.

    Raises:
        Failed: something other than a regular file or a link stands there, or a very large file.
        OSError: such as a full disk.
    """
    paths = list(dict.fromkeys(paths))
    try:
        entries = [_keep(path) for path in paths]
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                ready_of(path).unlink(missing_ok=True)
        raise
    return [*entries, *missing_above(entry.path for entry in entries if entry.kind == "absent")]


def missing_above(paths: Iterable[Path]) -> list[Entry]:
    """The directories above these paths that are not there, the deepest first."""
    above = {parent for path in paths for parent in path.parents}
    deepest_first = sorted(above, key=lambda path: -len(path.parts))
    return [Entry("directory", path) for path in deepest_first if not path.exists()]


def _keep(path: Path) -> Entry:
    ready = ready_of(path)
    with contextlib.suppress(NotADirectoryError):
        ready.unlink(missing_ok=True)  # of a run that was killed
    found = fingerprint(path)
    if found == "absent":
        return Entry("absent", path, found)
    if found == "other":
        raise Failed(f"{path} is not a regular file: move it away and deploy again")
    if path.is_symlink():
        ready.symlink_to(path.readlink())
    else:
        status = path.stat()
        if status.st_size > LARGEST:
            raise Failed(f"{path} has {status.st_size} bytes, more than {LARGEST}: move it away and deploy again")
        copy_file(ready, path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, like=path)
    sync_directory(path.parent)
    # Of the copy: an attribute that could not be copied must not make the two differ for ever.
    return Entry("link" if path.is_symlink() else "file", path, fingerprint(ready))


def fingerprint(path: Path) -> str:
    """What stands at a path, in one word: `absent`, `other`, or mode, owner and a hash of content and attributes."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    if stat.S_ISLNK(status.st_mode):
        return f"link:{hashlib.sha256(os.fsencode(path.readlink())).hexdigest()}"
    if not stat.S_ISREG(status.st_mode):
        return "other"
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256")
    for name in sorted(os.listxattr(path)):
        with contextlib.suppress(OSError):  # not for us to read
            found.update(f"\0{name}\0".encode() + os.getxattr(path, name))
    return f"{stat.S_IMODE(status.st_mode):04o}:{status.st_uid}:{status.st_gid}:{found.hexdigest()}"


def differs(entry: Entry) -> bool:
    """Whether a path is not what it was. The directories above an absent one come and go, and do not count."""
    try:
        return entry.kind in KEPT and fingerprint(entry.path) != entry.print
    except OSError:
        return True  # it cannot be read, and so is not known to be what it was


def restore(entries: Iterable[Entry]) -> list[str]:
    """Makes every path what it was, without new space; goes on past errors and returns them, one line each.

    Contents first, and removals only when all of them are back: a PAM stack must not name a program that is gone.
    """
    changed = [entry for entry in entries if differs(entry)]
    contents = _each(changed, lambda entry: entry.kind != "absent", lambda path: ready_of(path).replace(path))
    return contents or _each(changed, lambda entry: entry.kind == "absent", Path.unlink)


def _each(entries: Iterable[Entry], chosen: Callable[[Entry], bool], act: Callable[[Path], object]) -> list[str]:
    problems = []
    for entry in filter(chosen, entries):
        try:
            act(entry.path)
            sync_directory(entry.path.parent)
        except OSError as error:
            problems.append(f"{entry.path}: {error.strerror or error}")
    return problems


def sync(entries: Iterable[Entry]) -> None:
    """Puts what is at these paths on disk: a change that is kept must be whole after a power cut."""
    for entry in entries:
        if entry.kind in KEPT and entry.path.parent.is_dir():
            if entry.path.is_file() and not entry.path.is_symlink():
                with entry.path.open("rb") as stream:
                    os.fsync(stream.fileno())
            sync_directory(entry.path.parent)


def discard(entries: Sequence[Entry]) -> None:
    """Removes the copies, the guard's own files, and directories that are empty without them. Raises OSError.

    So it does with what a run that was killed has left half written: pam-auth-update(8) would take it for a profile.
    """
    # The guard's own last: until then the next boot goes on with this.
    for entry in sorted(entries, key=lambda entry: entry.kind == "own"):
        if entry.kind != "directory":
            for path in (entry.path,) if entry.kind == "own" else (ready_of(entry.path), new_of(entry.path)):
                if path.is_symlink() or path.exists():
                    path.unlink()
                    sync_directory(path.parent)
                    remove_empty_directories(path.parent)
    for entry in entries:
        if entry.kind == "directory":
            with contextlib.suppress(OSError):  # not there, or not empty: somebody else's by now
                entry.path.rmdir()
