"""Watches walks over steps (ADR 18): a walk looks, it changes nothing.

Python says what it is about to do to the system (sys.addaudithook(3), PEP 578); where a `steps` of sparkhost is among
the callers, a write, a rename or a program that does more than look is noted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

CHANGES = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir"),
    *("os.setxattr", "os.symlink", "os.truncate", "os.utime"),
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOOKS = (
    *("busctl get-property", "docker image inspect", "docker info", "docker ps", "ldconfig -p", "sshd -T", "sshd -t"),
    *("loginctl list-sessions", "loginctl show-session", "modinfo", "systemctl get-default"),
    *("systemctl is-active", "systemctl list-units", "systemctl show"),
    *("systemd-analyze cat-config", "systemd-sysctl --cat-config"),
    *("check", "manager", "sysctls"),  # doubles of a program that checks a file, and of the two above
)
"""Programs that only look, by how their command lines begin."""
RUN_SSHD = "sshd"
"""A directory of this name below /run: without it sshd checks nothing, and its own unit makes it."""

noted: list[str] = []
"""What walks have changed."""
watched: list[str] = []
"""What they have changed or looked at with another program: that the watch works."""


def watch() -> None:
    """From now on, in this process."""
    sys.addaudithook(_hook)


def _hook(event: str, args: tuple[object, ...]) -> None:
    said = _change(event, args)
    if said and _walks(sys._getframe(1)):
        watched.append(said)
        if not said.startswith("look: "):
            noted.append(said)


def _change(event: str, args: tuple[object, ...]) -> str:
    if event == "open":
        path, _mode, flags = args
        writes = isinstance(flags, int) and flags & WRITES and not isinstance(path, int) and path != os.devnull
        return f"open {path!r} for writing" if writes else ""
    if event == "subprocess.Popen":
        _, command, *_ = args
        words = [str(word) for word in command] if isinstance(command, (list, tuple)) else [str(command)]
        line = " ".join([Path(words[0]).name, *words[1:]])
        return f"look: {line}" if line.startswith(LOOKS) else f"run {line}"
    if event == "os.mkdir" and Path(os.fsdecode(str(args[0]))).name.endswith(RUN_SSHD):
        return ""
    return f"{event} {args!r}" if event in CHANGES else ""


def _walks(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_name == "steps" and "sparkhost" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
