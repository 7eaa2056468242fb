"""What keeps the watchdog itself alive while memory is short."""

from __future__ import annotations

import ctypes
import gc
import os
import socket

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4


def lock_memory() -> str:
    """Keeps every page that this process has touched in memory, those to come too. Returns why not, or "".

    MCL_ONFAULT (mlockall(2)): half of the interpreter is never used here, and need not be there. After a rehearsal.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)  # what compiling and importing left behind would be locked as well (glibc)
    if library.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT):
        return f"mlockall: {os.strerror(ctypes.get_errno())}"
    return ""


def stop_collecting() -> None:
    """No pause for the collector of cycles: the loop makes none, and nothing is left to collect."""
    gc.collect()
    gc.freeze()
    gc.disable()


class Supervisor:
    """Tells systemd how it goes (sd_notify(3)), and never waits for it."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def tell(self, *lines: str) -> None:
        if self._address:
            try:
                self._socket.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return  # the next one may get through; if none does, systemd starts us anew
