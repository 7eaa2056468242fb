"""`sparkfleet audit schedule`: a systemd timer that audits the fleet, or this machine, and keeps the runs."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from sparkfleet.audit import notify, timer
from sparkfleet.audit.store import default_folder
from sparkfleet.audit.text import visible
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.site import chosen_fleet_file

DESCRIPTION = """\
Audits on a schedule, by a systemd timer of your own (or, with --system, of the machine's): each run is kept in the
store, and the hook is called when verdicts got worse. Prints the two units unless --install or --remove is given. What
stands after -- is handed to `sparkfleet audit` as it is."""
SYSTEM_STORE = Path("/var/lib/sparkfleet/audit")
"""Where runs of the machine's timer are kept."""


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
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help=f"where runs are kept (default: as for audit; with --system {SYSTEM_STORE})",
    )
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
    parser.set_defaults(run=run, act="print")


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


def run(arguments: argparse.Namespace) -> ExitCode:
    """Prints, installs or removes the timer. Raises CommandFailed."""
    if arguments.act == "remove":
        timer.remove(arguments.system)
        return ExitCode.CLEAN
    calendar = arguments.calendar or daily("06:30")
    timer.check_calendar(calendar)
    units = timer.units(audit_command(arguments), calendar, system=arguments.system)
    if arguments.act == "install":
        timer.install(units, arguments.system)
        return ExitCode.CLEAN
    for name, text in units.items():
        print(f"# {timer.folder(arguments.system) / name}\n{text}")
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
        fleet = chosen_fleet_file(arguments.fleet)
        if fleet is None:
            text = "which fleet file? name it with --fleet, set $FLEET, or audit this machine with --local"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
        command += ["--fleet", existing(fleet)]
    if arguments.waivers:
        command += ["--waivers", existing(arguments.waivers)]
    # Named in any case: the timer's $XDG_STATE_HOME need not be that of whoever installs it.
    command += ["--store", one_line_path(arguments.store or (SYSTEM_STORE if arguments.system else default_folder()))]
    if arguments.hook:
        command += ["--hook", absolute_hook(arguments.hook)]
    return [*command, *arguments.audit]


def absolute_hook(hook: str) -> str:
    """The hook with its program's path: a timer has another PATH and another folder.

    Raises:
        CommandFailed: there is no such program.
    """
    program, *others = notify.parsed(hook)
    found = shutil.which(os.path.expanduser(program))  # noqa: PTH111 - leaves ~nobody as it is
    if found is None:
        raise CommandFailed(f"--hook: {program!r} is no program that can be run", ExitCode.BAD_CONFIGURATION)
    return shlex.join([str(Path(found).absolute()), *others])


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
