"""Whether somebody sits at a terminal, and leaving that terminal as it was."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

HERE = "SPARKFLEET_TERMINAL"
"""Set for a program whose standard input is no terminal, although somebody sits at the one that it belongs to."""


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() or os.environ.get(HERE) == "1"


@contextmanager
def terminal_kept() -> Iterator[None]:
    """Puts the terminal back as it was: a password prompt that is killed leaves it without echo."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:  # there is none to keep
        yield
        return
    try:
        before = termios.tcgetattr(terminal)
        try:
            yield
        finally:
            if os.tcgetpgrp(terminal) == os.getpgrp():  # a background job that did this would be stopped
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    finally:
        os.close(terminal)
