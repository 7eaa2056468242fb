"""Who runs a command of ours: for the lock and the history on every host (ADR 11)."""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache

from sparkfleet.version import LONGEST


@cache
def owner() -> str:
    """`admin@controller`."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a uid without an account
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"[:LONGEST]
