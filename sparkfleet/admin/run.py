"""`sparkfleet run COMMAND`: a command on hosts, with bounded output of which no text acts on the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

from sparkfleet import foreign
from sparkfleet.admin import asking
from sparkfleet.admin.hosts import add_hosts, chosen_routes
from sparkfleet.audit.password import SudoPassword
from sparkfleet.enrol.ssh import Answer, Route
from sparkfleet.exit_codes import ExitCode

TEXT = """\
Runs a command on every host at the same time, in the login user's shell, over the connections of an audit, and prints
what each said behind its name."""
EPILOG = f"""\
Of what a host says the last {asking.KEPT // 1024} KiB are shown, with what a terminal would act on written out.
exit code: 3 where a host was not reached or was over time, else 1 where the command did not end with 0,
else 0."""
SECONDS = 60.0


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("run", help="run a command on hosts", description=TEXT, epilog=EPILOG)
    parser.add_argument("words", metavar="COMMAND", help="for the shell, one word: 'uptime; df -h /'")
    add_hosts(parser)
    parser.add_argument("--sudo", action="store_true", help="as root")
    parser.add_argument("--timeout", type=seconds, default=SECONDS, metavar="S", help="most seconds for a host")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def seconds(text: str) -> float:
    if not text.isdecimal() or not 1 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to 3600 seconds")
    return float(text)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Runs it. Raises CommandFailed or FleetError."""
    routes = chosen_routes(arguments)
    ask = partial(asking.ask_as_root, password=SudoPassword()) if arguments.sudo else asking.ask
    answers = asking.on_all(routes, lambda route: ask(route, arguments.words, seconds=arguments.timeout))
    if arguments.json:
        print(json.dumps([as_json(*pair) for pair in zip(routes, answers, strict=True)], indent=1))
    else:
        for route, answer in zip(routes, answers, strict=True):
            show(route, answer)
    return max((code_of(answer) for answer in answers), default=ExitCode.CLEAN)


def code_of(answer: Answer) -> ExitCode:
    """ssh's own code for a broken connection is 255: a command that ends with it cannot be told from one."""
    if answer.lost:
        return ExitCode.UNREACHABLE
    return ExitCode.FAILURE if answer.rc else ExitCode.CLEAN


def as_json(route: Route, answer: Answer) -> dict[str, Any]:
    """For programs; `code`: null where the host was not reached."""
    texts = {"output": foreign.lines(answer.stdout), "error": foreign.lines(answer.stderr)}
    return {"host": route.name, "code": None if answer.lost else answer.rc, **texts}


def show(route: Route, answer: Answer) -> None:
    """A host's lines, standard error after standard output, and how the command ended."""
    for text, stream in ((answer.stdout, sys.stdout), (answer.stderr, sys.stderr)):
        lines = foreign.lines(text.removesuffix("\n")).split("\n") if text else []
        stream.write("".join(f"{route.name} | {line}\n" for line in lines))
    sys.stdout.flush()
    if answer.lost:
        print(f"{route.name}: not reached, lost, or over time", file=sys.stderr)
    elif answer.rc:
        print(f"{route.name}: exit code {answer.rc}", file=sys.stderr)
