"""The subcommand `remove`: a host leaves the fleet. Everything that a deploy put there is taken off again, proved."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparkfleet.deploy import report
from sparkfleet.deploy.outcome import Outcome, State, exit_code
from sparkfleet.deploy.run import Wanted, run
from sparkfleet.enrol import fleet_file
from sparkfleet.enrol.fleet_without import draft_without
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import chosen_fleet
from sparkfleet.settings import Fleet, FleetError
from sparkfleet.settings.problems import show
from sparkfleet.terminal import has_terminal

TEXT = """\
Takes hosts out of the fleet: every measure is removed, the last one first, and what was there before sparkfleet comes
back. Shows what would change and asks; looks again when it is done; then takes the hosts out of the fleet file. Homes
are never deleted; accounts that a deploy has made are locked."""
EPILOG = """\
exit code: 3 where a host was not reached or lost on the way, else 1 where something is left on a host or was not
confirmed, else 0; 4 for a bad configuration, 130 after Ctrl-C. A host on which something is left stays in the fleet
file."""


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("remove", help="take hosts out of the fleet", description=TEXT, epilog=EPILOG)
    parser.add_argument("hosts", nargs="+", metavar="HOST", help="name of a host, as the fleet file has it")
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--keep-entry", action="store_true", help="leave the hosts in the fleet file")
    parser.add_argument(
        "--entry-only",
        action="store_true",
        help="only take the hosts out of the fleet file, for machines that are no more",
    )
    parser.set_defaults(run=remove)


def remove(arguments: argparse.Namespace) -> ExitCode:
    """Takes hosts out of the fleet. Raises CommandFailed or FleetError."""
    if arguments.keep_entry and arguments.entry_only:
        raise CommandFailed("--keep-entry and --entry-only leave nothing to do", ExitCode.BAD_CONFIGURATION)
    if not arguments.yes and not has_terminal():
        raise CommandFailed("there is no terminal to confirm on: give --yes", ExitCode.BAD_CONFIGURATION)
    path, fleet = chosen_fleet(arguments.fleet)
    names = named(fleet, arguments.hosts, path)
    code, gone = (ExitCode.CLEAN, names) if arguments.entry_only else taken_off(names, path, arguments.yes)
    if gone and not arguments.keep_entry:
        code = max(code, entries_out(path, gone, arguments.yes))
    return code


def named(fleet: Fleet, wanted: Sequence[str], path: Path) -> list[str]:
    """The hosts, in the fleet's order. No groups and no globs: what is taken apart is named. Raises CommandFailed."""
    known = [host.name for host in fleet.hosts]
    for name in wanted:
        if name not in known:
            raise CommandFailed(
                f"{path} has no host {show(name)}: there are {', '.join(known[:20])}", ExitCode.BAD_CONFIGURATION
            )
    return [name for name in known if name in wanted]


def taken_off(names: Sequence[str], path: Path, confirmed: bool) -> tuple[ExitCode, list[str]]:
    """Removes every measure. Returns what the whole amounts to, and the hosts on which nothing is left."""
    planned = looked(names, path)
    for one in planned:
        write([f"{one.host}:", *(f"  {line}" for line in report.details(one, diff=True)), ""])
    reached = [one for one in planned if one.state in (State.CLEAN, State.DRIFT, State.FAILED)]
    missing = [one for one in planned if one not in reached]
    write(report.summary(planned))
    if not reached:
        return exit_code(missing), []
    # Where only the history is left, that goes.
    changed = [one.host for one in reached if one.state is not State.CLEAN or one.applied]
    found: list[Outcome] = []
    if changed:
        count = sum(one.changes() for one in reached)
        if not agreed(f"Take sparkfleet off {', '.join(changed)} ({count} changes)?", confirmed):
            raise CommandFailed("nothing was changed")
        found = run(Wanted(changed, path, dry=False, confirmed=True, remove=True), quiet=False)
        write(report.summary(found))
    # What was not said to have failed is looked at again: on the host itself, by the code that plans.
    bad = [one for one in found if one.state not in (State.CLEAN, State.CHANGED)]
    left = [name for name in changed if name not in [one.host for one in bad]]
    again = looked(left, path) if left else []
    bad += [one for one in again if one.state is not State.CLEAN]
    for one in again:
        if one.state is State.DRIFT:  # a deploy that ended well, and did not do what it said
            one.state, one.reason = State.FAILED, "something is left: run it again, or see `sparkfleet drift`"
    broken = {one.host for one in bad}
    gone = [one.host for one in reached if one.host not in broken]
    write([f"{name}: nothing of sparkfleet is left there" for name in gone])
    write(report.summary([one for one in again if one.host in broken]))
    return (exit_code([*missing, *bad]) if missing or bad else ExitCode.CLEAN), gone


def looked(names: Sequence[str], path: Path) -> list[Outcome]:
    """What the removal would change. Raises CommandFailed."""
    return run(Wanted(names, path, dry=True, diff=True, remove=True), quiet=True)


def entries_out(path: Path, names: Sequence[str], confirmed: bool) -> ExitCode:
    """Takes hosts out of the fleet file, one after the other; each that stays is one line with the reason."""
    if not agreed(f"Take {', '.join(names)} out of {path}?", confirmed):
        print(f"sparkfleet: {path} was not changed: it still has {', '.join(names)}", file=sys.stderr)
        return ExitCode.FAILURE
    code = ExitCode.CLEAN
    for name in names:
        try:
            fleet_file.write(draft_without(path, name))
        except CommandFailed as error:
            print(f"sparkfleet: {error}", file=sys.stderr)
            code = max(code, error.code)
        except FleetError as error:
            print(error, file=sys.stderr)
            code = max(code, ExitCode.BAD_CONFIGURATION)
        else:
            print(f"{name}: taken out of {path}")
    return code


def agreed(question: str, confirmed: bool) -> bool:
    if confirmed:
        return True
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def write(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
