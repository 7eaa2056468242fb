"""Post-mortems: a JSON file an event, readable by root and the owner of what was ended, bounded in number."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVENTS = "events"
NOTICES = "notices"
KEPT = 200
LARGEST = 1 << 18
# POSIX ACL as the kernel keeps it (include/uapi/linux/posix_acl_xattr.h): version, then tag, permissions, user number.
ACL = "system.posix_acl_access"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
READ, WRITE = 4, 2
NOBODY = 0xFFFFFFFF


def replace(path: Path, content: bytes, mode: int, reader: int = 0) -> None:
    """Replaces a file in one step. `reader`: a user who may read it besides root.

    Raises:
        OSError: such as a full disk; the old file is then untouched.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            if reader:
                allow(file.fileno(), reader)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def allow(descriptor: int, reader: int) -> None:
    """Lets a user read a file of root's; where the file system has no ACLs, the file becomes theirs, unwritable."""
    entries = [
        (USER_OBJ, READ | WRITE, NOBODY),
        (USER, READ, reader),
        (GROUP_OBJ, 0, NOBODY),
        (MASK, READ, NOBODY),
        (OTHER, 0, NOBODY),
    ]
    try:
        os.setxattr(descriptor, ACL, struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries))
    except OSError:
        os.fchmod(descriptor, 0o400)
        os.fchown(descriptor, reader, -1)


def keep(state_dir: Path, record: dict[str, Any]) -> None:
    """Keeps a post-mortem and the owner's notice for the next login."""
    owner = record["victim"]["owner"]
    events = state_dir / EVENTS
    for folder in (events, state_dir / NOTICES):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.chmod(0o755)
    name = f"{int(record['time'] * 1000):015d}-{record['event']}.json"
    replace(events / name, json.dumps(record, indent=1).encode() + b"\n", 0o600, owner)
    # Its time is what a login looks at; whoever may not read the event finds out no more than that there was one.
    replace(state_dir / NOTICES / str(owner), f"{name}\n".encode(), 0o600, owner)
    for old in sorted(path for path in events.iterdir() if path.suffix == ".json")[:-KEPT]:
        old.unlink(missing_ok=True)


def readable(state_dir: Path) -> Iterator[dict[str, Any]]:
    """The events that the caller may read, the latest first."""
    try:
        names = sorted((path for path in (state_dir / EVENTS).iterdir() if path.suffix == ".json"), reverse=True)
    except OSError:
        return
    for path in names:
        with contextlib.suppress(OSError, ValueError):
            with path.open("rb") as file:
                record = json.loads(file.read(LARGEST))
            yield record
