"""`sparkfleet link show`: asks the hosts, and shows who is cabled to whom."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sparkfleet.audit.collect import SECONDS, collect, target_of
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.link.picture import rows, table
from sparkfleet.selection import chosen_fleet, limited

EPILOG = "exit code: 3 where a host was not reached, else 1 where something is wrong, else 0"


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `link` with its `show`."""
    parser = commands.add_parser("link", help="show the links between hosts", description=__doc__)
    inner = parser.add_subparsers(metavar="COMMAND", required=True)
    show = inner.add_parser("show", help="who is cabled to whom, speed, MTU, RDMA", epilog=EPILOG)
    show.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    show.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )
    show.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Prints the picture. Raises CommandFailed or FleetError."""
    _, fleet = chosen_fleet(arguments.fleet)
    hosts = [h for h in limited(fleet, arguments.limit) if h.settings.cluster_link.state == "present"]
    if not hosts:
        raise CommandFailed("no host has cluster_link: state: present", ExitCode.BAD_CONFIGURATION)
    runs = collect([target_of(host, fleet.known_hosts) for host in hosts], SECONDS)
    for one in runs:
        if one.evidence is None:
            print(f"sparkfleet: {one.name}: {one.problem}", file=sys.stderr)
    found = rows({host.name: host.settings for host in hosts}, {one.name: one.evidence for one in runs})
    print("\n".join(table(found)))
    if any(one.evidence is None for one in runs):
        return ExitCode.UNREACHABLE
    return ExitCode.FAILURE if any(each.problems for each in found) else ExitCode.CLEAN
