"""A lab's own deploy, with two measures of sparkfleet among pyinfra's operations."""

from pyinfra.api import deploy
from pyinfra.operations import server

from sparkfleet.operations import hardware_watchdog, swap


@deploy("Sparks")
def sparks() -> None:
    """Swap off, and a line in the host's log when that has changed."""
    done = swap(mode="off", margin="2GiB", _sudo=True)
    server.shell(name="Tell the log", commands=["logger 'swap is off now'"], _if=done.did_change)


sparks()
# Leaves what is on the host alone: here until the lab has tried it.
hardware_watchdog(state="unmanaged", _sudo=True)
