"""The subcommand `notify`: one look at the fleet, and the timer that makes it every minute."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparkfleet.audit import timer
from sparkfleet.audit.schedule import existing, one_line_path
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.notify import notices, ways
from sparkfleet.notify.notices import KINDS, Message, State
from sparkfleet.state_files import replace_file, state_file
from sparkfleet.status.command import routes_of
from sparkfleet.status.fleet import views
from sparkfleet.status.stream import once

DESCRIPTION = """\
Looks at every host once, and tells what is new: a kill, a host that is gone, short memory, heat, a watchdog that does
not act, a warning, a red audit, drift; and what is over. Each way stands on a line of FILE: mail ADDRESS [SERVER], ntfy
ADDRESS [TOKEN], webhook ADDRESS, command PROGRAM [ARGUMENT ...]. With --install a timer does so every minute."""
EPILOG = """\
exit code: 1 where a way did not take the message, 4 for a bad configuration, else 0, also where hosts are gone: that is
what is told."""
SECONDS = 40.0
NAME = "sparkfleet-notify"
MINUTELY = "*-*-* *:*:00"


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "notify", help="tell somebody when a host needs a person", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )
    parser.add_argument("--ways", type=Path, metavar="FILE", help="where messages go, a line each; mode 0600")
    parser.add_argument(
        "--kind", action="append", choices=KINDS, metavar="KIND", help=f"only these: {', '.join(KINDS)}"
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="where audits are kept (default: see `audit runs`)")
    parser.add_argument("--system", action="store_true", help="with --install: a timer of the machine, run by root")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--test", action="store_const", const="test", dest="act", help="send a message that says so")
    act.add_argument("--print", action="store_const", const="print", dest="act", help="print the timer's units")
    act.add_argument("--install", action="store_const", const="install", dest="act", help="write and start the timer")
    act.add_argument("--remove", action="store_const", const="remove", dest="act", help="stop and remove the timer")
    parser.set_defaults(run=notify, act="look")


def notify(arguments: argparse.Namespace) -> ExitCode:
    """Raises CommandFailed or FleetError."""
    if arguments.act == "remove":
        timer.remove(arguments.system, NAME)
        return ExitCode.CLEAN
    if arguments.ways is None:
        raise CommandFailed("which ways? name their file with --ways (see --help)", ExitCode.BAD_CONFIGURATION)
    known = ways.read(arguments.ways.expanduser())
    if arguments.act == "test":
        return sent(known, Message("sparkfleet: a test", ("sparkfleet: this is a test, nothing has happened",), False))[
            0
        ]
    if arguments.act in ("print", "install"):
        return schedule(arguments)
    return look(arguments, known)


def look(arguments: argparse.Namespace, known: list[ways.Way]) -> ExitCode:
    """One look. Two at a time would tell things twice: the second one leaves it to the first."""
    routes, records = routes_of(arguments)
    path = state_file("notify", records.fleet_file)
    with alone(path) as first:
        if not first:
            return ExitCode.CLEAN
        found = {view.name: view.needs for view in views(once(routes, SECONDS), records)}
        now = time.time()
        before = load(path)
        state, over = notices.seen(before, found, arguments.kind or KINDS, now)
        after, message = notices.due(state, over, now)
        if message is None:
            save(path, state)
            return ExitCode.CLEAN
        code, took = sent(known, message)
        # Nobody was told: it is told at the next look, what is over as well.
        save(path, after if took else before)
        return code


def sent(known: list[ways.Way], message: Message) -> tuple[ExitCode, int]:
    """Sends on every way; how many took it."""
    took = 0
    for way in known:
        try:
            way.send(message)
            took += 1
        except ways.NotSent as error:
            print(f"sparkfleet: {way.shown}: not sent: {error}", file=sys.stderr)
    return ExitCode.CLEAN if took == len(known) else ExitCode.FAILURE, took


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether no other look is under way. Raises CommandFailed where the place cannot be made."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandFailed(f"{path.parent}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def load(path: Path) -> State:
    """What was told; nothing where there is no file, or a damaged one: told twice is better than not at all."""
    try:
        with path.open("rb") as stream:
            return State.of(json.loads(stream.read(8 << 20)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return State()


def save(path: Path, state: State) -> None:
    """Replaces the file in one step. Raises CommandFailed."""
    try:
        replace_file(path, json.dumps(state.as_json()))
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be written: {error.strerror}: the same will be told again") from error


def schedule(arguments: argparse.Namespace) -> ExitCode:
    """Prints or installs the timer. Raises CommandFailed or FleetError."""
    _, records = routes_of(arguments)
    command = [sys.executable, "-m", "sparkfleet.cli", "notify", "--fleet", one_line_path(records.fleet_file)]
    command += ["--ways", existing(arguments.ways)]
    for name in ("limit", "kind"):
        for value in getattr(arguments, name) or ():
            command += [f"--{name}", value]
    if arguments.store:
        command += ["--store", one_line_path(arguments.store)]
    units = timer.units(command, MINUTELY, system=arguments.system, name=NAME)
    if arguments.act == "install":
        timer.install(units, arguments.system, NAME)
    else:
        for name, text in units.items():
            print(f"# {timer.folder(arguments.system) / name}\n{text}")
    return ExitCode.CLEAN
