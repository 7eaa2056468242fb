"""A command whose reader has seen enough (`| head`) ends without a word, as SIGPIPE would have it."""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec

    P = ParamSpec("P")

CODE = 141
"""As a shell has it of a program that SIGPIPE has ended: 128 + 13."""


def has_reader() -> bool:
    """Whether somebody still reads standard output (poll(2): POLLERR is set once nobody does)."""
    poll = select.poll()
    poll.register(1, 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def quiet_without_reader(main: Callable[P, int]) -> Callable[P, int]:
    """A command's `main`, which ends with exit code 141 where nobody reads its output any more.

    What is still buffered is written here: at the interpreter's end it would be a message about an
    ignored exception. A broken pipe of something else, such as a socket, is raised as before.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if has_reader():
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return CODE

    return run
