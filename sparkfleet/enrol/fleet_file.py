"""The fleet file with a host put in: checked as a whole, then it replaces the file in one step."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkfleet.enrol.fleet_text import Entry, block, inserted, new_text
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import Fleet, FleetError, load_fleet
from sparkfleet.settings.yaml_file import read_yaml


@dataclass(frozen=True)
class Declared:
    """What a fleet file says about a host."""

    entry: Entry
    line: int


@dataclass(frozen=True)
class Draft:
    """The file with a host put in, and the fleet that it makes."""

    path: Path
    before: bytes | None
    """What the file held; None: there was none."""
    after: bytes
    fleet: Fleet


def declared(path: Path, name: str) -> Declared | None:
    """The host in the file, if it is there. Raises FleetError where the file cannot be read."""
    if not path.exists():
        return None
    document = read_yaml(path)
    hosts = document.value.get("hosts") if isinstance(document.value, dict) else None
    if not isinstance(hosts, dict) or name not in hosts:
        return None
    entry = hosts[name]
    return Declared(entry if isinstance(entry, dict) else {}, document.line(("hosts", name)) or 1)


def draft(path: Path, name: str, entry: Entry) -> Draft:
    """The file with this host in it, checked, not written.

    Raises:
        FleetError: the file, or the file with the host, has mistakes.
        CommandFailed: there is no place for it that leaves the rest alone.
    """
    if not path.exists():
        after = new_text(f"{path.stem}.known_hosts", name, entry).encode()
        return Draft(path, None, after, checked(path, after, name))
    read_yaml(path)  # a mistake in what is there is reported as such
    before = path.read_bytes()
    text = inserted(before.decode("utf-8"), name, entry)
    if text is None:
        shown = " | ".join(block(name, entry, "").splitlines())
        raise CommandFailed(
            f"{path}: `hosts` is written in a way that cannot be added to; add this yourself, a line each: {shown}",
            ExitCode.BAD_CONFIGURATION,
        )
    after = text.encode()
    return Draft(path, before, after, checked(path, after, name))


def checked(path: Path, content: bytes, name: str) -> Fleet:
    """The fleet that a file of this content would make; paths in it are relative to its folder. `name` is the host that
    is new in it.

    Raises:
        FleetError: its mistakes, as those of `path`.
        CommandFailed: nothing can be written beside it.
    """
    with beside(path, content) as trial:
        try:
            return load_fleet(trial)
        except FleetError as error:
            shown = [line.replace(trial.name, path.name, 1) for line in error.lines]
            # What is wrong with the new host was said on the command line; the file has no such line.
            new = re.compile(rf"(?<=^{re.escape(str(path))}):\d+(?=: hosts\.'?{re.escape(name)}'?[:.\[])")
            shown = [new.sub("", line) for line in shown]
            raise FleetError(shown) from error


@contextmanager
def beside(path: Path, content: bytes) -> Iterator[Path]:
    """A file of this content in the folder of `path`; removed at the end, if it is still there."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise CommandFailed(
            f"{path}: nothing can be written to its folder: {error.strerror}", ExitCode.BAD_CONFIGURATION
        ) from error
    fresh = path.parent / Path(name).name
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield fresh
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be written: {error.strerror}", ExitCode.BAD_CONFIGURATION) from error
    finally:
        fresh.unlink(missing_ok=True)


def write(change: Draft) -> None:
    """Puts the draft in the place of the file, or of what a link points to; mode and owner stay.

    Raises:
        CommandFailed: it cannot be written, or somebody has changed the file since.
    """
    real = Path(os.path.realpath(change.path))
    with locked(real.parent), beside(real, change.after) as fresh:
        now = real.read_bytes() if real.exists() else None
        if now != change.before:
            raise CommandFailed(f"{change.path} has been changed by somebody meanwhile: run the command again")
        if now is None:
            fresh.chmod(0o666 & ~current_umask())
        else:
            shutil.copymode(real, fresh)
            owner = real.stat()
            if (owner.st_uid, owner.st_gid) != (fresh.stat().st_uid, fresh.stat().st_gid):
                os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.replace(real)


def current_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One enrolment at a time writes in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
