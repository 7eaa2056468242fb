"""Takes an unproved change back: by the controller's order, by a timer on the host, or at the next boot.

A copy of this module lies on the host as long as a change is armed (`guard.py` puts it there), so that the host needs
neither the network nor a controller to undo it. `armed.json` holds what every path was before; it is written in one
step before the first change, and its presence alone means "not proved yet".
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
import syslog
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sparkhost.files import sync_directory, write_atomic
from sparkhost.pid1 import run
from sparkhost.resource import Failed

DIRECTORY = Path("/var/lib/sparkfleet/rollback")
TIMER = "sparkfleet-rollback"
EMERGENCY = "sparkfleet-emergency-sshd"
SSHD = "/usr/sbin/sshd"
INCOMPLETE = "not everything worked"
PROC = Path("/proc")


@dataclass(frozen=True)
class Armed:
    """A change that nobody has proved yet. `stage`: changing, changed, restarting, restarted."""

    token: str
    stage: str
    since: float
    """Seconds since the epoch."""
    active: list[str]
    """The units of SSH that were active before."""
    entries: list[dict[str, Any]] = field(default_factory=list)
    """What each path was before, see `saved`."""


def armed_file() -> Path:
    return DIRECTORY / "armed.json"


def report_file() -> Path:
    return DIRECTORY / "last-report"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One hand on the change at a time: a deploy, the timer, or a confirmation. Waits for the other."""
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    DIRECTORY.chmod(0o700)
    descriptor = os.open(DIRECTORY / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read() -> Armed | None:
    """The change that is armed, or None."""
    try:
        return Armed(**json.loads(armed_file().read_text()))
    except FileNotFoundError:
        return None


def write(armed: Armed) -> None:
    write_atomic(armed_file(), json.dumps(asdict(armed)).encode(), 0o600)


def set_stage(armed: Armed, stage: str) -> Armed:
    """The same change, one stage on; on disk when this returns."""
    new = replace(armed, stage=stage)
    write(new)
    return new


def saved(path: Path) -> dict[str, Any]:
    """What a path is now: a file, a link, or absent, with the directories that are missing above it."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        missing = [str(parent) for parent in path.parents if not parent.exists()]
        return {"path": str(path), "is": "absent", "missing": missing}
    if stat.S_ISLNK(status.st_mode):
        return {"path": str(path), "is": "link", "target": str(path.readlink())}
    if not stat.S_ISREG(status.st_mode):
        raise Failed(f"{path} is not a regular file: move it away and deploy again")
    return {
        "path": str(path),
        "is": "file",
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "content": base64.b64encode(path.read_bytes()).decode(),
    }


def restore(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Makes every path what it was; goes on past errors and returns them, one line each.

    Contents first, then removals: a PAM stack must not name a program that is gone already.
    """
    problems = []
    for entry in sorted(entries, key=lambda entry: bool(entry["is"] == "absent")):
        try:
            _restore(Path(entry["path"]), entry)
        except (OSError, Failed) as error:
            problems.append(f"{entry['path']}: {error}")
    return problems


def _restore(path: Path, entry: dict[str, Any]) -> None:
    if entry["is"] == "absent":
        if differs(entry):
            path.unlink()
            sync_directory(path.parent)
        for directory in entry["missing"]:
            with contextlib.suppress(OSError):  # not there, or not empty: somebody else's by now
                Path(directory).rmdir()
        return
    if not differs(entry):
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if entry["is"] == "link":
        new = path.with_name(f".{path.name}.sparkfleet-new")
        new.unlink(missing_ok=True)
        new.symlink_to(entry["target"])
        new.replace(path)
        sync_directory(path.parent)
        return
    if path.is_symlink():
        path.unlink()
    write_atomic(path, base64.b64decode(entry["content"]), entry["mode"], entry["uid"], entry["gid"])


def differs(entry: dict[str, Any]) -> bool:
    """Whether a path is not what it was."""
    try:
        now = saved(Path(entry["path"]))
    except Failed:
        return True
    # Of an absent path only the absence counts: the directories above it come and go.
    return now["is"] != entry["is"] or (now["is"] != "absent" and now != entry)


def take_back(reason: str, booting: bool = False) -> str:
    """Undoes the armed change and returns the report, one line; "" where nothing is armed. Call it `locked`.

    While the host boots (`booting`), sshd has not started yet: files and PID 1's view of them are enough.
    """
    armed = read()
    if armed is None:
        return ""
    problems = restore(armed.entries)
    _try(problems, "systemctl", "daemon-reload")
    if not booting:
        problems += _bring_ssh_up(armed)
        free_sessions()
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(armed.since))
    report = f"the change of {at} was taken back: {reason}"
    if problems:
        report += f"; {INCOMPLETE}: {'; '.join(problems)}"
    write_atomic(report_file(), f"{report}\n".encode(), 0o600)
    syslog.openlog("sparkfleet")
    syslog.syslog(syslog.LOG_WARNING, f"ssh: {report}")
    forget()
    return report


def _bring_ssh_up(armed: Armed) -> list[str]:
    """Logins as before: sshd restarted where it was, started where it is not running; by other means if need be."""
    problems: list[str] = []
    restarted = armed.stage in ("restarting", "restarted") and "ssh.service" in armed.active
    # A configuration that became invalid meanwhile would end the sshd that still serves.
    if restarted and _try(problems, SSHD, "-t"):
        _try(problems, "systemctl", "reset-failed", "ssh.service")
        _try(problems, "systemctl", "restart", "ssh.service")
    for unit in armed.active:
        if not is_active(unit):
            _try(problems, "systemctl", "reset-failed", unit)
            _try(problems, "systemctl", "start", unit)
    if [unit for unit in armed.active if not is_active(unit)]:
        # Whatever keeps the units from starting is not ours; an sshd of its own lets the admin in to see.
        _try(problems, "systemctl", "stop", "ssh.socket", "ssh.service")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        if _try(problems, "systemd-run", "--quiet", f"--unit={EMERGENCY}", "-p", "KillMode=process", SSHD, "-D"):
            problems.append(
                f"ssh.service does not start, so sshd runs as {EMERGENCY}.service: mend ssh.service, then "
                f"`systemctl stop {EMERGENCY} && systemctl start {armed.active[0]}`"
            )
    return problems


def is_active(unit: str) -> bool:
    """Whether a unit is up, or on its way there."""
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], timeout=90, check=False).returncode == 0


def _try(problems: list[str], *command: str) -> bool:
    try:
        run(*command)
    except Failed as error:
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


def forget() -> None:
    """The end of a change, proved or taken back: nothing is armed any more."""
    armed_file().unlink(missing_ok=True)
    sync_directory(DIRECTORY)
    # Its service goes on: it may be the one that runs this.
    subprocess.run(["systemctl", "stop", f"{TIMER}.timer"], capture_output=True, timeout=90, check=False)


def main() -> int:
    """Entry of the timer (`timer`) and of the boot unit (`boot`)."""
    os.umask(0o022)
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    booting = sys.argv[1:] == ["boot"]
    reason = (
        "the host was restarted before it was proved" if booting else "no login proved it in time (ssh.confirm_within)"
    )
    with locked():
        print(take_back(reason, booting) or "nothing is armed")
    return 0
