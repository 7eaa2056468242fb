"""The brake: stops cgroups at once, and sees to it that each of them goes on again, whatever becomes of the watchdog.

How it works. Writing 1 to `cgroup.freeze` stops a cgroup and all below it in less than a millisecond (cgroup-v2,
"Core Interface Files"); nothing in it allocates until 0 is written. What we have frozen is on record *before* it is
frozen, in a file below /run that was mapped when the watchdog started: noting a name there is a write to memory, so it
neither allocates nor waits, and outlives a crash. Whoever comes next thaws what the record holds: the watchdog itself
when it stops, systemd's `ExecStopPost=` after any end of it (`sparkfleet-thaw`, a shell script, for which the record is
lines of text), and the next watchdog at its start.

What somebody else has frozen is neither touched nor recorded: a paused container stays paused.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# Room for 64 names of the longest kind that systemd makes, or some 600 usual ones.
ROOM = 1 << 16
LONGEST_NAME = 4096
# Stopping one of these stops the host, or those who could help it: whatever a decision says, they go on.
NEVER = ("/", "/init.scope", "/system.slice", "/user.slice", "/sparkfleet.slice", "/machine.slice")


class Freezer:
    """Freezes and thaws cgroups. `root`: where cgroup v2 is mounted; `record`: the file that names what is frozen."""

    def __init__(self, root: Path, record: Path) -> None:
        """Opens the record and thaws what is left in it.

        Raises:
            OSError: the record cannot be made. Without one nothing may be frozen.
        """
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(record, flags, 0o644)
        try:
            left = read_names(os.pread(descriptor, ROOM, 0))
            os.ftruncate(descriptor, ROOM)
            self._record = mmap.mmap(descriptor, ROOM)
        finally:
            os.close(descriptor)
        self._names: list[str] = left
        # Each page is written once, so that no later write has to ask for one.
        self._write()
        self.left = tuple(left)
        """What an earlier watchdog had left frozen; it goes on since."""
        self.thaw(left)

    @property
    def names(self) -> tuple[str, ...]:
        """What is frozen now, by us."""
        return tuple(self._names)

    def freeze(self, cgroups: Iterable[str]) -> tuple[str, ...]:
        """Stops cgroups. Returns those that stand still by our doing; one that has gone, that somebody else has
        frozen, or that is not root's own, is left out."""
        done = []
        for cgroup in cgroups:
            if cgroup in self._names:
                done.append(cgroup)
            elif self._may(cgroup) and self._note(cgroup):
                if self._set(cgroup, b"1"):
                    done.append(cgroup)
                else:
                    self._forget(cgroup)
        return tuple(done)

    def thaw(self, cgroups: Iterable[str]) -> tuple[str, ...]:
        """Lets cgroups of ours go on. One that could not be thawed stays on record; one that has gone does not."""
        done = []
        for cgroup in [name for name in cgroups if name in self._names]:
            if self._set(cgroup, b"0") or not self._is_there(cgroup):
                self._forget(cgroup)
                done.append(cgroup)
        return tuple(done)

    def thaw_all(self) -> tuple[str, ...]:
        return self.thaw(self.names)

    def _may(self, cgroup: str) -> bool:
        """Whether it is root's own, below a unit or slice that may stand still, and moves now."""
        inner = cgroup.strip("/")
        if "/" + inner in NEVER or not inner or ".." in inner.split("/") or len(cgroup) > LONGEST_NAME:
            return False
        try:
            status = os.stat(inner, dir_fd=self._root, follow_symlinks=False)
            with self._opened(cgroup, os.O_RDONLY) as descriptor:
                return status.st_uid == 0 and os.read(descriptor, 8).strip() == b"0"
        except OSError:
            return False

    def _set(self, cgroup: str, value: bytes) -> bool:
        try:
            with self._opened(cgroup, os.O_WRONLY) as descriptor:
                os.write(descriptor, value)
            return True
        except OSError:
            return False

    def _is_there(self, cgroup: str) -> bool:
        try:
            with self._opened(cgroup, os.O_RDONLY):
                return True
        except FileNotFoundError:
            return False
        except OSError:
            return True

    @contextlib.contextmanager
    def _opened(self, cgroup: str, flags: int) -> Iterator[int]:
        path = f"{cgroup.strip('/')}/cgroup.freeze"
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _note(self, cgroup: str) -> bool:
        """Puts a name on record. False where there is no room: what cannot be thawed by others is not frozen."""
        if sum(len(os.fsencode(name)) + 1 for name in (*self._names, cgroup)) > ROOM:
            return False
        self._names.append(cgroup)
        self._write()
        return True

    def _forget(self, cgroup: str) -> None:
        self._names.remove(cgroup)
        self._write()

    def _write(self) -> None:
        data = b"".join(os.fsencode(name) + b"\n" for name in self._names)
        self._record[:] = data.ljust(ROOM, b"\0")


def read_names(record: bytes) -> list[str]:
    """The cgroups that a record names; a line that was cut, or names no cgroup, is left out."""
    lines = record.split(b"\0", 1)[0].split(b"\n")[:-1]
    return list(dict.fromkeys(os.fsdecode(line) for line in lines if line.startswith(b"/")))
