"""`sparkfleet history`: what was deployed to which host, when, by whom, and what came of it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import BaseModel, ValidationError

from sparkfleet import foreign
from sparkfleet.admin.asking import ask, on_all
from sparkfleet.admin.hosts import add_hosts, chosen_routes
from sparkfleet.enrol.ssh import Answer, Route
from sparkfleet.exit_codes import ExitCode

TEXT = """\
Says the last deploys of every host, as the hosts themselves have noted them: when, by whom, from which version, and
what came of it. Nothing is changed, and root is not needed."""
EPILOG = "exit code: 3 where a host was not reached or answered nonsense, else 0."
FILE = "/var/lib/sparkfleet/applied.json"
COMMAND = f"if test -e {FILE}; then head -c 262144 {FILE}; else echo '{{}}'; fi"
SECONDS = 60.0
GOOD = ("clean", "changed")


class Result(BaseModel):
    """What came of one measure."""

    changes: int
    result: str


class Deploy(BaseModel):
    """One deploy as a host has noted it (`sparkhost.base.history`). `ended`: None where it was cut short."""

    at: str
    by: str
    version: str
    fleet_file: str = ""
    ended: str | None = None
    measures: dict[str, Result] = {}


class History(BaseModel):
    """A host's file."""

    deploys: list[Deploy] = []


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "history", help="say what was deployed, when, by whom", description=TEXT, epilog=EPILOG
    )
    add_hosts(parser)
    parser.add_argument("-n", type=count, default=3, metavar="N", help="deploys a host (1 to 30; default: 3)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=history)


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 30:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to 30")
    return int(text)


def history(arguments: argparse.Namespace) -> ExitCode:
    """Prints it. Raises CommandFailed or FleetError."""
    routes = chosen_routes(arguments)
    found = on_all(routes, lambda route: deploys(ask(route, COMMAND, seconds=SECONDS)))
    if arguments.json:
        print(json.dumps([as_json(*pair, arguments.n) for pair in zip(routes, found, strict=True)], indent=1))
    else:
        for route, one in zip(routes, found, strict=True):
            print("\n".join(lines(route.name, one, arguments.n)))
    return ExitCode.UNREACHABLE if any(isinstance(one, str) for one in found) else ExitCode.CLEAN


def deploys(answer: Answer) -> list[Deploy] | str:
    """A host's deploys, the last one last; text: why they are not known."""
    if answer.rc:
        return answer.reason
    try:
        return History.model_validate(foreign.plain(foreign.loads(answer.stdout))).deploys
    except foreign.NotPlain as error:
        return f"{FILE} is {error}"
    except ValidationError:
        return f"{FILE} has another form than this version's"


def as_json(route: Route, found: list[Deploy] | str, most: int) -> dict[str, Any]:
    if isinstance(found, str):
        return {"host": route.name, "problem": found, "deploys": None}
    return {"host": route.name, "problem": None, "deploys": [one.model_dump() for one in found[-most:]]}


def lines(host: str, found: list[Deploy] | str, most: int) -> list[str]:
    """A host's lines, the last deploy first."""
    if isinstance(found, str):
        return [f"{host}: {found}"]
    if not found:
        return [f"{host}: nothing was deployed to it"]
    return [f"{host}:", *(f"  {line_of(one)}" for one in found[: -most - 1 : -1])]


def line_of(one: Deploy) -> str:
    """`2026-11-20T10:00:00Z  ann@laptop  0.2.0  3 changes (swap, uv)`"""
    bad = [f"{name} {each.result}" for name, each in one.measures.items() if each.result not in GOOD]
    changed = [name for name, each in one.measures.items() if each.changes]
    changes = sum(each.changes for each in one.measures.values())
    what = f"{changes} change{'s' * (changes != 1)} ({', '.join(changed)})" if changed else "nothing to change"
    end = "" if one.ended else "; cut short"
    return f"{one.at}  {one.by}  {one.version}  {what}{''.join(f'; {each}' for each in bad)}{end}"
