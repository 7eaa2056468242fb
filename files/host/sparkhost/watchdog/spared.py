"""Whose sessions are never frozen: root's, and those of the accounts and groups that the site names.

A directory service that is away can hold up a look-up for minutes. So it is asked by a child with a deadline, and
what /etc/passwd and /etc/group say counts in any case.
"""

from __future__ import annotations

import grp
import os
import pwd
import select
import signal
from collections.abc import Collection
from pathlib import Path

from sparkhost.base import small_files

# Seconds for all look-ups together.
DEADLINE = 2.0


def find_spared(names: Collection[str], etc: Path = Path("/etc"), deadline: float = DEADLINE) -> frozenset[int]:
    """The user numbers behind `names`: accounts, and groups as `@sudo`; and root's. Waits `deadline` seconds at most.

    What nobody knows is left out: a group that this host has not has no members.
    """
    return frozenset({0, *from_files(names, etc), *_from_services(names, deadline)})


def from_files(names: Collection[str], etc: Path) -> set[int]:
    """As the host's own files have it."""
    users = {row[0]: row for row in _rows(etc / "passwd", 7) if row[2].isdecimal() and row[3].isdecimal()}
    found = {int(users[name][2]) for name in names if name in users}
    for row in _rows(etc / "group", 4):
        if f"@{row[0]}" in names:
            found |= {int(users[name][2]) for name in row[3].split(",") if name in users}
            found |= {int(user[2]) for user in users.values() if user[3] == row[2]}
    return found


def _rows(path: Path, fields: int) -> list[list[str]]:
    try:
        text = small_files.read(str(path)).decode(errors="replace")
    except OSError:
        return []
    return [row for line in text.split("\n") if len(row := line.split(":")) == fields]


def _from_services(names: Collection[str], deadline: float) -> set[int]:
    """As all sources of nsswitch.conf have it, by a child that is killed when its time is over."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            text = "".join(f"{uid} " for uid in sorted(_ask(names)))
            os.write(writer, text[: select.PIPE_BUF].encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answered, _, _ = select.select([reader], [], [], deadline)
        text = os.read(reader, select.PIPE_BUF).decode() if answered else ""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    # The last number may be cut where there are hundreds.
    return {int(word) for word in text.split(" ")[:-1] if word.isdecimal()}


def _ask(names: Collection[str]) -> set[int]:
    found = set()
    for name in names:
        try:
            if not name.startswith("@"):
                found.add(pwd.getpwnam(name).pw_uid)
                continue
            group = grp.getgrnam(name[1:])
        except KeyError:
            continue
        for member in group.gr_mem:
            try:
                found.add(pwd.getpwnam(member).pw_uid)
            except KeyError:
                continue
    return found
