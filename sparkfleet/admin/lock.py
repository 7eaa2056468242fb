"""`sparkfleet lock`: who deploys to which host, and a hold for people who work on one by hand."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sparkfleet import foreign
from sparkfleet.admin.asking import ask_as_root, on_all
from sparkfleet.admin.hosts import add_hosts, chosen_routes
from sparkfleet.audit.password import SudoPassword
from sparkfleet.enrol.ssh import Answer, Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.host_sources import by_name, command, file_of, packed
from sparkfleet.owner import owner
from sparkfleet.settings.problems import show
from sparkhost.deployhold.hold import LONGEST

TEXT = """\
One deploy at a time changes a host. `status` says which one does; `hold` keeps all deploys from hosts until `release`,
over reboots as well; looking (drift, audit, status) goes on."""
EPILOG = """\
exit code: 3 where a host was not reached or answered nonsense, else 1 where it could not be done (another deploy is at
work, or somebody else holds the host), else 0."""
SECONDS = 60.0
MAIN = "sparkhost.deployhold.main"


@dataclass(frozen=True)
class Said:
    """What came of one host: a line, and its exit code."""

    host: str
    line: str
    code: ExitCode = ExitCode.CLEAN


def add_arguments(commands: Any) -> None:
    """Adds the subcommand with its own: status, hold, release."""
    parser = commands.add_parser("lock", help="say who deploys; keep deploys from hosts", description=TEXT)
    inner = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    for action, text in (
        ("status", "say who deploys to a host, or holds it"),
        ("hold", "keep deploys from hosts"),
        ("release", "let deploys in again"),
    ):
        one = inner.add_parser(action, help=text, description=TEXT, epilog=EPILOG)
        add_hosts(one)
        if action == "hold":
            one.add_argument("-m", "--message", required=True, metavar="WHY", help="shown to people who are kept out")
        one.set_defaults(run=lock, action=action)


def lock(arguments: argparse.Namespace) -> ExitCode:
    """Carries it out. Raises CommandFailed or FleetError."""
    why = getattr(arguments, "message", "")
    if arguments.action == "hold" and (not why.strip() or len(why) > LONGEST or not why.isprintable()):
        text = f"-m {show(why)}: expected one line of 1 to {LONGEST} characters"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
    routes = chosen_routes(arguments)
    password = SudoPassword()
    command, request = request_of(arguments.action, why)

    def one(route: Route) -> Said:
        answer = ask_as_root(route, command, password, request.encode(), seconds=SECONDS)
        return said(route.name, answer, arguments.action)

    found = on_all(routes, one)
    for each in found:
        print(f"{each.host}: {each.line}")
    return max((each.code for each in found), default=ExitCode.CLEAN)


def request_of(action: str, why: str) -> tuple[str, str]:
    """The command on a host, and what it reads."""
    deploy = {"token": uuid4().hex, "by": owner(), "pid": None}
    sources = by_name([file_of(MAIN)])
    return command(MAIN), packed({"action": action, "deploy": deploy, "why": why, "sources": sources})


def said(host: str, answer: Answer, action: str) -> Said:
    """A host's answer as a line. It comes from a host: nothing in it is taken for granted."""
    if answer.rc:
        return Said(host, answer.reason, ExitCode.UNREACHABLE if answer.lost else ExitCode.FAILURE)
    try:
        found = foreign.plain(foreign.loads(answer.stdout.strip().rpartition("\n")[2]))
    except foreign.NotPlain as error:
        return Said(host, f"the answer is {error}", ExitCode.UNREACHABLE)
    if not isinstance(found, dict) or not all(isinstance(one, str | None) for one in found.values()):
        return Said(host, "the answer has another form than this version's", ExitCode.UNREACHABLE)
    if busy := found.get("busy"):
        return Said(host, f"not held: {busy}", ExitCode.FAILURE)
    if action == "release":
        return Said(host, f"released; it was: {found['was']}" if found.get("was") else "nobody held it")
    return Said(host, "; ".join(one for key in ("hold", "deploy") if (one := found.get(key))) or "free")
