"""`--fleet` and `--limit`, and the ways to the hosts that they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparkfleet.audit.collect import target_of
from sparkfleet.enrol.ssh import Route
from sparkfleet.selection import chosen_fleet, limited


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Adds both options."""
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )


def chosen_routes(arguments: argparse.Namespace) -> list[Route]:
    """The ways to the hosts, in the fleet's order. Raises CommandFailed or FleetError."""
    _, fleet = chosen_fleet(arguments.fleet)
    found = [target_of(host, fleet.known_hosts).route for host in limited(fleet, arguments.limit)]
    return [route for route in found if route is not None]
