"""`sparkfleet undo HOST`: deploys the settings that were applied to a host before those of now.

The host keeps the last settings of each measure (`sparkhost.base.history`). The last deploy that brought other settings
is taken back: the measures whose settings it changed get those before; the others are left alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sparkfleet import foreign
from sparkfleet.admin.asking import ask_as_root
from sparkfleet.admin.settings import leaves
from sparkfleet.audit.collect import target_of
from sparkfleet.audit.password import SudoPassword
from sparkfleet.deploy import report
from sparkfleet.deploy.outcome import State, exit_code
from sparkfleet.deploy.run import Wanted, run
from sparkfleet.enrol.ssh import Answer
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import chosen_fleet, known_host
from sparkfleet.settings import MEASURES, HostSettings
from sparkfleet.settings.problems import dotted
from sparkfleet.terminal import has_terminal

TEXT = """\
Takes back the last deploy to a host that brought other settings: deploys those before, as the host itself has kept
them, for the measures whose settings it changed. Says what it will do, and asks, unless --yes is given.
Not uv's: they name what is downloaded here, and no host may choose that.
The fleet file stays as it is: what it says comes back with the next deploy, until it is changed."""
EPILOG = """\
exit code: as deploy's; 1 where the host has kept no settings before, or it was not confirmed."""
FILE = "/var/lib/sparkfleet/settings-before.json"
COMMAND = f"if test -e {FILE}; then head -c 262144 {FILE}; else echo '{{}}'; fi"
SECONDS = 60.0
STAYS = frozenset({"uv"})
"""Measures whose settings name what the controller downloads, which no host may choose."""


class Kept(BaseModel):
    """A measure's settings as they were applied once. `token`: of the deploy that brought them."""

    at: str
    token: str
    values: dict[str, Any]


class Before(BaseModel):
    """A host's file."""

    measures: dict[str, list[Kept]] = {}


@dataclass(frozen=True)
class Undo:
    """What is taken back: the settings (JSON values) by measure, and for a person since when and what differs."""

    since: str
    settings: Mapping[str, Mapping[str, Any]]
    lines: list[str]


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("undo", help="deploy the settings before", description=TEXT, epilog=EPILOG)
    parser.add_argument("host", metavar="HOST", help="name of a host, as the fleet file has it")
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.set_defaults(run=undo)


def undo(arguments: argparse.Namespace) -> ExitCode:
    """Takes it back. Raises CommandFailed or FleetError."""
    if not arguments.yes and not has_terminal():
        raise CommandFailed("there is no terminal to confirm on: give --yes", ExitCode.BAD_CONFIGURATION)
    path, fleet = chosen_fleet(arguments.fleet)
    host = known_host(fleet, arguments.host, path)
    route = target_of(host, fleet.known_hosts).route
    assert route is not None  # a host of a fleet file
    back = read(host.name, ask_as_root(route, COMMAND, SudoPassword(), seconds=SECONDS))
    print(f"{host.name}: back to the settings before {back.since}:")
    print("\n".join(f"  {line}" for line in back.lines))
    only, settings = tuple(back.settings), {host.name: back.settings}
    planned = run(Wanted([host.name], path, dry=True, diff=True, only=only, settings=settings), quiet=True)
    for one in planned:
        print("\n".join(f"  {line}" for line in report.details(one, diff=False)))
    if planned[0].state not in (State.CLEAN, State.DRIFT):
        print("\n".join(report.summary(planned)))
        return exit_code(planned)
    if not arguments.yes and input("Deploy this? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was changed")
    found = run(Wanted([host.name], path, False, True, only=only, settings=settings), quiet=False)
    print("\n".join(report.summary(found)))
    print(f"{path} is not changed: what it says comes back with the next deploy")
    return exit_code(found)


def read(host: str, answer: Answer) -> Undo:
    """What is to be taken back. It comes from a host: each value is checked as the fleet file's are.

    Raises:
        CommandFailed: the host is not reached, has kept nothing, or what it has kept are no settings of this version.
    """
    if answer.rc:
        code = ExitCode.UNREACHABLE if answer.lost else ExitCode.FAILURE
        raise CommandFailed(f"{host}: {answer.reason}", code)
    try:
        found = Before.model_validate(foreign.plain(foreign.loads(answer.stdout))).measures
        kept = {name: found[name] for name in MEASURES if found.get(name)}
        if not kept:
            raise CommandFailed(f"{host} has kept no settings: nothing was deployed to it by a version that keeps them")
        token, since = max(((one[-1].token, one[-1].at) for one in kept.values()), key=lambda pair: pair[1])
        changed = {name: one for name, one in kept.items() if one[-1].token == token and len(one) > 1}
        before = {name: one[-2].values for name, one in changed.items() if name not in STAYS}
        HostSettings.model_validate(before)
    except foreign.NotPlain as error:
        raise CommandFailed(f"{host}: {FILE} is {error}", ExitCode.UNREACHABLE) from error
    except ValidationError as error:
        raise CommandFailed(
            f"{host}: {FILE} has settings that are none of this version's: deploy them from the fleet file instead"
        ) from error
    if not before and changed:
        raise CommandFailed(
            f"{host}: the last deploy changed uv alone, which is not taken back: set it in the fleet file"
        )
    if not before:
        raise CommandFailed(f"{host} has no settings before those of {since}: its last deploy was its first one")
    lines = [
        line
        for name, one in changed.items()
        if name in before
        for line in difference(name, one[-1].values, one[-2].values)
    ]
    return Undo(since, before, lines)


def difference(measure: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """`swap.margin: 2GiB → 1GiB`, a line a key; long values are cut."""
    old, new = dict(leaves(now)), dict(leaves(then))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [
        foreign.line(f"{dotted((measure, *key))}: {old.get(key, 'not set')} → {new.get(key, 'not set')}", 200)
        for key in keys
    ]
