"""What a child inherits from its parent, gathered here and taken over there: a job is nobody's child."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkhost.launcher.channel import text

# Of the process or session that they were made for: in the job they would be lies.
NEVER = frozenset(
    (
        "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "MAINPID", "MANAGERPID",
        "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "NOTIFY_SOCKET", "OLDPWD", "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID", "WATCHDOG_USEC", "XDG_SESSION_CLASS", "XDG_SESSION_ID", "XDG_SESSION_TYPE",
    )
)  # fmt: skip
# They lead to what goes away when the user logs out.
OF_THE_SESSION = frozenset(
    (
        "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "STY",
        "TMUX", "TMUX_PANE", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR",
    )
)  # fmt: skip
# What a program can hardly do without, with `--env-only` as well.
ALWAYS = frozenset(("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER"))
IGNORABLE = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def environment_of(
    caller: Mapping[bytes, bytes], detached: bool, only: Sequence[str] | None, ours: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The job's variables. `only`: those that are let through, None for all; `ours`: set in any case."""
    result = {}
    for raw_name, raw_value in caller.items():
        name = text(raw_name)
        if name in NEVER or (detached and name in OF_THE_SESSION):
            continue
        if only is None or name in only or name in ALWAYS or name.startswith("LC_"):
            result[name] = text(raw_value)
    return [*{**result, **ours}.items()]


def limits() -> dict[str, tuple[int, int]]:
    """Every rlimit of this process, soft and hard."""
    names = [name for name in vars(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def umask() -> int:
    """The caller's umask, which can only be read by setting it."""
    value = os.umask(0o077)
    os.umask(value)
    return value


def gather(argv: Sequence[str], environment: list[tuple[str, str]]) -> dict[str, Any]:
    """All that the stub needs to run the command as if the caller had.

    Raises:
        OSError: the working directory is not there any more.
    """
    directory = os.getcwdb()  # noqa: PTH109 - bytes, whatever the locale
    status = Path().stat()
    logical = os.environb.get(b"PWD")
    return {
        "argv": [text(os.fsencode(argument)) for argument in argv],
        "environment": environment,
        "directory": text(directory),
        "logical": text(logical) if logical and logical.startswith(b"/") else None,
        "directory_id": [status.st_dev, status.st_ino],
        "umask": umask(),
        "limits": limits(),
        "ignored": [int(s) for s in IGNORABLE if signal.getsignal(s) == signal.SIG_IGN],
    }
