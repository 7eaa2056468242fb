"""The systemd timer of a scheduled audit: its units, and how they are put into place and taken away."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparkfleet import child
from sparkfleet.audit.text import cut, visible
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.state_files import replace_file

NAME = "sparkfleet-audit"
SECONDS = 120.0
"""Most that a program of systemd's may take; `enable --now` waits for the unit."""
OURS = "# Written by `sparkfleet "
HEADERS = {
    NAME: f"{OURS}audit schedule`, which replaces and removes it.",
    "sparkfleet-notify": f"{OURS}notify`, which replaces and removes it.",
}
ABOUT = {
    NAME: ("Audit by sparkfleet", "Audits by sparkfleet on a schedule", "1h", "2min"),
    "sparkfleet-notify": ("Notices by sparkfleet", "Notices by sparkfleet, every minute", "5min", "5s"),
}
"""Descriptions of service and timer, how long a run may take, and by how much it may come late."""


def units(command: Sequence[str], calendar: str, *, system: bool, name: str = NAME) -> dict[str, str]:
    """The units by file name, the service first. `name`: of both, one of `ABOUT`."""
    service_is, timer_is, most, spread = ABOUT[name]
    header = HEADERS[name]
    # The user's manager knows no network-online.target.
    network = "Wants=network-online.target\nAfter=network-online.target\n" if system else ""
    # A service of the machine has no home, and the store and ssh need one.
    home = "Environment=HOME=%h\n" if system else ""
    service = f"""\
{header}
[Unit]
Description={service_is}
{network}
[Service]
Type=oneshot
ExecStart={" ".join(quoted(word) for word in command)}
{home}TimeoutStartSec={most}
Nice=10
UMask=0077
"""
    # By default a timer may come a minute late.
    accuracy = "" if name == NAME else "AccuracySec=1s\n"
    timer = f"""\
{header}
[Unit]
Description={timer_is}

[Timer]
OnCalendar={calendar.replace("%", "%%")}
RandomizedDelaySec={spread}
{accuracy}Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{name}.service": service, f"{name}.timer": timer}


def quoted(word: str) -> str:
    """A word of ExecStart=, as systemd.service(5) and systemd.syntax(7) read it."""
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(char, escape)
    return word if re.fullmatch(r"[A-Za-z0-9@%+=:,./_-]+", word) else f'"{word}"'


def check_calendar(calendar: str) -> None:
    """Raises CommandFailed where systemd would not understand the expression; passes where there is no systemd."""
    program = shutil.which("systemd-analyze")
    if program and ended([program, "calendar", "--", calendar]).rc:
        text = f"--calendar: got {calendar!r}, expected an expression such as Mon *-*-* 08:00:00 (man systemd.time)"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)


def folder(system: bool) -> Path:
    """Where the units are written."""
    if system:
        return Path("/etc/systemd/system")
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def install(files: Mapping[str, str], system: bool, name: str = NAME) -> None:
    """Writes the units and starts the timer; what was scheduled before is replaced.

    Raises:
        CommandFailed: a file of that name is not ours, it cannot be written, or systemd refuses.
    """
    where = folder(system)
    timer = f"{name}.timer"
    for file in files:
        check_ours(where / file)
    try:
        where.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            replace_file(where / file, text, 0o644)
    except OSError as error:
        raise cannot(where, error, system) from error
    systemctl(system, "daemon-reload")
    systemctl(system, "enable", timer)
    # `enable --now` leaves a timer that runs as it is, with the old times.
    systemctl(system, "restart", timer)
    user = "" if system else "--user "
    print(f"installed {where / timer}; see `systemctl {user}list-timers {timer}`")
    print(f"what a run says: journalctl {user}-u {name}")
    if not system:
        print("it runs while you are logged in; for always: loginctl enable-linger")


def remove(system: bool, name: str = NAME) -> None:
    """Stops the timer and removes the units; runs stay in the store. Nothing there is no mistake.

    Raises:
        CommandFailed: a file of that name is not ours, it cannot be removed, or systemd refuses.
    """
    where = folder(system)
    there = [path for suffix in ("timer", "service") if (path := where / f"{name}.{suffix}").exists()]
    for path in there:
        check_ours(path)
    if not there:
        print(f"nothing is scheduled in {where}")
        return
    systemctl(system, "disable", "--now", f"{name}.timer")
    try:
        for path in there:
            path.unlink()
    except OSError as error:
        raise cannot(where, error, system) from error
    systemctl(system, "daemon-reload")
    print(f"removed {', '.join(str(path) for path in there)}")


def check_ours(path: Path) -> None:
    """Raises CommandFailed where a file is there that another has written."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be read: {error.strerror}") from error
    if not text.startswith(OURS):
        text = f"{path}: was not written by this command, and is left alone: remove it yourself"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)


def cannot(where: Path, error: OSError, system: bool) -> CommandFailed:
    remedy = "run it as root" if system else "look at its owner and mode"
    return CommandFailed(f"{where}: cannot be changed: {error.strerror}: {remedy}", ExitCode.BAD_CONFIGURATION)


def systemctl(system: bool, *words: str) -> None:
    """Raises CommandFailed, with the last line that systemctl said, where it fails or is not there."""
    command = ["systemctl", *([] if system else ["--user"]), *words]
    try:
        done = ended(command)
    except OSError as error:
        text = f"{command[0]}: {error.strerror}: this needs systemd; --print shows what to call from elsewhere"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION) from error
    if done.rc:
        said = done.lines()
        reason = visible(cut(said[-1], 200)[0]) if said else f"ended with {done.rc}"
        raise CommandFailed(f"{' '.join(command)}: {reason}")


def ended(command: list[str]) -> child.Done:
    """A program of systemd's, when it has ended. Raises CommandFailed where it does not, and OSError."""
    try:
        return child.run(command, child.Limits(SECONDS))
    except child.OutOfBounds as error:
        raise CommandFailed(f"{command[0]}: {error}") from error
