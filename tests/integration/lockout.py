"""Deploys of the ssh measure that are ended at a chosen step, and sshd states that let nobody in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.deploying import PYINFRA, ROOT, environment
from tests.lab import Host, Lab

DROP_IN = "/etc/systemd/system/ssh.service.d/oom.conf"
PROFILE = "/usr/share/pam-configs/sparkfleet-ssh"
ARMED = "/var/lib/sparkfleet/rollback/record.*"
CHECK = "/usr/local/sbin/site-check"
STEPS = ("trial login", "restart of sshd", "login over a new connection", "confirmation over the new connection")
"""The steps that a deploy announces with `armed: …` before it takes them, in order."""


def site_check(host: Host, condition: str) -> None:
    """Adds a check of the site's to sshd's PAM stack: who logs in while `condition` does not hold is sent away.

    It stands for whatever makes a new state of sshd refuse logins; the state before lets them in.
    """
    host.sudo(
        f"printf '#!/bin/sh\\n{condition}\\n' >{CHECK} && chmod +x {CHECK}"
        f" && sed -i '1i account required pam_exec.so quiet {CHECK}' /etc/pam.d/sshd"
    )


def logs_in(host: Host) -> bool:
    """Whether the admin and a user get in, over new connections."""
    return all(host.run("true", user=user, fresh=True, check=False).rc == 0 for user in ("admin", "alice"))


def is_as_before(host: Host) -> bool:
    """Whether nothing of the measure is there, nor waits to be taken back."""
    paths = " ".join((DROP_IN, PROFILE, ARMED, "/etc/systemd/system/system.slice.d/50-sparkfleet.conf"))
    there = host.sudo(f"ls {paths} 2>/dev/null; grep killable-session /etc/pam.d/common-session", check=False)
    return there.stdout == ""


def deploy_until(lab: Lab, fleet_file: Path, moment: str) -> subprocess.Popen[str]:
    """A deploy that has just said `moment`, of whichever host; it goes on by itself. Raises where it ended before."""
    process = subprocess.Popen(
        [PYINFRA, "inventory.py", "deploy.py", "-y"],
        cwd=ROOT,
        env=environment(lab, fleet_file),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if moment in line:
            return process
    raise AssertionError(f"the deploy ended before {moment!r}:\n{output}")


def wait_until_settled(host: Host, timeout: float = 120.0) -> None:
    """Waits until no change is armed and no taking back is at work. Raises where that is not so within `timeout` s."""
    busy = f"test -e {ARMED} || systemctl is-active --quiet sparkfleet-rollback.service"
    host.sudo(f"timeout {timeout:.0f} sh -c 'while {busy}; do sleep 0.2; done'", timeout=timeout + 30)
