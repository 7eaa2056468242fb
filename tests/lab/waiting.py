"""Wait for a host's sshd, and say why where it does not come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.errors import LabError
from tests.lab.ssh import CommandError, Completed, banner

if TYPE_CHECKING:
    from tests.lab.host import Host

_POLL_SECONDS = 0.2


def for_ssh(host: Host, seconds: float, not_boot: str | None = None) -> None:
    """Wait until the admin can run a command over SSH, in another boot than `not_boot`.

    Raises LabError, with the end of the host's console, after `seconds` or once its qemu has ended.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not host.running():
            raise LabError(f"{host.name}: qemu has ended: {last_words(host.log)}")
        if banner(host.port):
            done = _boot_id(host)
            if done.rc == 0 and done.stdout.strip() != not_boot:
                return
            if done.rc == 0:
                host.client.disconnect()
        time.sleep(_POLL_SECONDS)
    raise LabError(f"{host.name}: no SSH after {seconds:.0f} s: {last_words(host.log)} (all of it: {host.log})")


def _boot_id(host: Host) -> Completed:
    try:
        return host.run("cat /proc/sys/kernel/random/boot_id", check=False, timeout=60)
    except CommandError as late:
        return late.completed


def last_words(log: Path) -> str:
    """The last line of a console's log, for an error message."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    lines = [line.strip() for line in lines if line.strip()]
    return f"its console ends with: {lines[-1]}" if lines else "its console is silent"
