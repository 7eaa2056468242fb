"""`sparkfleet audit`: collects, judges, reports, and ends with the exit code that says how it stands."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparkfleet.audit import controls as registry
from sparkfleet.audit import facts, history, output, schedule
from sparkfleet.audit.collect import LOCAL, SECONDS, Target, collect, target_of
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import Control, Run, Severity, Status, Verdict
from sparkfleet.audit.store import new_id
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import chosen_fleet, limited
from sparkfleet.settings import HostSettings, chosen_fleet_file, load_fleet
from sparkfleet.settings.problems import show
from sparkfleet.site import use

DESCRIPTION = """\
Asks every host how its protection stands, with one read-only probe a host, and says what to do. Nothing is changed."""
EPILOG = """\
exit code: 4 for a bad configuration or an expired waiver, else 3 where a host was unreachable or evidence is missing,
else 1 where a control at or above the threshold fails, else 0. An audit that could not see everything says so before it
says what failed."""
DEFAULT_THRESHOLD = Severity.MEDIUM


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `audit`, with its own: `@local`, `runs`, `diff`, `schedule`."""
    parser = commands.add_parser("audit", help="say which protection holds", description=DESCRIPTION, epilog=EPILOG)
    add_options(parser)
    parser.set_defaults(run=audit, where=None)
    inner = parser.add_subparsers(metavar="COMMAND")
    local = inner.add_parser(
        LOCAL, help="audit this machine itself, without SSH", argument_default=argparse.SUPPRESS, epilog=EPILOG
    )
    # What stands before `@local` counts as well: only options that are given are taken over.
    add_options(local, only_given=True)
    local.set_defaults(where=LOCAL)
    history.add_arguments(inner, registry.CONTROLS, judge_again)
    schedule.add_arguments(inner)


def add_options(parser: argparse.ArgumentParser, *, only_given: bool = False) -> None:
    """The options of an audit; with `only_given` none of them has a default."""
    several: list[str] | str = argparse.SUPPRESS if only_given else []
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument(
        "--limit", action="append", default=several, metavar="HOST", help="a host, group or glob; again for more"
    )
    parser.add_argument(
        "--control", action="append", default=several, metavar="ID", help="a control's id or a glob; again for more"
    )
    parser.add_argument(
        "--only",
        "--measure",
        dest="measure",
        action="append",
        default=several,
        metavar="M",
        help="a measure, or `host`; again for more",
    )
    parser.add_argument(
        "--threshold",
        type=severity,
        default=argparse.SUPPRESS if only_given else DEFAULT_THRESHOLD,
        metavar="SEVERITY",
        help="the least severity whose failure is exit code 1 (critical, high, medium, low; default: medium)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=argparse.SUPPRESS if only_given else SECONDS,
        metavar="S",
        help="most seconds for one host",
    )
    output.add_arguments(parser)


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
    fleet_file, targets = targets_of(arguments)  # with a site's project its controls
    chosen = registry.chosen(arguments.control, arguments.measure)
    output.check(arguments)  # before minutes are spent on hosts
    waivers = output.load_waivers(arguments.waivers)
    run = audited(targets, chosen, fleet_file, arguments.timeout)
    run = output.waived(run, waivers)
    output.write(run, chosen, arguments)
    code = exit_code(run.verdicts, chosen, arguments.threshold)
    try:
        output.keep(run, chosen, arguments)
    except CommandFailed as error:
        print(f"sparkfleet: {error}", file=sys.stderr)
        return max(code, error.code)
    return code


def judge_again(arguments: argparse.Namespace, run: Run) -> Run:
    """A kept run with the verdicts of today's controls and fleet file. Raises FleetError for mistakes in the file."""
    path = Path(run.fleet_file)
    settings = (
        {host.name: host.settings for host in load_fleet(path).hosts}
        if run.fleet_file != LOCAL
        else {host.name: HostSettings() for host in run.hosts}
    )
    return replace(run, verdicts=judge_run(run.hosts, settings, registry.CONTROLS))


def audited(targets: Sequence[Target], controls: Sequence[Control], fleet_file: str, limit: float = SECONDS) -> Run:
    """Collects and judges. Raises CommandFailed where there is no host or no control."""
    if not targets:
        raise CommandFailed("no host to audit", ExitCode.BAD_CONFIGURATION)
    now = datetime.now(UTC)
    hosts = collect(targets, limit)
    settings = {target.name: target.settings for target in targets}
    verdicts = judge_run(hosts, settings, controls)
    notes = tuple(f"{host.name}: {host.problem}" for host in hosts if host.problem)
    notes += facts.notes(hosts)
    return Run(new_id(now), now.isoformat(timespec="seconds"), fleet_file, hosts, verdicts, notes)


def targets_of(arguments: argparse.Namespace) -> tuple[str, list[Target]]:
    """The fleet file's name, and the hosts that are meant.

    Raises:
        CommandFailed: there is no fleet file, or a limit that fits no host.
        FleetError: the fleet file has mistakes.
    """
    if arguments.where == LOCAL:
        fleet_file = chosen_fleet_file(arguments.fleet)
        if fleet_file is None:
            use(Path.cwd())
        return LOCAL, [Target(LOCAL, local_settings(fleet_file, arguments.limit), None)]
    path, fleet = chosen_fleet(arguments.fleet)
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
