"""Takes an unproved change back: by the controller's order, by a timer on the host, or at the next boot.

A copy of this module lies on the host as long as a change is armed (`guard.py` puts it there), so that the host needs
neither the network nor a controller to undo it. What was where is in the record (`unproved.py`), which is kept until
nothing differs any more: a full disk, a read-only /etc or a unit that does not start are tried again, every minute and
at each boot. Nothing that only tells of it (report, syslog) keeps it from its end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import syslog
import time
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base.files import sync_directory, write_atomic
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Failed
from sparkhost.ssh import unproved
from sparkhost.ssh.take_back_sh import UNDONE
from sparkhost.ssh.unproved import Armed

TIMER = "sparkfleet-rollback"
EMERGENCY = "sparkfleet-emergency-sshd"
SSHD = "/usr/sbin/sshd"
PROC = Path("/proc")


@dataclass(frozen=True)
class TakenBack:
    """What came of it. `report`: one line, "" where nothing was armed; `done`: nothing is left to try again."""

    report: str = ""
    done: bool = True


def program_directory() -> Path:
    """Where the copy of this module lies while a change is armed."""
    return unproved.DIRECTORY / "program"


def report_file() -> Path:
    return unproved.DIRECTORY / "last-report"


def take_back(reason: str, by: str = "deploy") -> TakenBack:
    """Undoes the change that is not proved. Call it `locked`. `by`: `deploy`, `timer` or `boot`.

    While the host boots, sshd has not started yet: files and PID 1's view of them are enough.

    Raises:
        OSError: what an earlier change has left cannot be removed.
    """
    armed = unproved.read()
    if armed is None:
        clean_up(by)
        return TakenBack()
    if armed.waits:
        with contextlib.suppress(OSError):  # a read-only /var: then nobody can confirm it either
            unproved.move(unproved.ARMED, unproved.TAKING_BACK)
    problems = unproved.restore(armed.entries)
    if armed.damage:
        record = unproved.DIRECTORY / unproved.TAKING_BACK
        problems.append(f"{record} is damaged ({armed.damage}): mend by hand what it names, then remove it")
    _try(problems, "systemctl", "daemon-reload")
    told: list[str] = []
    if by != "boot" and armed.after:
        _try(problems, "/bin/sh", "-c", armed.after)
    if by != "boot":
        _bring_ssh_up(armed, problems, told)
        free_sessions()
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(armed.since))
    report = f"the change of {at} was taken back: {reason}"
    if problems:
        report += f"; not everything worked, so it is tried again every minute: {'; '.join(problems)}"
    report += "".join(f"; {line}" for line in told)
    tell(report)
    if problems:
        return TakenBack(report, done=False)
    try:
        unproved.move(unproved.TAKING_BACK, unproved.ENDED)
        clean_up(by)
    except OSError as error:
        # All is as it was; only the record, or copies, are left.
        return TakenBack(f"{report}; what it needed is still there: {error}", done=False)
    return TakenBack(report)


def tell(report: str) -> None:
    """Leaves the report for the next deploy, and in the journal; neither can fail the rest, nor be said each minute."""
    with contextlib.suppress(OSError):
        if report_file().exists() and report_file().read_text(errors="replace").strip() == report:
            return
    with contextlib.suppress(OSError):
        write_atomic(report_file(), f"{report}\n".encode(errors="replace"), 0o600)
    with contextlib.suppress(OSError, ValueError):
        syslog.openlog("sparkfleet")
        syslog.syslog(syslog.LOG_WARNING, f"ssh: {report}")


def _bring_ssh_up(armed: Armed, problems: list[str], told: list[str]) -> None:
    """Logins as before: sshd restarted where it was, started where it is not running; by other means if need be."""
    if is_active(f"{EMERGENCY}.service"):
        told.append(_emergency(armed))
        return  # it has the port: whoever mends ssh.service goes on from here
    restarted = armed.stage in ("restarting", "restarted") and "ssh.service" in armed.active
    # Once, when the files are back. A configuration that became invalid meanwhile would end the sshd that still serves.
    if restarted and not problems and _try(problems, SSHD, "-t"):
        failures: list[str] = []
        _try(failures, "systemctl", "reset-failed", "ssh.service")
        _try(failures, "systemctl", "restart", "ssh.service")
        told += failures
    for unit in armed.active:
        if not is_active(unit):
            _try(told, "systemctl", "reset-failed", unit)
            _try(told, "systemctl", "start", unit)
    if [unit for unit in armed.active if not is_active(unit)]:
        # Whatever keeps the units from starting is not ours; an sshd of its own lets the admin in to see.
        _try(told, "systemctl", "stop", "ssh.socket", "ssh.service")
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        if _try(problems, "systemd-run", "--quiet", f"--unit={EMERGENCY}", "-p", "KillMode=process", SSHD, "-D"):
            told.append(_emergency(armed))


def _emergency(armed: Armed) -> str:
    return (
        f"ssh.service does not start, so sshd runs as {EMERGENCY}.service: mend ssh.service, then "
        f"`systemctl stop {EMERGENCY} && systemctl start {next(iter(armed.active), 'ssh.service')}`"
    )


def is_active(unit: str) -> bool:
    """Whether a unit is up, or on its way there."""
    return systemctl("is-active", "--quiet", unit) == 0


def systemctl(*words: str) -> int:
    """Its exit code; 1 where it does not answer."""
    try:
        return subprocess.run(["systemctl", *words], capture_output=True, timeout=90, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return 1


def _try(problems: list[str], *command: str) -> bool:
    try:
        run(*command)
    except (Failed, OSError) as error:
        problems.append(" ".join(str(error).split()))
        return False
    return True


def free_sessions() -> int:
    """Lets the OOM killer have SSH sessions again that are out of its reach; returns how many processes it freed.

    Sessions that were opened while the drop-in was there without its hook stay at -1000 otherwise.
    """
    freed = 0
    for process in PROC.glob("[0-9]*"):
        try:
            if int((process / "oom_score_adj").read_text()) != -1000:
                continue
            if "/session-" in (process / "cgroup").read_text():
                (process / "oom_score_adj").write_text("0")
                freed += 1
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return freed


def clean_up(by: str = "deploy") -> None:
    """The end of a change, proved or taken back: nothing of it is left. Does nothing where none has ended.

    `by`: see `take_back`.

    Raises:
        OSError: something cannot be removed. The record says so still, and the timer and the next boot try again.
    """
    ended = unproved.ended()
    if ended is None:
        return
    unproved.discard(ended.entries)
    (unproved.DIRECTORY / unproved.ENDED).unlink()
    sync_directory(unproved.DIRECTORY)
    systemctl("stop", f"{TIMER}.timer")
    if by != "timer":  # that is the service itself; elsewhere it may wait for its next try, of a program that goes
        systemctl("stop", f"{TIMER}.service")
    shutil.rmtree(program_directory(), ignore_errors=True)


def main(directory: str) -> int:
    """Entry of the timer (`timer`) and of the boot unit (`boot`), on the record in `directory`."""
    os.umask(0o022)
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    unproved.DIRECTORY = Path(directory)
    by = "boot" if sys.argv[1:] == ["boot"] else "timer"
    with unproved.locked():
        armed = unproved.read()
        measure = "cluster_link" if armed and armed.token.endswith(".link") else "ssh"
        reasons = {
            "boot": "the host was restarted before it was proved",
            "timer": f"no login proved it in time ({measure}.confirm_within)",
        }
        try:
            result = take_back(reasons[by], by)
        except OSError as error:
            result = TakenBack(f"what a change has left cannot be removed: {error}", done=False)
    print(result.report or "nothing is armed")
    return 0 if result.done else UNDONE
