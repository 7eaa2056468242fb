"""Reboots: of a host that asks for one, that will come up again, and on which nobody's job runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sparkfleet.audit.model import Run, Status
from sparkfleet.audit.password import SudoPassword
from sparkfleet.enrol.ssh import Route

PENDING = "SPK-HOST-12"
"""Fails where the host asks for a reboot."""
NEXT_KERNEL = ("SPK-HOST-13", "SPK-HOST-14")
"""The next kernel has an initrd and modules, and NVIDIA's module where there is a GPU."""
AGAIN = 5.0
"""Seconds between two tries to reach a host that reboots."""
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
# The helper starts jobs; its service goes with the socket (Requires=). The boot brings both back. A pattern: a host
# without the launcher, for which systemctl would fail by its name, has nothing to stop.
NO_NEW_JOBS = "systemctl stop sparkfleet-launcher.socke[t]"
JOBS_AGAIN = "systemctl start sparkfleet-launcher.socket"
# In the background and a moment later, so that the answer still arrives.
REBOOT = "systemd-run --quiet --on-active=1 systemctl reboot"
# Bounded, and its answer does not count: `degraded` is for the audit to judge.
SETTLED = "timeout 300 systemctl is-system-running --wait"


@dataclass(frozen=True)
class Need:
    """Whether a host is to be rebooted. `refusal`: why it must not be, one line."""

    pending: bool
    refusal: str = ""


def need_of(host: str, run: Run) -> Need:
    """By the audit of this host: what is not known to come up again is not rebooted."""
    found = {verdict.control: verdict for verdict in run.verdicts if verdict.host == host}
    pending = found.get(PENDING)
    if pending is None or pending.status is not Status.FAIL:
        return Need(False)
    for control in NEXT_KERNEL:
        verdict = found.get(control)
        if verdict is None or verdict.status not in (Status.PASS, Status.NOT_APPLICABLE):
            saw = f"{verdict.status}: {verdict.saw}" if verdict else "not judged"
            return Need(True, f"not rebooted, it might not come back: {control} {saw}")
    return Need(True)


class RootShell:
    """Commands as root on a host, over a new connection each."""

    def __init__(self, route: Route, password: SudoPassword) -> None:
        self.route = route
        self.password = password

    def run(self, command: str) -> str:
        """Runs a command without quotes. Returns why it failed, one line; "" where it did not."""
        asked = self.route.run("sh -c 'test $(id -u) = 0 && echo root && exit; sudo -n true 2>/dev/null && echo free'")
        if asked.lost:
            return asked.reason
        how = asked.stdout.strip()
        if how == "root":
            answer = self.route.run(command)
        elif how == "free":
            answer = self.route.run(f"sudo -n {command}")
        else:
            secret = self.password.get()
            if not secret:
                return self.password.problem
            answer = self.route.run(f"sudo -S -k -p '' {command}", f"{secret}\n".encode())
        return "" if answer.rc == 0 else answer.reason


def boot_id(route: Route) -> str:
    """The boot that runs now; "" where the host does not answer."""
    answer = route.with_options(ConnectTimeout="10").run(BOOT_ID)
    return answer.stdout.strip() if answer.rc == 0 else ""


def reboot(root: RootShell, longest: float, say: Callable[[str], None]) -> str:
    """Reboots a host and waits for its return, `longest` seconds. Returns why it is not back, one line, or ""."""
    route = root.route
    before = boot_id(route)
    if not before:
        return "not rebooted: it does not answer"
    if problem := root.run(REBOOT):
        return f"not rebooted: {problem}"
    say(f"{route.name}: rebooting")
    until = time.monotonic() + longest
    while time.monotonic() < until:
        time.sleep(AGAIN)
        if boot_id(route) not in ("", before):
            route.run(SETTLED)
            say(f"{route.name}: back after {time.monotonic() - until + longest:.0f} s")
            return ""
    return f"rebooted, and not back within {longest:.0f} s: look at its console"
