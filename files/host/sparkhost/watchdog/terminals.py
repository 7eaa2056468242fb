"""Writes to the terminals of a user. A terminal whose flow is stopped (Ctrl-S) must not stop anybody else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sparkhost.watchdog.report import plain

MOST = 32


def write(folder: Path, owner: int, line: str) -> None:
    """One line to each of the user's pseudoterminals below `folder`; those that take nothing now are passed over."""
    # Bell, then a line of its own, whatever stands where the cursor is.
    text = f"\a\r\n{plain(line)}\r\n".encode()
    found = sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())
    for path in [path for path in found if _owner(path) == owner][:MOST]:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                if os.isatty(descriptor):
                    os.write(descriptor, text)
            finally:
                os.close(descriptor)


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None
