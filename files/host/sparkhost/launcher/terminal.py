"""A terminal of the job's own, shown in the user's: bytes are carried both ways, the window's size as well.

The job's terminal makes the signals of Ctrl-C and Ctrl-\\ itself: the user's is in raw mode, where they are bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
import tty

CHUNK = 65536


def usable() -> bool:
    """Whether standard input and output are one user's terminal, and we are in its foreground.

    In the background, or with one of them a file, the job gets them as they are: reading a terminal of another session
    works, and raw mode would spoil what a pipe's other end prints.
    """
    try:
        return os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


class Terminal:
    """A pair of pseudoterminals: `slave` is for the job, `master` is ours."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.saved = termios.tcgetattr(0)
        termios.tcsetattr(self.slave, termios.TCSANOW, self.saved)
        os.set_blocking(self.master, False)
        self.pending = b""
        self.reading = True
        self.hung_up = False
        self.resize()

    def resize(self) -> None:
        """Gives the job's terminal the size of the user's; the kernel tells the job (SIGWINCH)."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    def start(self) -> None:
        """To be called when the job has the slave: then its last process closes it."""
        os.close(self.slave)
        tty.setraw(0, termios.TCSADRAIN)

    def register(self, poll: select.poll) -> None:
        if self.hung_up:
            self.pending = b""
            with contextlib.suppress(KeyError):
                poll.unregister(self.master)
        else:
            poll.register(self.master, select.POLLIN | (select.POLLOUT if self.pending else 0))
        # What the job does not read is not taken from the user: it would have to be kept somewhere.
        if self.reading and len(self.pending) < CHUNK:
            poll.register(0, select.POLLIN)
        else:
            with contextlib.suppress(KeyError):
                poll.unregister(0)

    def carry(self, ready: dict[int, int]) -> None:
        """Carries what is there."""
        if ready.get(0):
            with contextlib.suppress(BlockingIOError):
                data = self._read(0)
                self.reading = bool(data)
                self.pending += data
        if self.pending:
            with contextlib.suppress(OSError):
                self.pending = self.pending[os.write(self.master, self.pending) :]
        events = ready.get(self.master, 0)
        if events & select.POLLIN:
            self.show()
        elif events & select.POLLHUP:
            self.hung_up = True  # the last process with the slave has ended: the poll would return at once for ever

    def show(self) -> bool:
        """Shows what the job has written; False where there is nothing (more)."""
        try:
            data = os.read(self.master, CHUNK)
        except OSError:  # EAGAIN: nothing now; EIO: nobody has the slave any more
            return False
        while data:
            data = data[os.write(1, data) :]
        return True

    @staticmethod
    def _read(descriptor: int) -> bytes:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:
            raise
        except OSError:
            return b""  # the user's terminal is gone

    def finish(self) -> None:
        """The rest of the job's output, and the user's terminal as it was."""
        while self.show():
            pass
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, self.saved)
        os.close(self.master)
