"""The subcommands `deploy` and `drift`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparkfleet.deploy import report
from sparkfleet.deploy.outcome import Outcome, exit_code
from sparkfleet.deploy.run import LOCAL, Wanted, run
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import chosen_fleet, limited
from sparkfleet.settings import MEASURES, chosen_fleet_file
from sparkfleet.settings.explain import suggestion
from sparkfleet.settings.problems import escaped, show
from sparkfleet.status import records
from sparkfleet.terminal import has_terminal

DEPLOY = """\
Brings every host of the fleet to its wanted state: `pyinfra inventory.py deploy.py`, with an outcome for every host at
the end and an exit code that says it. Shows what would change and asks, unless --yes is given."""
DRIFT = """\
Says what a deploy would change, host by host, and changes nothing."""
EPILOG = """\
exit code: 3 where a host was not reached or lost on the way, else 2 (drift only) where something would change, else 1
where a measure was refused or failed, else 0; 4 for a bad configuration, 130 after Ctrl-C."""


def add_arguments(commands: Any) -> None:
    """Adds both subcommands."""
    for name, text, run_it in (("deploy", DEPLOY, deploy), ("drift", DRIFT, drift)):
        parser = commands.add_parser(name, help=text.partition(": ")[0].split(".")[0], description=text, epilog=EPILOG)
        parser.add_argument("where", nargs="?", choices=[LOCAL], help="this machine itself, without SSH")
        parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
        parser.add_argument(
            "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
        )
        parser.add_argument(
            "--only", action="append", default=[], metavar="MEASURE", help="this measure alone; again for more"
        )
        parser.add_argument(
            "--json", type=Path, metavar="FILE", help="write the outcome as JSON; - for standard output"
        )
        parser.set_defaults(run=run_it)
        if name == "deploy":
            parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
            parser.add_argument("--diff", action="store_true", help="show what changes within files")
        else:
            parser.add_argument("--no-diff", action="store_true", help="leave out what would change within files")


def wanted_of(arguments: argparse.Namespace, *, dry: bool, confirmed: bool, diff: bool) -> Wanted:
    """The run that the arguments ask for. Raises CommandFailed or FleetError."""
    only = measures(arguments.only)
    if arguments.where == LOCAL:
        if arguments.limit or chosen_fleet_file(arguments.fleet):
            raise CommandFailed(
                f"{LOCAL} takes the default settings: leave out --limit, --fleet and $FLEET", ExitCode.BAD_CONFIGURATION
            )
        return Wanted([LOCAL], None, dry, confirmed, diff, only=only)
    path, fleet = chosen_fleet(arguments.fleet)
    names = [host.name for host in limited(fleet, arguments.limit)]
    if not names:
        raise CommandFailed(f"{path} has no hosts: enrol one first", ExitCode.BAD_CONFIGURATION)
    return Wanted(names, path, dry, confirmed, diff, only=only)


def measures(named: Sequence[str]) -> list[str]:
    """The measures of `--only`, in the order in which they are applied. Raises CommandFailed where one is none."""
    for name in named:
        if name not in MEASURES:
            hint = suggestion(name, MEASURES)
            raise CommandFailed(f"--only {show(name)} is no measure of sparkfleet: {hint}", ExitCode.BAD_CONFIGURATION)
    return [name for name in MEASURES if name in named]


def deploy(arguments: argparse.Namespace) -> ExitCode:
    """Runs a deploy. Raises CommandFailed or FleetError."""
    if not arguments.yes and not has_terminal():
        raise CommandFailed("there is no terminal to confirm on: give --yes", ExitCode.BAD_CONFIGURATION)
    wanted = wanted_of(arguments, dry=False, confirmed=arguments.yes, diff=arguments.diff)
    found = run(wanted, quiet=arguments.json == Path("-"))
    note(wanted, found, "deploy")
    return told(found, arguments, [])


def drift(arguments: argparse.Namespace) -> ExitCode:
    """Runs a dry run. Raises CommandFailed or FleetError."""
    wanted = wanted_of(arguments, dry=True, confirmed=False, diff=True)
    found = run(wanted, quiet=True)
    note(wanted, found, "drift")
    lines = []
    for one in found:
        if about := report.details(one, diff=not arguments.no_diff):
            lines += [f"{one.host}:", *(f"  {line}" for line in about), ""]
    return told(found, arguments, lines)


def note(wanted: Wanted, found: list[Outcome], command: str) -> None:
    """Keeps for `status` how the hosts stand; a run of some measures alone does not say."""
    if not wanted.only:
        records.note(wanted.fleet_file, found, command)


def told(found: list[Outcome], arguments: argparse.Namespace, lines: list[str]) -> ExitCode:
    """Writes what was found where it is wanted. Raises CommandFailed where the file cannot be written."""
    code = exit_code(found)
    if arguments.json == Path("-"):
        print(report.as_json(found, code))
        return code
    if arguments.json:
        try:
            arguments.json.write_text(report.as_json(found, code) + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandFailed(f"{escaped(str(arguments.json))}: cannot be written: {error.strerror}") from error
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, *report.summary(found)]))
    return code
