"""`sparkfleet audit`: collects, judges, reports, and ends with the exit code that says how it stands."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sparkfleet.audit import controls as registry
from sparkfleet.audit import output
from sparkfleet.audit.collect import LOCAL, SECONDS, Target, collect, target_of
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import Control, Run, Severity, Status, Verdict
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import Fleet, FleetHost, HostSettings, load_fleet
from sparkfleet.settings.problems import show

DESCRIPTION = """\
Asks every host how its protection stands, with one read-only probe a host, and says what to do. Nothing is changed."""
EPILOG = """\
exit code: 4 for a bad configuration or an expired waiver, else 3 where a host was unreachable or evidence is missing,
else 1 where a control at or above the threshold fails, else 0. An audit that could not see everything says so before it
says what failed."""
DEFAULT_THRESHOLD = Severity.MEDIUM


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `audit`."""
    parser = commands.add_parser("audit", help="say which protection holds", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument(
        "where", nargs="?", choices=(LOCAL,), metavar=LOCAL, help="audit this machine itself, without SSH"
    )
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )
    parser.add_argument(
        "--control", action="append", default=[], metavar="ID", help="a control's id or a glob; again for more"
    )
    parser.add_argument(
        "--measure", action="append", default=[], metavar="M", help="controls of a measure, or `host`; again for more"
    )
    parser.add_argument(
        "--threshold",
        type=severity,
        default=DEFAULT_THRESHOLD,
        metavar="SEVERITY",
        help="the least severity whose failure is exit code 1 (critical, high, medium, low; default: medium)",
    )
    parser.add_argument("--timeout", type=seconds, default=SECONDS, metavar="S", help="most seconds for one host")
    parser.add_argument("--waivers", type=Path, metavar="FILE", help="accepted failures, with reason, owner and expiry")
    parser.add_argument("--no-store", action="store_true", help="do not keep the run for comparisons")
    for name in ("json", "junit", "html"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write a report as {name} (-: to stdout)")
    parser.set_defaults(run=audit)


def severity(text: str) -> Severity:
    try:
        return Severity(text)
    except ValueError as error:
        expected = ", ".join(Severity)
        raise argparse.ArgumentTypeError(f"got {text!r}, expected one of {expected}") from error


def seconds(text: str) -> float:
    if not text.isdecimal() or not 1 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to 3600 seconds")
    return float(text)


def audit(arguments: argparse.Namespace) -> ExitCode:
    """Runs the audit. Raises CommandFailed or FleetError, with one line for each thing to mend."""
    chosen = registry.chosen(arguments.control, arguments.measure)
    output.check(arguments)  # before minutes are spent on hosts
    fleet_file, targets = targets_of(arguments)
    waivers = output.load_waivers(arguments.waivers)
    run = audited(targets, chosen, fleet_file, arguments.timeout)
    run = output.waived(run, waivers)
    output.write(run, chosen, arguments)
    return exit_code(run.verdicts, chosen, arguments.threshold)


def audited(targets: Sequence[Target], controls: Sequence[Control], fleet_file: str, limit: float = SECONDS) -> Run:
    """Collects and judges. Raises CommandFailed where there is no host or no control."""
    if not targets:
        raise CommandFailed("no host to audit", ExitCode.BAD_CONFIGURATION)
    now = datetime.now(UTC)
    hosts = collect(targets, limit)
    settings = {target.name: target.settings for target in targets}
    verdicts = judge_run(hosts, settings, controls)
    notes = tuple(f"{host.name}: {host.problem}" for host in hosts if host.problem)
    ident = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    return Run(ident, now.isoformat(timespec="seconds"), fleet_file, hosts, verdicts, notes)


def targets_of(arguments: argparse.Namespace) -> tuple[str, list[Target]]:
    """The fleet file's name, and the hosts that are meant.

    Raises:
        CommandFailed: there is no fleet file, or a limit that fits no host.
        FleetError: the fleet file has mistakes.
    """
    path = arguments.fleet or (Path(os.environ["FLEET"]) if os.environ.get("FLEET") else None)
    if arguments.where == LOCAL:
        return str(path or ""), [Target(LOCAL, local_settings(path, arguments.limit), None)]
    if path is None:
        raise CommandFailed("which fleet file? name it with --fleet, or set $FLEET", ExitCode.BAD_CONFIGURATION)
    fleet = load_fleet(path)
    return str(path), [target_of(host, fleet.known_hosts) for host in limited(fleet, arguments.limit)]


def local_settings(path: Path | None, limits: Sequence[str]) -> HostSettings:
    """What the fleet file says of this machine: the host that `--limit` names, else the one of the machine's name."""
    if path is None:
        return HostSettings()
    fleet = load_fleet(path)
    found = limited(fleet, limits) if limits else [host for host in fleet.hosts if host.name == socket.gethostname()]
    if len(found) != 1:
        own = show(socket.gethostname())
        raise CommandFailed(
            f"which host of {path} is this machine? name it with --limit (its own name is {own})",
            ExitCode.BAD_CONFIGURATION,
        )
    return found[0].settings


def limited(fleet: Fleet, limits: Sequence[str]) -> list[FleetHost]:
    """The hosts that the limits name, in the fleet's order; all without limits.

    Raises:
        CommandFailed: one of them fits no host.
    """
    if not limits:
        return list(fleet.hosts)
    meant: set[str] = set()
    for limit in limits:
        fits = {host.name for host in fleet.hosts if limit in host.groups or fnmatchcase(host.name, limit)}
        if not fits:
            known = ", ".join([*fleet.groups, *(host.name for host in fleet.hosts)][:20])
            raise CommandFailed(
                f"--limit {show(limit)} fits no host or group: there are {known}", ExitCode.BAD_CONFIGURATION
            )
        meant |= fits
    return [host for host in fleet.hosts if host.name in meant]


def exit_code(verdicts: Iterable[Verdict], controls: Sequence[Control], threshold: Severity) -> ExitCode:
    """What the whole amounts to; of several codes the highest: 4 before 3 before 1.

    An expired waiver is a configuration that has to be mended; missing evidence may hide more than what failed.
    """
    severities = {control.id: control.severity for control in controls}
    codes = {ExitCode.CLEAN}
    for verdict in verdicts:
        if verdict.waiver and verdict.waiver.state == "expired":
            codes.add(ExitCode.BAD_CONFIGURATION)
        if verdict.status in (Status.ERROR, Status.UNREACHABLE):
            codes.add(ExitCode.UNREACHABLE)
        if verdict.status is Status.FAIL and severities[verdict.control].rank <= threshold.rank:
            codes.add(ExitCode.FAILURE)
    return max(codes)
