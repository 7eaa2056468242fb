"""`sparkfleet status` and `sparkfleet watch`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from sparkfleet.audit.collect import target_of
from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import chosen_fleet, limited
from sparkfleet.status import table
from sparkfleet.status.attention import Level
from sparkfleet.status.fleet import HostView, as_json, views
from sparkfleet.status.records import Records
from sparkfleet.status.stream import Link, once

STATUS = """\
Says once what every host is doing: memory, jobs, who waits, the last kill, and what of it needs a person, worst first.
Nothing is changed, and nothing is installed."""
WATCH = """\
Shows the same, live: arrows choose a host, Enter opens it, w says why the last job was ended, l shows its log, q ends.
With --web as a page on this machine's loopback; open it through `ssh -L` from elsewhere."""
EPILOG = """\
exit code of status: 3 where a host was not reached or answered nonsense, else 1 where something needs somebody now,
else 0. docs/status.md has the fields of --json."""
SECONDS = 60.0
PORT = 8765


def add_arguments(commands: Any) -> None:
    """Adds both subcommands."""
    one = commands.add_parser("status", help="say what every host is doing", description=STATUS, epilog=EPILOG)
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument("--timeout", type=seconds, default=SECONDS, metavar="S", help="most seconds to wait for a host")
    one.set_defaults(run=status)
    live = commands.add_parser("watch", help="show what every host is doing, live", description=WATCH)
    live.add_argument("--web", action="store_true", help="as a page on 127.0.0.1; prints its address, with a token")
    live.add_argument("--port", type=port, default=PORT, help=f"of the page (default: {PORT}; 0: any)")
    live.set_defaults(run=watch)
    for parser in (one, live):
        parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
        parser.add_argument(
            "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
        )
        parser.add_argument(
            "--store", type=Path, metavar="DIR", help="where audits are kept (default: see `audit runs`)"
        )


def seconds(text: str) -> float:
    if not text.isdecimal() or not 1 <= int(text) <= 600:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to 600 seconds")
    return float(text)


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port, 0 to 65535")
    return int(text)


def routes_of(arguments: argparse.Namespace) -> tuple[list[Route], Records]:
    """How the hosts that are meant are reached, and what is known of them here. Raises CommandFailed or FleetError."""
    path, fleet = chosen_fleet(arguments.fleet)
    found = [target_of(host, fleet.known_hosts).route for host in limited(fleet, arguments.limit)]
    routes = [route for route in found if route is not None]
    if not routes:
        raise CommandFailed(f"{path} has no hosts: enrol one first", ExitCode.BAD_CONFIGURATION)
    records = Records(path, store=arguments.store)
    records.look()
    return routes, records


def status(arguments: argparse.Namespace) -> ExitCode:
    """Prints it once. Raises CommandFailed or FleetError."""
    routes, records = routes_of(arguments)
    found = views(once(routes, arguments.timeout), records)
    if arguments.json:
        print(json.dumps(as_json(records.fleet_file, found), indent=1))
    else:
        console = Console()
        console.print(table.summary(found))
        console.print(table.fleet(found, console.width))
        for view in found:
            for need in view.needs[1:]:
                console.print(f"{view.name}: {need.level}: {need.text}", markup=False, highlight=False)
    return exit_code(found)


def exit_code(found: list[HostView]) -> ExitCode:
    if any(view.heard.link in (Link.GONE, Link.BROKEN) for view in found):
        return ExitCode.UNREACHABLE
    acts = any(need.level is Level.ACT for view in found for need in view.needs)
    return ExitCode.FAILURE if acts else ExitCode.CLEAN


def watch(arguments: argparse.Namespace) -> ExitCode:
    """Shows it until it is ended. Raises CommandFailed or FleetError."""
    routes, records = routes_of(arguments)
    if arguments.web:
        from sparkfleet.status import web

        return web.serve(routes, records, arguments.port)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        text = "watch needs a terminal: `sparkfleet status` prints once, `watch --web` is for a browser"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
    from sparkfleet.status import live

    return live.show(routes, records)
