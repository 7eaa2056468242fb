"""The subcommand `rollout`."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from sparkfleet.audit import output
from sparkfleet.audit.collect import target_of
from sparkfleet.deploy import report
from sparkfleet.deploy.outcome import Outcome
from sparkfleet.deploy.run import Wanted, run
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.rollout.batches import batch_size, check_canaries
from sparkfleet.rollout.busy import busy_of
from sparkfleet.rollout.gate import summary
from sparkfleet.rollout.password import asked_once
from sparkfleet.rollout.roll import Policy, Rollout
from sparkfleet.rollout.state import Progress, RunState, load, path_of, save
from sparkfleet.selection import chosen_fleet, limited
from sparkfleet.settings import Fleet, RolloutSettings
from sparkfleet.settings.problems import escaped
from sparkfleet.settings.units import Seconds
from sparkfleet.terminal import has_terminal
from sparkfleet.version import version

TEXT = """\
Deploys in batches. One host first, the canary; then the others, some at a time. After each batch its hosts are audited
over new connections: the next is touched only where every host was finished and every critical control holds. Stops at
the first bad batch, and says what is where. Hosts with training users' jobs are skipped, waited for, or not spared."""
EPILOG = """\
exit code: 3 where a host was not reached or cannot be judged, else 1 where a host failed, was skipped or not got to,
else 0; 4 for a bad configuration, 130 after Ctrl-C. What is not given is the fleet file's, under rollout. See
docs/rollout.md."""
BAD = ExitCode.BAD_CONFIGURATION
DISTURBS = re.compile(r"\b(restart|reload|daemon-reload|swapoff|stop|log out)\b")


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("rollout", help="deploy in batches, a canary first", description=TEXT, epilog=EPILOG)
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )
    parser.add_argument(
        "--canary", action="append", default=[], metavar="HOST", help="goes first; again for more (default: the first)"
    )
    parser.add_argument("--batch", metavar="N", help="hosts at a time, or N%% of them (default: 25%%)")
    parser.add_argument("--busy", metavar="WHAT", help="hosts with jobs: skip (default), wait, force")
    parser.add_argument("--wait-up-to", metavar="TIME", help="with --busy wait, a batch (default: 8h)")
    parser.add_argument("--reboot", action="store_true", help="reboot hosts that ask for it, when nobody's job runs")
    parser.add_argument("--return-within", metavar="TIME", help="with --reboot (default: 15min)")
    parser.add_argument("--waivers", type=Path, metavar="FILE", help="accepted failures of the audit")
    parser.add_argument("--resume", action="store_true", help="go on with what the last rollout did not finish")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome as JSON; - for standard output")
    parser.set_defaults(run=rollout)


