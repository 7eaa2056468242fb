"""`sparkfleet audit schedule`: a systemd timer that audits the fleet, or this machine, and keeps the runs."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkfleet.audit import notify
from sparkfleet.audit.text import cut, visible
from sparkfleet.exit_codes import CommandFailed, ExitCode

NAME = "sparkfleet-audit"
HEADER = "# Written by `sparkfleet audit schedule`, which replaces and removes it."
DESCRIPTION = """\
Audits on a schedule, by a systemd timer of your own (or, with --system, of the machine's): each run is kept in the store,
and the hook is called when verdicts got worse. Prints the two units unless --install or --remove is given. What stands
after -- is handed to `sparkfleet audit` as it is."""


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `schedule` to those of `sparkfleet audit`."""
    parser = commands.add_parser("schedule", help="audit on a schedule, by a systemd timer", description=DESCRIPTION)
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--daily", type=daily, dest="calendar", metavar="HH:MM", help="every day (default: 06:30)")
    when.add_argument("--hourly", action="store_const", const="hourly", dest="calendar", help="every hour")
    when.add_argument(
        "--calendar",
        type=one_line,
        dest="calendar",
        metavar="EXPRESSION",
        help="as systemd.time(7) has it, e.g. Mon *-*-* 08:00",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    what.add_argument("--local", action="store_true", help="this machine alone, without a fleet file")
    parser.add_argument("--store", type=Path, metavar="DIR", help="where runs are kept (default: as for audit)")
    parser.add_argument("--waivers", type=Path, metavar="FILE", help="file of waivers")
    parser.add_argument(
        "--hook", type=one_line, metavar="COMMAND", help="run when verdicts got worse; see docs/audit.md"
    )
    parser.add_argument("--system", action="store_true", help="a timer of the machine, run by root; needs root")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--print", action="store_const", const="print", dest="act", help="print the units (default)")
    act.add_argument("--install", action="store_const", const="install", dest="act", help="write and start the timer")
    act.add_argument("--remove", action="store_const", const="remove", dest="act", help="stop and remove the timer")
    parser.add_argument("audit", nargs="*", type=one_line, metavar="-- ARGUMENT", help="further arguments of the audit")
    parser.set_defaults(run=run, act="print", calendar="*-*-* 06:30:00")


def daily(text: str) -> str:
    """`06:30` as a calendar expression."""
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a time such as 06:30")
    return f"*-*-* {text}:00"


def one_line(text: str) -> str:
    """Text that a unit file can hold: it has no escapes for control characters in every place."""
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected text in one line")
    return text


@dataclass(frozen=True)
class Units:
    """The two units, by file name."""

    files: dict[str, str]

    @property
    def timer(self) -> str:
        return f"{NAME}.timer"


def run(arguments: argparse.Namespace) -> ExitCode:
    """Prints, installs or removes the timer. Raises CommandFailed."""
    if arguments.act == "remove":
        return remove(arguments.system)
    units = Units(made(audit_command(arguments), arguments.calendar, system=arguments.system))
    check_calendar(arguments.calendar)
    if arguments.act == "install":
        return install(units, arguments.system)
    for name, text in units.files.items():
        print(f"# {folder(arguments.system) / name}\n{text}")
    return ExitCode.CLEAN


def audit_command(arguments: argparse.Namespace) -> list[str]:
    """The audit as the timer calls it: with absolute paths, by the Python that runs now.

    Raises:
        CommandFailed: neither a fleet file nor --local is given, or a file is not there.
    """
    command = [sys.executable, "-m", "sparkfleet.cli", "audit"]
    if arguments.local:
        command.append("@local")
    else:
        fleet = arguments.fleet or (Path(os.environ["FLEET"]) if os.environ.get("FLEET") else None)
        if fleet is None:
            text = "which fleet file? name it with --fleet, set $FLEET, or audit this machine with --local"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
        command += ["--fleet", existing(fleet)]
    if arguments.waivers:
        command += ["--waivers", existing(arguments.waivers)]
    command.append("--keep")
    if arguments.store:
        command += ["--store", one_line_path(arguments.store)]
    if arguments.hook:
        program = notify.parsed(arguments.hook)[0]
        if shutil.which(program) is None:
            raise CommandFailed(f"--hook: {program!r} is no program that can be run", ExitCode.BAD_CONFIGURATION)
        command += ["--hook", arguments.hook]
    return [*command, *arguments.audit]


def existing(path: Path) -> str:
    """The absolute path of a file. Raises CommandFailed where there is none."""
    if not path.expanduser().is_file():
        raise CommandFailed(f"{visible(str(path))}: there is no such file", ExitCode.BAD_CONFIGURATION)
    return one_line_path(path)


def one_line_path(path: Path) -> str:
    """The absolute path. Raises CommandFailed where no unit file can hold it."""
    text = str(path.expanduser().absolute())
    if not text.isprintable():
        raise CommandFailed(f"{visible(text)}: a path with control characters", ExitCode.BAD_CONFIGURATION)
    return text


def made(command: Sequence[str], calendar: str, *, system: bool) -> dict[str, str]:
    """The units by file name, the service first."""
    # The user's manager knows no network-online.target.
    network = "Wants=network-online.target\nAfter=network-online.target\n" if system else ""
    # A service of the machine has no home, and the store and ssh need one.
    home = "Environment=HOME=%h\n" if system else ""
    service = f"""\
{HEADER}
[Unit]
Description=Audit by sparkfleet
{network}
[Service]
Type=oneshot
ExecStart={" ".join(quoted(word) for word in command)}
{home}TimeoutStartSec=1h
Nice=10
UMask=0077
"""
    timer = f"""\
{HEADER}
[Unit]
Description=Audits by sparkfleet on a schedule

[Timer]
OnCalendar={calendar.replace("%", "%%")}
RandomizedDelaySec=2min
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{NAME}.service": service, f"{NAME}.timer": timer}


def quoted(word: str) -> str:
    """A word of ExecStart=, as systemd.service(5) and systemd.syntax(7) read it."""
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(char, escape)
    return word if re.fullmatch(r"[A-Za-z0-9@%+=:,./_-]+", word) else f'"{word}"'


def check_calendar(calendar: str) -> None:
    """Raises CommandFailed where systemd would not understand the expression; passes where there is no systemd."""
    if program := shutil.which("systemd-analyze"):
        done = subprocess.run(
            [program, "calendar", "--", calendar], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            text = f"--calendar: got {calendar!r}, expected an expression such as Mon *-*-* 08:00:00 (man systemd.time)"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)


def folder(system: bool) -> Path:
    """Where the units are written."""
    if system:
        return Path("/etc/systemd/system")
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def install(units: Units, system: bool) -> ExitCode:
    """Writes the units and starts the timer; what was scheduled before is replaced.

    Raises:
        CommandFailed: a file of that name is not ours, it cannot be written, or systemd refuses.
    """
    where = folder(system)
    for name in units.files:
        check_ours(where / name)
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, text in units.files.items():
            write(where / name, text)
    except OSError as error:
        raise cannot(where, error, system) from error
    systemctl(system, "daemon-reload")
    systemctl(system, "enable", units.timer)
    # `enable --now` leaves a timer that runs as it is, with the old times.
    systemctl(system, "restart", units.timer)
    user = "" if system else "--user "
    print(f"installed {where / units.timer}; see `systemctl {user}list-timers {NAME}.timer`")
    print(f"what a run says: journalctl {user}-u {NAME}")
    if not system:
        print("it runs while you are logged in; for always: loginctl enable-linger")
    return ExitCode.CLEAN


def remove(system: bool) -> ExitCode:
    """Stops the timer and removes the units; runs stay in the store. Nothing there is no mistake.

    Raises:
        CommandFailed: a file of that name is not ours, it cannot be removed, or systemd refuses.
    """
    where = folder(system)
    there = [path for suffix in ("timer", "service") if (path := where / f"{NAME}.{suffix}").exists()]
    for path in there:
        check_ours(path)
    if not there:
        print(f"nothing is scheduled in {where}")
        return ExitCode.CLEAN
    systemctl(system, "disable", "--now", f"{NAME}.timer")
    try:
        for path in there:
            path.unlink()
    except OSError as error:
        raise cannot(where, error, system) from error
    systemctl(system, "daemon-reload")
    print(f"removed {', '.join(str(path) for path in there)}")
    return ExitCode.CLEAN


def check_ours(path: Path) -> None:
    """Raises CommandFailed where a file is there that another has written."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be read: {error.strerror}") from error
    if not text.startswith(HEADER):
        text = f"{path}: was not written by this command, and is left alone: remove it yourself"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)


def write(path: Path, text: str) -> None:
    """Puts a file into its place in one step."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def cannot(where: Path, error: OSError, system: bool) -> CommandFailed:
    remedy = "run it as root" if system else "look at its owner and mode"
    return CommandFailed(f"{where}: cannot be changed: {error.strerror}: {remedy}", ExitCode.BAD_CONFIGURATION)


def systemctl(system: bool, *words: str) -> None:
    """Raises CommandFailed, with the last line that systemctl said, where it fails or is not there."""
    command = ["systemctl", *([] if system else ["--user"]), *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        text = f"{command[0]}: {error.strerror}: this needs systemd; --print shows what to call from elsewhere"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION) from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = visible(cut(said[-1], 200)[0]) if said else f"ended with {done.returncode}"
        raise CommandFailed(f"{' '.join(command)}: {reason}")
