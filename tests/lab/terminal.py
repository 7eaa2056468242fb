"""A person's terminal on a host's serial console."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from pathlib import Path

from tests.lab.errors import LabError

DETACH = b"\x1d"
"""Ctrl-]: leave the console; the host goes on."""


def attach(path: Path) -> int:
    """Join the terminal and the console socket `path` until Ctrl-] or the end of either. Returns 0.

    Raises LabError where the host is not up.
    """
    terminal = sys.stdin.fileno()
    with socket.socket(socket.AF_UNIX) as console:
        try:
            console.connect(str(path))
        except OSError as error:
            raise LabError(f"the console does not answer (is the host up?): {error}") from error
        if not sys.stdin.isatty():
            raise LabError("the console needs a terminal; give a command to run one without")
        print("lab: root console, Ctrl-] leaves it, Enter shows the prompt", file=sys.stderr)
        before = termios.tcgetattr(terminal)
        tty.setraw(terminal)
        try:
            _join(terminal, console)
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
            print(file=sys.stderr)
    return 0


def _join(terminal: int, console: socket.socket) -> None:
    while True:
        ready, _, _ = select.select([terminal, console.fileno()], [], [])
        if console.fileno() in ready:
            shown = console.recv(4096)
            if not shown:
                return
            os.write(sys.stdout.fileno(), shown)
        if terminal in ready:
            typed = os.read(terminal, 4096)
            if not typed or DETACH in typed:
                return
            console.sendall(typed)
