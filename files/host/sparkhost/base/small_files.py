"""Reads a small file that others may have made: whole, up to a bound, and without waiting for a writer.

For watchdog and launcher, whose reading must not depend on what somebody has put in a file's place.
"""

from __future__ import annotations

import os

# /proc/PID/status of a process in 65,536 groups (NGROUPS_MAX, include/uapi/linux/limits.h) has 0.7 MiB.
LARGEST = 1 << 20
AT_ONCE = 1 << 16
# A FIFO without a writer, or a terminal, would block the open for ever without O_NONBLOCK (open(2), fifo(7)).
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read(path: str, limit: int = LARGEST, *, flags: int = 0, folder: int | None = None) -> bytes:
    """The first `limit` bytes of a file; one read gives no more than a page of many files of procfs.

    `flags`: more of open(2)'s. `folder`: descriptor of the directory that the path begins in.

    Raises:
        OSError: as open(2) and read(2) say; EAGAIN where a FIFO's writer has written nothing yet.
    """
    descriptor = os.open(path, FLAGS | flags, dir_fd=folder)
    try:
        part = os.read(descriptor, min(limit, AT_ONCE))
        parts = [part]
        limit -= len(part)
        while part and limit > 0:
            part = os.read(descriptor, min(limit, AT_ONCE))
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