def rollout(arguments: argparse.Namespace) -> ExitCode:
    """Runs a rollout. Raises CommandFailed or FleetError."""
    if not arguments.yes and not has_terminal():
        raise CommandFailed("there is no terminal to confirm on: give --yes", ExitCode.BAD_CONFIGURATION)
    path, fleet = chosen_fleet(arguments.fleet)
    state_file = path_of(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    state = begun(arguments, path, fleet, state_file, digest)
    hosts = state.left()
    policy = policy_of(arguments, fleet.rollout, list(state.hosts))
    if not hosts:
        print("nothing is left of the last rollout: every host was finished")
        return ExitCode.CLEAN
    targets = [target_of(host, fleet.known_hosts) for host in fleet.hosts if host.name in hosts]
    with asked_once(target.route for target in targets if target.route):
        planned = run(Wanted(hosts, path, dry=True, diff=True), quiet=True)
        announce(planned, quiet=policy.quiet)
        if not arguments.yes and not agreed(f"Change {len(hosts)} hosts, {first_words(policy, hosts)}?"):
            raise CommandFailed("nothing was changed")
        save(state_file, state)
        it = Rollout(path, fleet, policy, state, state_file, {one.host: one for one in planned})
        try:
            it.roll()
        except (KeyboardInterrupt, CommandFailed) as error:
            it.code = error.code if isinstance(error, CommandFailed) else ExitCode.INTERRUPTED
            raise
        finally:
            # Also after Ctrl-C: what is where.
            it.saved()
            told(it, arguments.json)
    return it.code


def begun(arguments: argparse.Namespace, path: Path, fleet: Fleet, state_file: Path, digest: str) -> RunState:
    """The state to start from: of the last rollout, or a new one. Raises CommandFailed."""
    if arguments.resume:
        if arguments.limit:
            raise CommandFailed("--resume takes the hosts of the last rollout: leave --limit out", BAD)
        return load(state_file, digest, version())
    names = [host.name for host in limited(fleet, arguments.limit)]
    if not names:
        raise CommandFailed(f"{path} has no hosts: enrol one first", BAD)
    return RunState(digest, version(), dict.fromkeys(names, Progress.UNTOUCHED))


def policy_of(arguments: argparse.Namespace, settings: RolloutSettings, hosts: Sequence[str]) -> Policy:
    """The options, checked, and the fleet file's settings where they are not given. Raises CommandFailed or FleetError.

    The fleet file's canaries are those of the whole fleet: of them, those that are among these hosts.
    """
    check_canaries(hosts, arguments.canary)
    if arguments.json and arguments.json != Path("-") and not arguments.json.absolute().parent.is_dir():
        raise CommandFailed(f"--json {escaped(str(arguments.json))}: there is no such directory", BAD)
    return Policy(
        canaries=arguments.canary or [host for host in hosts if host in settings.canary] or hosts[:1],
        size=batch_size(arguments.batch or settings.batch, len(hosts)),
        busy=busy_of(arguments.busy or settings.busy),
        wait_up_to=seconds("--wait-up-to", arguments.wait_up_to or str(settings.wait_up_to)),
        reboot=arguments.reboot,
        return_within=seconds("--return-within", arguments.return_within or str(settings.return_within)),
        waivers=output.load_waivers(arguments.waivers),
        quiet=arguments.json == Path("-"),
    )


def seconds(option: str, text: str) -> float:
    try:
        return Seconds.parse(text)
    except PydanticCustomError as error:
        raise CommandFailed(f"{option} {escaped(text)}: {error.message()}", BAD) from error


def announce(planned: Sequence[Outcome], *, quiet: bool) -> None:
    """Says what would be changed, and of it what restarts or stops something."""
    lines = report.summary(planned)
    for one in planned:
        for name, measure in one.measures.items():
            for change in measure.changes:
                if DISTURBS.search(f"{change['what']} {change['summary']}"):
                    what = f"{change['what']}: {change['summary']}"
                    lines.append(f"{one.host}: {name} would {what}")
    print("\n".join(lines), file=sys.stderr if quiet else sys.stdout, flush=True)


def first_words(policy: Policy, hosts: Sequence[str]) -> str:
    first = [host for host in hosts if host in policy.canaries] or list(hosts[:1])
    return f"{', '.join(first)} first, then {policy.size} at a time"


def agreed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def told(it: Rollout, wanted: Path | None) -> None:
    """Every host once. Raises CommandFailed where the file cannot be written."""
    hosts = it.state.hosts
    unfinished = sum(1 for progress in hosts.values() if progress is not Progress.DONE)
    again = [f"{unfinished} to do: sparkfleet rollout --resume goes on with them"] if unfinished else []
    document = {
        "schema": 1,
        "exit_code": int(it.code),
        "hosts": {host: {"state": state, "reason": it.reasons.get(host, "")} for host, state in hosts.items()},
    }
    text = json.dumps(document, indent=2) + "\n"
    if wanted == Path("-"):
        sys.stdout.write(text)
        return
    print("\n".join(["", *summary(hosts, it.reasons), *again]))
    if wanted:
        try:
            wanted.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandFailed(f"{escaped(str(wanted))}: cannot be written: {error.strerror}") from error
